package tenancy_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	. "bailiwick.dev/bailiwick/tenancy"
)

// What limits leave out is told of the tenant whose limits they are, each by its
// name, and of nobody else; with more room it is told that nothing is left out.
func TestTheTenantIsToldWhatItsLimitsLeaveOut(t *testing.T) {
	w := newTown(t, Config{})
	all := []AccessRule{{Sources: []AccessSource{{All: true}}}}
	var endpoints []Endpoint
	for i := range 3 {
		name := fmt.Sprint("more", i)
		w.set(KindService, "acme-shop", name, &Service{Ports: []ServicePort{{Name: "http", Port: 80}}})
		w.set(KindAccessPolicy, "acme-shop", name, &AccessPolicy{Rules: all})
		w.set(KindServiceGrant, "acme-shop", name, &ServiceGrant{From: []GrantFrom{{Tenant: "globex", All: true}}, To: []GrantTo{{Service: name}}})
		w.set(KindServiceRequest, "acme-shop", name, &ServiceRequest{Namespace: "globex-a", Service: "orders"})
		w.set(KindPod, "acme-shop", name, &Pod{ServiceAccount: "app", IPs: at(103 + i)})
		endpoints = append(endpoints, Endpoint{Addresses: at(103 + i), Ready: true})
	}
	w.set(KindEndpointSlice, "acme-shop", "orders", sliceOf("orders", endpoints...))
	w.OpenView(viewOf("acme-shop"))
	told := func() (fields []string) {
		changed := w.TakeProblems()
		require.NotContains(t, changed, Ref{Kind: KindTenant, Key: one("", "globex")})
		for _, p := range w.Problems(Ref{Kind: KindTenant, Key: one("", "acme")}) {
			require.Equal(t, ReasonLimit, p.Reason)
			fields = append(fields, p.Field+" "+p.Message[:1])
		}
		return fields
	}
	require.Empty(t, told())
	require.Equal(t, Usage{Services: 5, Policies: 3, Grants: 3, Requests: 3}, w.TakeUsage()["acme"])
	require.Empty(t, w.TakeUsage())

	tight := func(l Limits) { w.set(KindTenant, "", "acme", &Tenant{TrustDomain: "acme.example", Limits: l}) }
	for limit, c := range map[string]struct {
		l    Limits
		want LeftOut
	}{
		"services": {Limits{Services: 1}, LeftOut{Services: 4}}, "policies": {Limits{Policies: 1}, LeftOut{Policies: 2}},
		"grants": {Limits{Grants: 1}, LeftOut{Grants: 2}}, "requests": {Limits{Requests: 1}, LeftOut{Requests: 2}},
		"endpoints":           {Limits{Endpoints: 1}, LeftOut{Endpoints: 1}},
		"policiesPerWorkload": {Limits{PoliciesPerWorkload: 1}, LeftOut{PoliciesPerWorkload: 2}},
	} {
		tight(c.l)
		require.Len(t, told(), 1, limit)
		require.Contains(t, told()[0], "spec.limits."+limit+" ")
		usage := w.TakeUsage()
		require.Equal(t, c.want, usage["acme"].LeftOut, limit)
		require.NotContains(t, usage, "globex")
		tight(Limits{})
		require.Empty(t, told(), limit)
		require.Zero(t, w.TakeUsage()["acme"].LeftOut, limit)
	}

	w.NoteView(viewOf("acme-shop"), 7)
	require.Equal(t, []string{"spec.limits.viewResources 7"}, told())
	w.NoteView(viewOf("acme-shop"), 0)
	require.Empty(t, told())

	// What goes is left out no more; nor is what is of nobody.
	tight(Limits{Grants: 1, Endpoints: 1})
	require.Len(t, told(), 2)
	w.set(KindNamespace, "", "acme-shop", nil)
	require.Empty(t, told())
	require.Equal(t, LeftOut{}, w.UsageOf("acme").LeftOut)
}
