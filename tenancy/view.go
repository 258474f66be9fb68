package tenancy

import (
	"cmp"
	"slices"
)

// OpenView makes a view one that is reported as touched. It is idempotent.
func (m *Model) OpenView(v ViewKey) { m.makeTenant(v.Tenant).open[v.Namespace] = struct{}{} }

// CloseView is the opposite of OpenView.
func (m *Model) CloseView(v ViewKey) {
	if t := m.tenants[v.Tenant]; t != nil {
		delete(t.open, v.Namespace)
		m.sweepTenant(t)
	}
}

// See tells whether and how a view sees a service. It answers from the one
// rule that all else goes through.
func (m *Model) See(v ViewKey, svc Key) (Sight, bool) {
	sp := m.spaces[spaceKey{svc.Source, svc.Namespace}]
	if sp == nil || sp.services[svc.Name] == nil {
		return Sight{}, false
	}
	return m.see(v, sp.services[svc.Name])
}

// see is THE rule: a view sees what is its own namespace's; what is its own
// tenant's, unless the Tenant restricts it to namespaces; what it requested
// and the owner granted; and what the platform granted. A granted service
// shows the granted ports that it has, and is not seen if it has none of them.
func (m *Model) see(v ViewKey, s *service) (Sight, bool) {
	m.steps++
	from := m.owned(v.Namespace)
	if from == nil || from.tenant.name != v.Tenant || !s.live() {
		return Sight{}, false
	}
	sight := Sight{Service: s.key(), Ports: PortSet{All: true}, Plain: m.plainPorts(from, s), SameSource: from.source == s.space.source}
	switch {
	case from == s.space:
		sight.Grade = OwnNamespace
	case from.tenant == s.space.tenant:
		sight.Grade = OwnTenant
		return sight, from.tenant.now.Visibility == VisibleInTenant
	default:
		sight.Grade, sight.Ports = Granted, m.granted(from, s)
		return sight, sight.Ports.All || len(sight.Ports.Ports) > 0
	}
	return sight, true
}

// granted are the ports of another tenant's service that a namespace may know.
func (m *Model) granted(from *space, s *service) PortSet {
	var live []PortSet // what is granted and requested, or needs no request
	for g := range m.clusterFor[s.target()] {
		if !g.covers(from.tenant.name) {
			continue
		}
		for _, to := range g.obj.To {
			if to.Namespace == s.space.name && to.Service == s.name && to.Plain == (s.space.tenant == nil) {
				live = append(live, to.Ports)
			}
		}
	}
	requested := portsOf(from.requestsFor[s.target()], func(r *request) []PortSet {
		if r.dropped {
			return nil
		}
		return []PortSet{r.obj.Ports}
	})
	if len(requested) > 0 && s.space.tenant != nil {
		offered := portsOf(s.space.grantsFor[s.name], func(g *grant) []PortSet { return g.offers(from, s.name) })
		for _, r := range requested {
			for _, o := range offered {
				live = append(live, intersect(r, o))
			}
		}
	}
	var ports []uint16
	for _, p := range live {
		if p.All && len(s.obj.Ports) > 0 {
			return PortSet{All: true}
		}
	}
	for _, p := range s.obj.Ports {
		if slices.ContainsFunc(live, func(l PortSet) bool { return l.Has(p.Port) }) {
			ports = append(ports, p.Port)
		}
	}
	return PortSet{Ports: ports}
}

func portsOf[T comparable](from set[T], ports func(T) []PortSet) (all []PortSet) {
	for o := range from {
		all = append(all, ports(o)...)
	}
	return all
}

// offers are the ports of a service that g offers to a namespace.
func (g *grant) offers(to *space, service string) (ports []PortSet) {
	if !g.covers(to) {
		return nil
	}
	for _, t := range g.obj.To {
		if t.Service == service {
			ports = append(ports, t.Ports)
		}
	}
	return ports
}

// covers reports whether g offers anything to a namespace.
func (g *grant) covers(to *space) bool {
	return !g.dropped && slices.ContainsFunc(g.obj.From, func(f GrantFrom) bool {
		return f.Tenant == to.tenant.name && (f.All || slices.Contains(f.Namespaces, to.name))
	})
}

