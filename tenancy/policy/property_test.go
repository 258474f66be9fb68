package policy

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// slow judges straight from what doc.go says, rule by rule.
func slow(p Port, id string, r Request) Decision {
	if strings.Contains(id, ",") {
		return Decision{By: ByMultiSAN}
	}
	in := func(refs []NamespaceRef) bool {
		return slices.ContainsFunc(refs, func(n NamespaceRef) bool {
			return strings.HasPrefix(id, "spiffe://"+n.TrustDomain+"/ns/"+n.Namespace+"/sa/")
		})
	}
	own, granted := in(p.Floor.Tenant), in(p.Floor.Granted)
	if !own && !granted {
		return Decision{By: ByTenantFloor}
	}
	for _, action := range []Action{Deny, Allow} {
		for _, rule := range p.Rules {
			from := rule.From.All || rule.From.Granted && granted && !own || slices.Contains(rule.From.IDs, id) || in(rule.From.Namespaces)
			if rule.Action != action || !from {
				continue
			}
			if p.HTTP && !rule.Match.Matches(r, action) {
				continue
			}
			if !p.HTTP && !rule.Match.Any() && action == Allow {
				continue
			}
			return Decision{Allowed: action == Allow, By: rule.Policy}
		}
	}
	if own && p.AllowWithinTenant && !p.AllowSelected {
		return Decision{Allowed: true, By: ByDefaultAllow}
	}
	return Decision{By: ByDefaultDeny}
}

var (
	someRefs = []NamespaceRef{web, shop, peer, near, {"acme.example", "sa"}, {"globex.example", "acme-web"}}
	someIDs  = func() (ids []string) {
		for _, r := range someRefs {
			ids = append(ids, r.Prefix()+"a", r.Prefix()+"b", r.Prefix()+"c", r.Prefix()+"a/x", strings.TrimSuffix(r.Prefix(), "/"))
		}
		return append(ids, "", "spiffe://acme.example", web.Prefix()+"a,"+shop.Prefix()+"a")
	}()
	somePaths = []string{"/", "/a", "/a/b", "/a;x", "/ab", "/a?x", "/b"}
)

func refs(t *rapid.T, label string) []NamespaceRef {
	return rapid.SliceOfNDistinct(rapid.SampledFrom(someRefs), 0, 3, rapid.ID).Draw(t, label)
}

func anyPort(t *rapid.T) Port {
	p := Port{
		HTTP: rapid.Bool().Draw(t, "http"), AllowSelected: rapid.Bool().Draw(t, "selected"), AllowWithinTenant: rapid.Bool().Draw(t, "within"),
		Floor: Floor{Tenant: refs(t, "tenant")},
	}
	for _, r := range refs(t, "granted") {
		if !slices.Contains(p.Floor.Tenant, r) {
			p.Floor.Granted = append(p.Floor.Granted, r)
		}
	}
	for range rapid.IntRange(0, 6).Draw(t, "rules") {
		r := Rule{
			Policy: rapid.SampledFrom([]string{"n/a", "n/b", "n/c"}).Draw(t, "policy"),
			Action: rapid.SampledFrom([]Action{Allow, Deny}).Draw(t, "action"),
			From: Principals{
				All: rapid.IntRange(0, 4).Draw(t, "all") == 0, Granted: rapid.Bool().Draw(t, "from granted"),
				IDs: rapid.SliceOfN(rapid.SampledFrom(someIDs), 0, 3).Draw(t, "ids"), Namespaces: refs(t, "namespaces"),
			},
		}
		if rapid.Bool().Draw(t, "method") {
			r.Match.Methods = []string{"GET"}
		}
		if rapid.Bool().Draw(t, "path") {
			r.Match.Paths = []Path{{Type: rapid.SampledFrom([]MatchType{Exact, Prefix}).Draw(t, "type"), Value: rapid.SampledFrom([]string{"/", "/a"}).Draw(t, "value")}}
		}
		if rapid.IntRange(0, 3).Draw(t, "header") == 0 {
			r.Match.Headers = []Header{{Name: "x", Type: Present}}
		}
		p.Rules = append(p.Rules, r)
	}
	return p
}

func TestDecideAgreesWithSlowReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := anyPort(t)
		for _, id := range someIDs {
			for _, method := range []string{"GET", "POST"} {
				for _, path := range somePaths {
					for _, headers := range []map[string]string{nil, {"x": "1"}} {
						r := Request{Method: method, Path: path, Headers: headers}
						if want, got := slow(p, id, r), p.Decide(id, r); got != want {
							t.Fatalf("%s %+v: got %+v, want %+v\n%+v", id, r, got, want, p)
						}
					}
				}
			}
		}
	})
}

func TestSANsAdmitNobodyWhoIsRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := anyPort(t)
		p.HTTP = false
		known := rapid.Bool().Draw(t, "known")
		if known {
			for _, ref := range p.Partial() {
				p.KnownAccounts = append(p.KnownAccounts, Accounts{ref, []string{"a", "b", "c"}})
			}
		}
		exact, prefixes := p.SANs()
		require.True(t, slices.IsSorted(exact) && slices.IsSorted(prefixes))
		for _, id := range someIDs {
			admitted := slices.Contains(exact, id) || slices.ContainsFunc(prefixes, func(pre string) bool { return strings.HasPrefix(id, pre) })
			if strings.Contains(id, ",") {
				continue // two SANs: the secret sees each alone, RBAC refuses them
			}
			allowed := p.Decide(id, Request{}).Allowed
			require.False(t, admitted && !allowed, "%s is let in", id)
			if known && allowed && !strings.HasSuffix(id, "/x") {
				require.True(t, admitted, "%s is kept out", id)
			}
		}
	})
}

func TestClassesAreAPartitionInEqualOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := anyPort(t)
		classes := p.Classes()
		require.Equal(t, classes, p.Classes())
		groups := map[int]Class{}
		seen := map[string]bool{}
		for i, c := range classes {
			require.False(t, seen[c.Key], c.Key)
			seen[c.Key] = true
			require.Equal(t, c.Prefix, strings.HasSuffix(c.Key, "/sa/"))
			require.True(t, strings.HasPrefix(c.Key, c.Namespace.Prefix()))
			if i > 0 {
				before := classes[i-1]
				require.False(t, before.Prefix && !c.Prefix, "exact IDs first")
				require.True(t, before.Prefix != c.Prefix || before.Key < c.Key)
			}
			for _, s := range c.Steps {
				require.True(t, p.HTTP && !s.Match.Any())
			}
			if g, ok := groups[c.Group]; ok {
				require.Equal(t, g.Steps, c.Steps)
				require.Equal(t, g.End, c.End)
			}
			groups[c.Group] = c
		}
	})
}

func BenchmarkClasses(b *testing.B) {
	p := Port{HTTP: true, AllowSelected: true}
	for i := range 1000 {
		ref := NamespaceRef{"acme.example", "ns-" + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + string(rune('a'+i/26%26))}
		p.Floor.Tenant = append(p.Floor.Tenant, ref)
		p.Rules = append(p.Rules, Rule{Policy: "n/p", Action: Allow, From: Principals{IDs: []string{ref.Prefix() + "a"}}})
	}
	b.ReportAllocs()
	for b.Loop() {
		p.Classes()
	}
}
