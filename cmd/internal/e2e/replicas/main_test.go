package replicas

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
	"bailiwick.dev/bailiwick/xds/adsclient"
)

// account is the server's, as deploy/base names it.
const account = "system:serviceaccount:bailiwick-system:bailiwick"

// system is the server's namespace.
const system = "bailiwick-system"

// patience bounds a test that would else wait for ever.
const patience = 3 * time.Minute

// built is the path of bailiwick.
var built string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "bailiwick-replicas-")
	if err == nil {
		built, err = mesh.BuildBailiwick(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// fixture is the demo's mesh in an API server with all that deploy/base installs,
// and servers over it.
type fixture struct {
	t       *testing.T
	ctx     context.Context
	cluster *kubetest.Cluster
	objects dynamic.Interface
	ca      *mesh.CA
	servers map[string]*mesh.Server
	gates   map[string]*kubetest.Gate
}

func setUp(t *testing.T) *fixture {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	f := &fixture{t: t, ctx: ctx, servers: map[string]*mesh.Server{}, gates: map[string]*kubetest.Gate{}}
	f.cluster = kubetest.New(t, kubetest.User{Name: account, Groups: []string{"system:serviceaccounts"}})
	require.NoError(t, f.cluster.InstallCRDs(ctx))
	root, err := kubetest.Root()
	require.NoError(t, err)
	base, err := kubetest.Objects(filepath.Join(root, "deploy", "base", "namespace.yaml"), filepath.Join(root, "deploy", "base", "bailiwick.yaml"))
	require.NoError(t, err)
	require.NoError(t, f.cluster.Apply(ctx, kubetest.Admin, base...))
	require.NoError(t, f.cluster.Apply(ctx, kubetest.Admin, demo(t, root)...))
	f.objects, err = dynamic.NewForConfig(f.cluster.REST(kubetest.Admin))
	require.NoError(t, err)
	f.ca, err = mesh.NewCA(filepath.Join(t.TempDir(), "ca"), "platform.example", "acme.example", "globex.example")
	require.NoError(t, err)
	return f
}

// demo are the objects of the demo at addresses that an API server takes,
// namespaces first.
func demo(t *testing.T, root string) []*unstructured.Unstructured {
	t.Helper()
	var out []*unstructured.Unstructured
	require.NoError(t, filepath.WalkDir(filepath.Join(root, "deploy", "demo"), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".yaml" {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		objects, err := kubetest.Parse([]byte(strings.ReplaceAll(string(raw), "127.", "10.")))
		out = append(out, objects...)
		return err
	}))
	kubetest.Complete(out)
	slices.SortStableFunc(out, func(a, b *unstructured.Unstructured) int {
		return strings.Compare(a.GetNamespace(), b.GetNamespace())
	})
	return out
}

// serve starts a replica, whose way to the API server has a gate.
func (f *fixture) serve(replica string, args ...string) *mesh.Server {
	f.t.Helper()
	f.gates[replica] = f.cluster.Gate(f.t)
	kubeconfig, err := f.gates[replica].Kubeconfig(account)
	require.NoError(f.t, err)
	s, err := mesh.StartServer(f.ctx, mesh.ServerConfig{
		Binary: built, Dir: filepath.Join(f.t.TempDir(), "server"), CA: f.ca,
		Args: append([]string{"--kubeconfig", kubeconfig, "--system-namespace", system, "--replica", replica}, args...),
	})
	require.NoError(f.t, err)
	f.t.Cleanup(func() {
		s.Stop()
		if f.t.Failed() {
			f.t.Logf("the log of %s:\n%s", replica, s.LogTail(40))
		}
	})
	require.NoError(f.t, s.WaitReady(f.ctx))
	f.servers[replica] = s
	return s
}

// proxy is a client of ADS that can move from server to server.
type proxy struct {
	*adsclient.Client
	to atomic.Pointer[mesh.Server]
}

// connect makes the proxy of acme-web/web.
func (f *fixture) connect(s *mesh.Server) *proxy {
	f.t.Helper()
	p := &proxy{}
	p.to.Store(s)
	loopback := netip.MustParseAddr("127.0.0.1")
	var err error
	p.Client, err = mesh.DialADS(f.ctx, mesh.EnvoyConfig{
		Dir: f.t.TempDir(), CA: f.ca, Pod: "web", XDS: []netip.AddrPort{s.XDS}, ServerID: s.ID,
		Workload: identity.Workload{TrustDomain: "acme.example", Namespace: "acme-web", ServiceAccount: "web"},
		At:       mesh.Addresses{Bind: loopback, App: loopback},
	}, func(c *adsclient.Config) {
		c.Follow = adsclient.FollowReferences
		c.Dialer = func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", p.to.Load().XDS.String())
		}
	})
	require.NoError(f.t, err)
	f.t.Cleanup(func() { _ = p.Close() })
	return p
}

// urls are the types that a proxy asks for.
func urls() []string {
	return []string{
		mesh.ClusterType, "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
		listenerType, "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
		"type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig", "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
	}
}

const listenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"

// complete waits until the proxy has its inbound listener and all that follows.
func (p *proxy) complete(f *fixture) {
	f.t.Helper()
	require.NoError(f.t, p.Wait(f.ctx, func(v adsclient.View) bool {
		for _, url := range urls() {
			if len(v.Missing(url)) > 0 {
				return false
			}
		}
		return v.Has(listenerType, "inbound_8080") && len(v.Names(mesh.ClusterType)) > 0
	}))
}

// has is every resource of the proxy: its version and bytes, by type and name.
func (p *proxy) has() map[string]string {
	out := map[string]string{}
	for _, url := range urls() {
		for name, e := range p.State(url) {
			out[url+" "+name] = e.Version + " " + string(e.Value())
		}
	}
	return out
}

func (f *fixture) until(what string, ask func() error) {
	f.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-f.ctx.Done():
			require.NoError(f.t, err, "waited in vain until %s", what)
		case <-tick.C:
		}
	}
}

