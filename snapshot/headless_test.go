package snapshot

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy"
)

// stateful are the events of a headless service of tenant 0, whose Pods have the last
// number of their address given, and 0 is not there.
func stateful(name string, addresses ...byte) []tenancy.Event {
	slice := &tenancy.EndpointSlice{Service: name, Ports: []tenancy.SlicePort{{Name: "http", Port: 8080}}}
	events := []tenancy.Event{put(tenancy.KindService, nsName(0), name, &tenancy.Service{
		Ports: []tenancy.ServicePort{{Name: "http", Port: 80, Protocol: tenancy.HTTP1}},
	})}
	for i, n := range addresses {
		host := fmt.Sprintf("%s-%d", name, i)
		if n == 0 {
			events = append(events, gone(tenancy.KindPod, nsName(0), host))
			continue
		}
		at := []netip.Addr{netip.AddrFrom4([4]byte{10, 200, 0, n})}
		events = append(events, put(tenancy.KindPod, nsName(0), host, &tenancy.Pod{ServiceAccount: name, IPs: at}))
		slice.Endpoints = append(slice.Endpoints, tenancy.Endpoint{Addresses: at, Ready: true, Serving: true, PodName: host, Hostname: host})
	}
	return append(events, put(tenancy.KindEndpointSlice, nsName(0), name, slice))
}

// TestRestartOfAHeadlessServiceChangesItsEndpointsAlone: names stay, so that
// routes do; one that comes or goes is made and taken alone.
func TestRestartOfAHeadlessServiceChangesItsEndpointsAlone(t *testing.T) {
	r := start(t, append(mesh{tenants: 2, services: 3}.events(), stateful("db", 1, 2, 3)...))
	a := r.connect(0, 0)
	other := r.connect(1, 0)
	cost := func(addresses ...byte) (endpoint, route, cluster uint64) {
		c := r.count([]*Attachment{a}, stateful("db", addresses...)...)
		return c.builds[Endpoint], c.builds[Route], c.builds[Cluster]
	}
	for i, c := range []struct {
		addresses                []byte
		endpoint, route, cluster uint64
	}{
		{[]byte{4, 2, 3}, 1, 0, 0},
		{[]byte{2, 4, 3}, 1, 0, 0}, // they change places
		{[]byte{2, 4}, 1, 1, 0},    // the RouteConfiguration from what there is
		{[]byte{2, 4, 5}, 1, 2, 0}, // that and one virtual host
		{[]byte{2, 4, 5}, 0, 0, 0},
	} {
		endpoint, route, cluster := cost(c.addresses...)
		require.Equal(t, []uint64{c.endpoint, c.route, c.cluster}, []uint64{endpoint, route, cluster}, "step %d", i)
	}
	require.False(t, drain(other))
}

