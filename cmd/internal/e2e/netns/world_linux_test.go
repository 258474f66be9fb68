package netns

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/xds/bootstrap/envoytest"
)

// patience bounds what would else wait for ever; nothing comes near it.
const patience = 2 * time.Minute

// proxyUser is whom Envoys run as: the default of `bailiwick iptables`.
const proxyUser = "1337"

const banner = "220 db\n"

// Ports that the rules leave out.
const (
	excludedInbound  = 9090
	excludedOutbound = 9999
	excludedCIDR     = "10.77.0.2/32"
)

// world is the mesh of testdata/objects.
type world struct {
	ctx    context.Context
	dir    string
	binary string
	ca     *mesh.CA
	server *mesh.Server
	// web and orders are of tenant acme, which knows its registry only; spy is
	// of globex, which may call anything.
	web, orders, spy *pod
}

// pod is a namespace with an application and an Envoy.
type pod struct {
	*namespace
	w        *world
	workload identity.Workload
	ip4, ip6 netip.Addr
	envoy    *mesh.Envoy
}

// prepare makes what a mesh needs that runs nothing yet.
func prepare(t *testing.T) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	w := &world{ctx: ctx, dir: t.TempDir()}
	// Envoys are another user.
	require.NoError(t, os.Chmod(filepath.Dir(w.dir), 0o755))
	var err error
	w.binary, err = mesh.BuildBailiwick(ctx, w.dir)
	require.NoError(t, err)
	w.ca, err = mesh.NewCA(filepath.Join(w.dir, "ca"), "platform.example", "acme.example", "globex.example")
	require.NoError(t, err)
	return w
}

func start(t *testing.T) *world {
	t.Helper()
	needNode(t)
	envoy := envoytest.Binary(t)
	w := prepare(t)
	objects := filepath.Join(w.dir, "objects")
	require.NoError(t, os.CopyFS(objects, os.DirFS("testdata/objects")))
	buildBridge(t)
	// A machine outside the mesh, at addresses that the rules know and do not.
	ip(t, "addr add 10.77.0.2/24 dev pods")
	w.listen(t, nil, "outside", map[uint16]string{80: "http", 7777: "banner", excludedOutbound: "banner"})
	w.startServer(t, mesh.ServerConfig{ConfigDir: objects})

	w.web = w.newPod(t, "acme.example", "acme-web", "web", 10)
	w.orders = w.newPod(t, "acme.example", "acme-shop", "orders", 20)
	w.spy = w.newPod(t, "globex.example", "globex-shop", "spy", 30)
	w.listen(t, w.web.namespace, "acme-web/web", map[uint16]string{8080: "http"})
	w.listen(t, w.orders.namespace, "acme-shop/orders", map[uint16]string{
		8080: "http", 8090: "http", 8092: "http", 3306: "banner", 6379: "echo", excludedInbound: "http",
	})
	w.listen(t, w.spy.namespace, "globex-shop/spy", map[uint16]string{8080: "http"})
	for _, p := range w.pods() {
		w.capture(t, p)
		w.startEnvoy(t, envoy, p)
	}
	for _, p := range w.pods() {
		require.NoError(t, p.envoy.WaitLive(w.ctx))
	}
	return w
}

func (w *world) pods() []*pod { return []*pod{w.web, w.orders, w.spy} }

func (w *world) startServer(t *testing.T, config mesh.ServerConfig) {
	t.Helper()
	config.Binary, config.Dir, config.CA, config.XDSAddr = w.binary, filepath.Join(w.dir, "server"), w.ca, node4
	var err error
	w.server, err = mesh.StartServer(w.ctx, config)
	require.NoError(t, err)
	t.Cleanup(func() {
		w.server.Stop()
		if t.Failed() {
			t.Logf("the server's log:\n%s", w.server.LogTail(40))
		}
	})
	require.NoError(t, w.server.WaitReady(w.ctx))
}

func (w *world) newPod(t *testing.T, domain, namespace, name string, number int) *pod {
	t.Helper()
	p := &pod{
		namespace: newNamespace(t, name), w: w,
		workload: identity.Workload{TrustDomain: domain, Namespace: namespace, ServiceAccount: name},
		ip4:      netip.MustParseAddr(fmt.Sprintf("10.77.0.%d", number)),
		ip6:      netip.MustParseAddr(fmt.Sprintf("fd77::%d", number)),
	}
	p.join(t, p.ip4, p.ip6)
	return p
}

// capture sets the rules, twice: that changes nothing.
func (w *world) capture(t *testing.T, p *pod) {
	t.Helper()
	apply := []string{
		w.binary, "iptables", "--apply", "--exclude-inbound-ports", fmt.Sprint(excludedInbound),
		"--exclude-outbound-ports", fmt.Sprint(excludedOutbound), "--exclude-outbound-cidrs", excludedCIDR,
	}
	var before string
	for range 2 {
		p.run(t, "", apply...)
		after := p.run(t, "", "iptables", "-t", "nat", "-S") + p.run(t, "", "ip6tables", "-t", "nat", "-S")
		require.Contains(t, after, "--to-ports 15001")
		require.True(t, before == "" || before == after, "the second time differs:\n%s\n%s", before, after)
		before = after
	}
}

