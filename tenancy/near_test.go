package tenancy_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	. "bailiwick.dev/bailiwick/tenancy"
)

// fact is an endpoint as a slice has it; states are those of its conditions.
type fact struct {
	state string // ready, draining, down
	at    Place
	hints *Hints
}

func (f fact) endpoint(n int) Endpoint {
	return Endpoint{
		Addresses: at(100 + n), Ready: f.state == "ready", Serving: f.state != "down", Terminating: f.state == "draining",
		Zone: f.at.Zone, Node: f.at.Node, Hints: f.hints,
	}
}

// near asks a Model which endpoints a client at a place uses, by their number,
// those that drain with a mark.
func near(t require.TestingT, service *Service, facts []fact, client Place) []string {
	m := NewModel(Config{})
	m.Apply(event(KindTrustBundle, one("", "acme.example"), &TrustBundle{PEM: []byte("acme")}))
	m.Apply(event(KindTenant, one("", "acme"), &Tenant{TrustDomain: "acme.example"}))
	m.Apply(event(KindNamespace, one("", "acme-shop"), &Namespace{Tenant: "acme"}))
	service.Ports = []ServicePort{{Name: "http", Port: 80, Protocol: HTTP1}}
	m.Apply(event(KindService, one("acme-shop", "orders"), service))
	// Two slices, as the rules are about all of a service.
	parts := [2][]Endpoint{}
	for n, f := range facts {
		parts[n%2] = append(parts[n%2], f.endpoint(n))
		m.Apply(event(KindPod, one("acme-shop", fmt.Sprint("p", n)), &Pod{ServiceAccount: "app", IPs: at(100 + n)}))
	}
	for i, part := range parts {
		m.Apply(event(KindEndpointSlice, one("acme-shop", fmt.Sprint("s", i)), sliceOf("orders", part...)))
	}
	spec := m.Service(one("acme-shop", "orders"))
	require.NotNil(t, spec)
	_, list, ok := spec.Ports[0].Near(client)
	if !ok {
		list = spec.Ports[0].Endpoints
	}
	out := []string{}
	for _, e := range list {
		text := fmt.Sprint(int(e.Address.Addr().As4()[3]) - 100)
		if e.Draining {
			text += "-"
		}
		out = append(out, text)
	}
	slices.Sort(out)
	return out
}

// expected says the same slowly: what Kubernetes documents for one client.
func expected(traffic Traffic, headless bool, facts []fact, client Place) []string {
	hinted := false
	for _, f := range facts {
		hinted = hinted || f.hints != nil && f.state != "down"
	}
	hints := func(f fact) Hints {
		switch {
		case hinted && f.hints == nil:
			return Hints{}
		case hinted:
			return *f.hints
		}
		var h Hints
		if traffic != AnyEndpoint && f.at.Zone != "" {
			h.Zones = []string{f.at.Zone}
		}
		if traffic == SameNode && f.at.Node != "" {
			h.Nodes = []string{f.at.Node}
		}
		return h
	}
	every := func(has func(fact) bool) bool {
		for _, f := range facts {
			if f.state == "ready" && !has(f) {
				return false
			}
		}
		return true
	}
	ready := !every(func(fact) bool { return false })
	byNode := ready && every(func(f fact) bool { return len(hints(f).Nodes) > 0 }) &&
		!every(func(f fact) bool { return !slices.Contains(hints(f).Nodes, client.Node) })
	byZone := ready && !byNode && every(func(f fact) bool { return len(hints(f).Zones) > 0 }) &&
		!every(func(f fact) bool { return !slices.Contains(hints(f).Zones, client.Zone) })
	out := []string{}
	for n, f := range facts {
		names, own, mine := hints(f).Nodes, f.at.Node, client.Node
		if byZone {
			names, own, mine = hints(f).Zones, f.at.Zone, client.Zone
		}
		all := headless || !byNode && !byZone
		switch {
		case f.state == "ready" && (all || slices.Contains(names, mine)), f.state == "draining" && !ready:
			out = append(out, fmt.Sprint(n))
		case f.state == "draining" && (all || slices.Contains(names, mine) || len(names) == 0 && own == mine):
			out = append(out, fmt.Sprint(n, "-"))
		}
	}
	slices.Sort(out)
	return out
}

