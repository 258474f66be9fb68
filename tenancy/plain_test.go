package tenancy_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	. "bailiwick.dev/bailiwick/tenancy"
)

// A service of nobody's namespace is seen where the platform shows it as plain, and
// a tenant's is not, whatever is said of it.
func TestPlainServices(t *testing.T) {
	w := newTown(t, Config{})
	view := ViewKey{"acme", "acme-shop"}
	w.OpenView(view)
	svc := one("default", "kubernetes")
	sees := func(want bool) *ServiceSpec {
		t.Helper()
		sight, ok := w.See(view, svc)
		require.Equal(t, want, ok)
		spec := w.Service(svc)
		require.Equal(t, want, spec != nil)
		if ok {
			require.Equal(t, Granted, sight.Grade)
			require.Contains(t, w.TakeTouched().Views[view].Services, svc)
		}
		return spec
	}
	w.set(KindService, "default", "kubernetes", &Service{Ports: []ServicePort{{Name: "https", Port: 443}, {Name: "other", Port: 444}}})
	w.set(KindEndpointSlice, "default", "kubernetes", &EndpointSlice{
		Service: "kubernetes", Ports: []SlicePort{{Name: "https", Port: 6443}},
		Endpoints: []Endpoint{{Addresses: []netip.Addr{ip(200)}, Ready: true}},
	})
	w.set(KindNamespace, "", "default", &Namespace{})
	sees(false)
	grant := func(plain bool) *ClusterServiceGrant {
		return &ClusterServiceGrant{AllTenants: true, To: []ClusterGrantTo{{Namespace: "default", Service: "kubernetes", Ports: PortSet{Ports: []uint16{443}}, Plain: plain}}}
	}
	w.set(KindClusterServiceGrant, "", "api", grant(false))
	sees(false)
	w.set(KindClusterServiceGrant, "", "api", grant(true))
	spec := sees(true)
	require.True(t, spec.Plain)
	require.Empty(t, spec.TrustDomain)
	require.Len(t, spec.Ports[0].Endpoints, 1, "no Pod is behind it")
	sight, _ := w.See(view, svc)
	require.False(t, sight.Ports.Has(444))

	// A request and a grant of nobody's namespace show nothing more.
	w.set(KindServiceGrant, "default", "all", &ServiceGrant{From: []GrantFrom{{Tenant: "acme", All: true}}, To: []GrantTo{{Service: "kubernetes", Ports: PortSet{All: true}}}})
	w.set(KindServiceRequest, "acme-shop", "api", &ServiceRequest{Namespace: "default", Service: "kubernetes", Ports: PortSet{All: true}})
	sight, _ = w.See(view, svc)
	require.False(t, sight.Ports.Has(444))

	w.set(KindServiceGrant, "default", "all", nil)

	// Without the Namespace it is nowhere; with a tenant it is not plain.
	w.set(KindNamespace, "", "default", nil)
	require.Contains(t, w.TakeTouched().Services, svc)
	sees(false)
	w.set(KindNamespace, "", "default", &Namespace{})
	sees(true)
	w.set(KindNamespace, "", "default", &Namespace{Tenant: "globex"})
	_, ok := w.See(view, svc)
	require.False(t, ok)
	require.False(t, w.Service(svc).Plain)
	require.Equal(t, ReasonNotPlain, w.Problems(Ref{Kind: KindClusterServiceGrant, Key: one("", "api")})[0].Reason)
}

