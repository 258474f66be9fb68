package snapshot

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

var update = flag.Bool("update", false, "write golden files anew")

func mustAddr(s string) netip.Addr { return netip.MustParseAddr(s) }

func ordersSpec() *tenancy.ServiceSpec {
	return &tenancy.ServiceSpec{
		Key:          tenancy.Key{Source: "files", Namespace: "acme-shop", Name: "orders"},
		Tenant:       "acme",
		TrustDomain:  "acme.example",
		TLSMinimum13: true,
		VIPs:         []netip.Addr{mustAddr("10.96.0.20"), mustAddr("fd96::20")},
		Accounts:     []string{"orders", "orders-canary"},
		Ports: []tenancy.PortSpec{
			{Name: "http", Port: 80, Protocol: tenancy.HTTP1, Endpoints: []tenancy.EndpointSpec{
				{Address: netip.MustParseAddrPort("10.0.0.2:8080"), Zone: "b"},
				{Address: netip.MustParseAddrPort("10.0.0.1:8080"), Zone: "a"},
				{Address: netip.MustParseAddrPort("[fd00::1]:8080"), Zone: "a", Draining: true},
			}},
			{Name: "db", Port: 3306, Protocol: tenancy.ServerFirst},
		},
		Origins: []tenancy.Ref{{Kind: tenancy.KindService, Key: tenancy.Key{Source: "files", Namespace: "acme-shop", Name: "orders"}}},
	}
}

// value decodes a resource.
func value[M proto.Message](t testing.TB, r *Resource) M {
	t.Helper()
	msg, err := decode(r)
	require.NoError(t, err)
	m, ok := msg.(M)
	require.True(t, ok, "%T", msg)
	return m
}

// golden compares messages, because protojson's text is not stable.
func golden(t *testing.T, r *Resource) {
	t.Helper()
	path := filepath.Join("testdata", "builders", strings.NewReplacer("/", "_", ":", "_").Replace(t.Name())+".json")
	got, err := decode(r)
	require.NoError(t, err)
	if *update {
		text, err := protojson.MarshalOptions{Multiline: true, UseProtoNames: true}.Marshal(got)
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, append(text, '\n'), 0o644))
	}
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	want := got.ProtoReflect().New().Interface()
	require.NoError(t, protojson.Unmarshal(text, want))
	require.Empty(t, cmp.Diff(want, got, protocmp.Transform()))
	require.NoError(t, Check(r))
}

func TestGolden(t *testing.T) {
	b, s := NewBuilder(BuilderConfig{}), ordersSpec()
	build := func(r *Resource, err error) *Resource {
		require.NoError(t, err)
		return r
	}
	host, err := b.VirtualHost(s, &s.Ports[0], tenancy.OwnNamespace, true)
	require.NoError(t, err)
	for name, r := range map[string]*Resource{
		"cluster-http":     build(b.Cluster(s, &s.Ports[0])),
		"cluster-tcp":      build(NewBuilder(BuilderConfig{ProxySVID: SDSSVID}).Cluster(s, &s.Ports[1])),
		"endpoints":        build(b.Endpoints(s, &s.Ports[0])),
		"routes":           build(b.RouteConfiguration(80, []*Part{host.Part}, tenancy.RegistryOnly)),
		"http-listener":    build(b.HTTPListener(80, Variant{})),
		"tcp-listener":     build(b.TCPListener(mustAddr("10.96.0.20"), 3306, "c", Variant{}, nil)),
		"virtual-outbound": build(b.VirtualOutbound(tenancy.AllowAny)),
		"rbac":             build(RBAC(tenancy.InboundPort{Port: 8080, Protocol: tenancy.HTTP1, Policy: shopPolicy(8080)}, nil)),
	} {
		t.Run(name, func(t *testing.T) { golden(t, r) })
	}
	for _, r := range inboundOf(t, b, workloadSpec(t), Variant{}, nil) {
		if r.Name() == "virtual-inbound" || r.Name() == inboundHTTP2 {
			t.Run(r.Name(), func(t *testing.T) { golden(t, r) })
		}
	}
}

