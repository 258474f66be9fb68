package tenancy

import "fmt"

// Usage is how much of a tenant's limits is used, and what they leave out now.
type Usage struct {
	// Services, Policies, Grants and Requests are objects that limits count,
	// those that are over the limit included.
	Services, Policies, Grants, Requests int
	LeftOut                              LeftOut
}

// LeftOut counts what the limits of a tenant leave out now.
type LeftOut struct {
	// Objects that are over the limit of their kind.
	Services, Policies, Grants, Requests int
	// Endpoints are services that have endpoints over the limit,
	// PoliciesPerWorkload policies that are over it for some workload, and
	// ViewServices services over the limits of views, in each view.
	Endpoints, PoliciesPerWorkload, ViewServices int
}

// UsageOf is the usage of one tenant.
func (m *Model) UsageOf(tenant string) Usage {
	t := m.tenants[tenant]
	if t == nil {
		return Usage{}
	}
	size := func(r *ranking) int { return len(r.kept.entries) + len(r.rest.entries) }
	return Usage{size(t.services), size(t.policies), size(t.grants), size(t.requests), t.leftOut()}
}

// TakeUsage is the usage of the tenants of which it may have changed since the
// last call.
func (m *Model) TakeUsage() map[string]Usage {
	changed := make(map[string]Usage, len(m.usage))
	for name := range m.usage {
		changed[name] = m.UsageOf(name)
	}
	clear(m.usage)
	return changed
}

// NoteView says how many services the limits of a view leave out, which is
// decided where views are built.
func (m *Model) NoteView(v ViewKey, leftOut int) {
	if t := m.tenants[v.Tenant]; t != nil && t.members[v.Namespace] != nil && t.members[v.Namespace].leftOut != leftOut {
		t.members[v.Namespace].leftOut = leftOut
		m.noteOver(t.members[v.Namespace])
	}
}

// noteOverfull notes whether a service has endpoints over the limit.
func (m *Model) noteOverfull(s *service) {
	if s.excess > 0 && s.obj != nil {
		if s.space.overfull == nil {
			s.space.overfull = set[*service]{}
		}
		s.space.overfull[s] = struct{}{}
	} else {
		delete(s.space.overfull, s)
	}
	m.noteOver(s.space)
}

// noteOver notes whether limits leave anything out in a space.
func (m *Model) noteOver(sp *space) {
	t := sp.tenant
	if t == nil {
		return
	}
	if len(sp.overfull)+len(sp.crowded)+sp.leftOut > 0 {
		if t.over == nil {
			t.over = set[*space]{}
		}
		t.over[sp] = struct{}{}
	} else {
		delete(t.over, sp)
	}
	m.used(t)
}

// used notes that the usage of a tenant, nil for none, may be another than before.
func (m *Model) used(t *tenant) {
	if t == nil {
		return
	}
	m.usage[t.name] = struct{}{}
	now := t.leftOut()
	if now == t.said {
		return
	}
	t.said = now
	for source := range t.claims {
		m.check(Ref{Kind: KindTenant, Key: Key{Source: source, Name: t.name}})
	}
}

func (t *tenant) leftOut() LeftOut {
	out := LeftOut{
		Services: len(t.services.rest.entries), Policies: len(t.policies.rest.entries),
		Grants: len(t.grants.rest.entries), Requests: len(t.requests.rest.entries),
	}
	crowded := set[*accessPolicy]{}
	for sp := range t.over {
		for s := range sp.overfull {
			if !s.dropped {
				out.Endpoints++
			}
		}
		out.ViewServices += sp.leftOut
		for p := range sp.crowded {
			crowded[p] = struct{}{}
		}
	}
	out.PoliciesPerWorkload = len(crowded)
	return out
}

// degraded says which of the tenant's limits leave something out. What they leave
// out says so itself, where it is an object.
func (t *tenant) degraded() (found []Problem) {
	l := t.leftOut()
	for _, one := range []struct {
		limit, what string
		n           int
	}{
		{"services", "services are left out", l.Services},
		{"policies", "policies that allow are left out", l.Policies},
		{"policiesPerWorkload", "policies allow nothing at some workload", l.PoliciesPerWorkload},
		{"grants", "grants are left out", l.Grants},
		{"requests", "requests are left out", l.Requests},
		{"endpoints", "services have endpoints that are left out", l.Endpoints},
		{"viewResources", "services, counted in each namespace, are left out of what proxies are given (viewBytes may be the reason, too)", l.ViewServices},
	} {
		if one.n > 0 {
			found = append(found, Problem{Reason: ReasonLimit, Field: "spec.limits." + one.limit, Message: fmt.Sprintf("%d %s", one.n, one.what)})
		}
	}
	return found
}
