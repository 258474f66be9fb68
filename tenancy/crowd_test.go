package tenancy_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	. "bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

func TestPoliciesOverTheLimitOfAWorkload(t *testing.T) {
	w := newTown(t, Config{Limits: Limits{PoliciesPerWorkload: 1}})
	from := func(ns string) []AccessRule { return []AccessRule{{Sources: []AccessSource{{Namespace: ns}}}} }
	by := func(p string) policy.Decision { return policy.Decision{Allowed: true, By: p} }
	web, shop := workload("acme-web", "app"), workload("acme-shop", "app")
	denied := policy.Decision{By: policy.ByDefaultDeny}

	w.set(KindAccessPolicy, "acme-shop", "b", &AccessPolicy{Meta: Meta{Created: 5}, Rules: from("acme-shop")})
	w.set(KindAccessPolicy, "acme-shop", "c", &AccessPolicy{Meta: Meta{Created: 5}, MatchLabels: map[string]string{"app": "orders"}, Rules: from("acme-web")})
	require.Equal(t, by("acme-shop/b"), w.decide(shop, "acme-shop"))
	require.Equal(t, denied, w.decide(web, "acme-shop"))
	require.Empty(t, w.reasons(KindAccessPolicy, "acme-shop", "b"))
	require.Equal(t, []string{ReasonLimit}, w.reasons(KindAccessPolicy, "acme-shop", "c"))
	for _, s := range w.Standings(Key{Namespace: "acme-shop", Name: "orders"}, 8080) {
		require.Equal(t, s.Policy.Key.Name == "c", s.Dropped, s.Policy.Key.Name)
	}

	// An older one has the place; the workload hears of it.
	w.TakeTouched()
	w.set(KindAccessPolicy, "acme-shop", "c", &AccessPolicy{Meta: Meta{Created: 4}, MatchLabels: map[string]string{"app": "orders"}, Rules: from("acme-web")})
	require.Contains(t, w.TakeTouched().Selected, Selected{Namespace: "acme-shop", Policy: "acme-shop/c"})
	require.Equal(t, by("acme-shop/c"), w.decide(web, "acme-shop"))
	require.Equal(t, denied, w.decide(shop, "acme-shop"))
	problems := w.TakeProblems()
	require.Empty(t, problems[Ref{Kind: KindAccessPolicy, Key: one("acme-shop", "c")}])
	require.Len(t, problems[Ref{Kind: KindAccessPolicy, Key: one("acme-shop", "b")}], 1)

	// Other Pods, other namespaces and other tenants are not concerned.
	w.set(KindAccessPolicy, "acme-web", "b", &AccessPolicy{Rules: from("acme-web")})
	require.Equal(t, by("acme-web/b"), w.decide(web, "acme-web"))

	// No Deny is over it or takes a place.
	for i := range 5 {
		w.set(KindAccessPolicy, "acme-shop", fmt.Sprint("a-deny", i), &AccessPolicy{Meta: Meta{Created: 1}, Action: Deny, Rules: from("acme-shop")})
	}
	require.Equal(t, policy.Decision{By: "acme-shop/a-deny0"}, w.decide(shop, "acme-shop"))
	require.Equal(t, by("acme-shop/c"), w.decide(web, "acme-shop"))
	require.Empty(t, w.reasons(KindAccessPolicy, "acme-shop", "a-deny4"))

	// A Pod of other labels has room for what is left out elsewhere, and what is
	// over at one Pod is said so.
	w.set(KindPod, "acme-shop", "orders", &Pod{ServiceAccount: "app", Labels: map[string]string{"app": "none"}, IPs: at(1)})
	require.Empty(t, w.reasons(KindAccessPolicy, "acme-shop", "b"))

	// The limit of the Tenant is above that of the server, and those in force hear.
	w.set(KindPod, "acme-shop", "orders", &Pod{ServiceAccount: "app", Labels: map[string]string{"app": "orders"}, IPs: at(1)})
	require.Equal(t, []string{ReasonLimit}, w.reasons(KindAccessPolicy, "acme-shop", "b"))
	w.TakeTouched()
	w.set(KindTenant, "", "acme", &Tenant{TrustDomain: "acme.example", Limits: Limits{PoliciesPerWorkload: 2}})
	require.Contains(t, w.TakeTouched().Workloads, "acme-shop")
	require.Empty(t, w.reasons(KindAccessPolicy, "acme-shop", "b"))
}

