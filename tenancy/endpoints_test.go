package tenancy_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	. "bailiwick.dev/bailiwick/tenancy"
)

func at(n int) []netip.Addr { return []netip.Addr{ip(n)} }

func TestEndpointJoinsItsPod(t *testing.T) {
	good := Pod{ServiceAccount: "app", IPs: at(1), Meta: Meta{UID: "u1"}}
	with := func(change func(*Pod)) *Pod { p := good; change(&p); return &p }
	for name, c := range map[string]struct {
		pod    *Pod
		e      Endpoint
		reason string
	}{
		"by address":           {&good, Endpoint{Addresses: at(1), Ready: true}, ""},
		"by UID":               {&good, Endpoint{Addresses: at(1), Ready: true, PodUID: "u1", PodName: "other"}, ""},
		"by name":              {&good, Endpoint{Addresses: at(1), Ready: true, PodName: "orders"}, ""},
		"UID that none knows":  {with(func(p *Pod) { p.UID = "" }), Endpoint{Addresses: at(1), Ready: true, PodUID: "u1", PodName: "orders"}, ""},
		"other UID":            {&good, Endpoint{Addresses: at(1), Ready: true, PodUID: "u0", PodName: "orders"}, ReasonPodPending},
		"other name":           {&good, Endpoint{Addresses: at(1), Ready: true, PodName: "late"}, ReasonPodPending},
		"other address":        {&good, Endpoint{Addresses: at(77), Ready: true, PodUID: "u1", PodName: "orders"}, ReasonNotItsAddress},
		"foreign Pod":          {&good, Endpoint{Addresses: at(3), Ready: true}, ReasonPodPending},
		"foreign Pod by name":  {&good, Endpoint{Addresses: at(3), Ready: true, PodName: "orders"}, ReasonNotItsAddress},
		"no address yet":       {with(func(p *Pod) { p.IPs = nil }), Endpoint{Addresses: at(1), Ready: true, PodName: "orders"}, ReasonPodPending},
		"host network":         {with(func(p *Pod) { p.HostNetwork = true }), Endpoint{Addresses: at(1), Ready: true, PodName: "orders"}, ReasonNotEligible},
		"finished":             {with(func(p *Pod) { p.Finished = true }), Endpoint{Addresses: at(1), Ready: true, PodName: "orders"}, ReasonNotEligible},
		"no Pod":               {nil, Endpoint{Addresses: at(1), Ready: true}, ReasonPodPending},
		"no address":           {&good, Endpoint{Ready: true}, ReasonPodPending},
		"second address alone": {&good, Endpoint{Addresses: []netip.Addr{ip(77), ip(1)}, Ready: true}, ReasonPodPending},
	} {
		w := newTown(t, Config{})
		if c.pod == nil {
			w.set(KindPod, "acme-shop", "orders", nil)
		} else {
			w.set(KindPod, "acme-shop", "orders", c.pod)
		}
		w.set(KindEndpointSlice, "acme-shop", "orders", sliceOf("orders", c.e))
		spec := w.Service(one("acme-shop", "orders"))
		if c.reason == "" {
			require.Len(t, spec.Ports[0].Endpoints, 1, name)
			require.Equal(t, []string{"app"}, spec.Accounts, name)
			require.Empty(t, w.reasons(KindEndpointSlice, "acme-shop", "orders"), name)
			continue
		}
		require.Empty(t, spec.Ports[0].Endpoints, name)
		require.Empty(t, spec.Accounts, name)
		require.Equal(t, []string{c.reason}, w.reasons(KindEndpointSlice, "acme-shop", "orders"), name)
	}
}

