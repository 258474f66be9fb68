package tenancy

import (
	"maps"
	"slices"
	"strings"

	"bailiwick.dev/bailiwick/tenancy/policy"
)

// inboundPort puts together who may call the Pod port that leads lead to.
func (m *Model) inboundPort(sp *space, leads []lead, by judges) InboundPort {
	out := InboundPort{Port: leads[0].Port, Protocol: joint(leads)}
	out.Plaintext = sp.tenant.now.Permissive && out.Protocol != ServerFirst
	consumers := m.consumers(sp, leads)
	out.Policy = policy.Port{
		Number: out.Port, HTTP: out.Protocol.IsHTTP(),
		Floor:             policy.Floor{Tenant: sp.tenant.floor(), Granted: refsOf(consumers)},
		AllowWithinTenant: sp.tenant.now.DefaultAction == AllowWithinTenant,
		Permissive:        m.permissive(sp, out.Port, out.Protocol, by.peers),
	}
	r := resolver{space: sp, consumers: consumers, port: &out.Policy, over: by.over}
	for _, p := range by.cluster {
		r.clusterRules(p)
	}
	for _, p := range by.policies {
		switch {
		case p.obj.Action != Allow:
		case p.obj.Observe && out.Policy.AllowObserved == "":
			out.Policy.AllowObserved = p.identity()
		case !p.obj.Observe:
			out.Policy.AllowSelected = true
		}
		r.rules(p)
	}
	r.providers()
	if out.Protocol == ServerFirst {
		out.Policy.KnownAccounts = m.knownAccounts(sp, out.Policy.Partial())
	}
	return out
}

// resolver turns the rules of policies into normal form for one Pod port.
type resolver struct {
	space     *space
	consumers map[string]*space
	port      *policy.Port
	// over are the policies that are over the limit of the workload.
	over set[*accessPolicy]
}

// everybody is who could call at all.
func everybody() policy.Principals { return policy.Principals{All: true, Plaintext: true} }

func actionOf(a Action) policy.Action {
	switch a {
	case Allow:
		return policy.Allow
	case Pass:
		return policy.Pass
	case Audit:
		return policy.Audit
	default:
		return policy.Deny
	}
}

// rules adds those of a tenant's policy.
func (r resolver) rules(p *accessPolicy) {
	base := policy.Rule{Policy: p.identity(), Action: actionOf(p.obj.Action), Observe: p.obj.Observe}
	switch {
	case p.invalid() && p.obj.Action == Deny:
		base.From = everybody()
		r.port.Rules = append(r.port.Rules, base)
		return
	case p.invalid() || p.dropped:
		return
	}
	if _, over := r.over[p]; over {
		return
	}
	for i := range p.obj.Rules {
		r.add(base, &p.obj.Rules[i])
	}
}

// clusterRules adds those of a policy of the platform. Of one that cannot be
// honoured, a Deny denies everybody and a Pass of tier Admin keeps Allows behind
// it from deciding.
func (r resolver) clusterRules(p *clusterPolicy) {
	base := policy.Rule{Policy: "*/" + p.key.Name, Tier: policy.TierAdmin, Observe: p.obj.Observe}
	if p.obj.Baseline {
		base.Tier = policy.TierBaseline
	}
	if p.obj.Invalid && len(p.obj.Rules) == 0 {
		base.From = everybody()
		r.port.Rules = append(r.port.Rules, base)
	}
	for i := range p.obj.Rules {
		rule := base
		rule.Action = actionOf(p.obj.Rules[i].Action)
		switch {
		case !p.obj.Invalid:
			r.add(rule, &p.obj.Rules[i].AccessRule)
		case rule.Action == policy.Deny || rule.Action == policy.Pass && !p.obj.Baseline:
			rule.From = everybody()
			r.port.Rules = append(r.port.Rules, rule)
		}
	}
}

// add adds a rule, if it is about the port and about anybody. A token of a
// provider that the tenant does not have cannot be honoured: an Allow that asks
// for one allows nothing, anything else is about all that it may have meant.
func (r resolver) add(base policy.Rule, rule *AccessRule) {
	if len(rule.Ports) > 0 && !slices.Contains(rule.Ports, r.port.Number) || slices.Contains(rule.NotPorts, r.port.Number) {
		return
	}
	base.From, base.NotFrom, base.Match = r.principals(rule.Sources), r.principals(rule.NotSources), matchOf(rule)
	if base.From.Nobody() {
		return
	}
	if rule.Token != nil && !r.space.tenant.has(rule.Token.Provider) {
		if base.Action == policy.Allow {
			return
		}
		base.Match.Provider, base.Match.Claims = "", nil
	}
	if base.Match.Provider != "" && !base.Observe && base.Action != policy.Audit {
		r.port.TokenEnforced = true
		r.port.TokenRequired = r.port.TokenRequired || !rule.Token.Optional
	}
	r.port.Rules = append(r.port.Rules, base)
}

