package policy

import (
	"slices"
	"strings"
)

// Why says what became of a policy in a decision. Later ones came closer to it.
type Why uint8

// The zero value was not asked, because nobody may speak about such a caller.
const (
	NotAsked Why = iota
	OtherCallers
	OtherRequests
	// Observes only, or audits: it would match, and decides nothing.
	Observes
	// Passes ends its tier.
	Passes
	Overruled
	Decided
)

// Look is one policy that was looked at for a call. Policies are judged as far
// as they speak about the port: those that do not are not in its Rules.
type Look struct {
	// Policy is "<namespace>/<name>", of the platform "*/<name>".
	Policy string
	Tier   Tier
	Action Action
	Why    Why
	// Detail says which conditions of a rule for the caller the request did not
	// meet, in words; for OtherRequests only.
	Detail string
}

// Explain is Decide with every policy of Rules that was looked at, in the order
// of judgement, then those that only audit.
func (p Port) Explain(id string, r Request) (Decision, []Look) {
	decision := p.Decide(id, r)
	own, inside := p.member(id)
	return decision, p.looks(decision, r, caller{inside: inside, about: func(rule *Rule) bool {
		return rule.From.has(id, own) && !rule.NotFrom.has(id, own)
	}})
}

// ExplainPlaintext is DecidePlaintext, as Explain is Decide.
func (p Port) ExplainPlaintext(r Request) (Decision, []Look) {
	decision := p.DecidePlaintext(r)
	return decision, p.looks(decision, r, caller{inside: p.Permissive, about: func(rule *Rule) bool {
		return rule.From.Plaintext && !rule.NotFrom.Plaintext
	}})
}

// caller is whom a port is explained for: whether policies may speak about it at
// all, and whether a rule does.
type caller struct {
	inside bool
	about  func(*Rule) bool
}

func (p Port) looks(decision Decision, r Request, c caller) (looks []Look) {
	type key struct {
		policy string
		action Action
	}
	at := map[key]int{}
	all := append(stages(Port{}), func(r Rule) bool { return r.Action == Audit })
	for _, stage := range all {
		for i := range p.Rules {
			rule := &p.Rules[i]
			if !stage(*rule) {
				continue
			}
			look := p.look(rule, decision, r, c)
			if n, ok := at[key{rule.Policy, rule.Action}]; !ok {
				at[key{rule.Policy, rule.Action}] = len(looks)
				looks = append(looks, look)
			} else if look.Why > looks[n].Why {
				looks[n] = look
			}
		}
	}
	return looks
}

func (p Port) look(rule *Rule, d Decision, r Request, c caller) Look {
	look := Look{Policy: rule.Policy, Tier: rule.Tier, Action: rule.Action}
	switch {
	case !c.inside && d.By == rule.Policy && rule.Action == Deny && rule.Tier == TierAdmin && !rule.Observe && rule.From.All:
		look.Why = Decided
	case d.By == ByMultiSAN || d.By == ByNoToken || !c.inside:
	case !c.about(rule):
		look.Why = OtherCallers
	case !p.HTTP && !rule.Match.Any() && rule.Action == Allow:
		look.Why, look.Detail = OtherRequests, "it has conditions on requests, and the port is not HTTP"
	case p.HTTP && !rule.Match.Matches(r, rule.Action):
		look.Why, look.Detail = OtherRequests, rule.Match.unmet(r, rule.Action)
	case rule.Observe || rule.Action == Audit:
		look.Why = Observes
	case rule.Action == Pass && d.By == rule.Policy && !p.HTTP && !rule.Match.Any() && rule.Tier == TierBaseline:
		look.Why = Decided // what cannot be judged here is not passed over
	case rule.Action == Pass:
		look.Why = Passes
	case d.By == rule.Policy && d.Allowed == (rule.Action == Allow):
		look.Why = Decided
	default:
		look.Why = Overruled
	}
	return look
}

