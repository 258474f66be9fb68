package snapshot

import (
	"maps"
	"slices"
	"time"

	"bailiwick.dev/bailiwick/tenancy"
)

// Some services' endpoints are for clients of one zone or one node alone. A proxy
// where that applies to anything that its view sees reads one more layer, of
// those assignments alone, which stand before the view's. The layer is shared by
// all proxies of the view at one place; the assignments in it by all views. What
// sees no such service has no such layer, wherever its proxies are.

// nearby are the layers of a view for single places.
type nearby struct {
	layers map[tenancy.Place]*near
	// zoned and noded count the seen ports with endpoints for single zones and
	// for single nodes.
	zoned, noded int
}

// near is the layer of the proxies of a view at one place.
type near struct {
	layer *Layer
	refs  int
}

// assigned is a port as a view sees it.
type assigned struct {
	seen *seen
	port *builtPort
}

func newNearby() nearby { return nearby{layers: map[tenancy.Place]*near{}} }

// depends tells what of a place makes a difference; of the rest nothing is known.
func (n *nearby) depends() (by [2]bool) { return [2]bool{n.zoned > 0, n.noded > 0} }

func (n *nearby) reduce(at tenancy.Place) tenancy.Place {
	if n.zoned == 0 {
		at.Zone = ""
	}
	if n.noded == 0 {
		at.Node = ""
	}
	return at
}

func (n *nearby) sweep() {
	maps.DeleteFunc(n.layers, func(_ tenancy.Place, l *near) bool { return l.refs == 0 })
}

// weigh adds what a seen service counts for to the view, or takes it away.
func (v *view) weigh(s *seen, sign int) {
	c := s.cost()
	v.size.add(cost{sign * c.resources, sign * c.bytes})
	for _, b := range s.ports {
		var zones, nodes bool
		for by := range b.spec.Nearby {
			zones, nodes = zones || by.Zone != "", nodes || by.Node != ""
		}
		if zones {
			v.near.zoned += sign
		}
		if nodes && s.sight.Grade != tenancy.Granted {
			v.near.noded += sign
		}
	}
}

func (w *work) putPorts(s *seen) {
	for _, b := range s.ports {
		w.put(b.cluster)
		w.put(b.claims)
		w.assigned[b.claims.Name()] = assigned{s, b}
	}
}

// nearFor returns the layer for proxies of a view at a place, filling it when
// nobody had it; nil where the place makes no difference.
func (p *Publisher) nearFor(v *view, at tenancy.Place) *near {
	at = v.near.reduce(at)
	if at == (tenancy.Place{}) {
		return nil
	}
	if n := v.near.layers[at]; n != nil {
		return n
	}
	n := &near{layer: NewVariant(v.layer)}
	v.near.layers[at] = n
	everything := newWork()
	for _, s := range v.seen {
		if slices.ContainsFunc(s.ports, func(b *builtPort) bool { return b.spec.Nearby != nil }) {
			everything.putPorts(s)
		}
	}
	p.publish(p.assignNear(at, everything).update(n.layer))
	return n
}

// assignNear is what w changes for proxies at a place.
func (p *Publisher) assignNear(at tenancy.Place, w *work) *work {
	nw := newWork()
	for c := range w.remove {
		if c.Type == Endpoint {
			nw.drop(Endpoint, c.Name)
		}
	}
	for name, a := range w.assigned {
		if _, ok := w.set[Child{Endpoint, name}]; !ok {
			continue // left out after all
		}
		if r := p.claimsNear(a, at); r != nil {
			nw.put(r)
		} else {
			nw.drop(Endpoint, name)
		}
	}
	return nw
}

// claimsNear returns the assignment of a port for clients at a place, nil where
// they use that of everybody. On which node an endpoint is, is not for other
// tenants to find out; its zone is.
func (p *Publisher) claimsNear(a assigned, at tenancy.Place) *Resource {
	if a.seen.sight.Grade == tenancy.Granted {
		at.Node = ""
	}
	by, endpoints, ok := a.port.spec.Near(at)
	if !ok {
		return nil
	}
	if r := a.port.near[by]; r != nil {
		return r
	}
	spec, some := a.seen.built.spec, *a.port.spec
	some.Endpoints = endpoints
	p.stats.built(Endpoint)
	r, err := contained(p, "endpoints of a place", func() (*Resource, error) { return p.builder.Endpoints(spec, &some) })
	if err != nil {
		p.log.Error("endpoints are not sorted by place", "service", spec.Key, "port", some.Port, "err", err)
		return nil
	}
	a.port.near[by] = r
	return r
}

// nearLeft are the assignments of a port's last state that are good still.
func nearLeft(last *builtPort, port *tenancy.PortSpec) map[tenancy.Place]*Resource {
	if port.Nearby == nil {
		return nil
	}
	left := map[tenancy.Place]*Resource{}
	if last == nil {
		return left
	}
	for by, r := range last.near {
		if now, ok := port.Nearby[by]; ok && slices.Equal(now, last.spec.Nearby[by]) {
			left[by] = r
		}
	}
	return left
}

// publishNear publishes what a build of the view changed, with what of it is
// different at single places. Where a place has come to make a difference the
// proxies get their layer first, and where it has ceased to, they lose it last.
func (p *Publisher) publishNear(v *view, w *work, before [2]bool, updates []Update, now time.Time) bool {
	after := v.near.depends()
	sooner := after[0] && !before[0] || after[1] && !before[1]
	if sooner {
		p.relocate(v, now)
	}
	for at, n := range v.near.layers {
		nw := p.assignNear(at, w)
		if v.broken {
			nw.partial = w.partial
			nw.leftovers(n.layer)
		}
		updates = append(updates, nw.update(n.layer))
	}
	changed := p.publish(updates...)
	if after != before && !sooner {
		p.relocate(v, now)
	}
	return changed
}

// relocate binds the proxies of a view again, since what depends on their places
// is different.
func (p *Publisher) relocate(v *view, now time.Time) {
	for px := range p.byNamespace[v.key.Namespace] {
		if px.view == v {
			p.bind(px, now)
		}
	}
}
