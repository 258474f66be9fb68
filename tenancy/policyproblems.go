package tenancy

import (
	"fmt"
	"slices"
	"strconv"
)

func (p *accessPolicy) problems() []Problem {
	consequence := "it decides nothing"
	switch p.obj.Action {
	case Deny:
		consequence = "all calls to the Pods that it selects are denied"
	case Allow:
		consequence = "it allows nothing"
	}
	switch {
	case p.obj.Invalid:
		return []Problem{{Reason: ReasonInvalid, Message: "cannot be honoured as written: " + consequence}}
	case p.invalid():
		return []Problem{{Reason: ReasonNotAdmin, Field: "spec.scope",
			Message: "only a policy in the namespace that the Tenant names as adminNamespace may be for all of the tenant: here " + consequence}}
	case p.dropped:
		return limitProblem("Allow policies")
	}
	var found []Problem
	if p.crowds > 0 {
		found = append(found, Problem{Reason: ReasonLimit, Field: "spec.selector",
			Message: "allows nothing at some of the Pods that it selects: older Allow policies have all the places of the limit for one workload"})
	}
	for i := range p.obj.Rules {
		found = append(found, p.ruleProblems(&p.obj.Rules[i], "spec.rules["+strconv.Itoa(i)+"]")...)
	}
	if p.narrows() {
		found = append(found, Problem{Reason: ReasonNarrows, Message: "accepted: the Pods that no older Allow selects let in their own tenant until it came; now whoever no Allow names is denied there"})
	}
	return found
}

// flips reports whether a policy takes the default AllowWithinTenant from what it
// selects: any Allow does that is enforced.
func (p *accessPolicy) flips() bool {
	return p.obj.Action == Allow && !p.obj.Observe && !p.invalid() && p.space.tenant.now.DefaultAction == AllowWithinTenant
}

// narrows reports whether a policy is the first to take the default from anything
// that it may select: no older one selects all of that by its labels.
func (p *accessPolicy) narrows() bool {
	return p.flips() && !p.eachBeside(func(o *accessPolicy) bool {
		return o.flips() && o.before(&p.entry) < 0 && within(o.obj.MatchLabels, p.obj.MatchLabels)
	})
}

// eachBeside reports whether f is true of a policy that may select all that p may:
// of those of its namespace, or where p is for all of the tenant those that are too.
func (p *accessPolicy) eachBeside(f func(*accessPolicy) bool) bool {
	for _, o := range p.space.policies {
		if (!p.obj.TenantWide || o.obj.TenantWide) && f(o) {
			return true
		}
	}
	admin := p.space.tenant.members[p.space.tenant.now.AdminNamespace]
	if p.obj.TenantWide || admin == nil || admin == p.space {
		return false
	}
	for o := range admin.wide {
		if f(o) {
			return true
		}
	}
	return false
}

// checkNarrowed notes the policies of its namespace that may be the first, or no
// longer be, because p came, went or says something else.
func (m *Model) checkNarrowed(p *accessPolicy) {
	t := p.space.tenant
	if t == nil || t.now.DefaultAction != AllowWithinTenant || p.obj == nil || p.obj.Action != Allow {
		return
	}
	for _, o := range p.space.policies {
		if o != p && o.obj.Action == Allow {
			m.check(o.ref())
		}
	}
}

// ruleProblems are what a rule asks for that cannot be had.
func (p *accessPolicy) ruleProblems(rule *AccessRule, field string) []Problem {
	effect := "the rule applies to all calls that it may have meant"
	if p.obj.Action == Allow {
		effect = "the rule allows nothing"
	}
	if rule.Token != nil && !p.space.tenant.has(rule.Token.Provider) {
		return []Problem{{Reason: ReasonNoProvider, Field: field + ".jwt.provider",
			Message: fmt.Sprintf("the Tenant has no provider %q: %s", rule.Token.Provider, effect)}}
	}
	if !matchOf(rule).Any() {
		for _, port := range p.tcpPorts() {
			if (len(rule.Ports) == 0 || slices.Contains(rule.Ports, port)) && !slices.Contains(rule.NotPorts, port) {
				return []Problem{{Reason: ReasonNotHTTP, Field: field,
					Message: fmt.Sprintf("asks about requests, and Pod port %d is not HTTP: there %s", port, effect)}}
			}
		}
	}
	return nil
}

// tcpPorts are the ports, of Pods that the policy selects, that are not judged
// by request; sorted.
func (p *accessPolicy) tcpPorts() []uint16 {
	found := set[uint16]{}
	look := func(sp *space) {
		for _, pod := range sp.pods {
			if selects(p.obj, pod.obj) {
				for port, protocol := range pod.ports() {
					if !protocol.IsHTTP() {
						found[port] = struct{}{}
					}
				}
			}
		}
	}
	look(p.space)
	if p.obj.TenantWide {
		for _, sp := range p.space.tenant.members {
			look(sp)
		}
	}
	return sortedKeys(found)
}

// ports are the Pod's ports that services lead to.
func (p *pod) ports() map[uint16]Protocol {
	all := map[uint16]Protocol{}
	for leads := p.leads(); len(leads) > 0; {
		n := 1
		for n < len(leads) && leads[n].Port == leads[0].Port {
			n++
		}
		all[leads[0].Port] = joint(leads[:n])
		leads = leads[n:]
	}
	return all
}

// checkAsking notes the policies and PeerTLS objects that select a Pod and
// depend on how its ports are carried.
func (m *Model) checkAsking(p *pod) {
	p.space.eachPolicy(p.obj, func(policy *accessPolicy) {
		if slices.ContainsFunc(policy.obj.Rules, func(r AccessRule) bool { return !matchOf(&r).Any() }) {
			m.check(policy.ref())
		}
	})
	for name, peer := range p.space.peers {
		if within(peer.MatchLabels, p.obj.Labels) {
			m.check(p.space.ref(KindPeerTLS, name))
		}
	}
}

func (m *Model) peerProblems(sp *space, p *PeerTLS) []Problem {
	var found []Problem
	if p.Invalid {
		return []Problem{{Reason: ReasonInvalid, Message: "cannot be honoured as written: the Pods that it selects are Strict"}}
	}
	if !p.Permissive {
		return nil
	}
	if !sp.tenant.now.Permissive {
		return []Problem{{Reason: ReasonNotPermitted, Field: "spec.mode", Message: "the Tenant permits Strict only, which holds"}}
	}
	first := set[uint16]{}
	for _, pod := range sp.pods {
		if !within(p.MatchLabels, pod.obj.Labels) {
			continue
		}
		for port, protocol := range pod.ports() {
			if protocol == ServerFirst && (len(p.Ports) == 0 || slices.Contains(p.Ports, port)) {
				first[port] = struct{}{}
			}
		}
	}
	for _, port := range sortedKeys(first) {
		found = append(found, Problem{Reason: ReasonServerFirst, Field: "spec.ports",
			Message: fmt.Sprintf("Pod port %d stays Strict: the server speaks first there, before anybody without a certificate could be refused", port)})
	}
	return found
}

// clusterPolicyProblems are those that need no look at any tenant's things.
func (m *Model) clusterPolicyProblems(k Key) []Problem {
	p := m.clusterPolicies.byKey[k]
	if p == nil || !p.obj.Invalid {
		return nil
	}
	effect := "its Allows allow nothing"
	if len(p.obj.Rules) == 0 || slices.ContainsFunc(p.obj.Rules, func(r ClusterRule) bool { return r.Action == Deny }) {
		effect = "all calls to its subjects are denied"
	}
	return []Problem{{Reason: ReasonInvalid, Message: "cannot be honoured as written: " + effect}}
}
