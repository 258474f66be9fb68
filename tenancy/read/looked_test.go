package read_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/identity"
	. "bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
	"bailiwick.dev/bailiwick/tenancy/read"
)

// mayBeAbout are the policies of a world that may be about a Pod of a namespace
// whose Tenant is in force, with each of their actions.
func mayBeAbout(events []Event, ns, admin string) (own, wide, platform []string) {
	actions := map[Action]string{Allow: "Allow", Deny: "Deny", Pass: "Pass", Audit: "Audit"}
	for _, ev := range events {
		switch p := ev.Object.(type) {
		case *AccessPolicy:
			name := ev.Ref.Key.Namespace + "/" + ev.Ref.Key.Name + " " + actions[p.Action]
			switch {
			case ev.Ref.Key.Namespace == ns:
				own = append(own, name)
			case p.TenantWide && ev.Ref.Key.Namespace == admin:
				wide = append(wide, name)
			}
		case *ClusterAccessPolicy:
			for _, r := range p.Rules {
				if name := "ClusterAccessPolicy " + ev.Ref.Key.Name + " " + actions[r.Action]; !slices.Contains(platform, name) {
					platform = append(platform, name)
				}
			}
		}
	}
	return own, wide, platform
}

// Whoever may read everything hears once of every policy that could be about the
// Pod. A tenant hears of its own, and of others those alone that its proxies
// have; that there may be more it is told whether or not there are.
func TestEveryPolicyIsLookedAt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := world(t)
		m := modelOf(events)
		everything := read.New(m, read.Platform(), "cluster.local", nil)
		for _, q := range questions() {
			a := everything.Explain(q)
			if len(a.Looked) == 0 {
				continue
			}
			tenant, _ := m.TenantOf(q.Namespace)
			own, wide, platform := mayBeAbout(events, q.Namespace, m.TenantObject(tenant).AdminNamespace)
			var looked []string
			for _, l := range a.Looked {
				looked = append(looked, l.Policy+" "+l.Action)
				require.NotEmpty(t, l.Outcome)
			}
			require.ElementsMatch(t, slices.Concat(own, wide, platform), looked, "%+v", a)
			require.Empty(t, a.Unknown)

			as := read.Of(m, identity.Workload{TrustDomain: domain(tenant), Namespace: q.Namespace, ServiceAccount: "any"})
			b := read.New(m, as, "cluster.local", nil).Explain(q)
			require.Contains(t, b.Unknown, "may not read policies of the platform that have no rule for this port")
			narrow := m.TenantObject(tenant).Visibility == VisibleInNamespace
			require.Equal(t, narrow, len(b.Unknown) == 2, "%+v", b)
			for _, l := range b.Looked {
				foreign := slices.Contains(platform, l.Policy+" "+l.Action) || narrow && !strings.HasPrefix(l.Policy, q.Namespace+"/")
				require.False(t, foreign && strings.HasPrefix(l.Outcome, "is not "), "%+v", l)
			}
		}
	})
}

// What is said of policies that have no rule for the port.
func TestWhyAPolicyHasNoRule(t *testing.T) {
	m := NewModel(Config{ClusterDomain: "cluster.local"})
	put := func(kind Kind, ns, name string, o Object) { m.Apply(Event{Ref: ref(kind, ns, name), Object: o}) }
	put(KindTenant, "", "acme", &Tenant{TrustDomain: "acme.example", AdminNamespace: "acme-admin"})
	put(KindTrustBundle, "", "acme.example", &TrustBundle{PEM: []byte("x")})
	for _, ns := range []string{"acme-admin", "acme-shop"} {
		put(KindNamespace, "", ns, &Namespace{Tenant: "acme"})
	}
	at := netip.MustParseAddr("10.0.0.1")
	put(KindService, "acme-shop", "orders", &Service{Ports: []ServicePort{{Name: "http", Port: 80, Protocol: HTTP1}}})
	put(KindEndpointSlice, "acme-shop", "orders", &EndpointSlice{Service: "orders", Ports: []SlicePort{{Name: "http", Port: 8080}},
		Endpoints: []Endpoint{{Addresses: []netip.Addr{at}, Ready: true, Serving: true}}})
	put(KindPod, "acme-shop", "orders", &Pod{ServiceAccount: "orders", Labels: map[string]string{"app": "orders"}, IPs: []netip.Addr{at}})

	everybody := AccessRule{Sources: []AccessSource{{All: true}}}
	elsewhere := AccessRule{Sources: []AccessSource{{All: true}}, Ports: []uint16{9090}}
	foreign := AccessRule{Sources: []AccessSource{{Tenant: "globex"}}}
	token := AccessRule{Sources: []AccessSource{{All: true}}, Token: &TokenMatch{Provider: "unheard-of"}}
	rules := func(r ...AccessRule) []AccessRule { return r }
	put(KindAccessPolicy, "acme-admin", "wide", &AccessPolicy{Action: Deny, TenantWide: true, MatchLabels: map[string]string{"app": "web"}, Rules: rules(everybody)})
	put(KindAccessPolicy, "acme-admin", "narrow", &AccessPolicy{Action: Deny, Rules: rules(everybody)})
	put(KindAccessPolicy, "acme-shop", "port", &AccessPolicy{Action: Deny, Rules: rules(elsewhere)})
	put(KindAccessPolicy, "acme-shop", "token", &AccessPolicy{Rules: rules(token)})
	put(KindAccessPolicy, "acme-shop", "invalid", &AccessPolicy{Action: Audit, Invalid: true, Rules: rules(everybody)})
	cluster := func(name string, p ClusterAccessPolicy) { put(KindClusterAccessPolicy, "", name, &p) }
	clusterRule := func(a Action, r AccessRule) ClusterRule { return ClusterRule{Action: a, AccessRule: r} }
	all := []Subject{{AllTenants: true}}
	cluster("others", ClusterAccessPolicy{Subjects: []Subject{{Tenants: []string{"globex"}}}, Rules: []ClusterRule{clusterRule(Deny, everybody)}})
	cluster("mixed", ClusterAccessPolicy{Subjects: all, Rules: []ClusterRule{clusterRule(Allow, everybody), clusterRule(Deny, elsewhere), clusterRule(Pass, foreign)}})

	q := read.Question{
		From: identity.Workload{TrustDomain: "acme.example", Namespace: "acme-shop", ServiceAccount: "orders"}, Namespace: "acme-shop", Service: "orders", Port: 80,
		Request: policy.Request{},
	}
	said := func(s read.Scope) []string {
		var all []string
		for _, l := range read.New(m, s, "cluster.local", nil).Explain(q).Looked {
			all = append(all, fmt.Sprintf("%s %s: %s", l.Action, l.Policy, l.Outcome))
		}
		return all
	}
	tenants := []string{
		"Allow ClusterAccessPolicy mixed: decides",
		"Audit acme-shop/invalid: cannot be honoured as written, and does nothing",
		"Deny acme-shop/port: is not about port 8080 of the Pod",
		"Allow acme-shop/token: wants a token of a provider that the Tenant does not have, and allows nothing",
		"Deny acme-admin/wide: does not select the Pod: it wants app=web",
	}
	require.Equal(t, tenants, said(read.OfTenant("acme")))
	require.Equal(t, append(tenants,
		"Deny ClusterAccessPolicy mixed: is not about port 8080 of the Pod",
		"Pass ClusterAccessPolicy mixed: names nobody whom the tenant floor lets in",
		"Deny ClusterAccessPolicy others: is not for namespace acme-shop: none of its subjects is",
	), said(read.Platform()))
}
