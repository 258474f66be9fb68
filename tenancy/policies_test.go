package tenancy_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	. "bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

func allRule() AccessRule { return AccessRule{Sources: []AccessSource{{All: true}}} }

// TestThePlatformGoesFirstAndLast goes through the tiers for a call within a
// tenant whose own policies and default allow or deny it.
func TestThePlatformGoesFirstAndLast(t *testing.T) {
	caller := workload("acme-web", "app")
	w := newTown(t, Config{})
	cluster := func(name string, baseline bool, priority int, action Action, s Subject) {
		w.set(KindClusterAccessPolicy, "", name, &ClusterAccessPolicy{
			Baseline: baseline, Priority: priority, Subjects: []Subject{s}, Rules: []ClusterRule{{action, allRule()}},
		})
	}
	decides := func(by string, allowed bool) {
		t.Helper()
		require.Equal(t, policy.Decision{Allowed: allowed, By: by}, w.decide(caller, "acme-shop"))
	}
	everywhere := Subject{AllTenants: true}
	decides(policy.ByDefaultDeny, false)
	cluster("base", true, 5, Allow, Subject{Tenants: []string{"acme"}})
	decides("*/base", true)
	cluster("base-first", true, 4, Deny, Subject{Namespaces: []string{"acme-shop"}})
	decides("*/base-first", false)
	w.set(KindAccessPolicy, "acme-shop", "own", &AccessPolicy{Rules: []AccessRule{allRule()}})
	decides("acme-shop/own", true)
	w.set(KindAccessPolicy, "acme-shop", "not", &AccessPolicy{Action: Deny, Rules: []AccessRule{allRule()}})
	decides("acme-shop/not", false)
	cluster("let", false, 9, Allow, Subject{Labels: map[string]string{"bailiwick.dev/zone": "open"}})
	decides("acme-shop/not", false)
	w.set(KindNamespace, "", "acme-shop", &Namespace{Tenant: "acme", Labels: map[string]string{"bailiwick.dev/zone": "open"}})
	decides("*/let", true)
	cluster("skip", false, 8, Pass, everywhere)
	decides("acme-shop/not", false)
	cluster("never", false, 1000, Deny, everywhere)
	decides("*/never", false)
	require.Equal(t, policy.Decision{By: "*/never"}, w.decide(workload("globex-a", "app"), "acme-shop"))
	w.set(KindClusterAccessPolicy, "", "never", nil)
	require.Equal(t, policy.Decision{By: policy.ByTenantFloor}, w.decide(workload("globex-a", "app"), "acme-shop"), "nothing is above the floor")
	require.False(t, w.sees("globex-a", "acme-shop"), "allowing shows nothing")
}

// TestWhoIsTouchedByThePlatform: those whom the subjects name.
func TestWhoIsTouchedByThePlatform(t *testing.T) {
	for _, c := range []struct {
		Subject
		want []string
	}{
		{Subject{AllTenants: true}, townNamespaces},
		{Subject{Tenants: []string{"globex"}}, []string{"globex-a", "globex-b"}},
		{Subject{Namespaces: []string{"acme-web", "nobody"}}, []string{"acme-web"}},
		{Subject{Labels: map[string]string{"bailiwick.dev/zone": "pci", "bailiwick.dev/a": "b"}}, []string{"globex-a"}},
	} {
		w := newTown(t, Config{})
		w.set(KindNamespace, "", "globex-a", &Namespace{Tenant: "globex", Labels: map[string]string{"bailiwick.dev/zone": "pci", "bailiwick.dev/a": "b"}})
		w.set(KindNamespace, "", "globex-b", &Namespace{Tenant: "globex", Labels: map[string]string{"bailiwick.dev/zone": "pci"}})
		w.TakeTouched()
		for _, o := range []Object{&ClusterAccessPolicy{Subjects: []Subject{c.Subject}, Rules: []ClusterRule{{Deny, allRule()}}}, nil} {
			w.set(KindClusterAccessPolicy, "", "p", o)
			touched := w.TakeTouched()
			require.Len(t, touched.Workloads, len(c.want))
			for _, ns := range c.want {
				require.Contains(t, touched.Workloads, ns)
			}
			require.Empty(t, touched.Views)
			require.Empty(t, touched.Services)
		}
	}
}

