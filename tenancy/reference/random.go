package reference

import (
	"slices"
	"strings"

	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/tenancy/policy"
)

// Namespaces are those that random ports and callers are made of: two of the
// port's own tenant, two of others, and names that are easily confused.
func Namespaces() []policy.NamespaceRef {
	return []policy.NamespaceRef{
		{TrustDomain: "acme.example", Namespace: "acme-shop"}, {TrustDomain: "acme.example", Namespace: "acme-web"},
		{TrustDomain: "globex.example", Namespace: "g-shop"}, {TrustDomain: "globex.example", Namespace: "g-web"},
		{TrustDomain: "acme.example", Namespace: "sa"}, {TrustDomain: "globex.example", Namespace: "acme-web"},
	}
}

// Callers are some of those namespaces' workloads, and others that are not.
func Callers() []Caller {
	out := []Caller{{Plaintext: true}, {}}
	for _, n := range Namespaces() {
		for _, account := range []string{"a", "b", "a/x"} {
			out = append(out, Caller{ID: n.Prefix() + account})
		}
		out = append(out, Caller{ID: strings.TrimSuffix(n.Prefix(), "/")})
	}
	return append(out, Caller{ID: out[2].ID + "," + out[6].ID}, Caller{ID: "spiffe://acme.example/ns/acme-webb/sa/a"})
}

func few[T any](t *rapid.T, label string, most int, of []T) []T {
	return rapid.SliceOfNDistinct(rapid.SampledFrom(of), 0, most, func(v T) any { return v }).Draw(t, label)
}

func one(t *rapid.T, label string, in int) bool { return rapid.IntRange(1, in).Draw(t, label) == in }

func principals(t *rapid.T, label string) policy.Principals {
	var ids []string
	for _, c := range Callers() {
		ids = append(ids, c.ID)
	}
	return policy.Principals{
		All: one(t, label+" all", 3), Granted: one(t, label+" granted", 4), Plaintext: one(t, label+" plaintext", 3),
		IDs: few(t, label+" ids", 2, slices.Compact(slices.Sorted(slices.Values(ids)))), Namespaces: few(t, label+" namespaces", 2, Namespaces()),
	}
}

func somePaths(t *rapid.T, label string) (out []policy.Path) {
	for _, v := range few(t, label, 2, []string{"/", "/a", "/a/b", "/a/{*}", "/{*}/b", "/a/{**}", "/a.b"}) {
		p := policy.Path{Value: v, Type: rapid.SampledFrom([]policy.MatchType{policy.Exact, policy.Prefix}).Draw(t, label+" type")}
		if strings.Contains(v, "{") {
			p.Type = policy.Template
		}
		out = append(out, p)
	}
	return out
}

func match(t *rapid.T, deny, tokens bool) policy.Match {
	var m policy.Match
	if one(t, "any request", 3) {
		return m
	}
	if one(t, "by method", 3) {
		m.Methods = few(t, "methods", 2, []string{"GET", "POST", "PURGE"})
	}
	if one(t, "by path", 2) {
		m.Paths = somePaths(t, "path")
	}
	if one(t, "by host", 3) {
		m.Hosts = few(t, "hosts", 2, []string{"orders", "10.0.0.1", "[fd00::1]"})
	}
	if one(t, "by header", 3) {
		for _, name := range few(t, "headers", 2, []string{"x-a", "x-b"}) {
			m.Headers = append(m.Headers, policy.Header{Name: name, Value: "on", Type: rapid.SampledFrom([]policy.MatchType{policy.Exact, policy.Prefix, policy.Present}).Draw(t, "header")})
		}
	}
	if tokens && one(t, "by token", 3) {
		m.Provider = rapid.SampledFrom([]string{"idp", "other"}).Draw(t, "provider")
		for _, path := range few(t, "claims", 2, []string{"tenant", "realm.roles", "none"}) {
			m.Claims = append(m.Claims, policy.Claim{Path: strings.Split(path, "."), Values: few(t, "values", 2, []string{"acme", "admin", "ops"})})
		}
	}
	if deny {
		m.NotMethods, m.NotHosts, m.NotPaths = few(t, "not methods", 1, []string{"GET", "POST"}), few(t, "not hosts", 1, []string{"orders"}), somePaths(t, "not path")
	}
	return m
}

