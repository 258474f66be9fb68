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
	old := p.obj
	if old == nil || obj == nil || !maps.Equal(old.MatchLabels, obj.MatchLabels) {
		for _, pod := range sp.pods {
			m.steps++
			if (old != nil && selects(old, pod.obj)) != (obj != nil && selects(obj, pod.obj)) {
				m.touchPod(pod)
			}
		}
	}
	if old != nil {
		drop(sp.selectors, selector(old), p)
		m.watchAccounts(p, false)
	}
	p.obj = obj
	if obj != nil {
		insert(&sp.selectors, selector(obj), p)
		m.watchAccounts(p, true)
	} else {
		delete(sp.policies, name)
	}
	m.rank(&p.entry)
	m.touchWorkloads(sp)
	m.check(p.ref())
}

func selects(p *AccessPolicy, pod *Pod) bool {
	for k, v := range p.MatchLabels {
		if got, ok := pod.Labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// selector is the one label of a policy's selector that it is found by.
func selector(p *AccessPolicy) label {
	for _, k := range sortedKeys(p.MatchLabels) {
		return label{k, p.MatchLabels[k]}
	}
	return label{}
}

// eachPolicy calls f for every policy that selects pod.
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
			m.touchWorkloads(p.space)
		}
	}
	for _, member := range sp.tenant.members {
		if len(member.denying) > 0 {
			m.touchWorkloads(member)
		}
	}
}
