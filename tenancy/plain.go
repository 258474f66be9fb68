package tenancy

import "strconv"

// A plain service has no sidecar and no tenant, and is seen by whom the platform
// shows it to. A tenant's service is never plain, whatever a cluster grant says:
// nobody takes the mTLS of somebody else's service away.

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
