package tenancy

import (
	"cmp"
	"net/netip"
	"slices"

	"bailiwick.dev/bailiwick/identity"
)

// Place is where something runs, by name; a field is empty where that is not
// known. It is a fact of EndpointSlices and never what a proxy says of itself.
type Place struct{ Zone, Node string }

// Near returns the endpoints that a client at a place uses alone, with the one
// field of the place that decides it; false means that it uses all. A node goes
// before its zone.
func (p *PortSpec) Near(at Place) (by Place, endpoints []EndpointSpec, ok bool) {
	for _, by := range []Place{{Node: at.Node}, {Zone: at.Zone}} {
		if endpoints, ok := p.Nearby[by]; ok {
			return by, endpoints, true
		}
	}
	return Place{}, nil, false
}

// hinted is an endpoint of a port with what decides for whom it is.
type hinted struct {
	ready bool
	at    Place
	hints Hints
}

// nearby sorts endpoints by those who use them alone, by the rules of kube-proxy:
// hints count if every ready endpoint has one, and for those for whom there is a
// ready endpoint; where none is ready, all that serve are for all. Where no slice
// has hints, those count that the control plane would write for the Service's
// trafficDistribution, so that files need none. What drains stays with those who
// may be using it.
func nearby(s *Service, parts []*slice, port string, plain bool, endpoints []EndpointSpec) map[Place][]EndpointSpec {
	if s.Traffic == AnyEndpoint && !anyHints(parts) {
		return nil
	}
	facts := make(map[netip.AddrPort]hinted, len(endpoints))
	given := false
	eachEndpoint(parts, port, s.PublishNotReady, plain, func(at netip.AddrPort, e *Endpoint, ready bool) {
		h := hinted{ready: ready, at: Place{Zone: e.Zone, Node: e.Node}}
		if e.Hints != nil {
			h.hints, given = *e.Hints, true
		}
		// Of doubles the one counts that endpointsOf keeps.
		if had, ok := facts[at]; !ok || ready && !had.ready {
			facts[at] = h
		}
	})
	if !given {
		for at, h := range facts {
			h.hints = h.at.hints(s.Traffic)
			facts[at] = h
		}
	}
	out := map[Place][]EndpointSpec{}
	gather(out, endpoints, facts, func(h *hinted) ([]string, string) { return h.hints.Zones, h.at.Zone }, func(zone string) Place { return Place{Zone: zone} })
	gather(out, endpoints, facts, func(h *hinted) ([]string, string) { return h.hints.Nodes, h.at.Node }, func(node string) Place { return Place{Node: node} })
	if len(out) == 0 {
		return nil
	}
	return out
}

// gather sorts endpoints by one kind of hint, if that counts. Of says what an
// endpoint's hints are and where it is itself.
func gather(out map[Place][]EndpointSpec, endpoints []EndpointSpec, facts map[netip.AddrPort]hinted, of func(*hinted) (hints []string, own string), by func(string) Place) {
	for _, e := range endpoints {
		h := facts[e.Address]
		if names, _ := of(&h); h.ready && len(names) == 0 {
			return
		}
	}
	for _, e := range endpoints {
		h := facts[e.Address]
		if names, _ := of(&h); h.ready {
			for _, name := range names {
				out[by(name)] = nil
			}
		}
	}
	for _, e := range endpoints {
		h := facts[e.Address]
		names, own := of(&h)
		if !h.ready && len(names) == 0 {
			names = []string{own}
		}
		for i, name := range names {
			if list, ok := out[by(name)]; ok && !slices.Contains(names[:i], name) {
				out[by(name)] = append(list, e)
			}
		}
	}
}

func anyHints(parts []*slice) bool {
	return slices.ContainsFunc(parts, func(sl *slice) bool {
		return slices.ContainsFunc(sl.obj.Endpoints, func(e Endpoint) bool { return e.Hints != nil })
	})
}

// hints are those of an endpoint at a place as the control plane writes them.
func (at Place) hints(t Traffic) (h Hints) {
	if at.Zone != "" && t != AnyEndpoint {
		h.Zones = []string{at.Zone}
	}
	if at.Node != "" && t == SameNode {
		h.Nodes = []string{at.Node}
	}
	return h
}

// Place says where the Pod of a workload is, as EndpointSlices that have the Pod
// say: the oldest that says it, by name if several do. It is zero for a Pod that
// is in none, and for a name that is not the workload's as Select has it.
func (m *Model) Place(name Key, w identity.Workload) (at Place) {
	p := m.ownPod(name, w)
	if p == nil {
		return Place{}
	}
	all := slices.SortedFunc(p.slices.all(), func(a, b *slice) int {
		return cmp.Or(cmp.Compare(a.obj.Created, b.obj.Created), cmp.Compare(a.name, b.name))
	})
	for _, sl := range all {
		for i, q := range sl.pods {
			if q == p {
				e := &sl.obj.Endpoints[i]
				at.Zone, at.Node = cmp.Or(at.Zone, e.Zone), cmp.Or(at.Node, e.Node)
			}
		}
	}
	return at
}

// ownPod is the eligible Pod that a workload may have by that name, nil for none.
func (m *Model) ownPod(name Key, w identity.Workload) *pod {
	if _, ok := m.Resolve(w); !ok || name.Namespace != w.Namespace {
		return nil
	}
	p := m.active(w.Namespace).pods[name.Name]
	if p == nil || !eligible(p.obj) || p.obj.ServiceAccount != w.ServiceAccount {
		return nil
	}
	return p
}

// places are where a slice says that its Pods are.
func (sl *slice) places() map[*pod]Place {
	out := make(map[*pod]Place, len(sl.pods))
	for i, p := range sl.pods {
		if p != nil {
			e, at := &sl.obj.Endpoints[i], out[p]
			out[p] = Place{Zone: cmp.Or(at.Zone, e.Zone), Node: cmp.Or(at.Node, e.Node)}
		}
	}
	return out
}

// touchPlaces notes the Pods that a slice puts elsewhere than before.
func (m *Model) touchPlaces(sl *slice, before map[*pod]Place) {
	for p, at := range sl.places() {
		m.steps++
		if was, ok := before[p]; ok && was != at && p.space.tenant != nil {
			insertKey(&m.touched.Pods, Key{Namespace: p.space.name, Name: p.name})
		}
	}
}

func samePlace(a, b Endpoint) bool {
	return sameAddress(a, b) && a.Zone == b.Zone && a.Node == b.Node
}