func TestPodArrivesAfterItsEndpoint(t *testing.T) {
	w := newTown(t, Config{})
	w.set(KindEndpointSlice, "acme-shop", "orders", sliceOf("orders", Endpoint{Addresses: at(60), Ready: true}))
	ref := Ref{Kind: KindEndpointSlice, Key: one("acme-shop", "orders")}
	require.Len(t, w.TakeProblems()[ref], 1)
	w.TakeTouched()
	w.set(KindPod, "acme-shop", "late", &Pod{ServiceAccount: "app", IPs: at(60)})
	touched := w.TakeTouched()
	require.Contains(t, touched.Services, one("acme-shop", "orders"))
	require.Contains(t, touched.Pods, Key{Namespace: "acme-shop", Name: "late"})
	require.Len(t, w.Service(one("acme-shop", "orders")).Ports[0].Endpoints, 1)
	problems, told := w.TakeProblems()[ref]
	require.True(t, told)
	require.Empty(t, problems)
}

// TestPodsAreWaitedFor: a Pod that has not arrived is a problem only after a
// while, which other changes of the slice do not begin anew; a Pod that leaves
// before its endpoint has as much time.
func TestPodsAreWaitedFor(t *testing.T) {
	start := time.Unix(1_000_000_000, 0)
	w := newTown(t, Config{PodPatience: PodPatience})
	w.Tick(start)
	ref := Ref{Kind: KindEndpointSlice, Key: one("acme-shop", "orders")}
	late := Endpoint{Addresses: at(60), Ready: true, PodName: "late"}
	later := Endpoint{Addresses: at(61), Ready: true, PodName: "later"}
	reasons := func() []string { return w.reasons(KindEndpointSlice, "acme-shop", "orders") }
	w.TakeProblems()
	w.set(KindEndpointSlice, "acme-shop", "orders", sliceOf("orders", late))
	require.Empty(t, w.Service(one("acme-shop", "orders")).Ports[0].Endpoints)
	require.Empty(t, w.TakeProblems())
	require.Equal(t, start.Add(PodPatience), w.NextExpiry())

	w.Tick(start.Add(20 * time.Second))
	w.set(KindEndpointSlice, "acme-shop", "orders", sliceOf("orders", later, late))
	w.Tick(start.Add(PodPatience - 1))
	require.Empty(t, reasons())
	w.TakeTouched()
	w.Tick(start.Add(PodPatience))
	require.Equal(t, []string{ReasonPodPending}, reasons())
	require.Equal(t, "endpoints[1]", w.TakeProblems()[ref][0].Field)
	touched := w.TakeTouched()
	require.True(t, touched.Empty(), "a report changes nothing")
	require.Equal(t, start.Add(50*time.Second), w.NextExpiry())
	w.Tick(start.Add(50 * time.Second))
	require.Len(t, w.TakeProblems()[ref], 2)
	require.True(t, w.NextExpiry().IsZero())

	// They come, and one goes again.
	for i, name := range []string{"late", "later"} {
		w.set(KindPod, "acme-shop", name, &Pod{ServiceAccount: "app", IPs: at(60 + i)})
	}
	problems, told := w.TakeProblems()[ref]
	require.True(t, told)
	require.Empty(t, problems)
	gone := start.Add(time.Minute)
	w.Tick(gone)
	w.set(KindPod, "acme-shop", "late", nil)
	require.Empty(t, reasons())
	w.Tick(gone.Add(PodPatience))
	require.Equal(t, []string{ReasonPodPending}, reasons())
	w.set(KindEndpointSlice, "acme-shop", "orders", nil)
	require.Empty(t, reasons())

	// What is known at once is told at once, and nothing is left of a slice that
	// went in time.
	w.set(KindEndpointSlice, "acme-shop", "orders", sliceOf("orders", Endpoint{Addresses: at(62), Ready: true, PodName: "later"}, late))
	require.Equal(t, []string{ReasonNotItsAddress}, reasons())
	w.set(KindEndpointSlice, "acme-shop", "orders", nil)
	w.TakeProblems()
	w.Tick(gone.Add(time.Hour))
	require.Empty(t, w.TakeProblems())
	require.True(t, w.NextExpiry().IsZero())
}

