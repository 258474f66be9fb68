package tenancy

import (
	"slices"
	"strconv"
)

// A plain service has no sidecar. Of nobody's namespaces the platform names those,
// and shows them to whom it likes. A tenant's service is never plain because of a
// cluster grant: nobody takes the mTLS of somebody else's service away. It is plain
// for a namespace if both sides say so, by a grant and a request, and both Tenants
// permit it; within a tenant too.

// plainPorts are the ports of a service that a namespace calls without mTLS, if it
// sees them. One live offer or request that speaks of mTLS is enough for mTLS.
func (m *Model) plainPorts(from *space, s *service) PortSet {
	if s.space.tenant == nil {
		return PortSet{All: true}
	}
	if !from.tenant.now.Plain || !s.space.tenant.now.Plain {
		return PortSet{}
	}
	var agreed PortSet
	for _, p := range s.obj.Ports {
		if from.asksPlain(s.target(), p.Port) && s.offeredPlain(from, p.Port) {
			agreed.Ports = append(agreed.Ports, p.Port)
		}
	}
	return agreed
}

// asksPlain reports whether all requests of a namespace for a port, and at least
// one, take it without mTLS.
func (s *space) asksPlain(to target, port uint16) (plain bool) {
	for r := range s.requestsFor[to] {
		if r.dropped || !r.obj.Ports.Has(port) {
			continue
		}
		if plain = r.obj.Plain; !plain {
			return false
		}
	}
	return plain
}

// offeredPlain reports whether all grants of a port to a namespace, and at least
// one, offer it without mTLS.
func (s *service) offeredPlain(to *space, port uint16) (plain bool) {
	for g := range s.space.grantsFor[s.name] {
		if !g.covers(to) {
			continue
		}
		for _, t := range g.obj.To {
			if t.Service != s.name || !t.Ports.Has(port) {
				continue
			}
			if plain = t.Plain; !plain {
				return false
			}
		}
	}
	return plain
}

// touchAgreements notes what members of a tenant offer or take as plain, when the
// Tenant permits it or no longer does, or when others of its services are visible.
func (m *Model) touchAgreements(t *tenant) {
	for _, sp := range t.members {
		for _, g := range sp.grants {
			if !g.plain() {
				continue
			}
			m.check(g.ref())
			for _, to := range g.obj.To {
				if s := m.liveService(target{sp.name, to.Service}); s != nil {
					m.touchService(s)
					m.checkAbout(s)
				}
			}
		}
		for _, r := range sp.requests {
			if r.obj.Plain {
				m.touchRequest(r)
				m.check(r.ref())
			}
		}
	}
}

// plain reports whether a grant offers anything without mTLS.
func (g *grant) plain() bool {
	return slices.ContainsFunc(g.obj.To, func(to GrantTo) bool { return to.Plain })
}

// offerNotPermitted are the entries of a grant that the own Tenant takes no notice of.
func (g *grant) offerNotPermitted() (found []Problem) {
	for i, to := range g.obj.To {
		if to.Plain && !g.space.tenant.now.Plain {
			found = append(found, Problem{Reason: ReasonNotPermitted, Field: "spec.to[" + strconv.Itoa(i) + "].plain",
				Message: "the Tenant permits no plain destinations: it is offered with mTLS"})
		}
	}
	return found
}

// takenWithTLS says that a request for what is visible is not honoured as plain:
// why not is said of the own Tenant alone.
func (m *Model) takenWithTLS(r *request, sight Sight) []Problem {
	switch {
	case !r.obj.Plain:
		return nil
	case !r.space.tenant.now.Plain:
		return []Problem{{Reason: ReasonNotPermitted, Field: "spec.to.plain", Message: "the Tenant permits no plain destinations: it is called with mTLS"}}
	case len(sight.Plain.Ports) == 0:
		return []Problem{{Reason: ReasonNotPlain, Field: "spec.to.plain", Message: "it is called with mTLS: not all that grants and requests it says that it is plain"}}
	}
	return nil
}

// isPlain reports whether a cluster grant names a service as plain that is
// nobody's.
func (m *Model) isPlain(s *service) bool {
	if s.space.tenant != nil || m.active(s.space.name) != s.space {
		return false
	}
	for g := range m.clusterFor[s.target()] {
		for _, to := range g.obj.To {
			if to.Plain && to.Namespace == s.space.name && to.Service == s.name {
				return true
			}
		}
	}
	return false
}

// touchPlain notes what of nobody's namespaces is seen as plain.
func (m *Model) touchPlain(spaces []*space) {
	for _, sp := range spaces {
		if sp.tenant != nil {
			continue
		}
		for _, s := range sp.services {
			if s.live() {
				m.touchService(s)
				m.checkAbout(s)
			}
		}
	}
}

// plainProblems are the entries of a cluster grant that name a tenant's service
// as plain.
func (m *Model) plainProblems(g *clusterGrant) []Problem {
	var found []Problem
	for i, to := range g.obj.To {
		if s := m.liveService(target{to.Namespace, to.Service}); to.Plain && s != nil && s.space.tenant != nil {
			found = append(found, Problem{Reason: ReasonNotPlain, Field: "spec.to[" + strconv.Itoa(i) + "].plain",
				Message: "shows nothing: the service is a tenant's, and no tenant's service is reached without mTLS"})
		}
	}
	return found
}
