package snapshot

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/tenancy"
)

// spread is the slice of a service with its first Pod in zone a and the second one
// in zone b, each on a node of its own, with hints or without.
func spread(tenant, service int, hinted bool, change ...func(*tenancy.EndpointSlice)) tenancy.Event {
	ev := slice(tenant, service, true)
	es := ev.Object.(*tenancy.EndpointSlice)
	for i, zone := range []string{"a", "b"} {
		es.Endpoints[i].Zone, es.Endpoints[i].Node = zone, "node-"+zone
		if hinted {
			es.Endpoints[i].Hints = &tenancy.Hints{Zones: []string{zone}}
		}
	}
	for _, c := range change {
		c(es)
	}
	return ev
}

func notReady(i int) func(*tenancy.EndpointSlice) {
	return func(es *tenancy.EndpointSlice) { es.Endpoints[i].Ready, es.Endpoints[i].Serving = false, false }
}

func draining(i int) func(*tenancy.EndpointSlice) {
	return func(es *tenancy.EndpointSlice) {
		es.Endpoints[i].Ready, es.Endpoints[i].Serving, es.Endpoints[i].Terminating = false, true, true
	}
}

// zonedMesh is a mesh in which every slice says where its endpoints are.
func (m mesh) zoned() []tenancy.Event {
	events := m.events()
	for t := range m.tenants {
		for s := range m.services {
			events = append(events, spread(t, s, false))
		}
	}
	return events
}

// connectAs attaches the proxy of one of the Pods of a service: the first is in
// zone a, the second one ("-b") in zone b.
func (r *running) connectAs(tenant, service int, pod string) *Attachment {
	r.t.Helper()
	a := r.Attach(Proxy{Workload: workloadOf(tenant, service), Pod: pod})
	<-a.Wake()
	return a
}

// uses are the endpoints that an attachment is given for a service, as the tenant
// and last number of their addresses.
func uses(t testing.TB, a *Attachment, tenant, service int) string {
	var out []string
	a.Read(func(b *Binding) {
		r := b.Get(Endpoint, fmt.Sprintf("%s.%s.svc.cluster.local:80", serviceName(service), nsName(tenant)))
		if r == nil {
			out = append(out, "none")
			return
		}
		for _, l := range value[*endpointv3.ClusterLoadAssignment](t, r).GetEndpoints() {
			for _, e := range l.GetLbEndpoints() {
				at := netip.MustParseAddr(e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress()).As4()
				text := map[bool]string{true: "first", false: "second"}[at[3] < 100]
				if e.GetHealthStatus() == corev3.HealthStatus_DRAINING {
					text += "-"
				}
				out = append(out, text)
			}
		}
	})
	slices.Sort(out)
	return strings.Join(out, " ")
}

