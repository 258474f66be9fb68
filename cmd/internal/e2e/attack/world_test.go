package attack

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/xds/adsclient"
)

// patience bounds a wait that would else be for ever; none comes near it.
const patience = 30 * time.Second

// Who plays: acme attacks from its own Pods, globex is what it is after. They
// have one live grant: orders of globex-shop, port 8080, to acme-shop.
const (
	acmeWeb      = "spiffe://acme.example/ns/acme-shop/sa/acme-shop-web-account"
	acmeOrders   = "spiffe://acme.example/ns/acme-shop/sa/acme-shop-orders-account"
	acmeInside   = "spiffe://acme.example/ns/acme-web/sa/acme-web-orders-account" // without a grant
	globexWeb    = "spiffe://globex.example/ns/globex-web/sa/globex-web-web-account"
	globexOrders = "spiffe://globex.example/ns/globex-shop/sa/globex-shop-orders-account"
)

// podOf is the Pod of each of them, as its node id.
func podOf(id string) string {
	return map[string]string{
		acmeWeb: "acme-shop/web-0", acmeOrders: "acme-shop/orders-0", acmeInside: "acme-web/orders-0",
		globexWeb: "globex-web/web-0", globexOrders: "globex-shop/orders-0",
	}[id]
}

// world is the program, serving a directory of two tenants; or, with a cluster,
// serving an API server that has the directory's objects.
type world struct {
	t      *testing.T
	ctx    context.Context
	dir    string // of the objects
	root   string
	ca     *mesh.CA
	server *mesh.Server
	// cluster is nil where the source is the directory.
	cluster *cluster
}

// renew makes the world one of its own, from the same kind of source.
func (w *world) renew(args []string, edits ...func(*world)) {
	w.t.Helper()
	*w = *newWorld(w.t, w.cluster, args, edits...)
}

// newWorld serves the e2e tests' mesh; edits change its files before.
func newWorld(t *testing.T, c *cluster, args []string, edits ...func(*world)) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*patience)
	t.Cleanup(cancel)
	w := &world{t: t, ctx: ctx, root: t.TempDir()}
	w.dir = filepath.Join(w.root, "objects")
	const from = "../testdata/mesh"
	require.NoError(t, filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err == nil {
			var text []byte
			text, err = os.ReadFile(path)
			w.write(rel, string(text))
		}
		return err
	}))
	for _, edit := range edits {
		edit(w)
	}
	var err error
	w.ca, err = mesh.NewCA(filepath.Join(w.root, "ca"), "platform.example", "acme.example", "globex.example", evilDomain)
	require.NoError(t, err)
	config := mesh.ServerConfig{
		Binary: built.binary, Dir: filepath.Join(w.root, "server"), ConfigDir: w.dir, CA: w.ca,
		// Attacks remove more at once than the guard against accidents lets pass.
		Args: append([]string{"--log-level", "debug", "--max-removal", "1"}, args...),
	}
	if c != nil {
		w.join(c, &config)
	}
	w.server, err = mesh.StartServer(ctx, config)
	require.NoError(t, err)
	t.Cleanup(func() {
		w.server.Stop()
		if t.Failed() {
			t.Logf("the server's log:\n%s", w.server.LogTail(400))
		}
	})
	require.NoError(t, w.server.WaitReady(ctx))
	return w
}

// join has the world's objects in an API server.
func (w *world) join(c *cluster, config *mesh.ServerConfig) {
	w.t.Helper()
	c.applied = map[string]*unstructured.Unstructured{}
	w.cluster = c
	w.t.Cleanup(func() { c.clear(context.WithoutCancel(w.ctx), w.t) }) // after the server, which is stopped before
	w.sync()
	kubeconfig, err := c.Kubeconfig(account)
	require.NoError(w.t, err)
	config.ConfigDir = ""
	config.Args = append(config.Args, "--kubeconfig", kubeconfig, "--system-namespace", "bailiwick-system", "--replica", "only")
}

// sync has the API server, if there is one, hold what the directory does.
func (w *world) sync() {
	w.t.Helper()
	if w.cluster == nil {
		return
	}
	for _, err := range w.cluster.sync(w.ctx, w.t, w.dir) {
		w.t.Logf("refused by the API server: %v", err)
	}
}

// in is the world for a subtest.
func (w *world) in(t *testing.T) *world {
	other := *w
	other.t = t
	return &other
}

// write puts a file of objects in place, whole.
func (w *world) write(rel, text string) {
	w.t.Helper()
	path := filepath.Join(w.dir, rel)
	require.NoError(w.t, os.MkdirAll(filepath.Dir(path), 0o755))
	text = strings.ReplaceAll(text, "127.40.", fmt.Sprintf("127.%d.", built.network))
	require.NoError(w.t, os.WriteFile(path+".new", []byte(text), 0o644))
	require.NoError(w.t, os.Rename(path+".new", path))
	w.sync()
}

func (w *world) read(rel string) string {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, rel))
	require.NoError(w.t, err)
	return string(text)
}

func (w *world) remove(rel string) {
	w.t.Helper()
	require.NoError(w.t, os.Remove(filepath.Join(w.dir, rel)))
	w.sync()
}

// replace edits a file, which must have old in it.
func (w *world) replace(rel, old, now string) {
	w.t.Helper()
	text := w.read(rel)
	require.Contains(w.t, text, old)
	w.write(rel, strings.ReplaceAll(text, old, now))
}