func TestReadiness(t *testing.T) {
	ready := Endpoint{Ready: true, Serving: true}
	leaving := Endpoint{Serving: true, Terminating: true}
	down := Endpoint{}
	gone := Endpoint{Terminating: true}
	for _, c := range []struct {
		name     string
		notReady bool
		in       []Endpoint
		want     []string
	}{
		{"ready", false, []Endpoint{ready, down, gone}, []string{"1"}},
		{"draining beside ready", false, []Endpoint{ready, leaving}, []string{"1", "2 draining"}},
		{"nothing but draining", false, []Endpoint{down, leaving, leaving}, []string{"2", "3"}},
		{"nothing", false, []Endpoint{down, gone}, nil},
		{"published unready", true, []Endpoint{down, gone, ready}, []string{"1", "2", "3"}},
	} {
		w := newTown(t, Config{})
		w.set(KindService, "acme-shop", "orders", &Service{PublishNotReady: c.notReady, Ports: []ServicePort{{Name: "http", Port: 80}}})
		for i := range c.in {
			c.in[i].Addresses = at(i + 101)
			w.set(KindPod, "acme-shop", "p"+ip(i).String(), &Pod{ServiceAccount: "a" + ip(i).String(), IPs: at(i + 101)})
		}
		w.set(KindEndpointSlice, "acme-shop", "orders", sliceOf("orders", c.in...))
		spec := w.Service(one("acme-shop", "orders"))
		var got []string
		for _, e := range spec.Ports[0].Endpoints {
			s := string(rune('0' + e.Address.Addr().As4()[3] - 100))
			if e.Draining {
				s += " draining"
			}
			got = append(got, s)
		}
		require.Equal(t, c.want, got, c.name)
		require.Len(t, spec.Accounts, len(c.in), "accounts of all Pods, ready or not")
	}
}

// TestHostsOfHeadlessServices: endpoints have names of their own on HTTP ports of
// services without a virtual IP, whether they are ready or not, once their Pods
// are there.
func TestHostsOfHeadlessServices(t *testing.T) {
	w := newTown(t, Config{})
	k := one("acme-shop", "db")
	svc := &Service{Ports: []ServicePort{{Name: "http", Port: 80, Protocol: HTTP1}, {Name: "none", Port: 81, Protocol: HTTP1}, {Name: "tcp", Port: 82}}}
	named := func(name string, address int, ready bool) Endpoint {
		return Endpoint{Addresses: at(address), Ready: ready, Hostname: name}
	}
	endpoints := sliceOf("db", named("db-1", 102, true), named("db-0", 101, false), named("db-2", 103, true), named("", 104, true))
	endpoints.Ports = append(endpoints.Ports, SlicePort{Name: "tcp", Port: 90})
	for _, i := range []int{1, 2, 4} {
		w.set(KindPod, "acme-shop", "p"+ip(i).String(), &Pod{ServiceAccount: "a", IPs: at(100 + i)})
	}
	w.set(KindService, "acme-shop", "db", svc)
	w.set(KindEndpointSlice, "acme-shop", "db", endpoints)
	spec := w.Service(k)
	require.True(t, spec.Headless())
	require.Equal(t, []PortSpec{
		{Name: "http", Port: 80, Protocol: HTTP1, Hosts: []string{"db-0", "db-1"}, Endpoints: []EndpointSpec{
			{Address: netip.AddrPortFrom(ip(102), 8080), Host: "db-1"}, {Address: netip.AddrPortFrom(ip(104), 8080)},
		}},
		{Name: "none", Port: 81, Protocol: HTTP1},
		{Name: "tcp", Port: 82, Endpoints: []EndpointSpec{{Address: netip.AddrPortFrom(ip(102), 90)}, {Address: netip.AddrPortFrom(ip(104), 90)}}},
	}, spec.Ports)

	w.set(KindPod, "acme-shop", "late", &Pod{ServiceAccount: "a", IPs: at(103)})
	require.Equal(t, []string{"db-0", "db-1", "db-2"}, w.Service(k).Ports[0].Hosts)
	w.set(KindService, "acme-shop", "db", &Service{ClusterIPs: at(9), Ports: svc.Ports})
	spec = w.Service(k)
	require.False(t, spec.Headless())
	require.Empty(t, spec.Ports[0].Hosts, "only the service has a name then")
	require.Len(t, spec.Ports[0].Endpoints, 3)
	for _, e := range spec.Ports[0].Endpoints {
		require.Empty(t, e.Host)
	}
}

