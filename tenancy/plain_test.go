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
