package tenancy

import (
	"maps"
	"strings"
)

func (m *Model) applyPolicy(sp *space, name string, obj *AccessPolicy) {
	p := sp.policies[name]
	if p == nil {
		if obj == nil {
			return
		}
		p = &accessPolicy{entry: entry{space: sp, name: name}}
		p.state = p
		put(&sp.policies, name, p)
	}
	if same(p.obj, obj) {
		return
	}
	m.touchCrowds(p)
	m.checkNarrowed(p)
	old := p.obj
	if old == nil || obj == nil || !maps.Equal(old.MatchLabels, obj.MatchLabels) {
		for _, pod := range sp.pods {
			m.steps++
			if (old != nil && selects(old, pod.obj)) != (obj != nil && selects(obj, pod.obj)) {
				m.touchPod(pod)
			}
		}
	}
	wide := old != nil && old.TenantWide || obj != nil && obj.TenantWide
	if wide {
		m.touchWide(sp)
	}
	if old != nil {
		m.touchPolicy(p)
		drop(sp.selectors, selector(old), p)
		delete(sp.wide, p)
		m.watchAccounts(p, false)
	}
	p.obj = obj
	if obj != nil {
		insert(&sp.selectors, selector(obj), p)
		if obj.TenantWide {
			insertKey(&sp.wide, p)
		}
		m.watchAccounts(p, true)
		m.touchPolicy(p)
	} else {
		delete(sp.policies, name)
	}
	m.rank(&p.entry)
	m.touchCrowds(p)
	m.checkNarrowed(p)
	m.check(p.ref())
}

// touchPolicy notes that what a policy says may be different, for the
// workloads that it selects.
func (m *Model) touchPolicy(p *accessPolicy) {
	m.touchSelected(p.space, p.identity())
	if p.obj.TenantWide && p.space.admin() {
		for _, sp := range p.space.tenant.members {
			if sp != p.space {
				m.touchSelected(sp, p.identity())
			}
		}
	}
}

// touchWide notes that other policies than before may select Pods anywhere in
// the tenant, if a namespace is its tenant's admin namespace.
func (m *Model) touchWide(sp *space) {
	if !sp.admin() {
		return
	}
	for _, member := range sp.tenant.members {
		if sp.tenant.now.DefaultAction == AllowWithinTenant {
			m.checkPolicies(member)
		}
		for _, pod := range member.pods {
			if member != sp {
				m.touchPod(pod)
			}
		}
	}
}

// applyAdmin spreads that another namespace is the tenant's admin namespace.
func (m *Model) applyAdmin(t *tenant, old *Tenant) {
	if old.AdminNamespace == t.now.AdminNamespace {
		return
	}
	for _, sp := range t.members {
		m.touchWorkloads(sp)
		m.checkPolicies(sp)
		for _, pod := range sp.pods {
			m.touchPod(pod)
		}
	}
}

func selects(p *AccessPolicy, pod *Pod) bool { return within(p.MatchLabels, pod.Labels) }

// selector is the one label of a policy's selector that it is found by.
func selector(p *AccessPolicy) label { return firstLabel(p.MatchLabels) }

// eachPolicy calls f for every policy that selects pod, those of the tenant's
// admin namespace included.
func (sp *space) eachPolicy(pod *Pod, f func(*accessPolicy)) {
	look := func(l label) {
		for p := range sp.selectors[l] {
			if selects(p.obj, pod) {
				f(p)
			}
		}
	}
	look(label{})
	for k, v := range pod.Labels {
		if k != "" {
			look(label{k, v})
		}
	}
	if sp.tenant == nil || sp.admin() {
		return
	}
	if admin := sp.tenant.members[sp.tenant.now.AdminNamespace]; admin != nil {
		for p := range admin.wide {
			if selects(p.obj, pod) {
				f(p)
			}
		}
	}
}

// watchAccounts registers a Deny that names single accounts, because what the
// accounts of such a namespace are decides the SANs of server-first ports.
func (m *Model) watchAccounts(p *accessPolicy, on bool) {
	if p.obj.Action != Deny {
		return
	}
	file := func(ns string) {
		switch {
		case ns == "" && on:
			if p.space.denying == nil {
				p.space.denying = set[*accessPolicy]{}
			}
			p.space.denying[p] = struct{}{}
		case ns == "":
			delete(p.space.denying, p)
		case on:
			insert(&m.denying, ns, p)
		default:
			drop(m.denying, ns, p)
		}
	}
	for _, rule := range p.obj.Rules {
		for _, src := range rule.Sources {
			if src.SPIFFEID != "" {
				if ns := namespaceOf(src.SPIFFEID); ns != "" {
					file(ns)
				}
			} else if src.ServiceAccount != "" {
				file(src.Namespace)
			}
		}
	}
}

// namespaceOf is the namespace in a workload's SPIFFE ID, "" if it is none.
func namespaceOf(id string) string {
	const parts, at = 7, 4 // spiffe: "" domain ns <namespace> sa <account>
	if p := strings.Split(id, "/"); len(p) == parts {
		return p[at]
	}
	return ""
}

// touchAccounts notes that the set of accounts of a namespace changed, for the
// policies of its own tenant that deny single ones of them.
func (m *Model) touchAccounts(sp *space) {
	if sp.tenant == nil {
		return
	}
	for p := range m.denying[sp.name] {
		if p.space.tenant == sp.tenant {
			m.touchPolicy(p)
		}
	}
	for _, member := range sp.tenant.members {
		for p := range member.denying {
			m.touchPolicy(p)
		}
	}
	for p := range m.clusterPolicies.denying {
		m.eachSubject(p, func(subject *space) {
			if subject.tenant == sp.tenant {
				m.touchWorkloads(subject)
			}
		})
	}
}