// listen starts applications on ports of all addresses of a namespace (nil is
// the node).
func (w *world) listen(t *testing.T, n *namespace, name string, ports map[uint16]string) {
	t.Helper()
	for port, kind := range ports {
		addr := netip.AddrPortFrom(netip.IPv6Unspecified(), port)
		var app interface{ Stop() }
		begin := func() (err error) {
			switch kind {
			case "http":
				app, err = mesh.StartEcho(w.ctx, name, addr)
			case "banner":
				app, err = mesh.StartTCPEcho(w.ctx, banner, addr)
			default:
				app, err = mesh.StartTCPEcho(w.ctx, "", addr)
			}
			return err
		}
		if n != nil {
			require.NoError(t, n.do(begin))
		} else {
			require.NoError(t, begin())
		}
		t.Cleanup(app.Stop)
	}
}

// startEnvoy runs a Pod's Envoy as proxyUser, inside.
func (w *world) startEnvoy(t *testing.T, binary string, p *pod) {
	t.Helper()
	config := mesh.EnvoyConfig{
		Binary: binary, Dir: p.envoyDir(), Workload: p.workload, Pod: p.name, CA: w.ca,
		XDS: []netip.AddrPort{w.server.XDS}, ServerID: w.server.ID,
		StatsPrefixes: []string{"listener.", "tcp.", "http.", "cluster."},
		Wrap: []string{
			"sh", "-c", `chown -R "$0:$0" . && exec setpriv --reuid="$0" --regid="$0" --clear-groups --pdeathsig=KILL "$@"`, proxyUser,
		},
		Dial: func(ctx context.Context, _, addr string) (net.Conn, error) {
			to, err := netip.ParseAddrPort(addr)
			if err != nil {
				return nil, err
			}
			return p.dial(ctx, to)
		},
	}
	require.NoError(t, p.do(func() (err error) {
		p.envoy, err = mesh.StartEnvoy(w.ctx, config)
		return err
	}))
	t.Cleanup(func() {
		p.envoy.Stop()
		if t.Failed() {
			t.Logf("the log of %s's Envoy:\n%s", p.name, p.envoy.LogTail(20))
		}
	})
}

func (p *pod) envoyDir() string { return filepath.Join(p.w.dir, "envoy-"+p.name) }

// answer is what a request got: a status, and what the application said if it
// was asked.
type answer struct {
	status int
	mesh.Answer
}

// request sends a GET from a Pod's application to an address, with this Host.
// h2c is HTTP/2 without negotiation.
func (p *pod) request(to netip.AddrPort, h2c bool, host, path string) (answer, error) {
	return p.w.request(func(ctx context.Context) (net.Conn, error) { return p.dial(ctx, to) }, h2c, host, path)
}

func (w *world) request(dial func(context.Context) (net.Conn, error), h2c bool, host, path string) (a answer, err error) {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!h2c)
	protocols.SetUnencryptedHTTP2(h2c)
	transport := &http.Transport{
		Protocols: protocols, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, "http://"+host+path, http.NoBody)
	if err != nil {
		return a, err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	a.status = resp.StatusCode
	if resp.StatusCode == http.StatusOK {
		err = json.NewDecoder(resp.Body).Decode(&a.Answer)
	}
	return a, err
}

// first connects, sends nothing and returns the first line that comes.
func first(conn net.Conn, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	return bufio.NewReader(conn).ReadString('\n')
}

// echoed connects, sends a line and returns the first line that comes.
func echoed(conn net.Conn, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, "ping\n"); err != nil {
		return "", err
	}
	return bufio.NewReader(conn).ReadString('\n')
}

// counted are changes of counters.
type counted map[string]uint64

// counts calls f and waits until each of these counters of the Pod's Envoy rose by
// as much, which Envoy may do a moment after the other side noticed; more is an
// error.
func (p *pod) counts(t *testing.T, want counted, f func(), about ...any) {
	t.Helper()
	before := p.stats(t)
	f()
	rose := counted{}
	p.w.until(t, fmt.Sprintf("%v: the counters rose by %v", about, want), func() error {
		missing := false
		after := p.stats(t)
		for name, n := range want {
			rose[name] = after[name] - before[name]
			missing = missing || rose[name] < n
		}
		if missing {
			return fmt.Errorf("they rose by %v", rose)
		}
		return nil
	})
	require.Equal(t, want, rose, about...)
}

func (p *pod) stats(t *testing.T) map[string]uint64 {
	t.Helper()
	stats, err := p.envoy.Stats(p.w.ctx)
	require.NoError(t, err)
	return stats
}

// until asks until the answer is nil; the last one is the failure.
func (w *world) until(t *testing.T, what string, ask func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, patience/4)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			require.NoError(t, errors.Join(ctx.Err(), err), "waiting until %s", what)
		case <-tick.C:
		}
	}
}

// edit replaces text in a file of objects, which has to be there.
func (w *world) edit(t *testing.T, rel, old, with string) {
	t.Helper()
	path := filepath.Join(w.dir, "objects", rel)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(text), old), "%s in %s", old, rel)
	require.NoError(t, os.WriteFile(path+".new", []byte(strings.Replace(string(text), old, with, 1)), 0o644))
	require.NoError(t, os.Rename(path+".new", path))
}
