package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/file"
	"bailiwick.dev/bailiwick/tenancy/object"
	"bailiwick.dev/bailiwick/tenancy/reference"
	"bailiwick.dev/bailiwick/xds/bootstrap/envoytest"
)

// serverDomain is the trust domain of the server, which is no tenant's.
const serverDomain = "platform.example"

// patience bounds a test that would else wait for ever; none comes near it.
const patience = time.Minute

// The Pods of testdata/mesh.
const (
	shopWeb      = "acme-shop/web-0"
	shopOrders   = "acme-shop/orders-0"
	webOrders    = "acme-web/orders-0"
	globexOrders = "globex-shop/orders-0"
	globexWeb    = "globex-web/web-0"
)

// sotw says whether a Pod's proxy speaks the state-of-the-world protocol: one of
// each tenant does.
func sotw(name string) bool { return name == webOrders || name == globexWeb }

// fixture is a mesh of its own: testdata/mesh, served.
type fixture struct {
	t *testing.T
	// ctx ends with the test, and with its patience.
	ctx    context.Context
	root   string
	dir    string // of the objects
	ca     *mesh.CA
	server *mesh.Server
	pods   map[string]*pod
}

// pod is one workload with its application and its Envoy.
type pod struct {
	name     string // namespace/name
	workload identity.Workload
	at       mesh.Addresses
	envoy    *mesh.Envoy
	through  *http.Client
}

// setUp serves a copy of testdata/mesh without the files named in without.
func setUp(t *testing.T, without ...string) *fixture {
	t.Helper()
	f := newFixture(t)
	for _, name := range without {
		f.remove(name)
	}
	f.serve()
	require.NoError(t, f.server.WaitReady(f.ctx))
	return f
}

// newFixture makes a copy of testdata/mesh and starts nothing.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := emptyFixture(t, "acme.example", "globex.example")
	f.copyObjects("testdata/mesh")
	return f
}

// emptyFixture has no objects yet.
func emptyFixture(t *testing.T, domains ...string) *fixture {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	f := &fixture{t: t, ctx: ctx, root: t.TempDir(), pods: map[string]*pod{}}
	f.dir = filepath.Join(f.root, "objects")
	var err error
	f.ca, err = mesh.NewCA(filepath.Join(f.root, "ca"), append([]string{serverDomain}, domains...)...)
	require.NoError(t, err)
	return f
}

// serve starts the server and does not wait for it.
func (f *fixture) serve(args ...string) {
	f.t.Helper()
	var err error
	f.server, err = mesh.StartServer(f.ctx, mesh.ServerConfig{
		Binary: built.binary, Dir: filepath.Join(f.root, "server"), ConfigDir: f.dir, CA: f.ca,
		Args: append([]string{"--log-level", "debug"}, args...),
	})
	require.NoError(f.t, err)
	f.t.Cleanup(func() {
		f.server.Stop()
		if f.t.Failed() {
			f.t.Logf("the server's log:\n%s", f.server.LogTail(60))
		}
	})
}

// start runs Pods and waits until their Envoys are LIVE.
func (f *fixture) start(names ...string) {
	f.t.Helper()
	binary := envoytest.Binary(f.t)
	world := f.world()
	for _, name := range names {
		p := f.newPod(world, name)
		f.pods[name] = p
		f.startApplications(world, p)
		var err error
		config := f.envoyConfig(p)
		config.Binary, config.SotW = binary, sotw(name)
		p.envoy, err = mesh.StartEnvoy(f.ctx, config)
		require.NoError(f.t, err)
		f.t.Cleanup(func() {
			p.through.CloseIdleConnections()
			p.envoy.Stop()
			if f.t.Failed() {
				f.t.Logf("the log of %s's Envoy:\n%s", name, p.envoy.LogTail(20))
			}
		})
	}
	for _, name := range names {
		require.NoError(f.t, f.pods[name].envoy.WaitLive(f.ctx))
	}
}

// envoyConfig is that of a Pod's proxy, but for the protocol.
func (f *fixture) envoyConfig(p *pod) mesh.EnvoyConfig {
	return mesh.EnvoyConfig{
		Dir:      filepath.Join(f.root, "envoy", strings.ReplaceAll(p.name, "/", ".")),
		Workload: p.workload, Pod: filepath.Base(p.name), CA: f.ca, At: p.at,
		XDS: []netip.AddrPort{f.server.XDS}, ServerID: f.server.ID, StatsPrefixes: []string{"cluster."},
	}
}

