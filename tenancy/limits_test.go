package tenancy_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	. "bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

func TestServicesOverTheLimitAreLeftOutInFixedOrder(t *testing.T) {
	w := newTown(t, Config{Limits: Limits{Services: 2}})
	young := &Service{Meta: Meta{Created: 9}, Ports: []ServicePort{{Name: "http", Port: 80}}}
	w.set(KindService, "acme-shop", "new", young)
	touched := w.TakeTouched()
	require.True(t, len(touched.Views) == 0 && len(touched.Services) == 0, "%+v", touched)
	require.Nil(t, w.Service(one("acme-shop", "new")))
	require.Equal(t, []string{ReasonLimit}, w.reasons(KindService, "acme-shop", "new"))

	w.set(KindService, "acme-shop", "a", &Service{Meta: Meta{Created: -1}, Ports: young.Ports})
	require.NotNil(t, w.Service(one("acme-shop", "a")))
	require.True(t, w.sees("acme-shop", "acme-shop"))
	require.False(t, w.sees("acme-shop", "acme-web"), "the last in order makes room")
	touched = w.TakeTouched()
	require.Contains(t, touched.Views[viewOf("acme-shop")].Services, one("acme-web", "orders"))
	require.Contains(t, touched.Pods, Key{Namespace: "acme-web", Name: "orders"}, "nothing leads to it any more")
	require.Empty(t, w.spec("acme-web", "orders").Ports)

	w.set(KindTenant, "", "acme", &Tenant{TrustDomain: "acme.example", Limits: Limits{Services: 4}})
	require.NotNil(t, w.Service(one("acme-shop", "new")))
	require.Empty(t, w.reasons(KindService, "acme-shop", "new"))
	require.True(t, w.TakeTouched().Views[viewOf("acme-shop")].Settings)
	require.True(t, w.sees("globex-a", "globex-b"), "no tenant pays for another")
}

func TestNoLimitDropsADenyOrWidens(t *testing.T) {
	w := newTown(t, Config{Limits: Limits{Policies: 1}})
	w.set(KindTenant, "", "acme", &Tenant{TrustDomain: "acme.example", DefaultAction: AllowWithinTenant})
	all := []AccessRule{{Sources: []AccessSource{{All: true}}}}
	other := map[string]string{"app": "other"}
	w.set(KindAccessPolicy, "acme-web", "a", &AccessPolicy{MatchLabels: other, Rules: all})
	w.set(KindAccessPolicy, "acme-shop", "b", &AccessPolicy{Meta: Meta{Created: 1}, Rules: all})
	require.Equal(t, []string{ReasonLimit}, w.reasons(KindAccessPolicy, "acme-shop", "b"))
	require.Equal(t, policy.Decision{By: policy.ByDefaultDeny}, w.decide(workload("acme-web", "app"), "acme-shop"), "it selects, and allows nothing")
	for i := range 5 {
		w.set(KindAccessPolicy, "acme-shop", fmt.Sprint("deny", i), &AccessPolicy{Meta: Meta{Created: 2}, Action: Deny, Rules: all})
		require.Empty(t, w.reasons(KindAccessPolicy, "acme-shop", fmt.Sprint("deny", i)))
	}
	require.Equal(t, policy.Decision{By: "acme-shop/deny0"}, w.decide(workload("acme-web", "app"), "acme-shop"))
}

func TestGrantsAndRequestsOverTheLimit(t *testing.T) {
	w := newTown(t, Config{Limits: Limits{Grants: 1, Requests: 1}})
	w.set(KindServiceGrant, "acme-shop", "first", &ServiceGrant{})
	w.set(KindServiceRequest, "globex-a", "first", &ServiceRequest{Namespace: "acme-shop", Service: "none", Ports: PortSet{All: true}})
	w.grant("acme-shop", "globex")
	w.request("globex-a", "acme-shop")
	require.False(t, w.sees("globex-a", "acme-shop"))
	require.Equal(t, []string{ReasonLimit}, w.reasons(KindServiceGrant, "acme-shop", "grant"))
	require.Equal(t, []string{ReasonLimit}, w.reasons(KindServiceRequest, "globex-a", "request"))
	w.set(KindServiceGrant, "acme-shop", "first", nil)
	require.False(t, w.sees("globex-a", "acme-shop"), "the request is over the limit")
	w.set(KindServiceGrant, "acme-shop", "first", &ServiceGrant{})
	w.set(KindServiceRequest, "globex-a", "first", nil)
	require.False(t, w.sees("globex-a", "acme-shop"), "the grant is over the limit")
	w.TakeTouched()
	w.set(KindServiceGrant, "acme-shop", "first", nil)
	require.True(t, w.sees("globex-a", "acme-shop"))
	touched := w.TakeTouched()
	require.Contains(t, touched.Views, viewOf("globex-a"))
	require.Contains(t, touched.Workloads, "acme-shop")
}

func TestEndpointsOverTheLimit(t *testing.T) {
	w := newTown(t, Config{Limits: Limits{Endpoints: 2}})
	var endpoints []Endpoint
	for i := range 4 {
		w.set(KindPod, "acme-shop", fmt.Sprint("p", i), &Pod{ServiceAccount: fmt.Sprint("a", i), IPs: at(103 - i)})
		endpoints = append(endpoints, Endpoint{Addresses: at(103 - i), Ready: true})
	}
	w.set(KindEndpointSlice, "acme-shop", "orders", sliceOf("orders", endpoints...))
	spec := w.Service(one("acme-shop", "orders"))
	require.Equal(t, []EndpointSpec{{Address: netip.AddrPortFrom(ip(100), 8080)}, {Address: netip.AddrPortFrom(ip(101), 8080)}}, spec.Ports[0].Endpoints)
	require.Len(t, spec.Accounts, 4, "pins are of all")
	require.Equal(t, []string{ReasonLimit}, w.reasons(KindService, "acme-shop", "orders"))
}

