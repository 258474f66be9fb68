package tenancy_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	. "bailiwick.dev/bailiwick/tenancy"
)

// mesh is a model with many tenants of two namespaces (t0-a, t0-b, t1-a, ...)
// and per namespace the given number of services (s0, s1, ...) of two Pods.
// t0 grants t0-a/s0 to t1, whose t1-a requested it; every tenant but t0 asks
// for t0-a/s1, which nobody grants, and offers t0 a service that t0 does not
// ask for. All views are open.
func mesh(tenants, services int) *Model {
	m := NewModel(Config{Limits: Limits{Services: 1 << 30}})
	m.Apply(event(KindTrustBundle, key("s", "", "mesh.example"), &TrustBundle{PEM: []byte("x")}))
	for t := range tenants {
		name := fmt.Sprint("t", t)
		m.Apply(event(KindTenant, key("s", "", name), &Tenant{TrustDomain: "mesh.example"}))
		for n, suffix := range []string{"-a", "-b"} {
			ns := name + suffix
			m.Apply(event(KindNamespace, key("s", "", ns), &Namespace{Tenant: name}))
			m.OpenView(ViewKey{Tenant: name, Namespace: ns})
			for s := range services {
				addService(m, ns, t*2+n, s)
			}
		}
		if t > 0 {
			m.Apply(event(KindServiceRequest, key("s", name+"-b", "wish"), &ServiceRequest{Namespace: "t0-a", Service: "s1", Ports: PortSet{All: true}}))
			m.Apply(event(KindServiceGrant, key("s", name+"-b", "offer"), grantOf("t0", "s0")))
		}
	}
	m.Apply(event(KindServiceGrant, key("s", "t0-a", "to-t1"), grantOf("t1", "s0")))
	m.Apply(event(KindServiceRequest, key("s", "t1-a", "take"), &ServiceRequest{Namespace: "t0-a", Service: "s0", Ports: PortSet{All: true}}))
	m.TakeTouched()
	m.TakeProblems()
	return m
}

func grantOf(tenant, service string) *ServiceGrant {
	return &ServiceGrant{From: []GrantFrom{{Tenant: tenant, All: true}}, To: []GrantTo{{Service: service, Ports: PortSet{All: true}}}}
}

// meshAddr is an address of its own for each Pod of a mesh.
func meshAddr(space, service, pod int) netip.Addr {
	var a [16]byte
	a[0], a[8], a[9], a[10] = 0xfd, byte(space>>16), byte(space>>8), byte(space)
	n := service*2 + pod
	a[12], a[13], a[14], a[15] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	return netip.AddrFrom16(a)
}

func meshSlice(space, service int, ready bool) *EndpointSlice {
	return &EndpointSlice{
		Service: fmt.Sprint("s", service), Ports: []SlicePort{{Name: "http", Port: 8080}},
		Endpoints: []Endpoint{
			{Addresses: []netip.Addr{meshAddr(space, service, 0)}, Ready: true, Serving: true},
			{Addresses: []netip.Addr{meshAddr(space, service, 1)}, Ready: ready, Serving: ready},
		},
	}
}

func hintedSlice(space, service int, zone string) *EndpointSlice {
	s := meshSlice(space, service, true)
	for i, zone := range []string{"a", zone} {
		s.Endpoints[i].Zone, s.Endpoints[i].Hints = zone, &Hints{Zones: []string{zone}}
	}
	return s
}

func addService(m *Model, ns string, space, service int) {
	name := fmt.Sprint("s", service)
	m.Apply(event(KindService, key("s", ns, name), &Service{Ports: []ServicePort{{Name: "http", Port: 80, Protocol: HTTP1}}}))
	m.Apply(event(KindEndpointSlice, key("s", ns, name), meshSlice(space, service, true)))
	for p := range 2 {
		m.Apply(event(KindPod, key("s", ns, fmt.Sprint(name, "-", p)), meshPod(space, service, p)))
	}
}

func meshPod(space, service, pod int) *Pod {
	return &Pod{ServiceAccount: "app", Labels: map[string]string{"app": fmt.Sprint("s", service)}, IPs: []netip.Addr{meshAddr(space, service, pod)}}
}

