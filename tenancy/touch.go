package tenancy

// The functions here note what depends on a thing as things are. An event that
// changes what depends calls them before and after the change, so that both
// sides are touched; nothing is touched that nobody sees.

// TakeTouched returns what the events since the last call touched, and
// forgets it.
func (m *Model) TakeTouched() Touched {
	t := m.touched
	m.touched = Touched{}
	return t
}

func insertKey[K comparable, M ~map[K]struct{}](s *M, k K) {
	if *s == nil {
		*s = M{}
	}
	(*s)[k] = struct{}{}
}

// touchView returns the entry of an open view.
func (m *Model) touchView(v ViewKey) *TouchedView {
	m.steps++
	tv := m.touched.Views[v]
	if tv == nil {
		if m.touched.Views == nil {
			m.touched.Views = map[ViewKey]*TouchedView{}
		}
		tv = &TouchedView{}
		m.touched.Views[v] = tv
	}
	return tv
}

func (m *Model) touchSight(v ViewKey, s Key) { insertKey(&m.touchView(v).Services, s) }

func (m *Model) touchBundle(trustDomain string) { insertKey(&m.touched.Bundles, trustDomain) }

// touchWorkloads notes that what may call the workloads of a namespace may be
// different. The first cause in a batch pays.
func (m *Model) touchWorkloads(sp *space) {
	m.steps++
	if sp.tenant == nil {
		return
	}
	if m.touched.Workloads == nil {
		m.touched.Workloads = map[string]string{}
	}
	if _, ok := m.touched.Workloads[sp.name]; !ok {
		m.touched.Workloads[sp.name] = m.cause
	}
}

// touchSelected notes that what may call those workloads of a namespace may be
// different whose selections name a policy.
func (m *Model) touchSelected(sp *space, identity string) {
	m.steps++
	if sp.tenant == nil {
		return
	}
	if m.touched.Selected == nil {
		m.touched.Selected = map[Selected]string{}
	}
	key := Selected{sp.name, identity}
	if _, ok := m.touched.Selected[key]; !ok {
		m.touched.Selected[key] = m.cause
	}
}

// touchService notes that a service's spec may be different, for all that see it.
func (m *Model) touchService(s *service) {
	m.steps++
	s.stale = true
	if !s.live() {
		return
	}
	key := s.key()
	insertKey(&m.touched.Services, key)
	m.eachViewer(s, func(v ViewKey) { m.touchSight(v, key) })
}

// touchLeads notes that the way from a service's ports to Pods may be
// different: the Pods' selections, and the floor if other tenants see it.
func (m *Model) touchLeads(s *service) {
	m.checkAbout(s)
	if !s.live() {
		return
	}
	for _, sl := range s.slices {
		for _, p := range sl.pods {
			if p != nil {
				m.touchPod(p)
			}
		}
	}
	m.eachConsumer(s, false, func(*space, Sight) { m.touchWorkloads(s.space) })
}

// touchPod notes that a Pod's selection may be different.
func (m *Model) touchPod(p *pod) {
	m.steps++
	if p.space.tenant == nil {
		return
	}
	insertKey(&m.touched.Pods, Key{Namespace: p.space.name, Name: p.name})
	m.touchCrowd(p.space)
	for sl := range p.slices.all() {
		m.checkGrantsFor(sl.service)
		m.check(sl.service.ref())
	}
	if p.obj != nil {
		m.checkAsking(p)
	}
}

// touchEntry notes what depends on an object that limits count.
func (m *Model) touchEntry(e *entry) {
	switch s := e.state.(type) {
	case *service:
		m.touchService(s)
		m.touchLeads(s)
	case *accessPolicy:
		m.touchPolicy(s)
	case *grant:
		m.touchGrant(s)
	case *request:
		m.touchRequest(s)
	}
}

// touchConsumer notes that a namespace sees a service by a grant, or how it calls
// it, if it does.
func (m *Model) touchConsumer(from *space, s *service) {
	sight, ok := m.see(from.view(), s)
	if !ok {
		return
	}
	if _, ok := from.tenant.open[from.name]; ok {
		m.touchSight(from.view(), sight.Service)
	}
	if sight.Grade == Granted {
		m.touchWorkloads(s.space)
	}
}

// touchGrant notes what a grant makes visible to those who requested it. A
// grant without a request touches nothing.
func (m *Model) touchGrant(g *grant) {
	if g.obj == nil || g.space.tenant == nil {
		return
	}
	for _, to := range g.obj.To {
		at := target{g.space.name, to.Service}
		s := m.liveService(at)
		for r := range m.takers(g, at) {
			m.check(r.ref())
			if s != nil {
				m.touchConsumer(r.space, s)
			}
		}
	}
}

// touchRequest notes what a request makes visible. A request for what nobody
// grants touches nothing.
func (m *Model) touchRequest(r *request) {
	if r.obj == nil || r.space.tenant == nil {
		return
	}
	for other := range r.space.requestsFor[r.target()] {
		m.check(other.ref()) // they share what is available
	}
	if s := m.liveService(r.target()); s != nil {
		m.touchConsumer(r.space, s)
	}
}

// touchClusterGrant notes what a cluster grant makes visible.
func (m *Model) touchClusterGrant(g *clusterGrant) {
	for _, to := range g.obj.To {
		s := m.liveService(target{to.Namespace, to.Service})
		if s != nil && s.space.tenant == nil { // which may be what makes it live
			insertKey(&m.touched.Services, s.key())
		}
		for t := range m.covered(g) {
			for r := range m.requests[wanted{target{to.Namespace, to.Service}, t.name}] {
				m.check(r.ref())
			}
			for _, sp := range t.members {
				if s != nil {
					m.touchConsumer(sp, s)
				}
			}
		}
	}
}

// touchMoved notes all that depends on spaces being whose they are.
func (m *Model) touchMoved(moved []*space) {
	tenants := set[*tenant]{}
	for _, sp := range moved {
		insertKey(&m.touched.Namespaces, sp.name)
		m.checkAll(sp)
		if sp.tenant != nil {
			tenants[sp.tenant] = struct{}{}
			m.touchMember(sp)
			if len(sp.wide) > 0 {
				m.touchWide(sp)
			}
		}
	}
	for t := range tenants {
		for _, sp := range t.members {
			m.touchWorkloads(sp)
		}
	}
}

// touchMember notes all that depends on a namespace being its tenant's, but
// for the floor of the tenant's own workloads.
func (m *Model) touchMember(sp *space) {
	if _, ok := sp.tenant.open[sp.name]; ok {
		v := sp.view()
		m.touchView(v).Settings = true
		for _, s := range m.Visible(v) {
			m.touchSight(v, s.Service)
		}
	}
	for _, s := range sp.services {
		m.touchService(s)
		m.checkAbout(s)
	}
	for _, p := range sp.pods {
		m.touchPod(p)
	}
	m.eachProducer(sp, func(s *service) { m.touchConsumer(sp, s) })
}

// touchOpen notes all that the open views of a tenant see.
func (m *Model) touchOpen(t *tenant) {
	for ns := range t.open {
		v := ViewKey{t.name, ns}
		for _, s := range m.Visible(v) {
			m.touchSight(v, s.Service)
		}
	}
}