func (t *tenant) has(provider string) bool {
	return slices.ContainsFunc(t.now.Providers, func(p policy.Provider) bool { return p.Name == provider })
}

// providers are those whose tokens the port's rules speak about.
func (r resolver) providers() {
	r.port.TokenRequired = r.port.TokenRequired && r.port.HTTP
	for _, p := range r.space.tenant.now.Providers {
		if r.port.HTTP && slices.ContainsFunc(r.port.Rules, func(rule policy.Rule) bool { return rule.Match.Provider == p.Name }) {
			r.port.Providers = append(r.port.Providers, p)
		}
	}
}

func (r resolver) principals(sources []AccessSource) policy.Principals {
	var p policy.Principals
	spaces, ids := map[string]*space{}, set[string]{}
	for _, src := range sources {
		switch {
		case src.All:
			p.All = true
		case src.Granted:
			p.Granted = true
		case src.Plaintext:
			p.Plaintext = true
		case src.SPIFFEID != "":
			ids[src.SPIFFEID] = struct{}{}
		case src.SPIFFEIDPrefix != "":
			maps.Copy(spaces, r.beginning(src.SPIFFEIDPrefix))
		case src.ServiceAccount != "":
			for _, sp := range r.named(src) {
				ids[sp.namespaceRef().Prefix()+src.ServiceAccount] = struct{}{}
			}
		default:
			maps.Copy(spaces, r.named(src))
		}
	}
	p.Namespaces, p.IDs = refsOf(spaces), sortedKeys(ids)
	return p
}

// beginning are the namespaces that the floor lets in whose IDs all begin so.
func (r resolver) beginning(prefix string) map[string]*space {
	found := map[string]*space{}
	for _, candidates := range []map[string]*space{r.space.tenant.members, r.consumers} {
		for name, sp := range candidates {
			if strings.HasPrefix(sp.namespaceRef().Prefix(), prefix) {
				found[name] = sp
			}
		}
	}
	return found
}

// named are the namespaces that a source speaks about: of the own tenant all,
// of another tenant those that the floor lets in.
func (r resolver) named(src AccessSource) map[string]*space {
	own := r.space.tenant
	candidates, of := r.consumers, src.Tenant
	if of == "" || of == own.name {
		candidates, of = own.members, own.name
	}
	if src.Namespace != "" {
		if sp := candidates[src.Namespace]; sp != nil && sp.tenant.name == of {
			return map[string]*space{sp.name: sp}
		}
		return nil
	}
	if of == own.name {
		return candidates
	}
	found := map[string]*space{}
	for name, sp := range candidates {
		if sp.tenant.name == of {
			found[name] = sp
		}
	}
	return found
}

func matchOf(rule *AccessRule) policy.Match {
	m := policy.Match{
		Methods: slices.Clone(rule.Methods), Paths: pathsOf(rule.Paths), Hosts: hostsOf(rule.Hosts),
		NotMethods: slices.Clone(rule.NotMethods), NotPaths: pathsOf(rule.NotPaths), NotHosts: hostsOf(rule.NotHosts),
	}
	for _, h := range rule.Headers {
		header := policy.Header{Name: strings.ToLower(h.Name)}
		switch {
		case h.Present:
			header.Type = policy.Present
		case h.Prefix != "":
			header.Type, header.Value = policy.Prefix, h.Prefix
		default:
			header.Type, header.Value = policy.Exact, h.Exact
		}
		m.Headers = append(m.Headers, header)
	}
	if rule.Token != nil {
		m.Provider = rule.Token.Provider
		for _, c := range rule.Token.Claims {
			m.Claims = append(m.Claims, policy.Claim(c))
		}
	}
	return m
}

func pathsOf(in []PathMatch) (out []policy.Path) {
	for _, p := range in {
		path := policy.Path{Type: policy.Exact, Value: p.Value}
		switch {
		case p.Template:
			path.Type = policy.Template
		case p.Prefix:
			path = policy.Path{Type: policy.Prefix, Value: "/" + strings.Trim(p.Value, "/")}
		}
		out = append(out, path)
	}
	return out
}

func hostsOf(in []string) (out []string) {
	for _, h := range in {
		out = append(out, policy.HostOnly(h))
	}
	return out
}
