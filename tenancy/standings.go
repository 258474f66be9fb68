package tenancy

import (
	"maps"
	"slices"
)

// Standing is how an AccessPolicy, or those rules of a ClusterAccessPolicy that
// have one action, stands to a port of a Pod.
type Standing struct {
	Policy Ref
	Action Action
	// Selects the Pod (of a ClusterAccessPolicy: its namespace is a subject);
	// Ports if it speaks about the port, Invalid if it cannot be honoured,
	// Dropped if it is over the tenant's limit, or over that of the Pod's workload.
	Selects, Ports, Invalid, Dropped bool
	// NoProvider is set if it wants tokens of a provider that the Pod's tenant
	// does not have, for which an Allow allows nothing.
	NoProvider bool
	// MatchLabels are an AccessPolicy's selector.
	MatchLabels map[string]string
}

// Standings are all policies that could be about a port of a Pod: those of its
// namespace by name, those for all of the tenant by name, then the platform's in
// the order of judgement, by action.
func (m *Model) Standings(pod Key, port uint16) []Standing {
	sp := m.owned(pod.Namespace)
	if sp == nil || sp.pods[pod.Name] == nil {
		return nil
	}
	var all []Standing
	of := sp.pods[pod.Name].obj
	over := m.excessOf(sp, of)
	for _, name := range sortedKeys(sp.policies) {
		all = append(all, sp.standing(sp.policies[name], of, port, over))
	}
	if admin := sp.tenant.members[sp.tenant.now.AdminNamespace]; admin != nil && admin != sp {
		for _, name := range sortedKeys(admin.policies) {
			if p := admin.policies[name]; p.obj.TenantWide {
				all = append(all, sp.standing(p, of, port, over))
			}
		}
	}
	return append(all, m.clusterStandings(sp, port)...)
}

// standing is how a policy stands to a port of a Pod of the space.
func (sp *space) standing(p *accessPolicy, pod *Pod, port uint16, over set[*accessPolicy]) Standing {
	_, crowded := over[p]
	s := Standing{
		Policy: p.ref(), Action: p.obj.Action, Selects: selects(p.obj, pod),
		Ports: p.invalid(), Invalid: p.invalid(), Dropped: p.dropped || crowded, MatchLabels: p.obj.MatchLabels,
	}
	for i := range p.obj.Rules {
		s.consider(sp.tenant, &p.obj.Rules[i], port)
	}
	return s
}

// consider adds what one more rule says about a port.
func (s *Standing) consider(t *tenant, rule *AccessRule, port uint16) {
	if len(rule.Ports) > 0 && !slices.Contains(rule.Ports, port) || slices.Contains(rule.NotPorts, port) {
		return
	}
	s.Ports = true
	s.NoProvider = s.NoProvider || rule.Token != nil && !t.has(rule.Token.Provider)
}

func (m *Model) clusterStandings(sp *space, port uint16) []Standing {
	var all []Standing
	subject := m.subjectTo(sp)
	policies := slices.SortedFunc(maps.Values(m.clusterPolicies.byKey), (*clusterPolicy).before)
	for _, p := range policies {
		for _, action := range []Action{Deny, Allow, Pass, Audit} {
			s := Standing{
				Policy: Ref{Kind: KindClusterAccessPolicy, Key: p.key}, Action: action,
				Selects: slices.Contains(subject, p), Ports: p.obj.Invalid, Invalid: p.obj.Invalid,
			}
			rules := 0
			for i := range p.obj.Rules {
				if p.obj.Rules[i].Action == action {
					rules++
					s.consider(sp.tenant, &p.obj.Rules[i].AccessRule, port)
				}
			}
			if rules > 0 {
				all = append(all, s)
			}
		}
	}
	return all
}
