package tenancy

import (
	"slices"
	"strings"
)

// Of the Allow policies that select one workload the first ones count, in the
// fixed order of limits; those behind still select it, and allow nothing there.
// What a workload is given is cut when it is put together. The functions here
// find the policies that this happens to anywhere, for their status.

// policiesPerWorkload is the limit in a space that has a tenant.
func (m *Model) policiesPerWorkload(sp *space) int {
	if n := sp.tenant.now.Limits.PoliciesPerWorkload; n != 0 {
		return n
	}
	return m.limits.PoliciesPerWorkload
}

// excess are those of the policies that select one workload which are over the
// limit; nil for none. A policy that its tenant's own limit left out takes no
// place, and a Deny is never among them.
func excess(selected []*accessPolicy, limit int) set[*accessPolicy] {
	var allows []*accessPolicy
	for _, p := range selected {
		if p.obj.Action == Allow && !p.dropped {
			allows = append(allows, p)
		}
	}
	if len(allows) <= limit {
		return nil
	}
	slices.SortFunc(allows, func(a, b *accessPolicy) int { return a.before(&b.entry) })
	over := set[*accessPolicy]{}
	for _, p := range allows[limit:] {
		over[p] = struct{}{}
	}
	return over
}

// excessOf is excess for the workload of a Pod.
func (m *Model) excessOf(sp *space, pod *Pod) set[*accessPolicy] {
	var selected []*accessPolicy
	sp.eachPolicy(pod, func(p *accessPolicy) { selected = append(selected, p) })
	return excess(selected, m.policiesPerWorkload(sp))
}

// mayCrowd reports whether there are policies enough for any Pod of a space to
// have too many: all that comes here costs nothing where there are not.
func (m *Model) mayCrowd(sp *space) bool {
	if sp.tenant == nil {
		return false
	}
	most := len(sp.policies)
	if admin := sp.tenant.members[sp.tenant.now.AdminNamespace]; admin != nil && admin != sp {
		most += len(admin.wide)
	}
	return most > m.policiesPerWorkload(sp)
}

// touchCrowd notes that other policies than before may be over the limit for
// Pods of a space.
func (m *Model) touchCrowd(sp *space) {
	if len(sp.crowded) > 0 || m.mayCrowd(sp) {
		m.crowds[sp] = struct{}{}
	}
}

// touchCrowds is touchCrowd for the Pods that a policy may select.
func (m *Model) touchCrowds(p *accessPolicy) {
	m.touchCrowd(p.space)
	if p.obj != nil && p.obj.TenantWide && p.space.admin() {
		for _, sp := range p.space.tenant.members {
			m.touchCrowd(sp)
		}
	}
}

// settleCrowds finds which policies are over the limit of a workload now, and
// has those looked at for which that is new.
func (m *Model) settleCrowds() {
	for sp := range m.crowds {
		delete(m.crowds, sp)
		now := m.crowded(sp)
		for p := range sp.crowded {
			if _, still := now[p]; !still {
				p.crowds--
				m.check(p.ref())
			}
		}
		for p := range now {
			if _, before := sp.crowded[p]; !before {
				p.crowds++
				m.check(p.ref())
			}
		}
		sp.crowded = now
		m.noteOver(sp)
	}
}

// crowded are the policies that are over the limit for any Pod of a space. Pods
// of the same labels are looked at once.
func (m *Model) crowded(sp *space) set[*accessPolicy] {
	if !m.mayCrowd(sp) {
		return nil
	}
	found, seen := set[*accessPolicy]{}, set[string]{}
	for _, pod := range sp.pods {
		if !eligible(pod.obj) {
			continue
		}
		var text strings.Builder
		for _, k := range sortedKeys(pod.obj.Labels) {
			text.WriteString(k + "=" + pod.obj.Labels[k] + ",")
		}
		if _, same := seen[text.String()]; same {
			continue
		}
		m.steps++
		seen[text.String()] = struct{}{}
		for p := range m.excessOf(sp, pod.obj) {
			found[p] = struct{}{}
		}
	}
	return found
}