// member reports whether the floor lets a caller in, and whether as one of the
// own tenant.
func (p Port) member(id string) (own, inside bool) {
	prefix := prefixOf(id)
	is := func(ref NamespaceRef) bool { return ref.Prefix() == prefix }
	if prefix == "" {
		return false, false
	}
	own = slices.ContainsFunc(p.Floor.Tenant, is)
	return own, own || slices.ContainsFunc(p.Floor.Granted, is)
}

func (f Principals) has(id string, own bool) bool {
	return f.All || f.Granted && !own || slices.Contains(f.IDs, id) ||
		slices.ContainsFunc(f.Namespaces, func(ref NamespaceRef) bool { return strings.HasPrefix(id, ref.Prefix()) })
}

// unmet names the conditions of m that r does not meet.
func (m Match) unmet(r Request, a Action) string {
	var why []string
	miss := func(one Match, name, got string, want []string) {
		if !one.Matches(r, a) {
			if got == "" {
				got = "none"
			}
			why = append(why, name+" "+got+" is not "+strings.Join(want, " or "))
		}
	}
	path, _, _ := strings.Cut(r.Path, "?")
	var paths []string
	for _, p := range m.Paths {
		if p.Type == Prefix {
			paths = append(paths, "below "+p.Value)
		} else {
			paths = append(paths, p.Value)
		}
	}
	miss(Match{Methods: m.Methods}, "method", r.Method, m.Methods)
	miss(Match{Paths: m.Paths}, "path", path, paths)
	miss(Match{Hosts: m.Hosts}, "host", HostOnly(r.Host), m.Hosts)
	for _, h := range m.Headers {
		if !(Match{Headers: []Header{h}}).Matches(r, a) {
			why = append(why, "header "+h.Name+" is not as the rule wants it")
		}
	}
	if m.Provider != "" && !(Match{Provider: m.Provider, Claims: m.Claims}).Matches(r, a) {
		why = append(why, m.unmetToken(r, a))
	}
	if len(why) == 0 {
		return "its other conditions are not met"
	}
	return strings.Join(why, ", ")
}

// unmetToken says what is missing of a token.
func (m Match) unmetToken(r Request, a Action) string {
	if !(Match{Provider: m.Provider}).Matches(r, a) {
		return "there is no valid token of provider " + m.Provider
	}
	for _, c := range m.Claims {
		if !(Match{Provider: m.Provider, Claims: []Claim{c}}).Matches(r, a) {
			return "claim " + strings.Join(c.Path, ".") + " is not " + strings.Join(c.Values, " or ")
		}
	}
	return "the token is not as the rule wants it"
}

// Extent is what becomes of all the requests that a caller can make.
type Extent uint8

// The extents: no request is allowed, some are, all are.
const (
	None Extent = iota
	Some
	All
)

// Extents answers for many callers of one port. It reads Classes once.
type Extents struct{ exact, prefix map[string]Extent }

// Extents prepares the port for Of.
func (p Port) Extents() Extents {
	e := Extents{map[string]Extent{}, map[string]Extent{}}
	for _, c := range p.Classes() {
		in := e.exact
		if c.Prefix {
			in = e.prefix
		}
		if in[c.Key] = c.extent(); in[c.Key] == All && p.HTTP && p.TokenRequired {
			in[c.Key] = Some
		}
	}
	return e
}

// Of is the extent for a whole SPIFFE ID, or for the prefix of a namespace: for
// those of its workloads that no rule names by themselves.
func (e Extents) Of(id string) Extent {
	if strings.Contains(id, ",") {
		return None
	}
	if found, ok := e.exact[id]; ok {
		return found
	}
	return e.prefix[prefixOf(id)]
}

func (c *Class) extent() Extent {
	allowed, denied := c.End.Allowed, !c.End.Allowed
	for _, s := range c.Steps {
		allowed, denied = allowed || s.Action == Allow, denied || s.Action == Deny
	}
	switch {
	case !allowed:
		return None
	case !denied:
		return All
	default:
		return Some
	}
}