// shopPolicy has something of everything that a policy can say.
func shopPolicy(port uint16) policy.Port {
	own := policy.NamespaceRef{TrustDomain: "acme.example", Namespace: "acme-shop"}
	web := policy.NamespaceRef{TrustDomain: "acme.example", Namespace: "acme-web"}
	guest := policy.NamespaceRef{TrustDomain: "globex.example", Namespace: "g-shop"}
	return policy.Port{
		Number: port, HTTP: true,
		Floor:         policy.Floor{Tenant: []policy.NamespaceRef{own, web}, Granted: []policy.NamespaceRef{guest}},
		AllowSelected: true,
		Rules: []policy.Rule{
			{Policy: "acme-shop/no-admin", Action: policy.Deny, From: policy.Principals{All: true}, Match: policy.Match{
				Paths: []policy.Path{{Type: policy.Prefix, Value: "/admin"}, {Type: policy.Exact, Value: "/debug"}},
			}},
			{Policy: "acme-shop/web", Action: policy.Allow, From: policy.Principals{IDs: []string{web.Prefix() + "web"}}},
			{Policy: "acme-shop/own", Action: policy.Allow, From: policy.Principals{Namespaces: []policy.NamespaceRef{own}}, Match: policy.Match{
				Methods: []string{"GET", "HEAD"},
				Hosts:   []string{"orders.acme-shop"},
				Headers: []policy.Header{{Name: "x-stage", Type: policy.Exact, Value: "test"}},
			}},
			{Policy: "acme-shop/granted", Action: policy.Allow, From: policy.Principals{Granted: true}, Match: policy.Match{
				Paths:   []policy.Path{{Type: policy.Exact, Value: "/api"}, {Type: policy.Prefix, Value: "/api/v1"}},
				Headers: []policy.Header{{Name: "x-key", Type: policy.Present}, {Name: "x-user", Type: policy.Prefix, Value: "g-"}},
			}},
		},
	}
}

func workloadSpec(t testing.TB) *tenancy.WorkloadSpec {
	tcp := shopPolicy(3306)
	tcp.HTTP = false
	return &tenancy.WorkloadSpec{
		Workload:         identity.Workload{TrustDomain: "acme.example", Namespace: "acme-shop", ServiceAccount: "orders"},
		Tenant:           "acme",
		TrustDomains:     []string{"acme.example", "globex.example"},
		TLSMinimum13:     true,
		MaxConnectionAge: 3600e9, MaxStreamAge: 1800e9,
		Ports: []tenancy.InboundPort{
			{Port: 3306, Protocol: tenancy.ServerFirst, Policy: tcp},
			{Port: 6379, Protocol: tenancy.ClientFirst, Policy: tcp},
			{Port: 8080, Protocol: tenancy.HTTP1, Policy: shopPolicy(8080)},
			{Port: 9090, Protocol: tenancy.HTTP2, Policy: shopPolicy(9090)},
		},
		Origins: []tenancy.Ref{{Kind: tenancy.KindService, Key: tenancy.Key{Namespace: "acme-shop", Name: "orders"}}},
	}
}

// fixedBundle is a certificate for goldens: any authority's would do.
func fixedBundle(t testing.TB) []byte {
	t.Helper()
	pem, err := os.ReadFile(filepath.Join("testdata", "builders", "authority.pem"))
	require.NoError(t, err)
	return pem
}

func inboundOf(t testing.TB, b *Builder, w *tenancy.WorkloadSpec, v Variant, ips []netip.Addr) []*Resource {
	t.Helper()
	bundles := map[string][]byte{"acme.example": fixedBundle(t), "globex.example": fixedBundle(t)}
	out, errs := b.Inbound(w, v, ips, bundles)
	require.Empty(t, errs)
	return out
}

func find(t testing.TB, rs []*Resource, typ Type, name string) *Resource {
	t.Helper()
	for _, r := range rs {
		if r.Type() == typ && r.Name() == name {
			return r
		}
	}
	require.Fail(t, "no such resource", "%s %q", typ, name)
	return nil
}

func TestClusterDoesNotDependOnEndpoints(t *testing.T) {
	b, s := NewBuilder(BuilderConfig{}), ordersSpec()
	before, err := b.Cluster(s, &s.Ports[0])
	require.NoError(t, err)
	s.Ports[0].Endpoints = nil
	after, err := b.Cluster(s, &s.Ports[0])
	require.NoError(t, err)
	require.Equal(t, before.Version(), after.Version())
	require.Equal(t, []Child{{Endpoint, before.Name()}, {Secret, "bundle/acme.example"}}, before.Children())
}

func TestClusterPinsNobodyWithoutAccounts(t *testing.T) {
	b, s := NewBuilder(BuilderConfig{}), ordersSpec()
	s.Accounts = nil
	r, err := b.Cluster(s, &s.Ports[1])
	require.NoError(t, err)
	c := value[*clusterv3.Cluster](t, r)
	text, err := protojson.Marshal(c)
	require.NoError(t, err)
	require.Contains(t, string(text), `"spiffe://acme.example/none"`)
	require.NoError(t, Check(r))
}

func TestNoOutboundListenerTakesTheInboundAddress(t *testing.T) {
	b := NewBuilder(BuilderConfig{})
	_, err := b.HTTPListener(15006, Variant{})
	require.ErrorContains(t, err, "HTTP services on port 15006")
	for port, v := range map[uint16]Variant{15001: {}, 15006: {Explicit: true, Bind: netip.MustParseAddr("127.0.0.1")}} {
		r, err := b.HTTPListener(port, v)
		require.NoError(t, err)
		require.NoError(t, Check(r))
	}
}