func TestTenantWidePoliciesNeedTheAdminNamespace(t *testing.T) {
	w := newTown(t, Config{})
	wide := &AccessPolicy{TenantWide: true, Rules: []AccessRule{allRule()}}
	w.set(KindAccessPolicy, "acme-web", "wide", wide)
	require.Equal(t, []string{ReasonNotAdmin}, w.reasons(KindAccessPolicy, "acme-web", "wide"))
	require.Equal(t, policy.Decision{By: policy.ByDefaultDeny}, w.decide(workload("acme-shop", "app"), "acme-web"), "an Allow allows nothing")
	w.set(KindAccessPolicy, "acme-web", "not", &AccessPolicy{TenantWide: true, Action: Deny, Rules: []AccessRule{{Sources: []AccessSource{{Namespace: "acme-web"}}}}})
	require.Equal(t, policy.Decision{By: "acme-web/not"}, w.decide(workload("acme-shop", "app"), "acme-web"), "a Deny denies what it selects here")
	require.Equal(t, policy.Decision{By: policy.ByDefaultDeny}, w.decide(workload("acme-web", "app"), "acme-shop"), "and nothing elsewhere")

	w.set(KindTenant, "", "acme", &Tenant{TrustDomain: "acme.example", AdminNamespace: "acme-web"})
	require.Empty(t, w.reasons(KindAccessPolicy, "acme-web", "wide"))
	require.Equal(t, policy.Decision{Allowed: true, By: "acme-web/wide"}, w.decide(workload("acme-shop", "app"), "acme-shop"))
	require.Equal(t, policy.Decision{By: "acme-web/not"}, w.decide(workload("acme-web", "app"), "acme-shop"))
	require.Equal(t, policy.Decision{By: policy.ByTenantFloor}, w.decide(workload("acme-web", "app"), "globex-a"))
	w.TakeTouched()
	w.set(KindAccessPolicy, "acme-web", "wide", nil)
	touched := w.TakeTouched()
	require.Contains(t, touched.Pods, Key{Namespace: "acme-shop", Name: "orders"})
	require.Contains(t, touched.Selected, Selected{Namespace: "acme-shop", Policy: "acme-web/wide"})
	require.NotContains(t, touched.Pods, Key{Namespace: "globex-a", Name: "orders"})
}

func TestWhatPoliciesAreToldOfTheirPorts(t *testing.T) {
	w := newTown(t, Config{})
	ask := AccessRule{Sources: []AccessSource{{All: true}}, Methods: []string{"GET"}}
	w.set(KindTenant, "", "acme", &Tenant{TrustDomain: "acme.example", DefaultAction: AllowWithinTenant})
	require.Equal(t, policy.Decision{Allowed: true, By: policy.ByDefaultAllow}, w.decide(workload("acme-web", "app"), "acme-shop"))
	w.set(KindAccessPolicy, "acme-shop", "p", &AccessPolicy{Observe: true, Rules: []AccessRule{ask}})
	require.Empty(t, w.reasons(KindAccessPolicy, "acme-shop", "p"))
	require.Equal(t, policy.Decision{Allowed: true, By: policy.ByDefaultAllow}, w.decide(workload("acme-web", "app"), "acme-shop"), "observing changes nothing")
	w.set(KindAccessPolicy, "acme-shop", "p", &AccessPolicy{Rules: []AccessRule{ask}})
	require.Equal(t, []string{ReasonNarrows}, w.reasons(KindAccessPolicy, "acme-shop", "p"))
	w.TakeProblems()
	w.set(KindService, "acme-shop", "orders", &Service{Ports: []ServicePort{{Name: "http", Port: 80, Protocol: ClientFirst}}})
	require.Contains(t, w.TakeProblems(), Ref{Kind: KindAccessPolicy, Key: one("acme-shop", "p")}, "told without being asked")
	require.Equal(t, []string{ReasonNotHTTP, ReasonNarrows}, w.reasons(KindAccessPolicy, "acme-shop", "p"))
	require.Equal(t, policy.Decision{By: policy.ByDefaultDeny}, w.decide(workload("acme-web", "app"), "acme-shop"))
	w.set(KindAccessPolicy, "acme-shop", "p", &AccessPolicy{Action: Deny, Rules: []AccessRule{ask}})
	require.Equal(t, []string{ReasonNotHTTP}, w.reasons(KindAccessPolicy, "acme-shop", "p"))
	require.Equal(t, policy.Decision{By: "acme-shop/p"}, w.decide(workload("acme-web", "app"), "acme-shop"))
}

func TestTokensNeedAProviderOfTheTenant(t *testing.T) {
	w := newTown(t, Config{})
	rule := AccessRule{Sources: []AccessSource{{All: true}}, Token: &TokenMatch{Provider: "idp", Claims: []ClaimMatch{{Path: []string{"sub"}, Values: []string{"x"}}}}}
	w.set(KindAccessPolicy, "acme-shop", "p", &AccessPolicy{Rules: []AccessRule{rule}})
	require.Equal(t, []string{ReasonNoProvider}, w.reasons(KindAccessPolicy, "acme-shop", "p"))
	require.Equal(t, policy.Decision{By: policy.ByDefaultDeny}, w.decide(workload("acme-web", "app"), "acme-shop"))
	w.set(KindAccessPolicy, "acme-shop", "p", &AccessPolicy{Action: Deny, Rules: []AccessRule{rule}})
	require.Equal(t, policy.Decision{By: "acme-shop/p"}, w.decide(workload("acme-web", "app"), "acme-shop"))
	w.set(KindTenant, "", "acme", &Tenant{TrustDomain: "acme.example", Providers: []policy.Provider{{Name: "idp"}}})
	require.Empty(t, w.reasons(KindAccessPolicy, "acme-shop", "p"))
	p := w.spec("acme-shop", "orders").Ports[0].Policy
	require.True(t, p.TokenRequired)
	require.Len(t, p.Providers, 1)
	require.Equal(t, policy.Decision{By: policy.ByNoToken}, w.decide(workload("acme-web", "app"), "acme-shop"))
}