// TestNamesOfEndpoints: they are below the service's, and where two things have
// one name, the own namespace's endpoint has it, as in DNS, and any service
// before an endpoint elsewhere.
func TestNamesOfEndpoints(t *testing.T) {
	b, s := NewBuilder(BuilderConfig{ClusterDomain: "mesh.test"}), ordersSpec()
	for grade, want := range map[tenancy.Grade][]string{
		tenancy.OwnNamespace: {"a.orders", "a.orders.acme-shop", "a.orders.acme-shop.svc", "a.orders.acme-shop.svc.mesh.test"},
		tenancy.OwnTenant:    {"a.orders.acme-shop", "a.orders.acme-shop.svc", "a.orders.acme-shop.svc.mesh.test"},
		tenancy.Granted:      {"a.orders.acme-shop.svc.mesh.test"},
	} {
		h, err := b.EndpointHost(s, &s.Ports[0], grade, "a")
		require.NoError(t, err)
		require.Equal(t, want, h.Domains)
		require.Less(t, len(h.frame), endpointHostBytes)
	}
	_, err := b.EndpointHost(s, &s.Ports[1], tenancy.OwnNamespace, "a")
	require.Error(t, err, "a TCP port has no virtual host")
	_, err = b.EndpointHost(s, &s.Ports[0], tenancy.OwnNamespace, "*")
	require.Error(t, err)

	// db-0.ns9 is an endpoint of ns0 and a service of ns9; a.s0.svc is a service of
	// namespace s0 and an endpoint of namespace svc.
	events := append(mesh{tenants: 1, services: 1}.events(), stateful("ns9", 1)...)
	events = append(events, put(tenancy.KindNamespace, "", "ns9", &tenancy.Namespace{Tenant: tenantName(0)}),
		put(tenancy.KindNamespace, "", "s0", &tenancy.Namespace{Tenant: tenantName(0)}), put(tenancy.KindNamespace, "", "svc", &tenancy.Namespace{Tenant: tenantName(0)}))
	for _, ev := range stateful("s0", 9) {
		ev.Ref.Key.Namespace = "svc"
		events = append(events, ev)
	}
	for ns, name := range map[string]string{"ns9": "ns9-0", "s0": "s0-0"} {
		events = append(events, put(tenancy.KindService, ns, name, &tenancy.Service{Ports: []tenancy.ServicePort{{Name: "http", Port: 80, Protocol: tenancy.HTTP1}}}))
	}
	r := start(t, events)
	owner := map[string]string{}
	r.connect(0, 0).Read(func(b *Binding) {
		for _, l := range b.Layers() {
			l.All(Route, func(res *Resource) {
				for _, host := range value[*routev3.RouteConfiguration](t, res).GetVirtualHosts() {
					for _, d := range host.GetDomains() {
						owner[d] = host.GetName()
					}
				}
			})
		}
	})
	require.Equal(t, "ns9-0.ns9.ns0.svc.cluster.local:80", owner["ns9-0.ns9"])
	require.Equal(t, "ns9-0.ns9.svc.cluster.local:80", owner["ns9-0.ns9.svc"])
	require.Equal(t, "s0-0.s0.svc.cluster.local:80", owner["s0-0.s0.svc"])
	require.Equal(t, "s0-0.s0.svc.svc.cluster.local:80", owner["s0-0.s0.svc.svc.cluster.local"])
}

// TestTCPEndpointsOfAHeadlessService: each has a listener at its own address, for
// transparent capture; one that comes or goes is made and taken alone.
func TestTCPEndpointsOfAHeadlessService(t *testing.T) {
	tcp := func(addresses ...byte) []tenancy.Event {
		events := stateful("db", addresses...)
		events[0] = put(tenancy.KindService, nsName(0), "db", &tenancy.Service{Ports: []tenancy.ServicePort{{Name: "http", Port: 3306}}})
		return events
	}
	r := start(t, append(mesh{tenants: 2, services: 3}.events(), tcp(1, 2, 3)...))
	a, other := r.connect(0, 0), r.connect(1, 0)
	step := func(listeners uint64, addresses ...byte) {
		t.Helper()
		c := r.count([]*Attachment{other}, tcp(addresses...)...)
		require.Equal(t, listeners, c.builds[Listener])
		require.Zero(t, c.builds[Cluster])
		require.Zero(t, c.woken)
		var want, got []string
		for _, n := range addresses {
			want = append(want, fmt.Sprintf("10.200.0.%d_8080", n))
		}
		for child := range contents(a) {
			if child.Type == Listener && strings.HasPrefix(child.Name, "10.200.") {
				got = append(got, child.Name)
			}
		}
		require.ElementsMatch(t, want, got)
	}
	step(0, 1, 2, 3)
	step(1, 1, 2, 4)
	step(0, 1, 2)
	step(1, 1, 2, 9)
	step(0, 2, 1, 9)

	// The CLA says who is meant.
	a.Read(func(b *Binding) {
		cla := value[*endpointv3.ClusterLoadAssignment](t, b.View.Get(Endpoint, "db.ns0.svc.cluster.local:3306"))
		for _, zone := range cla.GetEndpoints() {
			for _, e := range zone.GetLbEndpoints() {
				at := e.GetEndpoint().GetAddress().GetSocketAddress()
				require.Equal(t, fmt.Sprintf("%s:%d", at.GetAddress(), at.GetPortValue()),
					e.GetMetadata().GetFilterMetadata()[lbMetadata].GetFields()[endpointName].GetStringValue())
			}
		}
	})
}