func virtual(traffic Traffic) *Service {
	return &Service{ClusterIPs: []netip.Addr{ip(1)}, Traffic: traffic}
}

// TestNear has the cases that Kubernetes documents, by hand.
func TestNear(t *testing.T) {
	zones := func(names ...string) *Hints { return &Hints{Zones: names} }
	in := func(zone string, h *Hints) fact { return fact{"ready", Place{Zone: zone, Node: "n" + zone}, h} }
	drains := func(zone string, h *Hints) fact { return fact{"draining", Place{Zone: zone}, h} }
	down := fact{"down", Place{Zone: "a"}, nil}
	both := []fact{in("a", zones("a")), in("b", zones("b"))}
	bare := []fact{in("a", nil), in("b", nil)}
	for _, c := range []struct {
		name    string
		traffic Traffic
		facts   []fact
		client  Place
		want    string
	}{
		{"own zone", AnyEndpoint, both, Place{Zone: "a"}, "0"},
		{"the other zone", AnyEndpoint, both, Place{Zone: "b"}, "1"},
		{"a zone without endpoints", AnyEndpoint, both, Place{Zone: "c"}, "0 1"},
		{"a client without a zone", AnyEndpoint, both, Place{}, "0 1"},
		{"a hint for another zone than its own", AnyEndpoint, []fact{in("a", zones("b")), in("b", zones("a", "b"))}, Place{Zone: "a"}, "1"},
		{"one ready endpoint without hints", AnyEndpoint, append([]fact{in("a", nil)}, both...), Place{Zone: "a"}, "0 1 2"},
		{"who is not ready needs no hint", AnyEndpoint, append([]fact{down}, both...), Place{Zone: "a"}, "1"},
		{"draining with its hint", AnyEndpoint, append([]fact{drains("b", zones("a")), drains("a", zones("b"))}, both...), Place{Zone: "a"}, "0- 2"},
		{"draining without a hint", AnyEndpoint, append([]fact{drains("a", nil), drains("b", nil)}, both...), Place{Zone: "a"}, "0- 2"},
		{"the zone's last one drains", AnyEndpoint, []fact{drains("a", zones("a")), in("b", zones("b"))}, Place{Zone: "a"}, "0- 1"},
		{"nobody is ready", AnyEndpoint, []fact{drains("a", zones("a")), drains("b", zones("b"))}, Place{Zone: "a"}, "0 1"},
		{"no hints and no wish", AnyEndpoint, bare, Place{Zone: "a"}, "0 1"},
		{"a wish is enough", SameZone, bare, Place{Zone: "a"}, "0"},
		{"a wish, and nobody there", SameZone, bare, Place{Zone: "c"}, "0 1"},
		{"a wish, and an endpoint somewhere", SameZone, append([]fact{in("", nil)}, bare...), Place{Zone: "a"}, "0 1 2"},
		{"hints go before a wish", SameZone, []fact{in("a", zones("b")), in("b", zones("a"))}, Place{Zone: "a"}, "1"},
		{"a wish where some have hints", SameZone, []fact{in("a", zones("a")), in("b", nil)}, Place{Zone: "a"}, "0 1"},
		{"same node", SameNode, bare, Place{Zone: "a", Node: "nb"}, "1"},
		{"same zone where the node has none", SameNode, bare, Place{Zone: "a", Node: "other"}, "0"},
		{"neither", SameNode, bare, Place{Zone: "c", Node: "other"}, "0 1"},
		{"a wish for the zone knows no nodes", SameZone, bare, Place{Zone: "a", Node: "nb"}, "0"},
		{"hinted nodes", AnyEndpoint, []fact{in("a", &Hints{Nodes: []string{"n1"}}), in("b", &Hints{Nodes: []string{"n2"}, Zones: []string{"b"}})}, Place{Zone: "b", Node: "n1"}, "0"},
	} {
		require.Equal(t, c.want, strings.Join(near(t, virtual(c.traffic), c.facts, c.client), " "), c.name)
		require.Equal(t, c.want, strings.Join(expected(c.traffic, false, c.facts, c.client), " "), "%s, by the reference", c.name)
	}
	require.Equal(t, []string{"0", "1"}, near(t, &Service{Traffic: SameZone}, bare, Place{Zone: "a"}), "a headless service's endpoints are dialled one by one")
}