func TestSlicesAreMerged(t *testing.T) {
	w := newTown(t, Config{})
	w.set(KindService, "acme-shop", "orders", &Service{ClusterIPs: []netip.Addr{ip(9), ip(8), ip(9)}, Ports: []ServicePort{{Name: "http", Port: 80}, {Name: "none", Port: 81}}})
	w.set(KindEndpointSlice, "acme-shop", "orders", sliceOf("orders", Endpoint{Addresses: at(1), Serving: true, Terminating: true, Zone: "a"}))
	w.set(KindEndpointSlice, "acme-shop", "second", sliceOf("orders", Endpoint{Addresses: at(1), Ready: true, Zone: "b"}))
	w.set(KindEndpointSlice, "acme-shop", "third", sliceOf("elsewhere", Endpoint{Addresses: at(1), Ready: true}))
	require.Equal(t, &ServiceSpec{
		Key: one("acme-shop", "orders"), Tenant: "acme", TrustDomain: "acme.example", Accounts: []string{"app"},
		VIPs: []netip.Addr{ip(8), ip(9)},
		Ports: []PortSpec{
			{Name: "http", Port: 80, Endpoints: []EndpointSpec{{Address: netip.AddrPortFrom(ip(1), 8080), Zone: "b"}}},
			{Name: "none", Port: 81},
		},
		Origins: []Ref{{Kind: KindService, Key: one("acme-shop", "orders")}, {Kind: KindEndpointSlice, Key: one("acme-shop", "orders")}, {Kind: KindEndpointSlice, Key: one("acme-shop", "second")}},
	}, w.Service(one("acme-shop", "orders")))
}

func TestEndpointFlipTouchesTheServiceAlone(t *testing.T) {
	w := newTown(t, Config{})
	k := one("acme-shop", "orders")
	before := w.Service(k)
	w.set(KindEndpointSlice, "acme-shop", "orders", sliceOf("orders", Endpoint{Addresses: at(1), Ready: true}))
	touched := w.TakeTouched()
	require.True(t, touched.Empty(), "an equal object is no change")
	w.set(KindEndpointSlice, "acme-shop", "orders", sliceOf("orders", Endpoint{Addresses: at(1)}))
	seen := &TouchedView{Services: map[Key]struct{}{k: {}}}
	require.Equal(t, Touched{
		Services: map[Key]struct{}{k: {}},
		Views:    map[ViewKey]*TouchedView{viewOf("acme-shop"): seen, viewOf("acme-web"): seen},
	}, w.TakeTouched())
	require.NotSame(t, before, w.Service(k))
	unready := w.Service(k)
	w.set(KindEndpointSlice, "acme-shop", "orders", sliceOf("orders", Endpoint{Addresses: at(1), Terminating: true}))
	require.Same(t, unready, w.Service(k), "equal content keeps the pointer")
}

func TestClosedViewsAreNotTouched(t *testing.T) {
	w := newTown(t, Config{})
	w.CloseView(viewOf("acme-web"))
	w.set(KindEndpointSlice, "acme-shop", "orders", sliceOf("orders"))
	touched := w.TakeTouched()
	require.NotContains(t, touched.Views, viewOf("acme-web"))
	require.Contains(t, touched.Views, viewOf("acme-shop"))
	require.Contains(t, touched.Pods, Key{Namespace: "acme-shop", Name: "orders"})
}