// until asks until the answer is nil.
func (w *world) until(what string, ask func() error) {
	w.t.Helper()
	deadline, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-deadline.Done():
			require.NoError(w.t, err, "waited in vain until %s", what)
		case <-tick.C:
		}
	}
}

// logged waits for a text in the server's log.
func (w *world) logged(text string) {
	w.t.Helper()
	w.until("the log has "+text, func() error {
		if !strings.Contains(w.server.LogTail(10000), text) {
			return errors.New("not yet")
		}
		return nil
	})
}

// options are how a stream is opened beside its identity.
type options struct {
	node    *corev3.Node
	issue   identity.IssueOptions
	by      string // the trust domain whose CA signs; that of the id if empty
	from    netip.Addr
	follow  adsclient.Following
	answers func(*adsclient.Message) adsclient.Verdict
}

// dial opens a stream with a certificate of id.
func (w *world) dial(p adsclient.Protocol, id string, o options) (*adsclient.Client, error) {
	w.t.Helper()
	if o.node == nil {
		o.node = &corev3.Node{Id: podOf(id)}
	}
	config := adsclient.Config{
		Address: w.server.XDS.String(), TLS: w.tls(id, o), Protocol: p, Node: o.node, Follow: o.follow, OnResponse: o.answers,
	}
	if o.from.IsValid() {
		dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: o.from.AsSlice()}}
		config.Dialer = func(ctx context.Context, addr string) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", addr) }
	}
	c, err := adsclient.Dial(w.ctx, config)
	if err == nil {
		w.t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

func (w *world) tls(id string, o options) *tls.Config {
	w.t.Helper()
	by := o.by
	if by == "" {
		by = strings.Split(strings.TrimPrefix(id, "spiffe://"), "/")[0]
	}
	cert, key, err := w.ca.Authority(by).Issue(id, o.issue)
	require.NoError(w.t, err)
	source, err := identity.NewStaticSource(cert, key, w.ca.Bundles())
	require.NoError(w.t, err)
	return w.trusting(source)
}

// trusting is the TLS of a client that talks to the server alone.
func (w *world) trusting(source identity.Source) *tls.Config {
	return identity.ClientTLS(source, source, spiffeid.RequireFromString(w.server.ID))
}

// proxy opens a stream that does as Envoy does, and waits until it has all.
func (w *world) proxy(p adsclient.Protocol, id string, o options) *adsclient.Client {
	w.t.Helper()
	o.follow = adsclient.FollowLikeEnvoy
	c, err := w.dial(p, id, o)
	require.NoError(w.t, err)
	require.NoError(w.t, c.Wait(w.bounded(), func(v adsclient.View) bool {
		for typ := range snapshot.NumTypes {
			if len(v.Missing(typ.URL())) > 0 {
				return false
			}
		}
		return v.Total(snapshot.Listener.URL()).Messages > 0
	}), "%s has not got everything", id)
	return c
}

func (w *world) bounded() context.Context {
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	w.t.Cleanup(cancel)
	return ctx
}

// said asks for routes that nobody has and returns all that was received up to
// the answer: whatever was on its way before is there.
func (w *world) said(c *adsclient.Client) []string {
	w.t.Helper()
	asked, _ := c.Subscriptions(snapshot.Route.URL())
	before := slices.DeleteFunc(slices.Clone(asked), func(name string) bool { return !strings.HasPrefix(name, "end-") })
	end := fmt.Sprintf("end-%d", len(before))
	require.NoError(w.t, c.Subscribe(snapshot.Route.URL(), end))
	at := -1
	require.NoError(w.t, c.Wait(w.bounded(), func(v adsclient.View) bool {
		at = slices.IndexFunc(v.Log(), func(m *adsclient.Message) bool {
			return m.TypeURL == snapshot.Route.URL() && slices.Contains(append(m.Names(), m.Removed...), end)
		})
		return at >= 0
	}))
	var out []string
	for _, m := range c.Log()[:at+1] {
		out = append(out, m.TypeURL+"\x00"+string(m.Raw))
	}
	return out
}

// ended waits for a stream's end and returns its error.
func (w *world) ended(c *adsclient.Client) error {
	w.t.Helper()
	select {
	case <-c.Done():
	case <-w.bounded().Done():
		require.FailNow(w.t, "the stream is still open")
	}
	return c.Err()
}

// protocols runs an attack in both flavours.
func (w *world) protocols(f func(w *world, p adsclient.Protocol)) {
	w.t.Helper()
	for _, p := range []adsclient.Protocol{adsclient.Delta, adsclient.SotW} {
		w.t.Run(p.String(), func(t *testing.T) { f(w.in(t), p) })
	}
}

// run runs the program and returns what it printed.
func (w *world) run(args ...string) (string, error) {
	text, err := exec.CommandContext(w.bounded(), built.binary, args...).CombinedOutput()
	return string(text), err
}

// metric is the sum of a metric's samples.
func (w *world) metric(name string) (sum float64) {
	w.t.Helper()
	text, err := w.server.Metrics(w.ctx)
	require.NoError(w.t, err)
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || (rest[0] != ' ' && rest[0] != '{') {
			continue
		}
		fields := strings.Fields(line)
		v, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		require.NoError(w.t, err)
		sum += v
	}
	return sum
}

// heap is what the server holds after a collection, in bytes.
func (w *world) heap() float64 {
	w.t.Helper()
	for range 2 {
		_, err := w.server.Dump(w.ctx, "/debug/pprof/heap?gc=1")
		require.NoError(w.t, err)
	}
	return w.metric("go_memstats_heap_alloc_bytes")
}