// TestALimitOfPoliciesKeepsTheFirst compares what may call each Pod, and what is
// said of each policy, with the first ones by creation time, namespace and name,
// whatever came and went.
func TestALimitOfPoliciesKeepsTheFirst(t *testing.T) {
	type named struct{ ns, name string }
	namespaces := []string{"acme-shop", "acme-web"}
	rapid.Check(t, func(rt *rapid.T) {
		w := newTown(t, Config{})
		settings := Tenant{TrustDomain: "acme.example"}
		policies, pods := map[named]*AccessPolicy{}, map[string]string{"acme-shop": "orders", "acme-web": "orders"}
		rt.Repeat(map[string]func(*rapid.T){
			"policy": func(t *rapid.T) {
				at := named{rapid.SampledFrom(namespaces).Draw(t, "namespace"), fmt.Sprint("p", rapid.IntRange(0, 4).Draw(t, "name"))}
				if rapid.IntRange(0, 4).Draw(t, "gone") == 0 {
					delete(policies, at)
					w.set(KindAccessPolicy, at.ns, at.name, nil)
					return
				}
				p := &AccessPolicy{
					Meta: Meta{Created: int64(rapid.IntRange(0, 2).Draw(t, "created"))}, TenantWide: rapid.Bool().Draw(t, "wide"),
					Action: rapid.SampledFrom([]Action{Allow, Allow, Allow, Audit, Deny}).Draw(t, "action"),
					// Each lets in an account of its own name, or keeps out another one.
					Rules: []AccessRule{{Sources: []AccessSource{{Namespace: at.ns, ServiceAccount: at.name}}}},
				}
				if rapid.Bool().Draw(t, "selects") {
					p.MatchLabels = map[string]string{"app": rapid.SampledFrom([]string{"orders", "other"}).Draw(t, "label")}
				}
				if p.Action == Deny {
					p.TenantWide, p.Rules[0].Sources[0].ServiceAccount = false, "nobody"
				}
				policies[at] = p
				w.set(KindAccessPolicy, at.ns, at.name, p)
			},
			"pod": func(t *rapid.T) {
				ns := rapid.SampledFrom(namespaces).Draw(t, "namespace")
				pods[ns] = rapid.SampledFrom([]string{"orders", "other"}).Draw(t, "label")
				w.set(KindPod, ns, "orders", &Pod{ServiceAccount: "app", Labels: map[string]string{"app": pods[ns]}, IPs: at(1 + slices.Index(namespaces, ns))})
			},
			"tenant": func(t *rapid.T) {
				settings.Limits.PoliciesPerWorkload = rapid.IntRange(1, 5).Draw(t, "limit")
				settings.Limits.Policies = rapid.IntRange(0, 8).Draw(t, "policies")
				settings.AdminNamespace = rapid.SampledFrom([]string{"", "acme-shop", "acme-web"}).Draw(t, "admin")
				now := settings
				w.set(KindTenant, "", "acme", &now)
			},
			"away": func(*rapid.T) {
				w.set(KindNamespace, "", "acme-web", nil)
				w.set(KindNamespace, "", "acme-web", &Namespace{Tenant: "acme"})
			},
			"": func(t *rapid.T) {
				var order []named
				for at, p := range policies {
					if p.Action == Allow {
						order = append(order, at)
					}
				}
				slices.SortFunc(order, func(a, b named) int {
					return cmp.Or(cmp.Compare(policies[a].Created, policies[b].Created), cmp.Compare(a.ns, b.ns), cmp.Compare(a.name, b.name))
				})
				if most := settings.Limits.Policies; most > 0 && len(order) > most {
					order = order[:most]
				}
				over := map[named]bool{}
				for _, ns := range namespaces {
					places := settings.Limits.PoliciesPerWorkload
					if places == 0 {
						places = DefaultLimits().PoliciesPerWorkload
					}
					counted := map[named]bool{}
					for _, at := range order {
						p := policies[at]
						admin := at.ns == settings.AdminNamespace && p.TenantWide
						if at.ns != ns && !admin || len(p.MatchLabels) > 0 && p.MatchLabels["app"] != pods[ns] {
							continue
						}
						if places == 0 {
							over[at] = true
							continue
						}
						places--
						counted[at] = !p.TenantWide || admin // else it is as if invalid
					}
					for _, from := range namespaces {
						for i := range 5 {
							at := named{from, fmt.Sprint("p", i)}
							require.Equal(t, counted[at], w.decide(workload(at.ns, at.name), ns).Allowed, "%v calls %s", at, ns)
						}
					}
				}
				for _, at := range order {
					if p := policies[at]; p.TenantWide && at.ns != settings.AdminNamespace {
						continue // something else is wrong with it
					}
					require.Equal(t, over[at], slices.Contains(w.reasons(KindAccessPolicy, at.ns, at.name), ReasonLimit), "%v", at)
				}
			},
		})
	})
}