func TestEndpointsAreSortedByZoneAndDrain(t *testing.T) {
	b, s := NewBuilder(BuilderConfig{}), ordersSpec()
	r, err := b.Endpoints(s, &s.Ports[0])
	require.NoError(t, err)
	slices.Reverse(s.Ports[0].Endpoints)
	again, err := b.Endpoints(s, &s.Ports[0])
	require.NoError(t, err)
	require.Equal(t, r.Version(), again.Version())

	cla := value[*endpointv3.ClusterLoadAssignment](t, r)
	var got []string
	for _, zone := range cla.GetEndpoints() {
		for _, e := range zone.GetLbEndpoints() {
			got = append(got, zone.GetLocality().GetZone()+" "+e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress()+" "+e.GetHealthStatus().String())
		}
	}
	require.Equal(t, []string{"a 10.0.0.1 UNKNOWN", "a fd00::1 " + corev3.HealthStatus_DRAINING.String(), "b 10.0.0.2 UNKNOWN"}, got)

	empty, err := b.Endpoints(s, &s.Ports[1])
	require.NoError(t, err)
	require.Empty(t, value[*endpointv3.ClusterLoadAssignment](t, empty).GetEndpoints())
}

func TestHostNamesByGrade(t *testing.T) {
	b, s := NewBuilder(BuilderConfig{ClusterDomain: "mesh.test"}), ordersSpec()
	fqdn := "orders.acme-shop.svc.mesh.test"
	for grade, want := range map[tenancy.Grade][]string{
		tenancy.OwnNamespace: {"orders", "orders.acme-shop", "orders.acme-shop.svc", fqdn},
		tenancy.OwnTenant:    {"orders.acme-shop", "orders.acme-shop.svc", fqdn},
		tenancy.Granted:      {fqdn},
	} {
		h, err := b.VirtualHost(s, &s.Ports[0], grade, false)
		require.NoError(t, err)
		require.Equal(t, want, h.Domains)
		h, err = b.VirtualHost(s, &s.Ports[0], grade, true)
		require.NoError(t, err)
		require.Equal(t, append(want, "10.96.0.20", "[fd96::20]"), h.Domains)
	}
	_, err := b.VirtualHost(s, &s.Ports[1], tenancy.Granted, false)
	require.Error(t, err, "a TCP port has no virtual host")
}

func TestRouteConfigurationKeepsEveryNameOnce(t *testing.T) {
	b, s := NewBuilder(BuilderConfig{}), ordersSpec()
	first, err := b.VirtualHost(s, &s.Ports[0], tenancy.OwnNamespace, true)
	require.NoError(t, err)
	other := *s
	other.Key.Name = "ORDERS" // names are compared without case
	second, err := b.VirtualHost(&other, &s.Ports[0], tenancy.OwnNamespace, true)
	require.NoError(t, err)
	other.Key.Name = "pay"
	third, err := b.VirtualHost(&other, &s.Ports[0], tenancy.OwnTenant, true)
	require.NoError(t, err)

	for _, out := range []tenancy.OutboundPolicy{tenancy.RegistryOnly, tenancy.AllowAny} {
		r, err := b.RouteConfiguration(80, []*Part{first.Part, second.Part, third.Part}, out)
		require.NoError(t, err)
		require.NoError(t, Check(r))
		rc := value[*routev3.RouteConfiguration](t, r)
		require.Equal(t, "http-80", rc.GetName())
		require.True(t, rc.GetIgnorePortInHostMatching())
		require.Len(t, rc.GetVirtualHosts(), 3, "a host without names is left out")
		require.Equal(t, first.Domains, rc.GetVirtualHosts()[0].GetDomains())
		require.Equal(t, []string{"pay.acme-shop", "pay.acme-shop.svc", "pay.acme-shop.svc.cluster.local"}, rc.GetVirtualHosts()[1].GetDomains())
		last := rc.GetVirtualHosts()[2]
		require.Equal(t, []string{"*"}, last.GetDomains())
		require.Equal(t, out == tenancy.AllowAny, last.GetRoutes()[0].GetRoute().GetCluster() == "passthrough")
		require.Equal(t, out == tenancy.RegistryOnly, last.GetRoutes()[0].GetDirectResponse().GetStatus() == 502)
		require.Same(t, first.Part, r.Parts()[0], "an untouched part is the same part")
	}
}

