package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
	"bailiwick.dev/bailiwick/xds/adsclient"
)

// logs is the cluster of the demo's service of another tenant.
const logs = "logs.platform.svc.cluster.local:8080"

// stage is the demo in an API server, with its certificates.
type stage struct {
	*scene
	cluster *kubetest.Cluster
	ca      *mesh.CA
}

func demo(ctx context.Context, t *testing.T) *stage {
	t.Helper()
	s := &stage{scene: open(t, "deploy", "demo"), cluster: cluster(ctx, t)}
	t.Cleanup(func() { clean(t, s.cluster, s.scene) })
	require.NoError(t, s.cluster.Apply(ctx, kubetest.Admin, s.objects...))
	s.ca = authority(t, s.scene)
	return s
}

// through starts a server behind a gate of its own.
func (s *stage) through(ctx context.Context, t *testing.T) (*mesh.Server, *kubetest.Gate) {
	t.Helper()
	gate := s.cluster.Gate(t)
	kubeconfig, err := gate.Kubeconfig(kubetest.Admin)
	require.NoError(t, err)
	return serve(ctx, t, mesh.ServerConfig{Args: []string{"--kubeconfig", kubeconfig}, CA: s.ca}), gate
}

// settled waits until a proxy lacks nothing and has the cluster, or has not.
func settled(ctx context.Context, t *testing.T, p *proxy, cluster string, has bool) {
	t.Helper()
	until(ctx, t, fmt.Sprintf("it is complete, and has %s: %t", cluster, has), func() error {
		if _, ok := p.State(resourcev3.ClusterType)[cluster]; ok != has || !p.complete() {
			return fmt.Errorf("it has %v", p.Names(resourcev3.ClusterType))
		}
		return nil
	})
}

// metric is the sum of a metric's samples.
func metric(ctx context.Context, server *mesh.Server, name string) (sum float64, err error) {
	text, err := server.Metrics(ctx)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == ' ' || rest[0] == '{') {
			fields := strings.Fields(line)
			v, err := strconv.ParseFloat(fields[len(fields)-1], 64)
			if err != nil {
				return 0, err
			}
			sum += v
		}
	}
	return sum, nil
}

// stale waits until a server knows that it is cut off, or that it is not.
func stale(ctx context.Context, t *testing.T, server *mesh.Server, is bool) {
	t.Helper()
	until(ctx, t, fmt.Sprintf("the server says that it is stale: %t", is), func() error {
		age, err := metric(ctx, server, "bailiwick_kubernetes_stale_seconds")
		if err != nil {
			return err
		}
		raw, err := server.Dump(ctx, "/source")
		if err != nil {
			return err
		}
		var report struct {
			Ready bool
			Stale []struct{ Kind, Reason, Since string }
		}
		if err := json.Unmarshal(raw, &report); err != nil {
			return err
		}
		if !report.Ready || (age > 0) != is || (len(report.Stale) > 0) != is {
			return fmt.Errorf("metric %v, source %s", age, raw)
		}
		return server.WaitReady(ctx) // staleness is no unreadiness
	})
}

func service(t *testing.T, namespace, name string) *unstructured.Unstructured {
	t.Helper()
	objects, err := kubetest.Parse(fmt.Appendf(nil, "{apiVersion: v1, kind: Service, metadata: {name: %s, namespace: %s}, spec: {clusterIP: None, ports: [{name: http, port: 80}]}}", name, namespace))
	require.NoError(t, err)
	return objects[0]
}

// TestOutages: while the API server is away, in whatever way, proxies keep what
// they have and their streams, new ones are served, and the server says how old
// its data is; afterwards it catches up.
func TestOutages(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	s := demo(ctx, t)
	c := s.cluster
	server, gate := s.through(ctx, t)
	restart := func(t *testing.T) {
		require.NoError(t, c.StartEtcd(ctx))
		require.NoError(t, c.StartAPIServer(ctx))
	}
	all := []pod{}
	all = append(all, s.pods...)
	var proxies []*proxy
	for _, who := range all {
		proxies = append(proxies, connect(ctx, t, s.ca, server, who))
	}
	for _, o := range []struct {
		name       string
		begin, end func(*testing.T)
	}{
		{"kill -9 of the API server", func(*testing.T) { c.KillAPIServer() }, restart},
		{"kill -9 of etcd and the API server, compacted", func(*testing.T) { c.KillAPIServer(); c.KillEtcd() }, func(t *testing.T) {
			require.NoError(t, c.StartEtcd(ctx))
			require.NoError(t, c.Compact(ctx))
			restart(t)
		}},
		{"the API server hangs", func(t *testing.T) { require.NoError(t, c.PauseAPIServer()) }, func(t *testing.T) { require.NoError(t, c.ResumeAPIServer()) }},
		{"the network vanishes", func(*testing.T) { gate.Hold() }, func(*testing.T) { gate.Open() }},
		{"503", func(*testing.T) { gate.Fail(http.StatusServiceUnavailable) }, func(*testing.T) { gate.Open() }},
	} {
		t.Run(o.name, func(t *testing.T) {
			consumer := s.pod(t, "acme-shop", "orders")
			for i, p := range proxies {
				settled(ctx, t, p, logs, all[i].Namespace == consumer.Namespace || all[i].Namespace == "platform")
			}
			var before []map[string]string
			var messages []int
			for _, p := range proxies {
				before, messages = append(before, p.holds()), append(messages, p.messages())
			}
			t.Cleanup(func() { _ = c.ResumeAPIServer() }) // fails if it does not run
			o.begin(t)
			stale(ctx, t, server, true)
			fresh := connect(ctx, t, s.ca, server, consumer)
			settled(ctx, t, fresh, logs, true)
			for i, p := range proxies {
				require.NoError(t, p.Err(), "no stream ends")
				require.NoError(t, differ(before[i], p.holds()))
				require.Equal(t, messages[i], p.messages(), "nobody is told anything")
			}
			require.NoError(t, fresh.Close())
			o.end(t)
			// What is written from now on arrives, and what was there stays.
			svc := service(t, "acme-shop", "late")
			require.NoError(t, c.Apply(ctx, kubetest.Admin, svc))
			stale(ctx, t, server, false)
			for i, p := range proxies {
				if all[i].Namespace == consumer.Namespace {
					settled(ctx, t, p, "late.acme-shop.svc.cluster.local:80", true)
				}
			}
			require.NoError(t, c.Delete(ctx, kubetest.Admin, svc))
			for i, p := range proxies {
				settled(ctx, t, p, "late.acme-shop.svc.cluster.local:80", false)
				until(ctx, t, "all is as it was", func() error { return differ(before[i], p.holds()) })
				require.NoError(t, p.Err())
			}
		})
	}
}