func TestProblemsAreBounded(t *testing.T) {
	w := newTown(t, Config{})
	w.set(KindEndpointSlice, "acme-shop", "orders", sliceOf("orders", make([]Endpoint, 100)...))
	problems := w.Problems(Ref{Kind: KindEndpointSlice, Key: one("acme-shop", "orders")})
	require.Len(t, problems, 16)
	require.Equal(t, "and 85 more", problems[15].Message)
}

func TestNamespacesAreUniqueOverSources(t *testing.T) {
	w := newTown(t, Config{})
	w.Apply(event(KindNamespace, key("two", "", "acme-shop"), &Namespace{Meta: Meta{Created: 5}, Tenant: "globex"}))
	w.Apply(event(KindService, key("two", "acme-shop", "fake"), &Service{Ports: []ServicePort{{Port: 80}}}))
	touched := w.TakeTouched()
	require.True(t, touched.Empty(), "%+v", touched)
	require.Nil(t, w.Service(key("two", "acme-shop", "fake")))
	require.Equal(t, ReasonDuplicate, w.Problems(Ref{Kind: KindNamespace, Key: key("two", "", "acme-shop")})[0].Reason)
	w.set(KindNamespace, "", "acme-shop", nil)
	tenant, ok := w.Resolve(workload("globex-a", "app"))
	require.True(t, ok && tenant == "globex")
	require.NotNil(t, w.Service(key("two", "acme-shop", "fake")), "the other source has it now")
	require.Nil(t, w.Service(one("acme-shop", "orders")))
	require.Contains(t, w.TakeTouched().Namespaces, "acme-shop")
	sight, ok := w.See(viewOf("globex-a"), key("two", "acme-shop", "fake"))
	require.True(t, ok && !sight.SameSource)
}

func TestTrustBundles(t *testing.T) {
	w := newTown(t, Config{})
	w.set(KindTrustBundle, "", "acme.example", &TrustBundle{PEM: []byte("rotated")})
	require.Equal(t, Touched{Bundles: map[string]struct{}{"acme.example": {}}}, w.TakeTouched(), "a rotation changes nobody's tenant")
	require.Equal(t, "rotated", string(w.Bundle("acme.example")))
	w.set(KindTrustBundle, "", "acme.example", &TrustBundle{})
	require.Nil(t, w.Bundle("acme.example"))
	_, ok := w.Resolve(workload("acme-shop", "app"))
	require.False(t, ok)
	require.Equal(t, []string{ReasonTrustDomain}, w.reasons(KindTenant, "", "acme"))
	require.Contains(t, w.TakeTouched().Namespaces, "acme-shop")
}

func TestSettings(t *testing.T) {
	w := newTown(t, Config{Limits: Limits{Streams: 7}})
	want := DefaultLimits()
	want.Streams = 7
	require.Equal(t, TenantSettings{Name: "nobody", Limits: want}, w.Settings("nobody"))
	w.set(KindTenant, "", "acme", &Tenant{TrustDomain: "acme.example", Outbound: AllowAny, Quiet: 1, Max: 2, Limits: Limits{Streams: 9}})
	want.Streams = 9
	require.Equal(t, TenantSettings{Name: "acme", TrustDomain: "acme.example", Outbound: AllowAny, Quiet: 1, Max: 2, Limits: want}, w.Settings("acme"))
	touched := w.TakeTouched()
	require.Empty(t, touched.Workloads)
	require.Len(t, touched.Views, 2)
	require.True(t, touched.Views[viewOf("acme-web")].Settings)
}

// TestLimitKeepsTheFirst compares a tenant's services with the first ones by
// creation time, namespace and name, whatever came and went.
func TestLimitKeepsTheFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := NewModel(Config{})
		m.Apply(event(KindTrustBundle, one("", "d"), &TrustBundle{PEM: []byte("x")}))
		m.Apply(event(KindNamespace, one("", "ns"), &Namespace{Tenant: "t"}))
		limit := 0
		created := map[string]int64{}
		t.Repeat(map[string]func(*rapid.T){
			"service": func(t *rapid.T) {
				name := fmt.Sprint("s", rapid.IntRange(0, 9).Draw(t, "name"))
				created[name] = int64(rapid.IntRange(0, 3).Draw(t, "created"))
				m.Apply(event(KindService, one("ns", name), &Service{Meta: Meta{Created: created[name]}}))
			},
			"gone": func(t *rapid.T) {
				name := fmt.Sprint("s", rapid.IntRange(0, 9).Draw(t, "name"))
				delete(created, name)
				m.Apply(event(KindService, one("ns", name), nil))
			},
			"limit": func(t *rapid.T) {
				limit = rapid.IntRange(1, 6).Draw(t, "limit")
				m.Apply(event(KindTenant, one("", "t"), &Tenant{TrustDomain: "d", Limits: Limits{Services: limit}}))
			},
			"": func(t *rapid.T) {
				for name, c := range created {
					before := 0
					for other, o := range created {
						if o < c || o == c && other < name {
							before++
						}
					}
					require.Equal(t, before < limit, m.Service(one("ns", name)) != nil, "%s of %v at %d", name, created, limit)
				}
			},
		})
	})
}