func TestInboundIsCompleteAndItsParentsNameTheirChildren(t *testing.T) {
	b := NewBuilder(BuilderConfig{})
	ip := mustAddr("10.0.0.1")
	explicit := Variant{Explicit: true, Bind: mustAddr("127.0.0.1"), App: mustAddr("127.0.0.1")}
	for name, c := range map[string]struct {
		v    Variant
		ips  []netip.Addr
		want []string
	}{
		"transparent": {Variant{}, nil, []string{
			"cluster inbound-http1", "cluster inbound-http2", "cluster inbound-tcp",
			"extension rbac-http-8080", "extension rbac-http-9090", "extension rbac-tcp-3306", "extension rbac-tcp-6379",
			"listener virtual-inbound", "secret inbound", "secret inbound-3306",
		}},
		"explicit": {explicit, []netip.Addr{ip, mustAddr("fd00::1")}, []string{
			"cluster inbound-3306", "cluster inbound-6379", "cluster inbound-8080", "cluster inbound-9090",
			"extension rbac-http-8080", "extension rbac-http-9090", "extension rbac-tcp-3306", "extension rbac-tcp-6379",
			"listener inbound_3306", "listener inbound_6379", "listener inbound_8080", "listener inbound_9090",
			"secret inbound", "secret inbound-3306",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			out := inboundOf(t, b, workloadSpec(t), c.v, c.ips)
			var got []string
			for _, r := range out {
				require.NoError(t, Check(r))
				got = append(got, r.Type().String()+" "+r.Name())
				for _, child := range r.Children() {
					find(t, out, child.Type, child.Name)
				}
			}
			require.ElementsMatch(t, c.want, got)
		})
	}
}

func TestInboundFailsClosedByParts(t *testing.T) {
	b, w := NewBuilder(BuilderConfig{}), workloadSpec(t)
	w.Ports[2].Policy.Rules[0].Policy = "acme-shop/\xff" // no proto can carry it
	w.Ports = append(w.Ports, tenancy.InboundPort{Port: inboundPort, Protocol: tenancy.HTTP1})
	out, errs := b.Inbound(w, Variant{}, nil, map[string][]byte{"acme.example": fixedBundle(t), "globex.example": []byte("broken")})
	require.Len(t, errs, 3, "%v", errs)

	require.Equal(t, Absent(Extension, "rbac-http-8080").Version(), find(t, out, Extension, "rbac-http-8080").Version())
	require.NotEqual(t, Absent(Extension, "rbac-http-9090").Version(), find(t, out, Extension, "rbac-http-9090").Version())
	l := value[*listenerv3.Listener](t, find(t, out, Listener, "virtual-inbound"))
	require.Len(t, l.GetFilterChains(), 5, "a guard and four ports: a reserved port is not served")
	secret, err := protojson.Marshal(value[proto.Message](t, find(t, out, Secret, "inbound")))
	require.NoError(t, err)
	require.NotContains(t, string(secret), "globex.example", "a domain with a broken bundle is not admitted")
}

func TestNobodyAllowedIsADenyWithoutMaps(t *testing.T) {
	p := tenancy.InboundPort{Port: 3306, Protocol: tenancy.ServerFirst}
	r, err := RBAC(p, nil)
	require.NoError(t, err)
	require.Equal(t, Absent(Extension, "rbac-tcp-3306").Version(), r.Version())
	secret, err := inboundSecret(p, "acme.example", map[string][]byte{"acme.example": fixedBundle(t)}, nil)
	require.NoError(t, err)
	text, err := protojson.Marshal(value[proto.Message](t, secret))
	require.NoError(t, err)
	require.Contains(t, string(text), "spiffe://acme.example/none")
}

func TestServerFirstTrustsOnlyTheDomainsOfThoseAllowed(t *testing.T) {
	w := workloadSpec(t)
	w.Ports[0].Policy.Rules = []policy.Rule{{Policy: "a/b", Action: policy.Allow, From: policy.Principals{
		Namespaces: []policy.NamespaceRef{{TrustDomain: "acme.example", Namespace: "acme-web"}},
	}}}
	out := inboundOf(t, NewBuilder(BuilderConfig{}), w, Variant{}, nil)
	text, err := protojson.Marshal(value[proto.Message](t, find(t, out, Secret, "inbound-3306")))
	require.NoError(t, err)
	require.Contains(t, string(text), `"spiffe://acme.example/ns/acme-web/sa/"`)
	require.NotContains(t, string(text), "globex")
}

func TestAbsent(t *testing.T) {
	for _, typ := range []Type{Endpoint, Route} {
		r := Absent(typ, "x")
		require.NoError(t, Check(r))
		require.Equal(t, "x", r.Name())
	}
	require.NoError(t, Check(Absent(Extension, "rbac-http-1")))
	require.NotEqual(t, Absent(Extension, "rbac-http-1").Version(), Absent(Extension, "rbac-tcp-1").Version())
	for _, typ := range []Type{Cluster, Listener, Secret} {
		require.Nil(t, Absent(typ, "x"))
	}
	require.Nil(t, Absent(Extension, "other"))
	require.Nil(t, Absent(Endpoint, ""))
	require.Nil(t, Absent(Route, "\xff"))
}