func intersect(a, b PortSet) PortSet {
	if a.All {
		return b
	}
	var both PortSet
	for _, p := range a.Ports {
		if b.Has(p) {
			both.Ports = append(both.Ports, p)
		}
	}
	return both
}

// Visible returns all that a view sees, sorted by key.
func (m *Model) Visible(v ViewKey) []Sight {
	from := m.owned(v.Namespace)
	if from == nil || from.tenant.name != v.Tenant {
		return nil
	}
	seen := map[*service]Sight{}
	look := func(s *service) {
		if s == nil {
			return
		}
		if _, ok := seen[s]; ok {
			return
		}
		if sight, ok := m.see(v, s); ok {
			seen[s] = sight
		}
	}
	spaces := from.tenant.members
	if from.tenant.now.Visibility == VisibleInNamespace {
		spaces = map[string]*space{from.name: from}
	}
	for _, sp := range spaces {
		for _, s := range sp.services {
			look(s)
		}
	}
	m.eachProducer(from, look)
	sights := make([]Sight, 0, len(seen))
	for _, s := range seen {
		sights = append(sights, s)
	}
	slices.SortFunc(sights, func(a, b Sight) int { return a.Service.compare(b.Service) })
	return sights
}

func (k Key) compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Source, o.Source), cmp.Compare(k.Namespace, o.Namespace), cmp.Compare(k.Name, o.Name))
}

// eachProducer calls f for the services that a namespace may see by a request
// or a cluster grant. Whether it does is for see to say.
func (m *Model) eachProducer(from *space, f func(*service)) {
	for t := range from.requestsFor {
		if s := m.liveService(t); s != nil {
			f(s)
		}
	}
	for _, grants := range []set[*clusterGrant]{m.clusterAll, m.clusterOf[from.tenant.name]} {
		for g := range grants {
			for _, to := range g.obj.To {
				if s := m.liveService(target{to.Namespace, to.Service}); s != nil {
					f(s)
				}
			}
		}
	}
}

// eachConsumer calls f for every namespace of another tenant that sees s, and
// how; maybe several times. If open, only for those whose view is open. It
// starts from the grants, so that requests of strangers cost nothing.
func (m *Model) eachConsumer(s *service, open bool, f func(*space, Sight)) {
	look := func(sp *space) {
		if sp == nil || sp.tenant == nil || sp.tenant == s.space.tenant {
			return
		}
		if _, ok := sp.tenant.open[sp.name]; open && !ok {
			return
		}
		if sight, ok := m.see(sp.view(), s); ok {
			f(sp, sight)
		}
	}
	for g := range s.space.grantsFor[s.name] {
		for r := range m.takers(g, s.target()) {
			look(r.space)
		}
	}
	for g := range m.clusterFor[s.target()] {
		for t := range m.covered(g) {
			if open {
				for ns := range t.open {
					look(t.members[ns])
				}
				continue
			}
			for _, sp := range t.members {
				look(sp)
			}
		}
	}
}

// takers yields the requests for a service that are of tenants to whom g
// offers something.
func (m *Model) takers(g *grant, to target) func(yield func(*request) bool) {
	return func(yield func(*request) bool) {
		for _, from := range g.obj.From {
			for r := range m.requests[wanted{to, from.Tenant}] {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// covered yields the tenants that a cluster grant is for.
func (m *Model) covered(g *clusterGrant) func(yield func(*tenant) bool) {
	return func(yield func(*tenant) bool) {
		if g.obj.AllTenants {
			for _, t := range m.tenants {
				if !yield(t) {
					return
				}
			}
			return
		}
		for name := range g.tenants {
			if t := m.tenants[name]; t != nil && !yield(t) {
				return
			}
		}
	}
}

// eachViewer calls f for every open view that sees s; maybe several times.
func (m *Model) eachViewer(s *service, f func(ViewKey)) {
	if !s.live() {
		return
	}
	m.eachConsumer(s, true, func(sp *space, _ Sight) { f(sp.view()) })
	t := s.space.tenant
	if t == nil {
		return
	}
	look := func(ns string) {
		v := ViewKey{t.name, ns}
		if _, ok := m.see(v, s); ok {
			f(v)
		}
	}
	if t.now.Visibility == VisibleInNamespace {
		if _, ok := t.open[s.space.name]; ok {
			look(s.space.name)
		}
	} else {
		for ns := range t.open {
			look(ns)
		}
	}
}