// TestStaleReplica: two replicas; the connection of one to the API server hangs, a
// grant is revoked, and the proxies of both sides move from the replica that knows
// to the one that does not. Nothing that was taken is given back, while a new
// proxy is served. Once the replica has caught up, all have the same.
func TestStaleReplica(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	s := demo(ctx, t)
	current, _ := s.through(ctx, t)
	behind, gate := s.through(ctx, t)
	consumer, producer := s.pod(t, "acme-shop", "orders"), s.pod(t, "platform", "logs")
	from, to := connect(ctx, t, s.ca, current, consumer), connect(ctx, t, s.ca, current, producer)
	settled(ctx, t, from, logs, true)
	settled(ctx, t, to, logs, true)
	granted := to.holds()

	// A proxy that only moves is sent nothing at all.
	from.to.Store(behind)
	n := from.messages()
	require.NoError(t, from.Reconnect(ctx, adsclient.Reconnection{Fresh: true}))
	svc := service(t, "acme-shop", "mark")
	require.NoError(t, s.cluster.Apply(ctx, kubetest.Admin, svc))
	settled(ctx, t, from, "mark.acme-shop.svc.cluster.local:80", true)
	for _, m := range from.Log()[n:] {
		for _, r := range m.Resources {
			require.NotContains(t, r.Name, "logs", "both replicas have the same bytes")
		}
	}
	from.to.Store(current)
	require.NoError(t, from.Reconnect(ctx, adsclient.Reconnection{Fresh: true}))

	gate.Hold()
	stale(ctx, t, behind, true)
	require.NoError(t, s.cluster.Delete(ctx, kubetest.Admin, s.object(t, "ServiceGrant", "platform", "logs")))
	settled(ctx, t, from, logs, false)
	until(ctx, t, "the producer lets nobody in", func() error {
		if differ(granted, to.holds()) == nil {
			return errors.New("it has what it had")
		}
		return nil
	})
	// The revocation is whole when a new proxy of each side agrees.
	for p, who := range map[*proxy]pod{from: consumer, to: producer} {
		twin := connect(ctx, t, s.ca, current, who)
		until(ctx, t, "a twin has the same", func() error {
			if !twin.complete() {
				return errors.New("not all has come")
			}
			return differ(twin.holds(), p.holds())
		})
		require.NoError(t, twin.Close())
	}
	revoked := map[*proxy]map[string]string{from: from.holds(), to: to.holds()}
	messages := map[*proxy]int{from: from.messages(), to: to.messages()}
	current.Kill()
	for p := range revoked {
		p.to.Store(behind)
		require.NoError(t, p.Reconnect(ctx, adsclient.Reconnection{Fresh: true}))
	}
	until(ctx, t, "both have come", func() error {
		frozen, err := metric(ctx, behind, "bailiwick_xds_frozen_streams_total")
		if err == nil && frozen != 2 {
			err = fmt.Errorf("%v streams are frozen", frozen)
		}
		return err
	})
	newcomer := connect(ctx, t, s.ca, behind, s.pod(t, "acme-web", "web"))
	settled(ctx, t, newcomer, logs, false)
	old := connect(ctx, t, s.ca, behind, consumer)
	settled(ctx, t, old, logs, true) // it has nothing, and is given what the replica knows
	for p, want := range revoked {
		require.NoError(t, differ(want, p.holds()))
		require.Equal(t, messages[p], p.messages(), "nothing is said")
		require.NoError(t, p.Err())
	}

	gate.Open()
	stale(ctx, t, behind, false)
	settled(ctx, t, old, logs, false)
	// Now they are told of changes again.
	require.NoError(t, s.cluster.Delete(ctx, kubetest.Admin, svc))
	settled(ctx, t, from, "mark.acme-shop.svc.cluster.local:80", false)
	for p := range revoked {
		for _, m := range p.Log()[messages[p]:] {
			for _, r := range m.Resources {
				require.NotContains(t, r.Name, logs, "what was revoked never comes back")
			}
		}
	}
	require.NoError(t, differ(revoked[to], to.holds()))
	require.NoError(t, differ(old.holds(), from.holds()))
}