func TestPermissiveIsBoundedByTheTenantAndByTheStrictest(t *testing.T) {
	w := newTown(t, Config{})
	permissive := func() bool { return w.spec("acme-shop", "orders").Ports[0].Policy.Permissive }
	w.set(KindPeerTLS, "acme-shop", "old", &PeerTLS{Permissive: true, MatchLabels: map[string]string{"app": "orders"}})
	require.False(t, permissive())
	require.Equal(t, []string{ReasonNotPermitted}, w.reasons(KindPeerTLS, "acme-shop", "old"))
	w.set(KindTenant, "", "acme", &Tenant{TrustDomain: "acme.example", Permissive: true})
	require.True(t, permissive())
	require.Empty(t, w.reasons(KindPeerTLS, "acme-shop", "old"))
	for _, o := range []*PeerTLS{{}, {Permissive: true, Invalid: true}, {Ports: []uint16{8080}}} {
		w.set(KindPeerTLS, "acme-shop", "other", o)
		require.False(t, permissive(), "%+v", o)
	}
	w.set(KindPeerTLS, "acme-shop", "other", &PeerTLS{Ports: []uint16{9}})
	require.True(t, permissive())
	w.set(KindService, "acme-shop", "orders", &Service{Ports: []ServicePort{{Name: "http", Port: 80, Protocol: ServerFirst}}})
	require.False(t, permissive(), "nobody could be refused in time")
	require.Equal(t, []string{ReasonServerFirst}, w.reasons(KindPeerTLS, "acme-shop", "old"))
}

// The first Allow of what it selects says what it takes away; those behind it take
// nothing. Who is first is told again when that changes.
func TestTheFirstAllowNarrowsTheDefault(t *testing.T) {
	w := newTown(t, Config{})
	tenant := func(action DefaultAction) {
		w.set(KindTenant, "", "acme", &Tenant{TrustDomain: "acme.example", DefaultAction: action, AdminNamespace: "acme-web"})
	}
	allow := func(created int64, app string) *AccessPolicy {
		p := &AccessPolicy{Meta: Meta{Created: created}, Rules: []AccessRule{allRule()}}
		if app != "" {
			p.MatchLabels = map[string]string{"app": app}
		}
		return p
	}
	first := func() (names []string) {
		for _, ns := range []string{"acme-shop", "acme-web"} {
			for _, name := range []string{"a", "b", "c"} {
				if slices.Contains(w.reasons(KindAccessPolicy, ns, name), ReasonNarrows) {
					names = append(names, ns+"/"+name)
				}
			}
		}
		return names
	}
	w.set(KindAccessPolicy, "acme-shop", "b", allow(2, "orders"))
	require.Empty(t, first(), "the default denies anyway")
	tenant(AllowWithinTenant)
	require.Equal(t, []string{"acme-shop/b"}, first())
	w.set(KindAccessPolicy, "acme-shop", "c", allow(3, "orders"))
	require.Equal(t, []string{"acme-shop/b"}, first(), "there is nothing left to take")
	w.set(KindAccessPolicy, "acme-shop", "c", allow(3, ""))
	require.Equal(t, []string{"acme-shop/b", "acme-shop/c"}, first(), "it selects others as well")
	w.TakeProblems()
	w.set(KindAccessPolicy, "acme-shop", "a", allow(1, ""))
	require.Equal(t, []string{"acme-shop/a"}, first())
	told := w.TakeProblems()
	for _, name := range []string{"a", "b", "c"} {
		require.Contains(t, told, Ref{Kind: KindAccessPolicy, Key: one("acme-shop", name)}, "told without being asked")
	}
	for _, o := range []*AccessPolicy{{Action: Deny, Rules: []AccessRule{allRule()}}, {Observe: true, Rules: []AccessRule{allRule()}}, {Invalid: true}} {
		w.set(KindAccessPolicy, "acme-shop", "a", o)
		require.Equal(t, []string{"acme-shop/b", "acme-shop/c"}, first(), "%+v takes nothing", o)
	}
	wide := allow(1, "orders")
	wide.TenantWide = true
	w.TakeProblems()
	w.set(KindAccessPolicy, "acme-web", "a", wide)
	require.Equal(t, []string{"acme-shop/c", "acme-web/a"}, first())
	require.Contains(t, w.TakeProblems(), Ref{Kind: KindAccessPolicy, Key: one("acme-shop", "b")})
	w.set(KindAccessPolicy, "acme-web", "a", nil)
	require.Contains(t, w.TakeProblems(), Ref{Kind: KindAccessPolicy, Key: one("acme-shop", "b")})
	require.Equal(t, []string{"acme-shop/b", "acme-shop/c"}, first())
}