func TestNearIsAsDocumented(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zones, nodes := []string{"", "a", "b", "c"}, []string{"", "n1", "n2"}
		traffic := rapid.SampledFrom([]Traffic{AnyEndpoint, SameZone, SameNode}).Draw(t, "traffic")
		// Most worlds are of one mind, or nothing would ever apply.
		hinting := rapid.SampledFrom([]string{"all", "some", "none"}).Draw(t, "hinting")
		where := rapid.SampledFrom([]int{0, 1}).Draw(t, "from")
		facts := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) fact {
			f := fact{
				state: rapid.SampledFrom([]string{"ready", "ready", "ready", "draining", "down"}).Draw(t, "state"),
				at:    Place{Zone: rapid.SampledFrom(zones[where:]).Draw(t, "zone"), Node: rapid.SampledFrom(nodes[where:]).Draw(t, "node")},
			}
			if hinting == "all" || hinting == "some" && rapid.Bool().Draw(t, "hinted") {
				f.hints = &Hints{Zones: rapid.SliceOfNDistinct(rapid.SampledFrom(zones[1:]), 1, 2, rapid.ID).Draw(t, "zones"), Nodes: rapid.SliceOfNDistinct(rapid.SampledFrom(nodes[1:]), 0, 2, rapid.ID).Draw(t, "nodes")}
			}
			return f
		}), 0, 6).Draw(t, "facts")
		client := Place{Zone: rapid.SampledFrom(zones).Draw(t, "client's zone"), Node: rapid.SampledFrom(nodes).Draw(t, "client's node")}
		service, headless := virtual(traffic), rapid.IntRange(0, 9).Draw(t, "headless") == 0
		if headless {
			service.ClusterIPs = nil
		}
		require.Equal(t, expected(traffic, headless, facts, client), near(t, service, facts, client))
	})
}

// TestPlace: where a Pod is, is what the slices say that it is behind; who is in
// none is nowhere, and so is whoever names somebody else's Pod.
func TestPlace(t *testing.T) {
	w := newTown(t, Config{})
	pod, me := key("", "acme-shop", "orders"), workload("acme-shop", "app")
	is := func(want Place, told bool) {
		t.Helper()
		touched := w.TakeTouched()
		_, got := touched.Pods[pod]
		require.Equal(t, told, got, "told")
		require.Equal(t, want, w.Place(pod, me))
	}
	says := func(name string, created int64, at ...Place) {
		s := sliceOf("orders")
		s.Created = created
		for i, at := range at {
			s.Endpoints = append(s.Endpoints, Endpoint{Addresses: []netip.Addr{w.Service(one("acme-shop", "orders")).Ports[0].Endpoints[0].Address.Addr()}, Ready: true, Zone: at.Zone, Node: at.Node, Hostname: fmt.Sprint("h", i)})
		}
		w.set(KindEndpointSlice, "acme-shop", name, s)
	}
	w.TakeTouched()
	is(Place{}, false)
	says("orders", 5, Place{Zone: "a"})
	is(Place{Zone: "a"}, true)
	says("orders", 5, Place{Zone: "b", Node: "n1"})
	is(Place{Zone: "b", Node: "n1"}, true)
	says("younger", 6, Place{Zone: "c", Node: "n2"})
	is(Place{Zone: "b", Node: "n1"}, true)
	says("elder", 4, Place{Zone: "d"})
	is(Place{Zone: "d", Node: "n1"}, true)
	says("elder", 4, Place{Zone: "d"}, Place{Zone: "e"})
	is(Place{Zone: "d", Node: "n1"}, false)
	w.set(KindEndpointSlice, "acme-shop", "elder", nil)
	is(Place{Zone: "b", Node: "n1"}, true)
	require.Zero(t, w.Place(pod, workload("acme-shop", "other")))
	require.Zero(t, w.Place(pod, workload("acme-web", "app")))
	require.Zero(t, w.Place(key("", "acme-shop", "nobody"), me))
	w.set(KindEndpointSlice, "acme-shop", "younger", nil)
	w.set(KindEndpointSlice, "acme-shop", "orders", nil)
	is(Place{}, true)
}