func (f *fixture) newPod(world reference.World, name string) *pod {
	f.t.Helper()
	key := podKey(name)
	object, ok := world[tenancy.Ref{Kind: tenancy.KindPod, Key: key}].(*tenancy.Pod)
	require.True(f.t, ok, "testdata has no Pod %s", name)
	_, tenant := world.Tenant(key.Namespace)
	require.NotNil(f.t, tenant, "%s is nobody's", key.Namespace)
	at, err := mesh.AddressesOf(object.IPs[0])
	require.NoError(f.t, err)
	return &pod{
		name: name, at: at, through: mesh.Through(at.Bind),
		workload: identity.Workload{TrustDomain: tenant.TrustDomain, Namespace: key.Namespace, ServiceAccount: object.ServiceAccount},
	}
}

// startApplications listens on every port that a service leads to.
func (f *fixture) startApplications(world reference.World, p *pod) {
	f.t.Helper()
	for port, protocol := range inboundPorts(world, podKey(p.name)) {
		addr := netip.AddrPortFrom(p.at.App, port)
		var app interface{ Stop() }
		var err error
		switch {
		case protocol.IsHTTP():
			app, err = mesh.StartEcho(f.ctx, p.name, addr)
		case protocol == tenancy.ServerFirst:
			app, err = mesh.StartTCPEcho(f.ctx, banner(p.name), addr)
		default:
			app, err = mesh.StartTCPEcho(f.ctx, "", addr)
		}
		require.NoError(f.t, err)
		f.t.Cleanup(app.Stop)
	}
}

// banner is what a server-first application begins with.
func banner(name string) string { return "220 " + name + "\n" }

func podKey(name string) tenancy.Key {
	namespace, pod, _ := strings.Cut(name, "/")
	return tenancy.Key{Namespace: namespace, Name: pod}
}

// world is what the directory says now. A namespace that was taken from a tenant
// leaves errors in it: the tenant's folder may not hold its objects any more.
func (f *fixture) world() reference.World {
	f.t.Helper()
	source, err := file.New(file.Config{
		Dir: f.dir, Options: object.Options{AllowLoopback: true}, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(f.t, err)
	events, report := source.Load()
	for _, e := range report.Errors {
		require.Contains(f.t, e.Error(), "does not belong to tenant")
	}
	return reference.Fold(events)
}

// copyObjects copies a directory of objects, with all Pods' addresses moved to
// this process's network.
func (f *fixture) copyObjects(from string) {
	f.t.Helper()
	require.NoError(f.t, filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f.write(rel, string(text))
		return nil
	}))
}

// write puts a file of objects in place, whole.
func (f *fixture) write(rel, text string) {
	f.t.Helper()
	path := filepath.Join(f.dir, rel)
	require.NoError(f.t, os.MkdirAll(filepath.Dir(path), 0o755))
	text = strings.ReplaceAll(text, "127.40.", fmt.Sprintf("127.%d.", built.network))
	require.NoError(f.t, os.WriteFile(path+".new", []byte(text), 0o644))
	require.NoError(f.t, os.Rename(path+".new", path))
}

// objectFile is a file of testdata/mesh.
func objectFile(t *testing.T, rel string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata/mesh", rel))
	require.NoError(t, err)
	return string(text)
}

func (f *fixture) read(rel string) string {
	f.t.Helper()
	text, err := os.ReadFile(filepath.Join(f.dir, rel))
	require.NoError(f.t, err)
	return string(text)
}

func (f *fixture) remove(rel string) {
	f.t.Helper()
	require.NoError(f.t, os.Remove(filepath.Join(f.dir, rel)))
}

// run is a subtest: what fails in do, fails there.
func (f *fixture) run(name string, do func()) {
	f.t.Helper()
	outer := f.t
	outer.Run(name, func(t *testing.T) {
		f.t = t
		defer func() { f.t = outer }()
		do()
	})
}

// logged waits until the server has written something into its log, which holds
// its words since the test began.
func (f *fixture) logged(pattern string) {
	f.t.Helper()
	expr := regexp.MustCompile(pattern)
	f.until(fmt.Sprintf("the log has %q", pattern), func() error {
		if text := f.server.LogTail(10000); !expr.MatchString(text) {
			return errors.New("not yet")
		}
		return nil
	})
}

// until asks until the answer is nil. What it said last, before the patience
// was over, is the failure.
func (f *fixture) until(what string, ask func() error) {
	f.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := ask()
		if err == nil {
			return
		}
		if f.ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-f.ctx.Done():
			require.NoError(f.t, last, "waited in vain until %s", what)
		case <-tick.C:
		}
	}
}