// AnyPort draws a port with rules of all tiers and actions; tokens says
// whether they may speak about claims.
func AnyPort(t *rapid.T, tokens bool) policy.Port {
	ns := Namespaces()
	p := policy.Port{
		Number: 8080, HTTP: !one(t, "tcp", 5), AllowSelected: rapid.Bool().Draw(t, "selected"),
		AllowWithinTenant: rapid.Bool().Draw(t, "within"), Permissive: rapid.Bool().Draw(t, "permissive"),
		Floor: policy.Floor{Tenant: ns[:2:2]},
	}
	if rapid.Bool().Draw(t, "granted") {
		p.Floor.Granted = ns[2:3:3]
	}
	if one(t, "observed allow", 4) {
		p.AllowObserved = "n/watch"
	}
	// A policy observes as a whole, and is of one tier.
	observing := few(t, "observing", 2, []string{"*/a", "*/b", "*/c", "*/d", "n/a", "n/b", "n/c"})
	if !one(t, "observe", 2) {
		observing = nil
	}
	for range rapid.IntRange(0, 7).Draw(t, "rules") {
		r := policy.Rule{Tier: rapid.SampledFrom([]policy.Tier{policy.TierTenant, policy.TierTenant, policy.TierAdmin, policy.TierBaseline}).Draw(t, "tier")}
		actions, names := []policy.Action{policy.Allow, policy.Deny, policy.Pass, policy.Audit}, []string{"*/a", "*/b"}
		switch r.Tier {
		case policy.TierBaseline:
			names = []string{"*/c", "*/d"}
		case policy.TierTenant:
			actions, names = []policy.Action{policy.Allow, policy.Allow, policy.Deny, policy.Audit}, []string{"n/a", "n/b", "n/c"}
		}
		r.Action, r.Policy = rapid.SampledFrom(actions).Draw(t, "action"), rapid.SampledFrom(names).Draw(t, "policy")
		r.Observe, r.From = slices.Contains(observing, r.Policy), principals(t, "from")
		negative := r.Action == policy.Deny && one(t, "negative", 2)
		if negative {
			r.NotFrom = principals(t, "not from")
		}
		r.Match = match(t, negative, tokens)
		p.TokenRequired = p.TokenRequired || r.Match.Provider != "" && rapid.Bool().Draw(t, "required")
		p.Rules = append(p.Rules, r)
	}
	return p
}

// AnyRequest draws a request; tokens says whether it may carry one.
func AnyRequest(t *rapid.T, tokens bool) policy.Request {
	r := policy.Request{
		Method: rapid.SampledFrom([]string{"GET", "POST", "PURGE"}).Draw(t, "method"),
		Path: rapid.SampledFrom([]string{
			"/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/a;x=1", "/a;x=1/b", "/a/b;y", "/a/b;y/", "/a%3bx", "/a%3Bx/b", "/;/a", "/b/..;/a", "/..%3Bx", "/b?/..;/", "/a/;x/b", "/a?x=/b", "/a/b?", "/ab", "/a.b", "/axb", "/A", "/b/b", "/c/b/d", "/a/{*}",
		}).Draw(t, "path"),
		Host: rapid.SampledFrom([]string{"orders", "orders:80", "ORDERS", "orders2", "10.0.0.1:8080", "[fd00::1]", "[fd00::1]:80"}).Draw(t, "host"),
	}
	for _, name := range few(t, "headers", 2, []string{"x-a", "x-b"}) {
		if r.Headers == nil {
			r.Headers = map[string]string{}
		}
		r.Headers[name] = rapid.SampledFrom([]string{"on", "only", "off", "off,on", "off, on,off", "on,off"}).Draw(t, "value")
	}
	if tokens && rapid.Bool().Draw(t, "token") {
		claims := map[string]any{}
		if rapid.Bool().Draw(t, "tenant") {
			claims["tenant"] = rapid.SampledFrom([]any{"acme", "admin", 1.0, nil, []any{"acme"}}).Draw(t, "tenant claim")
		}
		if rapid.Bool().Draw(t, "roles") {
			claims["realm"] = map[string]any{"roles": rapid.SampledFrom([]any{"ops", []any{}, []any{"admin", "ops"}, []any{1.0, "acme"}, map[string]any{}}).Draw(t, "roles claim")}
		}
		r.Token = &policy.Token{Provider: rapid.SampledFrom([]string{"idp", "other"}).Draw(t, "issuer"), Claims: claims}
	}
	return r
}
