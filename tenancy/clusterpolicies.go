package tenancy

import (
	"cmp"
	"maps"
	"slices"
)

// clusterPolicy is a ClusterAccessPolicy in the Model.
type clusterPolicy struct {
	key Key
	obj *ClusterAccessPolicy
}

func (p *clusterPolicy) before(o *clusterPolicy) int {
	return cmp.Or(cmp.Compare(p.obj.Priority, o.obj.Priority), cmp.Compare(p.key.Name, o.key.Name), cmp.Compare(p.key.Source, o.key.Source))
}

// clusterPolicies finds the platform's policies by their subjects.
type clusterPolicies struct {
	byKey       map[Key]*clusterPolicy
	all         set[*clusterPolicy]
	byTenant    map[string]set[*clusterPolicy]
	byNamespace map[string]set[*clusterPolicy]
	// byLabel has each policy under one label of each of its subjects.
	byLabel map[label]set[*clusterPolicy]
	// denying are those that deny single accounts.
	denying set[*clusterPolicy]
}

func newClusterPolicies() clusterPolicies {
	return clusterPolicies{byKey: map[Key]*clusterPolicy{}, all: set[*clusterPolicy]{}, denying: set[*clusterPolicy]{}}
}

func (c *clusterPolicies) index(p *clusterPolicy, on bool) {
	if on {
		c.byKey[p.key] = p
		if p.deniesAccounts() {
			c.denying[p] = struct{}{}
		}
	} else {
		delete(c.byKey, p.key)
		delete(c.denying, p)
		delete(c.all, p)
	}
	for _, s := range p.obj.Subjects {
		if s.AllTenants && on {
			c.all[p] = struct{}{}
		}
		for _, name := range s.Tenants {
			indexIn(&c.byTenant, name, p, on)
		}
		for _, name := range s.Namespaces {
			indexIn(&c.byNamespace, name, p, on)
		}
		if len(s.Labels) > 0 {
			indexIn(&c.byLabel, firstLabel(s.Labels), p, on)
		}
	}
}

func indexIn[K comparable](m *map[K]set[*clusterPolicy], k K, p *clusterPolicy, on bool) {
	if on {
		insert(m, k, p)
	} else {
		drop(*m, k, p)
	}
}

// firstLabel is the one of several labels that they are found by.
func firstLabel(labels map[string]string) label {
	for _, k := range sortedKeys(labels) {
		return label{k, labels[k]}
	}
	return label{}
}

func (p *clusterPolicy) deniesAccounts() bool {
	return slices.ContainsFunc(p.obj.Rules, func(r ClusterRule) bool {
		return r.Action == Deny && slices.ContainsFunc(r.Sources, func(s AccessSource) bool { return s.SPIFFEID != "" || s.ServiceAccount != "" })
	})
}

// subjectTo are the platform's policies for a namespace that has a tenant, in
// the order of judgement.
func (m *Model) subjectTo(sp *space) []*clusterPolicy {
	c := &m.clusterPolicies
	found := maps.Clone(c.all)
	maps.Copy(found, c.byTenant[sp.tenant.name])
	maps.Copy(found, c.byNamespace[sp.name])
	for k, v := range sp.obj.Labels {
		for p := range c.byLabel[label{k, v}] {
			if slices.ContainsFunc(p.obj.Subjects, func(s Subject) bool { return len(s.Labels) > 0 && within(s.Labels, sp.obj.Labels) }) {
				found[p] = struct{}{}
			}
		}
	}
	return slices.SortedFunc(maps.Keys(found), (*clusterPolicy).before)
}

// within reports whether all of labels are among those of something.
func within(labels, of map[string]string) bool {
	for k, v := range labels {
		if got, ok := of[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// eachSubject calls f for the namespaces that a policy is for, for some of them
// twice.
func (m *Model) eachSubject(p *clusterPolicy, f func(*space)) {
	members := func(t *tenant) {
		if t != nil {
			for _, sp := range t.members {
				f(sp)
			}
		}
	}
	for _, s := range p.obj.Subjects {
		if s.AllTenants {
			for _, t := range m.tenants {
				members(t)
			}
		}
		for _, name := range s.Tenants {
			members(m.tenants[name])
		}
		for _, name := range s.Namespaces {
			if sp := m.owned(name); sp != nil {
				f(sp)
			}
		}
		if len(s.Labels) == 0 {
			continue
		}
		for sp := range m.byLabel[firstLabel(s.Labels)] {
			if sp.tenant != nil && within(s.Labels, sp.obj.Labels) {
				f(sp)
			}
		}
	}
}

func (m *Model) applyClusterPolicy(k Key, obj *ClusterAccessPolicy) {
	p := m.clusterPolicies.byKey[k]
	if p == nil && obj == nil || p != nil && same(p.obj, obj) {
		return
	}
	if p != nil {
		m.eachSubject(p, m.touchWorkloads)
		m.clusterPolicies.index(p, false)
	}
	if obj != nil {
		p = &clusterPolicy{key: k, obj: obj}
		m.clusterPolicies.index(p, true)
		m.eachSubject(p, m.touchWorkloads)
	}
	m.check(Ref{Kind: KindClusterAccessPolicy, Key: k})
}

// relabel files a namespace under the guarded labels that it is about to have,
// and reports whether they differ.
func (m *Model) relabel(sp *space, obj *Namespace) bool {
	var old, now map[string]string
	if sp.obj != nil {
		old = sp.obj.Labels
	}
	if obj != nil {
		now = obj.Labels
	}
	if maps.Equal(old, now) {
		return false
	}
	for k, v := range old {
		drop(m.byLabel, label{k, v}, sp)
	}
	for k, v := range now {
		insert(&m.byLabel, label{k, v}, sp)
	}
	return true
}
