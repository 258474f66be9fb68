package reference

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/tenancy/policy"
)

func decide(p policy.Port, c Caller, r policy.Request) policy.Decision {
	if c.Plaintext {
		return p.DecidePlaintext(r)
	}
	return p.Decide(c.ID, r)
}

func TestDecideAgreesWithTheReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := AnyPort(t, true)
		requests := []policy.Request{AnyRequest(t, true), AnyRequest(t, true), AnyRequest(t, true)}
		for _, c := range Callers() {
			for _, r := range requests {
				if want, got := Judge(p, c, r), decide(p, c, r); want != got {
					t.Fatalf("%+v %+v: got %+v, want %+v\n%+v", c, r, got, want, p)
				}
			}
		}
	})
}

// TestOrderOfJudgement goes through every set of rules, one of each tier and
// action, for callers on both sides of the floor.
func TestOrderOfJudgement(t *testing.T) {
	ns := Namespaces()
	kinds := []policy.Rule{
		{Policy: "*/deny", Tier: policy.TierAdmin, Action: policy.Deny}, {Policy: "*/allow", Tier: policy.TierAdmin, Action: policy.Allow},
		{Policy: "*/pass", Tier: policy.TierAdmin, Action: policy.Pass}, {Policy: "n/deny", Action: policy.Deny}, {Policy: "n/allow", Action: policy.Allow},
		{Policy: "*/base-deny", Tier: policy.TierBaseline, Action: policy.Deny}, {Policy: "*/base-allow", Tier: policy.TierBaseline, Action: policy.Allow},
		{Policy: "*/base-pass", Tier: policy.TierBaseline, Action: policy.Pass}, {Policy: "n/audit", Action: policy.Audit},
		{Policy: "n/watch", Action: policy.Deny, Observe: true},
	}
	callers := []struct {
		Caller
		own, let bool
	}{{Caller{ID: ns[0].Prefix() + "a"}, true, true}, {Caller{ID: ns[2].Prefix() + "a"}, false, true}, {Caller{ID: ns[3].Prefix() + "a"}, false, false}}
	cases := 0
	for set := range 1 << len(kinds) {
		for flags := range 8 {
			p := policy.Port{
				HTTP: flags&1 != 0, AllowWithinTenant: flags&2 != 0, AllowSelected: set&(1<<4) != 0 || flags&4 != 0,
				Floor: policy.Floor{Tenant: ns[:2], Granted: ns[2:3]},
			}
			has := func(name string) bool {
				return slices.ContainsFunc(p.Rules, func(r policy.Rule) bool { return r.Policy == name })
			}
			for i, r := range kinds {
				if r.From.All = true; set&(1<<i) != 0 {
					p.Rules = append(p.Rules, r)
				}
			}
			for _, c := range callers {
				want := policy.Decision{By: policy.ByDefaultDeny}
				switch {
				case has("*/deny"):
					want.By = "*/deny"
				case !c.let:
					want.By = policy.ByTenantFloor
				case has("*/allow"): // it stands before the Pass
					want = policy.Decision{Allowed: true, By: "*/allow"}
				case has("n/deny"):
					want.By = "n/deny"
				case has("n/allow"):
					want = policy.Decision{Allowed: true, By: "n/allow"}
				case p.AllowSelected:
				case has("*/base-deny"):
					want.By = "*/base-deny"
				case has("*/base-allow"):
					want = policy.Decision{Allowed: true, By: "*/base-allow"}
				case c.own && p.AllowWithinTenant:
					want = policy.Decision{Allowed: true, By: policy.ByDefaultAllow}
				}
				require.Equal(t, want, Judge(p, c.Caller, policy.Request{}), "%+v", p)
				require.Equal(t, want, decide(p, c.Caller, policy.Request{}), "%+v", p)
				cases++
			}
		}
	}
	require.Equal(t, 1024*8*3, cases)
}

// TestObservingChangesNothing: what observes or audits is as if it were not
// there, and Observed tells what would be if it were enforced.
func TestObservingChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := AnyPort(t, true)
		without, enforced := p, p
		without.Rules = slices.DeleteFunc(slices.Clone(p.Rules), func(r policy.Rule) bool { return r.Observe || r.Action == policy.Audit })
		without.AllowObserved = ""
		require.Equal(t, without.Classes(), p.Classes())
		enforced.Rules = slices.Clone(p.Rules)
		for i := range enforced.Rules {
			enforced.Rules[i].Observe = false
		}
		enforced.AllowSelected = p.AllowSelected || p.AllowObserved != ""
		r := AnyRequest(t, true)
		for _, c := range Callers() {
			require.Equal(t, Judge(enforced, c, r), decide(p.Observed(), c, r))
		}
	})
}

// TestPathsAndTheirExpressions: what a path matches is what its expression
// matches, and what the reference says.
func TestPathsAndTheirExpressions(t *testing.T) {
	segment := rapid.SampledFrom([]string{"a", "b", "a.b", "axb", "", "a;x", "{*}", ";", "é", "a%3bx", "%3B", "b;%3b", "..;", ".%3b"})
	rapid.Check(t, func(t *rapid.T) {
		p := policy.Path{Type: rapid.SampledFrom([]policy.MatchType{policy.Exact, policy.Prefix, policy.Template}).Draw(t, "type")}
		p.Value = "/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "a.b", "{*}"}), 1, 3).Draw(t, "segments"), "/")
		if p.Type == policy.Template && rapid.Bool().Draw(t, "rest") {
			p.Value += "/{**}"
		}
		if p.Type == policy.Prefix && rapid.Bool().Draw(t, "root") {
			p.Value = "/"
		}
		path := "/" + strings.Join(rapid.SliceOfN(segment, 0, 4).Draw(t, "path"), "/") + rapid.SampledFrom([]string{"", "?", "?a/b", "/"}).Draw(t, "end")
		for _, a := range []policy.Action{policy.Allow, policy.Deny} {
			m := policy.Match{Paths: []policy.Path{p}}
			r := policy.Request{Path: path}
			want := applies(m, a, r)
			require.Equal(t, want, m.Matches(r, a), "%v %+v %q", a, p, path)
			if p.Type != policy.Template {
				continue
			}
			expression := p.Regex(a)
			if a == policy.Deny {
				expression += "|" + policy.HiddenDots
			}
			got, err := regexp.MatchString("^(?:"+strings.ReplaceAll(expression, `\C`, `.`)+")$", path)
			require.NoError(t, err)
			require.Equal(t, want, got, "%v %+v %q %s", a, p, path, expression)
		}
	})
}

func ExampleJudge() {
	own := Namespaces()[:1]
	p := policy.Port{HTTP: true, Floor: policy.Floor{Tenant: own}}
	fmt.Println(Judge(p, Caller{ID: own[0].Prefix() + "a"}, policy.Request{}))
	// Output: {false default-deny}
}
