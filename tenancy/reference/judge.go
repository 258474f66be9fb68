package reference

import (
	"slices"
	"strings"

	"bailiwick.dev/bailiwick/tenancy/policy"
)

// Caller is who makes a call: whoever has this URI SAN in its certificate
// (several are joined by ","), or nobody with a certificate at all.
type Caller struct {
	ID        string
	Plaintext bool
}

// Judge says who may call a port, rule by rule as the README has the order: a
// missing token, several names, the platform's Denies, the floor, its Allows
// and Passes, the tenant's Denies, its Allows, Baseline, the default.
func Judge(p policy.Port, c Caller, r policy.Request) policy.Decision {
	if p.HTTP && p.TokenRequired && r.Token == nil {
		return policy.Decision{By: policy.ByNoToken}
	}
	if strings.Contains(c.ID, ",") {
		return policy.Decision{By: policy.ByMultiSAN}
	}
	if c.Plaintext && !p.Permissive {
		return policy.Decision{By: policy.ByPlaintext}
	}
	own, granted := isOf(p.Floor.Tenant, c.ID), isOf(p.Floor.Granted, c.ID)
	stranger := !own && !granted && !c.Plaintext
	about := func(w policy.Principals) bool { return c.isAmong(w, own, stranger) }
	first := func(tier policy.Tier, actions ...policy.Action) *policy.Rule {
		for i, rule := range p.Rules {
			not := !stranger && about(rule.NotFrom) // whoever is unknown is no exception
			if rule.Tier != tier || rule.Observe || !slices.Contains(actions, rule.Action) || !about(rule.From) || not {
				continue
			}
			if p.HTTP && applies(rule.Match, rule.Action, r) || !p.HTTP && holds(rule) {
				return &p.Rules[i]
			}
		}
		return nil
	}
	if rule := first(policy.TierAdmin, policy.Deny); rule != nil {
		return policy.Decision{By: rule.Policy}
	}
	if stranger {
		return policy.Decision{By: policy.ByTenantFloor}
	}
	if rule := first(policy.TierAdmin, policy.Allow, policy.Pass); rule != nil && rule.Action == policy.Allow {
		return policy.Decision{Allowed: true, By: rule.Policy}
	}
	if rule := first(policy.TierTenant, policy.Deny); rule != nil {
		return policy.Decision{By: rule.Policy}
	}
	if rule := first(policy.TierTenant, policy.Allow); rule != nil {
		return policy.Decision{Allowed: true, By: rule.Policy}
	}
	if !p.AllowSelected {
		rule := first(policy.TierBaseline, policy.Allow, policy.Deny, policy.Pass)
		if rule != nil && rule.Action == policy.Pass && !p.HTTP && conditional(rule.Match) {
			return policy.Decision{By: rule.Policy}
		}
		if rule != nil && rule.Action != policy.Pass {
			return policy.Decision{Allowed: rule.Action == policy.Allow, By: rule.Policy}
		}
	}
	switch {
	case c.Plaintext:
		return policy.Decision{By: policy.ByPlaintext}
	case own && p.AllowWithinTenant && !p.AllowSelected:
		return policy.Decision{Allowed: true, By: policy.ByDefaultAllow}
	}
	return policy.Decision{By: policy.ByDefaultDeny}
}

// isAmong tells whether principals name the caller.
func (c Caller) isAmong(w policy.Principals, own, stranger bool) bool {
	switch {
	case c.Plaintext:
		return w.Plaintext
	case stranger:
		return w.All
	}
	return w.All || w.Granted && !own || slices.Contains(w.IDs, c.ID) || isOf(w.Namespaces, c.ID)
}

// isOf tells whether an ID is of one of the namespaces.
func isOf(refs []policy.NamespaceRef, id string) bool {
	return slices.ContainsFunc(refs, func(n policy.NamespaceRef) bool {
		return strings.HasPrefix(id, "spiffe://"+n.TrustDomain+"/ns/"+n.Namespace+"/sa/")
	})
}

func conditional(m policy.Match) bool {
	return len(m.Methods)+len(m.Paths)+len(m.Hosts)+len(m.Headers)+len(m.NotMethods)+len(m.NotPaths)+len(m.NotHosts) > 0 || m.Provider != ""
}

