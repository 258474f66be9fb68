package kube

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
	"bailiwick.dev/bailiwick/xds/adsclient"
)

// patience bounds what would else wait for ever.
const patience = time.Minute

// serverDomain is the trust domain of the server, which is no tenant's.
const serverDomain = "platform.example"

var (
	shared kubetest.Shared
	// binary is the path of bailiwick, built once.
	binary string
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "bailiwick-kube-")
	if err == nil {
		binary, err = mesh.BuildBailiwick(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	shared.Stop()
	_ = os.RemoveAll(dir)
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// cluster is the shared API server with our CRDs, running.
func cluster(ctx context.Context, t *testing.T) *kubetest.Cluster {
	t.Helper()
	c := shared.Get(t)
	require.NoError(t, c.StartEtcd(ctx))
	require.NoError(t, c.StartAPIServer(ctx))
	require.NoError(t, c.InstallCRDs(ctx))
	return c
}

// pod is one workload's Pod.
type pod struct {
	identity.Workload
	name string
}

// scene is a directory of objects at addresses that an API server takes.
type scene struct {
	dir     string
	objects []*unstructured.Unstructured
	domains []string
	pods    []pod
}

// open copies a directory of objects and reads it.
func open(t *testing.T, from ...string) *scene {
	t.Helper()
	root, err := kubetest.Root()
	require.NoError(t, err)
	s := &scene{dir: t.TempDir()}
	require.NoError(t, os.CopyFS(s.dir, os.DirFS(filepath.Join(append([]string{root}, from...)...))))
	require.NoError(t, filepath.WalkDir(s.dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, []byte(strings.ReplaceAll(string(raw), "127.", "10.")), 0o600)
	}))
	s.objects, err = kubetest.Objects(s.dir)
	require.NoError(t, err)
	kubetest.Complete(s.objects)
	// Namespaces have to be there before what is in them.
	slices.SortStableFunc(s.objects, func(a, b *unstructured.Unstructured) int {
		return min(1, len(a.GetNamespace())) - min(1, len(b.GetNamespace()))
	})
	tenants, domains := map[string]string{}, map[string]string{}
	for _, u := range s.objects {
		switch u.GetKind() {
		case "Tenant":
			domains[u.GetName()], _, _ = unstructured.NestedString(u.Object, "spec", "trustDomain")
			s.domains = append(s.domains, domains[u.GetName()])
		case "Namespace":
			tenants[u.GetName()] = u.GetLabels()["bailiwick.dev/tenant"]
		}
	}
	slices.Sort(s.domains)
	s.domains = slices.Compact(s.domains)
	for _, u := range s.objects {
		if u.GetKind() == "Pod" {
			account, _, _ := unstructured.NestedString(u.Object, "spec", "serviceAccountName")
			w := identity.Workload{TrustDomain: domains[tenants[u.GetNamespace()]], Namespace: u.GetNamespace(), ServiceAccount: account}
			s.pods = append(s.pods, pod{w, u.GetName()})
		}
	}
	return s
}

// pod is the only Pod of that name and namespace.
func (s *scene) pod(t *testing.T, namespace, name string) pod {
	t.Helper()
	for _, p := range s.pods {
		if p.Namespace == namespace && p.name == name {
			return p
		}
	}
	require.FailNow(t, "no such Pod", "%s/%s in %v", namespace, name, s.pods)
	return pod{}
}

// object is the only one of that kind and name.
func (s *scene) object(t *testing.T, kind, namespace, name string) *unstructured.Unstructured {
	t.Helper()
	for _, u := range s.objects {
		if u.GetKind() == kind && u.GetNamespace() == namespace && u.GetName() == name {
			return u.DeepCopy()
		}
	}
	require.FailNow(t, "no such object", "%s %s/%s", kind, namespace, name)
	return nil
}

func authority(t *testing.T, s *scene) *mesh.CA {
	t.Helper()
	domains := append([]string{serverDomain}, slices.DeleteFunc(slices.Clone(s.domains), func(d string) bool { return d == serverDomain })...)
	ca, err := mesh.NewCA(t.TempDir(), domains...)
	require.NoError(t, err)
	return ca
}

// serve starts a server, which ends with the test, and waits until it is ready.
func serve(ctx context.Context, t *testing.T, config mesh.ServerConfig) *mesh.Server {
	t.Helper()
	config.Binary, config.Dir = binary, t.TempDir()
	s, err := mesh.StartServer(ctx, config)
	require.NoError(t, err)
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("the log of a server:\n%s", s.LogTail(40))
		}
	})
	require.NoError(t, s.WaitReady(ctx))
	return s
}

// proxy is an ADS client that can move between servers.
type proxy struct {
	*adsclient.Client
	to atomic.Pointer[mesh.Server]
}

func connect(ctx context.Context, t *testing.T, ca *mesh.CA, server *mesh.Server, who pod) *proxy {
	t.Helper()
	source, err := ca.Source(who.String(), identity.IssueOptions{})
	require.NoError(t, err)
	p := &proxy{}
	p.to.Store(server)
	dialer := &net.Dialer{}
	p.Client, err = adsclient.Dial(ctx, adsclient.Config{
		Address: "passthrough:///server", TLS: identity.ClientTLS(source, source, spiffeid.RequireFromString(server.ID)),
		Dialer: func(ctx context.Context, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", p.to.Load().XDS.String())
		},
		WaitForReady: true, Follow: adsclient.FollowReferences,
		Node: &corev3.Node{Id: who.Namespace + "/" + who.name},
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// types are those that a proxy has resources of.
func types() []string {
	return []string{
		resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.ListenerType, resourcev3.RouteType,
		resourcev3.SecretType, resourcev3.ExtensionConfigType,
	}
}

// holds is all that the client has: type and name with the bytes.
func (p *proxy) holds() map[string]string {
	out := map[string]string{}
	for _, url := range types() {
		for name, e := range p.State(url) {
			out[url+" "+name] = string(e.Any)
		}
	}
	return out
}

// complete reports whether the client lacks nothing that it asked for.
func (p *proxy) complete() bool {
	whole := true
	p.Look(func(v adsclient.View) {
		for _, url := range types() {
			whole = whole && len(v.Missing(url)) == 0
		}
		whole = whole && len(v.Names(resourcev3.ClusterType)) > 0 && len(v.Names(resourcev3.ListenerType)) > 0
	})
	return whole
}

// messages is how many the client has been sent.
func (p *proxy) messages() int { return len(p.Log()) }

// until asks until the answer is nil. What it said last is the failure.
func until(ctx context.Context, t *testing.T, what string, ask func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			require.NoError(t, err, "waited in vain until %s", what)
		case <-tick.C:
		}
	}
}