// TestCostFollowsTheChange applies the same events to a small and to a large
// mesh: steps and touched things must be equal.
func TestCostFollowsTheChange(t *testing.T) {
	small, large := mesh(3, 3), mesh(60, 3)
	events := map[string][]Event{
		"endpoint flip":       {event(KindEndpointSlice, key("s", "t0-a", "s0"), meshSlice(0, 0, false))},
		"hinted":              {event(KindEndpointSlice, key("s", "t0-a", "s2"), hintedSlice(0, 2, "b"))},
		"elsewhere":           {event(KindEndpointSlice, key("s", "t0-a", "s2"), hintedSlice(0, 2, "c"))},
		"service ports":       {event(KindService, key("s", "t0-a", "s1"), &Service{Ports: []ServicePort{{Name: "http", Port: 81, Protocol: HTTP1}}})},
		"wanted service gone": {event(KindService, key("s", "t0-a", "s1"), nil)},
		"granted gone":        {event(KindService, key("s", "t0-a", "s0"), nil)},
		"pod gone":            {event(KindPod, key("s", "t0-a", "s0-0"), nil)},
		"policy":              {event(KindAccessPolicy, key("s", "t0-a", "p"), &AccessPolicy{Rules: []AccessRule{{Sources: []AccessSource{{Granted: true}}}}})},
		"deny":                {event(KindAccessPolicy, key("s", "t0-a", "q"), &AccessPolicy{Action: Deny, Rules: []AccessRule{{Sources: []AccessSource{{Namespace: "t0-b", ServiceAccount: "app"}}}}})},
		"account":             {event(KindPod, key("s", "t0-b", "s0-0"), &Pod{ServiceAccount: "new", IPs: meshPod(1, 0, 0).IPs})},
		"grant":               {event(KindServiceGrant, key("s", "t0-a", "more"), grantOf("t2", "s1"))},
		"grant gone":          {event(KindServiceGrant, key("s", "t0-a", "more"), nil)},
		"wish":                {event(KindServiceRequest, key("s", "t1-a", "wish"), &ServiceRequest{Namespace: "t0-a", Service: "s2", Ports: PortSet{All: true}})},
		"request":             {event(KindServiceRequest, key("s", "t1-b", "take"), &ServiceRequest{Namespace: "t0-a", Service: "s0", Ports: PortSet{All: true}})},
		"cluster grant":       {event(KindClusterServiceGrant, key("s", "", "c"), &ClusterServiceGrant{Tenants: []string{"t2"}, To: []ClusterGrantTo{{Namespace: "t0-a", Service: "s2", Ports: PortSet{All: true}}}})},
		"namespace leaves":    {event(KindNamespace, key("s", "", "t1-a"), &Namespace{})},
		"namespace joins":     {event(KindNamespace, key("s", "", "t1-a"), &Namespace{Tenant: "t1"})},
		"namespace changes":   {event(KindNamespace, key("s", "", "t1-b"), &Namespace{Tenant: "t0"})},
		"tenant settings":     {event(KindTenant, key("s", "", "t0"), &Tenant{TrustDomain: "mesh.example", Outbound: AllowAny, TLSMinimum13: true, DefaultAction: AllowWithinTenant})},
		"tenant narrower":     {event(KindTenant, key("s", "", "t0"), &Tenant{TrustDomain: "mesh.example", Visibility: VisibleInNamespace})},
		"tenant suspended":    {event(KindTenant, key("s", "", "t0"), &Tenant{TrustDomain: "mesh.example", Suspended: true})},
		"tenant back":         {event(KindTenant, key("s", "", "t0"), &Tenant{TrustDomain: "mesh.example"})},
		"tenant new":          {event(KindTenant, key("s", "", "new"), &Tenant{TrustDomain: "mesh.example"}), event(KindNamespace, key("s", "", "new-a"), &Namespace{Tenant: "new"})},
	}
	order := []string{
		"endpoint flip", "hinted", "elsewhere", "service ports", "policy", "deny", "account", "grant", "grant gone", "wish", "request", "cluster grant", "pod gone", "namespace leaves",
		"namespace joins", "namespace changes", "tenant settings", "tenant narrower", "tenant suspended", "tenant back", "tenant new", "wanted service gone", "granted gone",
	}
	require.Len(t, order, len(events))
	for _, name := range order {
		cost := func(m *Model) (int, Touched, int) {
			before := m.Steps()
			for _, ev := range events[name] {
				m.Apply(ev)
			}
			applied := m.Steps()
			return applied - before, m.TakeTouched(), len(m.TakeProblems())
		}
		steps, touched, problems := cost(small)
		stepsLarge, touchedLarge, problemsLarge := cost(large)
		require.Equal(t, touched, touchedLarge, name)
		require.Equal(t, steps, stepsLarge, name)
		require.Equal(t, problems, problemsLarge, name)
		t.Logf("%-20s %3d steps, %d views, %d workloads", name, steps, len(touched.Views), len(touched.Workloads))
	}
}

func BenchmarkEndpointFlip(b *testing.B) {
	for _, services := range []int{100, 100_000} {
		b.Run(fmt.Sprint(services, " services"), func(b *testing.B) {
			tenants := services / 20
			m := mesh(tenants, 10)
			specs, k := 0, key("s", "t0-a", "s0")
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				m.Apply(event(KindEndpointSlice, k, meshSlice(0, 0, i%2 == 1)))
				specs += len(m.TakeTouched().Services)
			}
			require.Equal(b, b.N, specs)
		})
	}
}
