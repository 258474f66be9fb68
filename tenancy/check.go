package tenancy

// The functions here note whose problems may be different. TakeProblems looks.

func (m *Model) check(r Ref) {
	m.steps++
	m.unchecked[r] = struct{}{}
}

func (e *entry) ref() Ref {
	kind := KindService
	switch e.state.(type) {
	case *accessPolicy:
		kind = KindAccessPolicy
	case *grant:
		kind = KindServiceGrant
	case *request:
		kind = KindServiceRequest
	}
	return e.space.ref(kind, e.name)
}

func (m *Model) checkTenant(t *tenant) {
	for source := range t.claims {
		m.check(Ref{Kind: KindTenant, Key: Key{Source: source, Name: t.name}})
	}
}

func (m *Model) checkNamespace(sp *space) {
	m.check(Ref{Kind: KindNamespace, Key: Key{Source: sp.source, Name: sp.name}})
}

// checkAll notes all objects of a namespace that came to or left a tenant.
func (m *Model) checkAll(sp *space) {
	m.checkNamespace(sp)
	for _, s := range sp.services {
		m.check(s.ref())
	}
	for name := range sp.slices {
		m.check(sp.ref(KindEndpointSlice, name))
	}
	m.checkPolicies(sp)
	for _, g := range sp.grants {
		m.check(g.ref())
	}
	for _, r := range sp.requests {
		m.check(r.ref())
	}
}

// checkPolicies notes the policies of a namespace.
func (m *Model) checkPolicies(sp *space) {
	for _, p := range sp.policies {
		m.check(p.ref())
	}
	for name := range sp.peers {
		m.check(sp.ref(KindPeerTLS, name))
	}
}

// checkGrantsFor notes the grants that name a service.
func (m *Model) checkGrantsFor(s *service) {
	for g := range s.space.grantsFor[s.name] {
		m.check(g.ref())
	}
	for g := range m.clusterFor[s.target()] {
		m.check(Ref{Kind: KindClusterServiceGrant, Key: g.key})
	}
}

// checkAbout notes the grants that name a service and the requests for it that
// could be live, or are of its own tenant.
func (m *Model) checkAbout(s *service) {
	m.checkGrantsFor(s)
	for g := range s.space.grantsFor[s.name] {
		for r := range m.takers(g, s.target()) {
			m.check(r.ref())
		}
	}
	for g := range m.clusterFor[s.target()] {
		for t := range m.covered(g) {
			for r := range m.requests[wanted{s.target(), t.name}] {
				m.check(r.ref())
			}
		}
	}
	if t := s.space.tenant; t != nil {
		for r := range m.requests[wanted{s.target(), t.name}] {
			m.check(r.ref())
		}
	}
}
