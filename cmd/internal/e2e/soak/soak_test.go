package soak

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/xds/adsclient"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rounds is how many times the world is changed and compared; every killEvery
// of them the server is killed first.
func rounds() (n, killEvery int) {
	if os.Getenv("BAILIWICK_SOAK") == "full" {
		return 2000, 10
	}
	return 40, 2
}

// proxy is one client with the tenant that it belongs to.
type proxy struct {
	*adsclient.Client
	tenant  int
	foreign atomic.Pointer[string] // a message that named who must not be named
}

// Churn on disk, with a server that is killed with SIGKILL in the middle of it:
// each time every client ends with exactly what the reference computes from the
// files, nobody is ever told of a tenant without a grant, and at the end the
// server holds no more than at the start.
func TestSoakChurnAndKill(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	w := newWorld(t, seed)
	dir := t.TempDir()
	binary, err := mesh.BuildBailiwick(ctx, dir)
	require.NoError(t, err)
	ca, err := mesh.NewCA(dir+"/ca", trustDomain)
	require.NoError(t, err)
	server, err := mesh.StartServer(ctx, mesh.ServerConfig{Binary: binary, Dir: dir + "/server", ConfigDir: w.dir, CA: ca})
	require.NoError(t, err)
	t.Cleanup(server.Stop)
	require.NoError(t, server.WaitReady(ctx))

	var proxies []*proxy
	for i := range tenants {
		for _, protocol := range []adsclient.Protocol{adsclient.Delta, adsclient.SotW} {
			proxies = append(proxies, connect(ctx, t, ca, server, i, protocol))
		}
	}
	n, killEvery := rounds()
	for round := range n {
		kill := round%killEvery == killEvery-1
		changes := 1 + w.rng.IntN(12)
		for c := range changes {
			w.change()
			if kill && c == changes/2 {
				server.Kill()
				require.NoError(t, server.Restart(ctx))
			}
		}
		want := w.expected()
		for _, p := range proxies {
			p.mustReach(ctx, t, round, want[p.tenant], server)
		}
	}
	for _, p := range proxies {
		require.Nil(t, p.foreign.Load(), "tenant %d was told of somebody else", p.tenant)
	}
	requireReturnsToBase(ctx, t, server, proxies)
}

// connect opens the stream of one Pod of a tenant.
func connect(ctx context.Context, t *testing.T, ca *mesh.CA, server *mesh.Server, i int, protocol adsclient.Protocol) *proxy {
	t.Helper()
	who := identity.Workload{TrustDomain: trustDomain, Namespace: namespace(i), ServiceAccount: service(0)}
	source, err := ca.Source(who.String(), identity.IssueOptions{})
	require.NoError(t, err)
	p := &proxy{tenant: i}
	p.Client, err = adsclient.Dial(ctx, adsclient.Config{
		Address: server.XDS.String(), TLS: identity.ClientTLS(source, source, spiffeid.RequireFromString(server.ID)),
		WaitForReady: true, Protocol: protocol, Follow: adsclient.FollowReferences,
		Node: &corev3.Node{Id: namespace(i) + "/" + service(0) + "-0"},
		OnResponse: func(m *adsclient.Message) adsclient.Verdict {
			p.scan(m)
			return adsclient.Ack()
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// scan looks for tenants that have never offered this one anything, and that
// this one has never offered anything.
func (p *proxy) scan(m *adsclient.Message) {
	for i := range tenants {
		distance := (i - p.tenant + tenants) % tenants
		if distance <= 1 || distance == tenants-1 {
			continue
		}
		if bytes.Contains(m.Raw, []byte(tenant(i))) {
			text := fmt.Sprintf("%s: %s in %v", m.TypeURL, tenant(i), m.Names())
			p.foreign.CompareAndSwap(nil, &text)
		}
	}
}

// mustReach waits until the client has exactly these clusters, each with its
// assignment, coming back as often as the server was killed.
func (p *proxy) mustReach(ctx context.Context, t *testing.T, round int, want []string, server *mesh.Server) {
	t.Helper()
	limited, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		err := p.Wait(limited, func(v adsclient.View) bool { return slices.Equal(outbound(v), want) && complete(v, want) })
		if err == nil {
			return
		}
		if limited.Err() == nil {
			err = p.Reconnect(limited, adsclient.Reconnection{Fresh: true})
		}
		require.NoError(t, limited.Err(), "round %d, tenant %d: want %v, has %v (%v)\nserver: %s",
			round, p.tenant, want, p.Names(resourcev3.ClusterType), err, server.LogTail(20))
	}
}

func outbound(v adsclient.View) []string {
	return slices.DeleteFunc(v.Names(resourcev3.ClusterType), func(n string) bool { return strings.HasPrefix(n, "inbound-") })
}

func complete(v adsclient.View, clusters []string) bool {
	for _, c := range clusters {
		if c != "blackhole" && !v.Has(resourcev3.EndpointType, c) {
			return false
		}
	}
	return true
}

// requireReturnsToBase closes all clients and waits until the server has no
// more goroutines than one that nobody has connected to.
func requireReturnsToBase(ctx context.Context, t *testing.T, server *mesh.Server, proxies []*proxy) {
	t.Helper()
	for _, p := range proxies {
		require.NoError(t, p.Close())
	}
	require.NoError(t, server.WaitReady(ctx))
	after := func() float64 { return metric(ctx, t, server, "go_goroutines") }
	streams := func() float64 { return metric(ctx, t, server, "bailiwick_xds_streams") }
	require.Eventually(t, func() bool { return streams() == 0 }, time.Minute, 50*time.Millisecond, "streams end with their clients")
	used := after()
	require.NoError(t, server.Restart(ctx))
	require.NoError(t, server.WaitReady(ctx))
	base := after()
	require.LessOrEqual(t, used, base+5, "goroutines after all clients left, against a fresh server")
}

// metric is the sum of a metric's samples.
func metric(ctx context.Context, t *testing.T, server *mesh.Server, name string) (sum float64) {
	t.Helper()
	text, err := server.Metrics(ctx)
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || (rest[0] != ' ' && rest[0] != '{') {
			continue
		}
		fields := strings.Fields(line)
		v, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		require.NoError(t, err)
		sum += v
	}
	return sum
}