// TestProxiesUseWhatIsNear goes through the life of a hinted service, with a proxy
// in each zone and one that is nowhere.
func TestProxiesUseWhatIsNear(t *testing.T) {
	m := mesh{tenants: 2, services: 2}
	r := start(t, m.zoned())
	a, b := r.connectAs(0, 0, "s0"), r.connectAs(0, 0, "s0-b")
	r.Apply([]tenancy.Event{put(tenancy.KindPod, nsName(0), "nowhere", &tenancy.Pod{ServiceAccount: "s0", IPs: []netip.Addr{podIP(0, 77)}})})
	nowhere := r.connectAs(0, 0, "nowhere")
	is := func(why, inA, inB, elsewhere string) {
		t.Helper()
		r.settle()
		require.Equal(t, []string{inA, inB, elsewhere}, []string{uses(t, a, 0, 1), uses(t, b, 0, 1), uses(t, nowhere, 0, 1)}, why)
	}
	says := func(ev tenancy.Event) { r.Apply([]tenancy.Event{ev}) }
	near := func(a *Attachment) bool { r.settle(); return a.Binding().Near != nil }

	is("no hints", "first second", "first second", "first second")
	require.False(t, near(a), "who sees no hints has nothing that depends on places")
	says(spread(0, 1, true))
	is("hints", "first", "second", "first second")
	require.True(t, near(a))
	require.False(t, near(nowhere))
	says(spread(0, 1, true, notReady(0)))
	is("zone a is down", "second", "second", "second")
	says(spread(0, 1, true, draining(0)))
	is("zone a drains", "first- second", "second", "first- second")
	says(spread(0, 1, true))
	is("zone a is back", "first", "second", "first second")

	// A Pod that moves takes its proxy along, one that is in no slice is nowhere.
	says(spread(0, 0, false, func(es *tenancy.EndpointSlice) { es.Endpoints[0].Zone = "b" }))
	is("it is in the other zone", "second", "second", "first second")
	says(spread(0, 0, false, func(es *tenancy.EndpointSlice) { es.Endpoints = es.Endpoints[1:] }))
	is("it is in no slice", "first second", "second", "first second")
	says(spread(0, 0, false))
	is("it is where it was", "first", "second", "first second")

	// What comes and goes as a whole.
	says(service(0, 1, 81))
	is("the port is another", "none", "none", "none")
	says(service(0, 1, 80))
	is("and the same again", "first", "second", "first second")
	says(gone(tenancy.KindEndpointSlice, nsName(0), serviceName(1)))
	is("no endpoints", "", "", "")
	require.False(t, near(a), "nothing depends on places any more")
	says(spread(0, 1, true))
	is("they are back", "first", "second", "first second")
	says(spread(0, 1, false))
	is("no hints", "first second", "first second", "first second")
	require.False(t, near(a))

	// The Service's wish alone, for the zone and for the node.
	wish := func(traffic tenancy.Traffic) tenancy.Event {
		ev := service(0, 1, 80)
		ev.Object.(*tenancy.Service).Traffic = traffic
		return ev
	}
	says(wish(tenancy.SameZone))
	is("a wish", "first", "second", "first second")
	says(wish(tenancy.SameNode))
	is("another one", "first", "second", "first second")
	says(spread(0, 1, false, func(es *tenancy.EndpointSlice) { es.Endpoints[0].Node, es.Endpoints[1].Node = "node-b", "node-a" }))
	is("nodes are before zones", "second", "first", "first second")
	says(wish(tenancy.AnyEndpoint))
	is("none", "first second", "first second", "first second")
}

// TestNodesAreNotForOtherTenants: a granted service is sorted by zones; on which
// node its endpoints are is not among what a grant reveals.
func TestNodesAreNotForOtherTenants(t *testing.T) {
	wish := service(0, 1, 80)
	wish.Object.(*tenancy.Service).Traffic = tenancy.SameNode
	own := service(1, 1, 80) // so that the other tenant's nodes matter to its own view
	own.Object.(*tenancy.Service).Traffic = tenancy.SameNode
	r := start(t, append(mesh{tenants: 2, services: 2}.zoned(), wish, own,
		// Both are in one zone, on the nodes of the clients.
		spread(0, 1, false, func(es *tenancy.EndpointSlice) { es.Endpoints[0].Zone, es.Endpoints[1].Zone = "a", "a" }),
		put(tenancy.KindServiceGrant, nsName(0), "offer", &tenancy.ServiceGrant{
			From: []tenancy.GrantFrom{{Tenant: tenantName(1), All: true}}, To: []tenancy.GrantTo{{Service: serviceName(1), Ports: tenancy.PortSet{All: true}}},
		}),
		put(tenancy.KindServiceRequest, nsName(1), "take", &tenancy.ServiceRequest{Namespace: nsName(0), Service: serviceName(1), Ports: tenancy.PortSet{All: true}})))
	require.Equal(t, "first", uses(t, r.connectAs(0, 0, "s0"), 0, 1))
	require.Equal(t, "first second", uses(t, r.connectAs(1, 0, "s0"), 0, 1))
	r.Apply([]tenancy.Event{spread(0, 1, false)})
	r.settle()
	require.Equal(t, "second", uses(t, r.connectAs(1, 0, "s0-b"), 0, 1), "zones are")
}