// knows waits until the proxy has, or has not, a cluster.
func (f *fixture) knows(p *proxy, cluster string, want bool) {
	f.t.Helper()
	f.until(fmt.Sprintf("the proxy knows %s: %t", cluster, want), func() error {
		if slices.Contains(p.Names(mesh.ClusterType), cluster) != want {
			return fmt.Errorf("it knows %v", p.Names(mesh.ClusterType))
		}
		return nil
	})
}

// resource is where objects of a kind of ours are.
func (f *fixture) resource(plural, namespace string) dynamic.ResourceInterface {
	return f.objects.Resource(schema.GroupVersionResource{Group: "bailiwick.dev", Version: "v1alpha1", Resource: plural}).Namespace(namespace)
}

// status is what stands in an object: "Status/Reason@generation" by condition.
func (f *fixture) status(plural, namespace, name string) (map[string]string, string) {
	f.t.Helper()
	u, err := f.resource(plural, namespace).Get(f.ctx, name, metav1.GetOptions{})
	require.NoError(f.t, err)
	raw, err := json.Marshal(u.Object["status"])
	require.NoError(f.t, err)
	var s struct{ Conditions []metav1.Condition }
	require.NoError(f.t, json.Unmarshal(raw, &s))
	out := map[string]string{}
	for _, c := range s.Conditions {
		out[c.Type] = fmt.Sprintf("%s/%s@%d", c.Status, c.Reason, c.ObservedGeneration)
	}
	return out, string(raw)
}

// says waits until an object's condition is as expected.
func (f *fixture) says(plural, namespace, name, condition, want string) {
	f.t.Helper()
	f.until(fmt.Sprintf("%s %s/%s is %s %s", plural, namespace, name, condition, want), func() error {
		if got, _ := f.status(plural, namespace, name); got[condition] != want {
			return fmt.Errorf("it is %v", got)
		}
		return nil
	})
}

// holder is the replica that holds the Lease.
func (f *fixture) holder() (string, error) {
	u, err := f.objects.Resource(schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}).
		Namespace(system).Get(f.ctx, "bailiwick", metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	holder, _, err := unstructured.NestedString(u.Object, "spec", "holderIdentity")
	if holder == "" && err == nil {
		err = errors.New("nobody holds the Lease")
	}
	return holder, err
}
