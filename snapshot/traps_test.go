package snapshot

import (
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy/policy"
	"bailiwick.dev/bailiwick/tenancy/reference"
)

// TestTrapsOfOthers holds what other meshes compile into something else than
// was written. Each case is judged by Decide and by the compiled tree.
func TestTrapsOfOthers(t *testing.T) {
	own := policy.NamespaceRef{TrustDomain: "acme.example", Namespace: "acme-web"}
	caller, plain := reference.Caller{ID: own.Prefix() + "a"}, reference.Caller{Plaintext: true}
	everybody, get := policy.Principals{All: true}, policy.Match{Methods: []string{"GET"}}
	rule := func(a policy.Action, from policy.Principals, m policy.Match) policy.Rule {
		return policy.Rule{Policy: "n/p", Action: a, From: from, Match: m}
	}
	let := rule(policy.Allow, everybody, policy.Match{})
	let.Policy = "n/let"
	ask := policy.Request{Method: "GET", Path: "/"}
	for name, c := range map[string]struct {
		http   bool
		rules  []policy.Rule
		change func(*policy.Port)
		c      reference.Caller
		want   policy.Decision
	}{
		"a Deny about requests on a TCP port denies its sources": {rules: []policy.Rule{rule(policy.Deny, everybody, get), let}, c: caller, want: policy.Decision{By: "n/p"}},
		"and nobody else": {rules: []policy.Rule{rule(policy.Deny, policy.Principals{IDs: []string{own.Prefix() + "b"}}, get), let}, c: caller, want: policy.Decision{Allowed: true, By: "n/let"}},
		"an Allow about requests on a TCP port allows nothing, and takes no other rule with it": {
			rules: []policy.Rule{rule(policy.Allow, everybody, get), let}, c: caller, want: policy.Decision{Allowed: true, By: "n/let"}},
		"alone it allows nothing": {rules: []policy.Rule{rule(policy.Allow, everybody, get)}, c: caller, want: policy.Decision{By: policy.ByDefaultDeny}},
		"who is excepted from a Deny is not thereby anybody without a certificate": {http: true, rules: []policy.Rule{
			{Policy: "n/p", Action: policy.Deny, From: everybody, NotFrom: policy.Principals{Namespaces: []policy.NamespaceRef{own}}}, let,
		}, change: func(p *policy.Port) { p.Permissive = true }, c: plain, want: policy.Decision{By: policy.ByPlaintext}},
		"an Allow with no rules allows nothing":    {http: true, c: caller, want: policy.Decision{By: policy.ByDefaultDeny}},
		"nobody is not anybody":                    {http: true, rules: []policy.Rule{rule(policy.Allow, policy.Principals{}, policy.Match{})}, c: caller, want: policy.Decision{By: policy.ByDefaultDeny}},
		"everybody is whom the floor lets in":      {http: true, rules: []policy.Rule{let}, c: reference.Caller{ID: "spiffe://globex.example/ns/g/sa/a"}, want: policy.Decision{By: policy.ByTenantFloor}},
		"a namespace is one of its trust domain":   {http: true, rules: []policy.Rule{let}, c: reference.Caller{ID: "spiffe://globex.example/ns/acme-web/sa/a"}, want: policy.Decision{By: policy.ByTenantFloor}},
		"a dry run blocks nothing":                 {http: true, rules: []policy.Rule{{Policy: "n/p", Action: policy.Deny, From: everybody, Observe: true}, let}, c: caller, want: policy.Decision{Allowed: true, By: "n/let"}},
		"an audit decides nothing":                 {http: true, rules: []policy.Rule{rule(policy.Audit, everybody, policy.Match{})}, c: caller, want: policy.Decision{By: policy.ByDefaultDeny}},
		"a missing token does not pass for a good": {http: true, rules: []policy.Rule{rule(policy.Allow, everybody, policy.Match{Provider: "idp"})}, c: caller, want: policy.Decision{By: policy.ByDefaultDeny}},
	} {
		p := policy.Port{HTTP: c.http, AllowSelected: true, Floor: policy.Floor{Tenant: []policy.NamespaceRef{own}}, Rules: c.rules}
		if c.change != nil {
			c.change(&p)
		}
		build, got := RBAC, p.Decide(c.c.ID, ask)
		if c.c.Plaintext {
			build, got = PlainRBAC, p.DecidePlaintext(ask)
		}
		require.Equal(t, c.want, got, name)
		r, err := build(portOf(p, 8080), nil)
		require.NoError(t, err, name)
		enforced, _ := trees(t, r)
		require.Equal(t, c.want, interpreter{t, c.c, ask}.judge(enforced), name)
	}
}