// TestCostOfPlaces: what places do not matter to costs what it costs without them;
// what they do matter to is encoded once more for each that changed, whoever sees
// it and however large the mesh is.
func TestCostOfPlaces(t *testing.T) {
	costs := func(m mesh) map[string]counts {
		r := start(t, m.zoned())
		var watch []*Attachment
		for i := range m.tenants {
			watch = append(watch, r.connectAs(i, 0, "s0"), r.connectAs(i, 0, "s0-b"))
		}
		got := map[string]counts{"unhinted": r.count(watch, spread(0, 1, false, notReady(1)))}
		for _, a := range watch {
			require.Nil(t, a.Binding().Near)
		}
		got["hints come"] = r.count(watch, spread(0, 2, true))
		got["zone b"] = r.count(watch, spread(0, 2, true, draining(1)))
		got["unhinted beside hinted"] = r.count(watch, spread(0, 1, false))
		got["a neighbour's"] = r.count(watch[2:], spread(0, 2, true))
		got["equal"] = r.count(watch, spread(0, 2, true))
		grant := put(tenancy.KindClusterServiceGrant, "", "all", &tenancy.ClusterServiceGrant{
			AllTenants: true, To: []tenancy.ClusterGrantTo{{Namespace: nsName(0), Service: serviceName(2), Ports: tenancy.PortSet{All: true}}},
		})
		r.Apply([]tenancy.Event{grant})
		c := r.count(watch, spread(0, 2, true, notReady(1)))
		require.Equal(t, len(watch), c.woken)
		c.woken, c.publications = 0, 0
		got["seen by all"] = c
		for _, a := range watch {
			a.Close()
		}
		return got
	}
	small, large := costs(mesh{tenants: 3, services: 4}), costs(mesh{tenants: 40, services: 4})
	require.Equal(t, small, large)
	builds := func(n uint64) (b [NumTypes]uint64) { b[Endpoint] = n; return b }
	require.Equal(t, counts{builds: builds(1), publications: 1, woken: 2}, small["unhinted"])
	require.Equal(t, builds(2), small["hints come"].builds, "each zone's; that of all is as it was")
	require.Equal(t, builds(1), small["zone b"].builds, "a zone that is left without ready ones uses those of all")
	require.Equal(t, counts{builds: builds(1), publications: 1, woken: 2}, small["unhinted beside hinted"])
	require.Zero(t, small["a neighbour's"].woken)
	require.Equal(t, counts{}, small["equal"])
	require.Equal(t, builds(1), small["seen by all"].builds)
}

// TestPlacesShareAssignments: streams at one place read one resource, whatever
// their view.
func TestPlacesShareAssignments(t *testing.T) {
	r := start(t, append(mesh{tenants: 3, services: 2}.zoned(), spread(0, 1, true), put(tenancy.KindClusterServiceGrant, "", "all", &tenancy.ClusterServiceGrant{
		AllTenants: true, To: []tenancy.ClusterGrantTo{{Namespace: nsName(0), Service: serviceName(1), Ports: tenancy.PortSet{All: true}}},
	})))
	of := func(a *Attachment) (r *Resource) {
		a.Read(func(b *Binding) { r = b.Get(Endpoint, "s1.ns0.svc.cluster.local:80") })
		return r
	}
	a := of(r.connectAs(0, 0, "s0"))
	require.Same(t, a, of(r.connectAs(0, 0, "s0")))
	require.Same(t, a, of(r.connectAs(1, 0, "s0")))
	require.NotEqual(t, a.Version(), of(r.connectAs(2, 0, "s0-b")).Version())

	d := r.settle()
	require.Len(t, d.Views[0].Near, 1)
	require.Equal(t, "a", d.Views[0].Near[0].Zone)
	given, err := r.DumpPod(t.Context(), nsName(2), "s0-b", Wanted{})
	require.NoError(t, err)
	require.Equal(t, "b", given[0].Zone)
	require.Equal(t, "node-b", given[0].Node)
	versions := []string{}
	for _, res := range given[0].Resources {
		if res.Name == "s1.ns0.svc.cluster.local:80" && res.Type == "endpoint" {
			versions = append(versions, res.Version)
		}
	}
	require.Len(t, versions, 1, "a dump says what is in force")
}