// A tenant's service is plain for those namespaces alone whose request says so, as
// its grant does and both Tenants permit; whatever of that goes, mTLS is back. What
// a side is told speaks of its own part.
func TestPlainByConsent(t *testing.T) {
	w := newTown(t, Config{})
	permit := func(tenant string, on bool) {
		w.set(KindTenant, "", tenant, &Tenant{TrustDomain: tenant + ".example", Plain: on})
	}
	offer := func(plain bool, to ...string) *ServiceGrant {
		g := &ServiceGrant{To: []GrantTo{{Service: "orders", Ports: PortSet{All: true}, Plain: plain}}}
		for _, tenant := range to {
			g.From = append(g.From, GrantFrom{Tenant: tenant, All: true})
		}
		return g
	}
	take := func(plain bool) *ServiceRequest {
		return &ServiceRequest{Namespace: "globex-a", Service: "orders", Ports: PortSet{All: true}, Plain: plain}
	}
	svc := one("globex-a", "orders")
	plain := func(from string) bool {
		sight, ok := w.See(viewOf(from), svc)
		require.True(t, ok, "visible in any case")
		return sight.Plain.Has(80)
	}
	permit("acme", true)
	permit("globex", true)
	w.set(KindServiceGrant, "globex-a", "grant", offer(true, "acme"))
	w.set(KindServiceRequest, "acme-shop", "request", take(true))
	w.set(KindServiceRequest, "acme-web", "request", take(false))
	require.True(t, plain("acme-shop"))
	require.False(t, plain("acme-web"), "it did not ask for it")
	require.False(t, plain("globex-a"))
	require.False(t, plain("globex-b"))
	require.Empty(t, w.reasons(KindServiceGrant, "globex-a", "grant"))
	require.Empty(t, w.reasons(KindServiceRequest, "acme-shop", "request"))

	for name, c := range map[string]struct {
		undo, redo     func()
		grant, request []string
	}{
		"the consumer's Tenant": {func() { permit("acme", false) }, func() { permit("acme", true) }, nil, []string{ReasonNotPermitted}},
		"the owner's Tenant":    {func() { permit("globex", false) }, func() { permit("globex", true) }, []string{ReasonNotPermitted}, []string{ReasonNotPlain}},
		"the grant": {
			func() { w.set(KindServiceGrant, "globex-a", "grant", offer(false, "acme")) },
			func() { w.set(KindServiceGrant, "globex-a", "grant", offer(true, "acme")) }, nil, []string{ReasonNotPlain},
		},
		"another grant": {
			func() { w.set(KindServiceGrant, "globex-a", "second", offer(false, "acme")) },
			func() { w.set(KindServiceGrant, "globex-a", "second", nil) }, nil, []string{ReasonNotPlain},
		},
		"the request": {
			func() { w.set(KindServiceRequest, "acme-shop", "request", take(false)) },
			func() { w.set(KindServiceRequest, "acme-shop", "request", take(true)) }, nil, nil,
		},
		"another request": {
			func() { w.set(KindServiceRequest, "acme-shop", "second", take(false)) },
			func() { w.set(KindServiceRequest, "acme-shop", "second", nil) }, nil, []string{ReasonNotPlain},
		},
	} {
		for _, step := range []struct {
			do   func()
			want bool
		}{{c.undo, false}, {c.redo, true}} {
			w.TakeTouched()
			step.do()
			require.Equal(t, step.want, plain("acme-shop"), name)
			touched := w.TakeTouched()
			require.Contains(t, touched.Views[viewOf("acme-shop")].Services, svc, name)
			grant, request := c.grant, c.request
			if step.want {
				grant, request = nil, nil
			}
			require.Equal(t, grant, w.reasons(KindServiceGrant, "globex-a", "grant"), name)
			require.Equal(t, request, w.reasons(KindServiceRequest, "acme-shop", "request"), name)
		}
	}

	// Within a tenant it is agreed upon in the same way, and shows nothing more.
	w.set(KindServiceGrant, "globex-a", "own", offer(true, "globex"))
	require.False(t, plain("globex-b"))
	w.TakeTouched()
	w.set(KindServiceRequest, "globex-b", "request", take(true))
	require.True(t, plain("globex-b"))
	require.Contains(t, w.TakeTouched().Views[viewOf("globex-b")].Services, svc)
	require.False(t, plain("globex-a"))
	require.Empty(t, w.reasons(KindServiceGrant, "globex-a", "own"))
	require.Empty(t, w.reasons(KindServiceRequest, "globex-b", "request"))
	w.set(KindTenant, "", "globex", &Tenant{TrustDomain: "globex.example", Plain: true, Visibility: VisibleInNamespace})
	_, ok := w.See(viewOf("globex-b"), svc)
	require.False(t, ok)
}