// holds tells whether a rule holds on a port that is not HTTP: an Allow that
// asks about requests never does, anything else always.
func holds(rule policy.Rule) bool { return rule.Action != policy.Allow || !conditional(rule.Match) }

// applies tells whether a request is one that a rule speaks about.
func applies(m policy.Match, a policy.Action, r policy.Request) bool {
	path := r.Path
	if i := strings.IndexByte(path, '?'); i >= 0 {
		path = path[:i]
	}
	host := strings.ToLower(r.Host)
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') && strings.IndexByte(host, ':') == i || i > 0 && host[0] == '[' && i > strings.LastIndexByte(host, ']') {
		host = host[:i]
	}
	in := func(list []string, v string) bool { return len(list) == 0 || slices.Contains(list, v) }
	onPath := func(list []policy.Path, deny bool) bool {
		return slices.ContainsFunc(list, func(p policy.Path) bool { return onPath(p, path, deny) })
	}
	ok := in(m.Methods, r.Method) && in(m.Hosts, host) && (len(m.Paths) == 0 || onPath(m.Paths, a == policy.Deny)) &&
		!slices.Contains(m.NotMethods, r.Method) && !slices.Contains(m.NotHosts, host) && !onPath(m.NotPaths, false)
	for _, h := range m.Headers {
		v, there := r.Headers[h.Name]
		ok = ok && there && hasValue(h, v, a == policy.Deny)
	}
	if m.Provider != "" {
		ok = ok && r.Token != nil && r.Token.Provider == m.Provider
		for _, c := range m.Claims {
			ok = ok && claimed(c.Path, c.Values, r.Token.Claims)
		}
	}
	return ok
}

// hasValue judges each element of a list where a Deny asks.
func hasValue(h policy.Header, value string, deny bool) bool {
	values := []string{value}
	if deny {
		for _, element := range strings.Split(value, ",") {
			values = append(values, element, strings.TrimPrefix(element, " "))
		}
	}
	return h.Type == policy.Present || slices.ContainsFunc(values, func(v string) bool {
		return v == h.Value || h.Type == policy.Prefix && strings.HasPrefix(v, h.Value)
	})
}

func claimed(path, values []string, in any) bool {
	if len(path) > 0 {
		object, _ := in.(map[string]any)
		return object != nil && claimed(path[1:], values, object[path[0]])
	}
	switch v := in.(type) {
	case string:
		return slices.Contains(values, v)
	case []any:
		return slices.ContainsFunc(v, func(e any) bool { s, ok := e.(string); return ok && slices.Contains(values, s) })
	}
	return false
}

// onPath takes the path apart from its end, where Deny drops parameters.
func onPath(p policy.Path, path string, deny bool) bool {
	if deny {
		path = strings.NewReplacer("%3b", ";", "%3B", ";").Replace(path)
	}
	if p.Type == policy.Exact {
		return path == p.Value
	}
	if p.Type == policy.Prefix && p.Value == "/" {
		return true
	}
	if deny && (strings.Contains(path, "/.;") || strings.Contains(path, "/..;")) {
		return true
	}
	if p.Type == policy.Prefix {
		rest, ok := strings.CutPrefix(path, p.Value)
		if ok && (rest == "" || rest[0] == '/' || rest[0] == ';' && deny) {
			return true
		}
		// Where parameters begin before the prefix has ended, the rest may be it.
		before, _, found := strings.Cut(path, ";")
		return deny && found && before != "" && strings.HasPrefix(p.Value, strings.TrimSuffix(before, "/")+"/")
	}
	if path == "" || path[0] != '/' {
		return false
	}
	want, got := strings.Split(p.Value, "/")[1:], strings.Split(path, "/")[1:]
	if want[len(want)-1] == "{**}" {
		want = want[:len(want)-1]
		if len(got) <= len(want) || strings.Join(got[len(want):], "/") == "" {
			return false
		}
		got = got[:len(want)]
	}
	if deny && len(got) == len(want)+1 && got[len(want)] == "" {
		got = got[:len(want)]
	}
	if len(got) != len(want) {
		return false
	}
	for i, w := range want {
		g := got[i]
		if j := strings.IndexByte(g, ';'); deny && j >= 0 && w != "{*}" {
			g = g[:j]
		}
		if w == "{*}" && g != "" {
			continue
		}
		if g != w {
			return false
		}
	}
	return true
}