// TestPlacesFollowTheModel: whatever the slices say, in whatever order, each proxy
// reads what a Model that was told the same says of its place, and nobody's bytes
// depend on where the proxies of another tenant are.
func TestPlacesFollowTheModel(t *testing.T) {
	const tenants, services = 2, 3
	m := mesh{tenants: tenants, services: services}
	r := start(t, m.zoned())
	type client struct {
		*Attachment
		tenant int
		pod    string
	}
	var clients []client
	for i := range tenants {
		for _, pod := range []string{"s0", "s0-b"} {
			clients = append(clients, client{r.connectAs(i, 0, pod), i, pod})
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		reference := tenancy.NewModel(tenancy.Config{ClusterDomain: "cluster.local", TrustDomains: []string{"mesh.example"}})
		for _, ev := range m.zoned() {
			reference.Apply(ev)
		}
		r.Apply(m.zoned()) // as it was before the last script
		r.settle()
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			tenant, svc := rapid.IntRange(0, tenants-1).Draw(rt, "tenant"), rapid.IntRange(0, services-1).Draw(rt, "service")
			ev := spread(tenant, svc, rapid.Bool().Draw(rt, "hinted"), func(es *tenancy.EndpointSlice) {
				for i := range es.Endpoints {
					e := &es.Endpoints[i]
					e.Zone, e.Node = rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(rt, "zone"), rapid.SampledFrom([]string{"", "n1", "n2"}).Draw(rt, "node")
					if e.Hints != nil && rapid.Bool().Draw(rt, "by node") {
						e.Hints = &tenancy.Hints{Zones: e.Hints.Zones, Nodes: []string{"n1"}}
					}
					e.Ready = rapid.Bool().Draw(rt, "ready")
					e.Serving, e.Terminating = e.Ready || rapid.Bool().Draw(rt, "serving"), !e.Ready
				}
			})
			if rapid.IntRange(0, 3).Draw(rt, "wish") == 0 {
				ev = service(tenant, svc, 80)
				ev.Object.(*tenancy.Service).Traffic = rapid.SampledFrom([]tenancy.Traffic{tenancy.AnyEndpoint, tenancy.SameZone, tenancy.SameNode}).Draw(rt, "traffic")
			}
			for _, c := range clients {
				drain(c.Attachment)
			}
			r.Apply([]tenancy.Event{ev})
			reference.Apply(ev)
			r.settle()
			for _, c := range clients {
				if c.tenant != tenant {
					require.False(rt, drain(c.Attachment), "a change of another tenant wakes nobody")
				}
				at := reference.Place(tenancy.Key{Namespace: nsName(c.tenant), Name: c.pod}, workloadOf(c.tenant, 0))
				for s := range services {
					require.Equal(rt, wants(reference, c.tenant, s, at), uses(t, c.Attachment, c.tenant, s), "%s of %d at %v, service %d", c.pod, c.tenant, at, s)
				}
			}
		}
	})
}

// wants is uses as a Model has it.
func wants(m *tenancy.Model, tenant, service int, at tenancy.Place) string {
	port := m.Service(tenancy.Key{Namespace: nsName(tenant), Name: serviceName(service)}).Ports[0]
	_, list, ok := port.Near(at)
	if !ok {
		list = port.Endpoints
	}
	var out []string
	for _, e := range list {
		text := map[bool]string{true: "first", false: "second"}[e.Address.Addr().As4()[3] < 100]
		if e.Draining {
			text += "-"
		}
		out = append(out, text)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}
