package updates

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/xds/bootstrap/envoytest"
)

// served is the real program with three Pods of one namespace: orders-0, which
// is called, and two that call, one in each flavour of the protocol.
type served struct {
	t       *testing.T
	ctx     context.Context
	root    string
	ca      *mesh.CA
	server  *mesh.Server
	pods    []*pod
	clients []*client
	load    *load
}

// client is a Pod that calls.
type client struct {
	*pod
	http *http.Client
}

func (s *served) write(rel, text string) {
	s.t.Helper()
	path := filepath.Join(s.root, "objects", rel)
	require.NoError(s.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(s.t, os.WriteFile(path+".new", []byte(text), 0o644))
	require.NoError(s.t, os.Rename(path+".new", path))
}

func (s *served) remove(rel string) {
	s.t.Helper()
	require.NoError(s.t, os.Remove(filepath.Join(s.root, "objects", rel)))
}

func tenantYAML(tls string) string {
	return fmt.Sprintf(`
apiVersion: bailiwick.dev/v1alpha1
kind: Tenant
metadata: {name: acme}
spec: {trustDomain: acme.example, namespaces: [acme-shop], tls: {minimumVersion: %q}}
`, tls)
}

const namespaceYAML = `
apiVersion: v1
kind: Namespace
metadata: {name: acme-shop, labels: {bailiwick.dev/tenant: acme}}
---
apiVersion: bailiwick.dev/v1alpha1
kind: AccessPolicy
metadata: {name: everybody, namespace: acme-shop}
spec:
  selector: {}
  action: Allow
  rules:
  - from: [{namespace: acme-shop}]
`

func podYAML(name, account string, ip netip.Addr) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: acme-shop}
spec: {serviceAccountName: %s, containers: [{name: c}]}
status: {phase: Running, podIP: %s}
---`, name, account, ip)
}

// serviceYAML is a service on the ports given, all of which lead to port 8080 of
// the Pods. Pods whose names begin with "!" are not ready.
func serviceYAML(name string, ports []int, pods map[string]netip.Addr) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\napiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: acme-shop}\nspec:\n  clusterIP: None\n  ports:\n", name)
	for _, p := range ports {
		fmt.Fprintf(&b, "  - {name: http-%d, port: %d, targetPort: 8080}\n", p, p)
	}
	fmt.Fprintf(&b, "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: %s-slice, namespace: acme-shop, labels: {kubernetes.io/service-name: %s}}\naddressType: IPv4\nports:\n", name, name)
	for _, p := range ports {
		fmt.Fprintf(&b, "- {name: http-%d, port: 8080}\n", p)
	}
	fmt.Fprintln(&b, "endpoints:")
	for pod, ip := range pods {
		fmt.Fprintf(&b, "- {addresses: [%s], conditions: {ready: %t}, targetRef: {kind: Pod, namespace: acme-shop, name: %s}}\n",
			ip, !strings.HasPrefix(pod, "!"), strings.TrimPrefix(pod, "!"))
	}
	return b.String() + "---"
}

func serve(t *testing.T) *served {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	s := &served{t: t, ctx: ctx, root: t.TempDir()}
	var err error
	s.ca, err = mesh.NewCA(filepath.Join(s.root, "ca"), serverDomain, "acme.example")
	require.NoError(t, err)
	var pods, services strings.Builder
	for i, name := range []string{"orders", "web", "desk"} {
		p := newPod(t, identity.Workload{TrustDomain: "acme.example", Namespace: "acme-shop", ServiceAccount: name}, name+"-0", podAddress(2, byte(i+1)))
		s.pods = append(s.pods, p)
		pods.WriteString(podYAML(p.name, name, p.at.Pod))
		services.WriteString(serviceYAML(name, []int{8080}, map[string]netip.Addr{p.name: p.at.Pod}))
	}
	s.write("platform/tenant.yaml", tenantYAML("1.3"))
	s.write("platform/namespace.yaml", namespaceYAML[:strings.Index(namespaceYAML, "---")])
	s.write("tenants/acme/policy.yaml", namespaceYAML[strings.Index(namespaceYAML, "---"):])
	s.write("tenants/acme/pods.yaml", pods.String())
	s.write("tenants/acme/services.yaml", services.String())
	s.server, err = mesh.StartServer(ctx, mesh.ServerConfig{
		Binary: built.binary, Dir: filepath.Join(s.root, "server"), ConfigDir: filepath.Join(s.root, "objects"), CA: s.ca,
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		s.server.Stop()
		if t.Failed() {
			t.Logf("the server's log:\n%s", s.server.LogTail(60))
		}
	})
	require.NoError(t, s.server.WaitReady(ctx))
	for i, p := range s.pods {
		app, err := mesh.StartEcho(ctx, p.name, netip.AddrPortFrom(p.at.App, 8080))
		require.NoError(t, err)
		t.Cleanup(app.Stop)
		runEnvoy(ctx, t, p, mesh.EnvoyConfig{
			Binary: envoytest.Binary(t), Dir: filepath.Join(s.root, p.name), CA: s.ca,
			XDS: []netip.AddrPort{s.server.XDS}, ServerID: s.server.ID, SotW: i == 2,
		})
		if i > 0 {
			c := &client{pod: p, http: mesh.Through(p.at.Bind)}
			t.Cleanup(c.http.CloseIdleConnections)
			s.clients = append(s.clients, c)
		}
	}
	s.load = newLoad(ctx, t)
	for _, c := range s.clients {
		s.visible(c, "http://orders:8080/")
		s.load.add(c.http, c.name+" to orders", "http://orders:8080/")
	}
	return s
}

// visible waits until a client knows a service; from then on all must be well.
func (s *served) visible(c *client, url string) {
	s.t.Helper()
	until(s.ctx, s.t, url+" is visible to "+c.name, func() error {
		got := result(s.ctx, c.http, url)
		if strings.HasPrefix(got, "502") || strings.Contains(got, "connection refused") {
			return errors.New(got)
		}
		if got != "200" && s.ctx.Err() == nil {
			s.load.note("the first request from "+c.name+" to "+url, got)
		}
		return nil
	})
}

// eachHolds waits until all clients hold what ok demands.
func (s *served) eachHolds(what string, ok func(contents) error) {
	s.t.Helper()
	for _, c := range s.clients {
		until(s.ctx, s.t, what+" at "+c.name, func() error {
			got, err := contentsOf(s.ctx, c.pod)
			if err != nil {
				return err
			}
			return ok(got)
		})
	}
}

// clusterTLS is the TLS context of a service's cluster.
func clusterTLS(c contents, service string) (*tlsv3.UpstreamTlsContext, error) {
	m, ok := c[child(snapshot.Cluster, clusterOf(service))].(*clusterv3.Cluster)
	if !ok {
		return nil, errors.New("there is no such cluster")
	}
	var tls tlsv3.UpstreamTlsContext
	return &tls, m.GetTransportSocket().GetTypedConfig().UnmarshalTo(&tls)
}

// neverWaited requires that no Envoy has waited for something in vain, and that
// it would have counted that.
func (s *served) neverWaited() {
	s.t.Helper()
	for _, p := range s.pods {
		stats, err := p.envoy.Stats(s.ctx)
		require.NoError(s.t, err)
		counted := 0
		for name, n := range stats {
			if strings.HasSuffix(name, ".init_fetch_timeout") {
				counted++
				require.Zero(s.t, n, "%s waited: %s", p.name, name)
			}
		}
		require.NotZero(s.t, counted, "%s counts no init_fetch_timeout", p.name)
		require.NotZero(s.t, stats["cluster_manager.cluster_modified"], "no cluster of %s was changed", p.name)
	}
}

func TestServed(t *testing.T) {
	s := serve(t)
	s.clusterChanges()
	s.comingAndGoing()
	s.neverWaited()
}

// clusterChanges changes clusters and not their endpoints: the accounts that are
// pinned, and the lowest version of TLS.
func (s *served) clusterChanges() {
	s.t.Helper()
	const rounds = 10
	orders := s.pods[0]
	for i := range rounds {
		account := fmt.Sprintf("round-%d", i)
		s.write("tenants/acme/extra.yaml", podYAML("orders-extra", account, podAddress(2, 9)))
		s.write("tenants/acme/services.yaml", serviceYAML("web", []int{8080}, map[string]netip.Addr{"web-0": s.pods[1].at.Pod})+
			serviceYAML("desk", []int{8080}, map[string]netip.Addr{"desk-0": s.pods[2].at.Pod})+
			serviceYAML("orders", []int{8080}, map[string]netip.Addr{"orders-0": orders.at.Pod, "!orders-extra": podAddress(2, 9)}))
		s.eachHolds("the pins of round "+account, func(c contents) error {
			tls, err := clusterTLS(c, "orders")
			if err != nil {
				return err
			}
			pins := tls.GetCommonTlsContext().GetCombinedValidationContext().GetDefaultValidationContext().GetMatchTypedSubjectAltNames()
			for _, p := range pins {
				if strings.HasSuffix(p.GetMatcher().GetExact(), "/sa/"+account) {
					return nil
				}
			}
			return fmt.Errorf("pinned are %v", pins)
		})
		version, want := "1.2", tlsv3.TlsParameters_TLSv1_2
		if i%2 == 1 {
			version, want = "1.3", tlsv3.TlsParameters_TLSv1_3
		}
		s.write("platform/tenant.yaml", tenantYAML(version))
		s.eachHolds("TLS "+version, func(c contents) error {
			tls, err := clusterTLS(c, "orders")
			if err != nil {
				return err
			}
			if got := tls.GetCommonTlsContext().GetTlsParams().GetTlsMinimumProtocolVersion(); got != want {
				return fmt.Errorf("it is %s", got)
			}
			return nil
		})
		s.load.more(20)
	}
	s.neverWaited()
}

// comingAndGoing adds a service in each round, changes the one of the round
// before (a second port, another endpoint with another account), takes the first
// port from the one before that and removes the one before that one. All of them
// are called as long as they are there.
func (s *served) comingAndGoing() {
	s.t.Helper()
	const rounds = 30
	name := func(i int) string { return fmt.Sprintf("extra-%d", i) }
	file := func(i int) string { return "tenants/acme/" + name(i) + ".yaml" }
	one := map[string]netip.Addr{"orders-0": s.pods[0].at.Pod}
	two := map[string]netip.Addr{"orders-0": s.pods[0].at.Pod, "desk-0": s.pods[2].at.Pod}
	is := func(i int) bool { return i >= 0 && i < rounds }
	key := func(c *client, i, port int) string { return fmt.Sprintf("%s to %s:%d", c.name, name(i), port) }
	url := func(i, port int) string { return fmt.Sprintf("http://%s:%d/", name(i), port) }
	each := func(i, port int, do func(c *client, key, url string)) {
		for _, c := range s.clients {
			do(c, key(c, i, port), url(i, port))
		}
	}
	start := func(c *client, key, url string) { s.visible(c, url); s.load.add(c.http, key, url) }
	stop := func(_ *client, key, _ string) { s.load.remove(key) }
	for i := range rounds + 3 {
		if is(i - 2) {
			each(i-2, 8080, stop)
			s.write(file(i-2), serviceYAML(name(i-2), []int{8090}, one))
		}
		if is(i - 3) {
			each(i-3, 8090, stop)
			s.remove(file(i - 3))
		}
		if is(i) {
			s.write(file(i), serviceYAML(name(i), []int{8080}, one))
			each(i, 8080, start)
		}
		if is(i - 1) {
			s.write(file(i-1), serviceYAML(name(i-1), []int{8080, 8090}, two))
			each(i-1, 8090, start)
		}
		s.eachHolds(fmt.Sprintf("what round %d says", i), func(c contents) error {
			want := map[string]int{}
			expect := func(i, port, n int) {
				if is(i) {
					want[clusterAt(name(i), port)] = n
				}
			}
			expect(i, 8080, 1)
			expect(i-1, 8080, 2)
			expect(i-1, 8090, 2)
			expect(i-2, 8090, 1)
			return endpoints(c, "extra-", want)
		})
		s.load.clean()
	}
	s.load.more(100)
}

// clusterAt is the name of the cluster of a service port.
func clusterAt(service string, port int) string {
	return fmt.Sprintf("%s.acme-shop.svc.cluster.local:%d", service, port)
}

// endpoints says how the clusters of that prefix and the numbers of their
// endpoints are not as wanted.
func endpoints(c contents, prefix string, want map[string]int) error {
	got := map[string]int{}
	for k := range c {
		if k.Type != snapshot.Cluster || !strings.HasPrefix(k.Name, prefix) {
			continue
		}
		m, _ := c[child(snapshot.Endpoint, k.Name)].(*endpointv3.ClusterLoadAssignment)
		got[k.Name] = 0
		for _, l := range m.GetEndpoints() {
			got[k.Name] += len(l.GetLbEndpoints())
		}
	}
	if !maps.Equal(got, want) {
		return fmt.Errorf("there are %v, want %v", got, want)
	}
	return nil
}
