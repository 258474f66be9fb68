package tenancy_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/identity"
	. "bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

// town is a Model with tenants acme (acme-shop, acme-web) and globex
// (globex-a, globex-b), each namespace with the service orders on port 80 and
// one Pod behind it.
type town struct {
	*Model
	t *testing.T
}

func newTown(t *testing.T, c Config) *town {
	w := &town{NewModel(c), t}
	for _, name := range []string{"acme", "globex"} {
		w.set(KindTrustBundle, "", name+".example", &TrustBundle{PEM: []byte(name)})
		w.set(KindTenant, "", name, &Tenant{TrustDomain: name + ".example"})
	}
	for i, ns := range townNamespaces {
		w.set(KindNamespace, "", ns, &Namespace{Tenant: home(ns)})
		w.service(ns, "orders", i+1)
		w.OpenView(viewOf(ns))
	}
	w.TakeTouched()
	w.TakeProblems()
	return w
}

var townNamespaces = []string{"acme-shop", "acme-web", "globex-a", "globex-b"}

func viewOf(ns string) ViewKey { return ViewKey{Tenant: home(ns), Namespace: ns} }
func one(ns, name string) Key  { return key("one", ns, name) }
func workload(ns, account string) identity.Workload {
	return identity.Workload{TrustDomain: home(ns) + ".example", Namespace: ns, ServiceAccount: account}
}

func (w *town) set(kind Kind, ns, name string, o Object) { w.Apply(event(kind, one(ns, name), o)) }

func ip(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}) }

func (w *town) service(ns, name string, n int) {
	w.set(KindService, ns, name, &Service{Ports: []ServicePort{{Name: "http", Port: 80, Protocol: HTTP1}}})
	w.set(KindPod, ns, name, &Pod{ServiceAccount: "app", Labels: map[string]string{"app": name}, IPs: []netip.Addr{ip(n)}})
	w.set(KindEndpointSlice, ns, name, sliceOf(name, Endpoint{Addresses: []netip.Addr{ip(n)}, Ready: true}))
}

func sliceOf(service string, endpoints ...Endpoint) *EndpointSlice {
	return &EndpointSlice{Service: service, Ports: []SlicePort{{Name: "http", Port: 8080}}, Endpoints: endpoints}
}

func (w *town) grant(ns, tenant string, ports ...uint16) {
	w.set(KindServiceGrant, ns, "grant", &ServiceGrant{From: []GrantFrom{{Tenant: tenant, All: true}}, To: []GrantTo{{Service: "orders", Ports: PortSet{All: len(ports) == 0, Ports: ports}}}})
}

func (w *town) request(ns, of string, ports ...uint16) {
	w.set(KindServiceRequest, ns, "request", &ServiceRequest{Namespace: of, Service: "orders", Ports: PortSet{All: len(ports) == 0, Ports: ports}})
}

func (w *town) sees(from, ns string) bool {
	_, ok := w.See(viewOf(from), one(ns, "orders"))
	return ok
}

func (w *town) spec(ns, pod string) WorkloadSpec {
	sel, _, ok := w.Select(Key{Namespace: ns, Name: pod}, workload(ns, "app"))
	require.True(w.t, ok)
	return w.Workload(sel)
}

func (w *town) decide(from identity.Workload, ns string) policy.Decision {
	spec := w.spec(ns, "orders")
	require.Len(w.t, spec.Ports, 1)
	return spec.Ports[0].Policy.Decide(from.String(), policy.Request{Method: "GET", Path: "/"})
}

func (w *town) reasons(kind Kind, ns, name string) (reasons []string) {
	for _, p := range w.Problems(Ref{Kind: kind, Key: one(ns, name)}) {
		reasons = append(reasons, p.Reason)
	}
	return reasons
}

func TestTenantIsTrustDomainAndNamespace(t *testing.T) {
	base := Tenant{TrustDomain: "acme.example"}
	for name, c := range map[string]struct {
		label   string
		tenant  *Tenant
		domains []string
		domain  string
		ns      string
		want    bool
	}{
		"label alone":             {"acme", &base, nil, "acme.example", "shop", true},
		"no label":                {"", &base, nil, "acme.example", "shop", false},
		"no Tenant":               {"acme", nil, nil, "acme.example", "shop", false},
		"other trust domain":      {"acme", &base, nil, "globex.example", "shop", false},
		"suspended":               {"acme", &Tenant{TrustDomain: "acme.example", Suspended: true}, nil, "acme.example", "shop", false},
		"exact name":              {"acme", &Tenant{TrustDomain: "acme.example", Namespaces: []string{"shop"}}, nil, "acme.example", "shop", true},
		"exact name is no prefix": {"acme", &Tenant{TrustDomain: "acme.example", Namespaces: []string{"shop"}}, nil, "acme.example", "shop-evil", false},
		"prefix":                  {"acme", &Tenant{TrustDomain: "acme.example", Namespaces: []string{"acme-"}}, nil, "acme.example", "acme-shop", true},
		"prefix ends in a dash":   {"acme", &Tenant{TrustDomain: "acme.example", Namespaces: []string{"acme-"}}, nil, "acme.example", "acmeshop", false},
		"empty list":              {"acme", &Tenant{TrustDomain: "acme.example", Namespaces: []string{}}, nil, "acme.example", "shop", false},
		"listed domain":           {"acme", &Tenant{TrustDomain: "bare.example"}, []string{"bare.example"}, "bare.example", "shop", true},
		"domain not listed":       {"acme", &base, []string{"bare.example"}, "acme.example", "shop", false},
		"domain without bundle":   {"acme", &Tenant{TrustDomain: "bare.example"}, nil, "bare.example", "shop", false},
		"no domain":               {"acme", &Tenant{}, nil, "", "shop", false},
	} {
		w := &town{NewModel(Config{TrustDomains: c.domains}), t}
		w.set(KindTrustBundle, "", "acme.example", &TrustBundle{PEM: []byte("x")})
		if c.tenant != nil {
			w.set(KindTenant, "", "acme", c.tenant)
		}
		w.set(KindNamespace, "", c.ns, &Namespace{Tenant: c.label})
		tenant, ok := w.Resolve(identity.Workload{TrustDomain: c.domain, Namespace: c.ns, ServiceAccount: "app"})
		require.Equal(t, c.want, ok, name)
		require.Equal(t, c.want, tenant == "acme", name)
	}
}

func TestServiceOfNamespaceWithoutObjectIsNobodys(t *testing.T) {
	w := newTown(t, Config{})
	w.set(KindNamespace, "", "acme-web", nil)
	require.Nil(t, w.Service(one("acme-web", "orders")))
	require.False(t, w.sees("acme-shop", "acme-web"))
	_, _, ok := w.Select(Key{Namespace: "acme-web", Name: "orders"}, workload("acme-web", "app"))
	require.False(t, ok)
}

func TestWhyANamespaceIsNobodysIsNotTold(t *testing.T) {
	w := newTown(t, Config{})
	w.set(KindTenant, "", "closed", &Tenant{TrustDomain: "acme.example", Namespaces: []string{"closed-a"}})
	w.set(KindTenant, "", "asleep", &Tenant{TrustDomain: "acme.example", Suspended: true})
	var texts []Problem
	for _, label := range []string{"closed", "asleep", "missing"} {
		w.set(KindNamespace, "", "x", &Namespace{Tenant: label})
		texts = append(texts, w.Problems(Ref{Kind: KindNamespace, Key: one("", "x")})...)
	}
	require.Len(t, texts, 3)
	require.Equal(t, texts[0], texts[1])
	require.Equal(t, texts[0], texts[2])
}

func TestGrantIsInertUntilRequested(t *testing.T) {
	w := newTown(t, Config{})
	w.grant("acme-shop", "globex")
	touched := w.TakeTouched()
	require.True(t, touched.Empty(), "%+v", touched)
	require.False(t, w.sees("globex-a", "acme-shop"))

	w.request("globex-a", "acme-shop")
	touched = w.TakeTouched()
	require.Equal(t, Touched{
		Views:     map[ViewKey]*TouchedView{viewOf("globex-a"): {Services: map[Key]struct{}{one("acme-shop", "orders"): {}}}},
		Workloads: map[string]string{"acme-shop": "globex"},
	}, touched)
	sight, ok := w.See(viewOf("globex-a"), one("acme-shop", "orders"))
	require.True(t, ok)
	require.Equal(t, Sight{Service: one("acme-shop", "orders"), Grade: Granted, Ports: PortSet{All: true}, SameSource: true}, sight)
	require.False(t, w.sees("globex-b", "acme-shop"), "who did not request does not see")
	require.Equal(t, policy.Decision{By: policy.ByDefaultDeny}, w.decide(workload("globex-a", "app"), "acme-shop"), "visible is not yet callable")
	require.Equal(t, policy.Decision{By: policy.ByTenantFloor}, w.decide(workload("globex-b", "app"), "acme-shop"))

	w.set(KindAccessPolicy, "acme-shop", "p", &AccessPolicy{Rules: []AccessRule{{Sources: []AccessSource{{Granted: true}}}}})
	require.Equal(t, Touched{
		Pods:     map[Key]struct{}{{Namespace: "acme-shop", Name: "orders"}: {}},
		Selected: map[Selected]string{{Namespace: "acme-shop", Policy: "acme-shop/p"}: "acme"},
	}, w.TakeTouched())
	require.Equal(t, policy.Decision{Allowed: true, By: "acme-shop/p"}, w.decide(workload("globex-a", "app"), "acme-shop"))
	require.Equal(t, []string{"acme.example", "globex.example"}, w.spec("acme-shop", "orders").TrustDomains)

	w.set(KindServiceGrant, "acme-shop", "grant", nil)
	touched = w.TakeTouched()
	require.Contains(t, touched.Views, viewOf("globex-a"))
	require.Contains(t, touched.Workloads, "acme-shop")
	require.Equal(t, policy.Decision{By: policy.ByTenantFloor}, w.decide(workload("globex-a", "app"), "acme-shop"))
}

func TestRequestAloneTouchesNobody(t *testing.T) {
	w := newTown(t, Config{})
	w.request("globex-a", "acme-shop")
	touched := w.TakeTouched()
	require.True(t, touched.Empty(), "%+v", touched)
}

func TestMissingAndWithheldReadTheSame(t *testing.T) {
	w := newTown(t, Config{ClusterDomain: "cluster.local"})
	w.request("globex-a", "acme-shop")
	there := w.Problems(Ref{Kind: KindServiceRequest, Key: one("globex-a", "request")})
	w.set(KindService, "acme-shop", "orders", nil)
	require.Equal(t, there, w.Problems(Ref{Kind: KindServiceRequest, Key: one("globex-a", "request")}))
	w.set(KindNamespace, "", "acme-shop", nil)
	require.Equal(t, there, w.Problems(Ref{Kind: KindServiceRequest, Key: one("globex-a", "request")}))
	require.Equal(t, []Problem{{Reason: ReasonNotAvailable, Field: "spec.to", Message: "orders.acme-shop.svc.cluster.local is not available to this namespace"}}, there)
}

func TestPortsAreWhatIsGrantedAndRequested(t *testing.T) {
	w := newTown(t, Config{})
	w.set(KindService, "acme-shop", "orders", &Service{Ports: []ServicePort{{Name: "http", Port: 80, Protocol: HTTP1}, {Name: "b", Port: 81}, {Name: "c", Port: 82}}})
	ports := func() PortSet {
		s, _ := w.See(viewOf("globex-a"), one("acme-shop", "orders"))
		return s.Ports
	}
	w.grant("acme-shop", "globex", 80, 81)
	w.request("globex-a", "acme-shop", 81, 82)
	w.TakeTouched()
	w.set(KindService, "acme-shop", "orders", &Service{Ports: []ServicePort{{Name: "http", Port: 80, Protocol: HTTP1}, {Name: "b", Port: 81, Protocol: HTTP1}, {Name: "c", Port: 82}}})
	require.Contains(t, w.TakeTouched().Workloads, "acme-shop", "what is granted may lead elsewhere")
	require.Equal(t, PortSet{Ports: []uint16{81}}, ports())
	require.Equal(t, []string{ReasonNotAvailable}, w.reasons(KindServiceRequest, "globex-a", "request"), "port 82")
	require.Equal(t, policy.Decision{By: policy.ByTenantFloor}, w.decide(workload("globex-a", "app"), "acme-shop"), "port 80 leads to the Pod port, 81 does not")
	w.request("globex-a", "acme-shop", 7)
	require.False(t, w.sees("globex-a", "acme-shop"), "a service without a port that it has shows nothing")
	w.set(KindClusterServiceGrant, "", "c", &ClusterServiceGrant{AllTenants: true, To: []ClusterGrantTo{{Namespace: "acme-shop", Service: "orders", Ports: PortSet{Ports: []uint16{82}}}}})
	require.Equal(t, PortSet{Ports: []uint16{82}}, ports(), "needs no request")
	require.True(t, w.sees("globex-b", "acme-shop"))
}

func TestClusterGrantPutsAllNamespacesOnTheFloor(t *testing.T) {
	w := newTown(t, Config{})
	w.set(KindClusterServiceGrant, "", "c", &ClusterServiceGrant{Tenants: []string{"globex"}, To: []ClusterGrantTo{{Namespace: "acme-shop", Service: "orders", Ports: PortSet{All: true}}}})
	w.grant("acme-web", "globex")
	w.TakeTouched()
	floor := w.spec("acme-shop", "orders").Ports[0].Policy.Floor
	require.Equal(t, []policy.NamespaceRef{{TrustDomain: "globex.example", Namespace: "globex-a"}, {TrustDomain: "globex.example", Namespace: "globex-b"}}, floor.Granted)
	require.Len(t, w.spec("globex-a", "orders").Ports[0].Policy.Floor.Tenant, 2)
	w.set(KindNamespace, "", "globex-c", &Namespace{Tenant: "globex"})
	require.Len(t, w.spec("globex-a", "orders").Ports[0].Policy.Floor.Tenant, 3)
	require.Len(t, w.spec("acme-shop", "orders").Ports[0].Policy.Floor.Granted, 3)
	require.Equal(t, map[string]string{"acme-shop": "", "globex-a": "", "globex-b": "", "globex-c": ""}, w.TakeTouched().Workloads,
		"the tenant's own and the cluster grant's, not who merely offers")
}

func TestVisibilityOfTheNamespaceHidesTheTenant(t *testing.T) {
	w := newTown(t, Config{})
	require.True(t, w.sees("acme-shop", "acme-web"))
	w.set(KindTenant, "", "acme", &Tenant{TrustDomain: "acme.example", Visibility: VisibleInNamespace})
	require.False(t, w.sees("acme-shop", "acme-web"))
	require.True(t, w.sees("acme-shop", "acme-shop"))
	require.Len(t, w.Visible(viewOf("acme-shop")), 1)
	require.Contains(t, w.TakeTouched().Views[viewOf("acme-shop")].Services, one("acme-web", "orders"))
}

func TestGrantWithinATenantIsIgnored(t *testing.T) {
	w := newTown(t, Config{})
	w.set(KindTenant, "", "acme", &Tenant{TrustDomain: "acme.example", Visibility: VisibleInNamespace})
	w.grant("acme-shop", "acme")
	w.request("acme-web", "acme-shop")
	require.False(t, w.sees("acme-web", "acme-shop"))
	require.Equal(t, []string{ReasonSameTenant}, w.reasons(KindServiceGrant, "acme-shop", "grant"))
	require.Equal(t, []string{ReasonSameTenant}, w.reasons(KindServiceRequest, "acme-web", "request"))
}

func TestSharedTargetPort(t *testing.T) {
	w := newTown(t, Config{})
	w.set(KindService, "acme-shop", "admin", &Service{Ports: []ServicePort{{Name: "http", Port: 90, Protocol: HTTP2}}})
	w.set(KindEndpointSlice, "acme-shop", "admin", sliceOf("admin", Endpoint{Addresses: []netip.Addr{ip(1)}, Ready: true}))
	w.grant("acme-shop", "globex")
	require.Equal(t, []Problem{{Reason: ReasonSharedPort, Field: "spec.to[0]", Message: "accepted, and opens as well port 90 of acme-shop/admin by Pod port 8080"}},
		w.TakeProblems()[Ref{Kind: KindServiceGrant, Key: one("acme-shop", "grant")}])
	w.request("globex-a", "acme-shop")
	port := w.spec("acme-shop", "orders").Ports[0]
	require.Len(t, port.Policy.Floor.Granted, 1)
	require.Equal(t, HTTP1, port.Protocol, "HTTP/1 where the services differ")
	grant := Ref{Kind: KindServiceGrant, Key: one("acme-shop", "grant")}
	w.set(KindPod, "acme-shop", "orders", nil)
	require.Contains(t, w.TakeProblems(), grant)
	require.Empty(t, w.reasons(KindServiceGrant, "acme-shop", "grant"), "no Pod shares the port")
	w.set(KindPod, "acme-shop", "orders", &Pod{ServiceAccount: "app", IPs: at(1)})
	require.Contains(t, w.TakeProblems(), grant)
	w.set(KindService, "acme-shop", "admin", nil)
	require.Empty(t, w.TakeProblems()[Ref{Kind: KindServiceGrant, Key: one("acme-shop", "grant")}])
	require.Empty(t, w.reasons(KindServiceGrant, "acme-shop", "grant"))
}

func TestProtocolOfASharedPodPort(t *testing.T) {
	for _, c := range []struct{ a, b, want Protocol }{
		{HTTP1, HTTP1, HTTP1}, {HTTP2, HTTP2, HTTP2}, {HTTP1, HTTP2, HTTP1},
		{HTTP1, ClientFirst, ClientFirst}, {ClientFirst, ClientFirst, ClientFirst},
		{HTTP2, ServerFirst, ServerFirst}, {ClientFirst, ServerFirst, ServerFirst}, {ServerFirst, HTTP1, ServerFirst},
	} {
		w := newTown(t, Config{})
		w.set(KindService, "acme-shop", "orders", &Service{Ports: []ServicePort{{Name: "http", Port: 80, Protocol: c.a}}})
		w.set(KindService, "acme-shop", "also", &Service{Ports: []ServicePort{{Name: "http", Port: 90, Protocol: c.b}}})
		w.set(KindEndpointSlice, "acme-shop", "also", sliceOf("also", Endpoint{Addresses: []netip.Addr{ip(1)}}))
		port := w.spec("acme-shop", "orders").Ports[0]
		require.Equal(t, c.want, port.Protocol, "%v %v", c.a, c.b)
		require.Equal(t, c.want.IsHTTP(), port.Policy.HTTP)
		for name, says := range map[string]Protocol{"orders": c.a, "also": c.b} {
			var want []string
			if says != c.want {
				want = []string{ReasonMixedProtocols}
			}
			require.ElementsMatch(t, want, w.reasons(KindService, "acme-shop", name), "%s of %v %v", name, c.a, c.b)
		}
		w.TakeProblems()
		w.set(KindEndpointSlice, "acme-shop", "also", nil)
		require.Empty(t, w.reasons(KindService, "acme-shop", "orders"))
		_, told := w.TakeProblems()[Ref{Kind: KindService, Key: one("acme-shop", "orders")}]
		require.Equal(t, c.a != c.want, told, "told without being asked")
	}
}

func TestPolicies(t *testing.T) {
	from := workload("acme-web", "app")
	rule := func(s ...AccessSource) []AccessRule { return []AccessRule{{Sources: s}} }
	web := AccessSource{Namespace: "acme-web"}
	for name, c := range map[string]struct {
		policies map[string]*AccessPolicy
		action   DefaultAction
		want     policy.Decision
	}{
		"none":                             {nil, DefaultDeny, policy.Decision{By: policy.ByDefaultDeny}},
		"own tenant by default":            {nil, AllowWithinTenant, policy.Decision{Allowed: true, By: policy.ByDefaultAllow}},
		"allowed":                          {map[string]*AccessPolicy{"p": {Rules: rule(web)}}, DefaultDeny, policy.Decision{Allowed: true, By: "acme-shop/p"}},
		"other allowed":                    {map[string]*AccessPolicy{"p": {Rules: rule(AccessSource{Namespace: "acme-shop"})}}, AllowWithinTenant, policy.Decision{By: policy.ByDefaultDeny}},
		"account":                          {map[string]*AccessPolicy{"p": {Rules: rule(AccessSource{Namespace: "acme-web", ServiceAccount: "app"})}}, DefaultDeny, policy.Decision{Allowed: true, By: "acme-shop/p"}},
		"other account":                    {map[string]*AccessPolicy{"p": {Rules: rule(AccessSource{Namespace: "acme-web", ServiceAccount: "ap"})}}, DefaultDeny, policy.Decision{By: policy.ByDefaultDeny}},
		"account in any namespace":         {map[string]*AccessPolicy{"p": {Rules: rule(AccessSource{ServiceAccount: "app"})}}, DefaultDeny, policy.Decision{Allowed: true, By: "acme-shop/p"}},
		"ID":                               {map[string]*AccessPolicy{"p": {Rules: rule(AccessSource{SPIFFEID: from.String()})}}, DefaultDeny, policy.Decision{Allowed: true, By: "acme-shop/p"}},
		"own tenant":                       {map[string]*AccessPolicy{"p": {Rules: rule(AccessSource{Tenant: "acme"})}}, DefaultDeny, policy.Decision{Allowed: true, By: "acme-shop/p"}},
		"own namespace as another's":       {map[string]*AccessPolicy{"p": {Rules: rule(AccessSource{Tenant: "globex", Namespace: "acme-web"})}}, DefaultDeny, policy.Decision{By: policy.ByDefaultDeny}},
		"other Pods":                       {map[string]*AccessPolicy{"p": {MatchLabels: map[string]string{"app": "x"}, Rules: rule(web)}}, DefaultDeny, policy.Decision{By: policy.ByDefaultDeny}},
		"Deny before Allow":                {map[string]*AccessPolicy{"a": {Rules: rule(web)}, "z": {Action: Deny, Rules: rule(AccessSource{All: true})}}, DefaultDeny, policy.Decision{By: "acme-shop/z"}},
		"invalid Allow selects":            {map[string]*AccessPolicy{"p": {Invalid: true, Rules: rule(web)}}, AllowWithinTenant, policy.Decision{By: policy.ByDefaultDeny}},
		"invalid Deny denies all":          {map[string]*AccessPolicy{"p": {Invalid: true, Action: Deny}}, AllowWithinTenant, policy.Decision{By: "acme-shop/p"}},
		"other port":                       {map[string]*AccessPolicy{"p": {Rules: []AccessRule{{Sources: []AccessSource{web}, Ports: []uint16{81}}}}}, AllowWithinTenant, policy.Decision{By: policy.ByDefaultDeny}},
		"Pod port, not service port":       {map[string]*AccessPolicy{"p": {Rules: []AccessRule{{Sources: []AccessSource{web}, Ports: []uint16{8080}}}}}, DefaultDeny, policy.Decision{Allowed: true, By: "acme-shop/p"}},
		"prefix with a slash at its end":   {map[string]*AccessPolicy{"p": {Rules: []AccessRule{{Sources: []AccessSource{web}, Paths: []PathMatch{{Prefix: true, Value: "/"}}}}}}, DefaultDeny, policy.Decision{Allowed: true, By: "acme-shop/p"}},
		"header in any case, host as well": {map[string]*AccessPolicy{"p": {Action: Deny, Rules: []AccessRule{{Sources: []AccessSource{web}, Hosts: []string{"Orders"}, Headers: []HeaderMatch{{Name: "X-A", Present: true}}}}}}, AllowWithinTenant, policy.Decision{Allowed: true, By: policy.ByDefaultAllow}},
	} {
		w := newTown(t, Config{})
		w.set(KindTenant, "", "acme", &Tenant{TrustDomain: "acme.example", DefaultAction: c.action})
		for n, p := range c.policies {
			w.set(KindAccessPolicy, "acme-shop", n, p)
		}
		require.Equal(t, c.want, w.decide(from, "acme-shop"), name)
	}
}

// TestSourceNamesTenantAndNamespace lets in nobody of a third tenant whose
// namespace a rule ascribes to another.
func TestSourceNamesTenantAndNamespace(t *testing.T) {
	w := newTown(t, Config{})
	w.set(KindTenant, "", "umbrella", &Tenant{TrustDomain: "globex.example"})
	w.set(KindNamespace, "", "stray", &Namespace{Tenant: "umbrella"})
	w.set(KindServiceGrant, "acme-shop", "wide", &ServiceGrant{
		From: []GrantFrom{{Tenant: "umbrella", All: true}, {Tenant: "globex", Namespaces: []string{"globex-a"}}},
		To:   []GrantTo{{Service: "orders", Ports: PortSet{All: true}}},
	})
	for _, ns := range []string{"stray", "globex-a", "globex-b"} {
		w.request(ns, "acme-shop")
	}
	allow := func(s AccessSource) {
		w.set(KindAccessPolicy, "acme-shop", "p", &AccessPolicy{Rules: []AccessRule{{Sources: []AccessSource{s}}}})
	}
	stray := identity.Workload{TrustDomain: "globex.example", Namespace: "stray", ServiceAccount: "app"}
	may := func() []bool {
		return []bool{w.decide(stray, "acme-shop").Allowed, w.decide(workload("globex-a", "app"), "acme-shop").Allowed, w.decide(workload("globex-b", "app"), "acme-shop").Allowed}
	}
	allow(AccessSource{Tenant: "globex", Namespace: "stray"})
	require.Equal(t, []bool{false, false, false}, may())
	allow(AccessSource{Tenant: "umbrella", Namespace: "stray"})
	require.Equal(t, []bool{true, false, false}, may())
	allow(AccessSource{Tenant: "globex"})
	require.Equal(t, []bool{false, true, false}, may(), "the grant leaves globex-b out")
	allow(AccessSource{Namespace: "globex-a"})
	require.Equal(t, []bool{false, false, false}, may(), "without a tenant it is the own tenant's")
}

func TestAccountsOfOthersAreNotListed(t *testing.T) {
	w := newTown(t, Config{})
	w.set(KindService, "acme-shop", "orders", &Service{Ports: []ServicePort{{Name: "http", Port: 80, Protocol: ServerFirst}}})
	w.grant("acme-shop", "globex")
	w.request("globex-a", "acme-shop")
	w.set(KindPod, "acme-web", "other", &Pod{ServiceAccount: "canary-own", IPs: []netip.Addr{ip(90)}})
	w.set(KindPod, "globex-a", "other", &Pod{ServiceAccount: "canary-foreign", IPs: []netip.Addr{ip(91)}})
	w.set(KindAccessPolicy, "acme-shop", "all", &AccessPolicy{Rules: []AccessRule{{Sources: []AccessSource{{All: true}}}}})
	w.set(KindAccessPolicy, "acme-shop", "not", &AccessPolicy{Action: Deny, Rules: []AccessRule{{Sources: []AccessSource{
		{Namespace: "acme-web", ServiceAccount: "bad"}, {Tenant: "globex", Namespace: "globex-a", ServiceAccount: "bad"}}}}})
	p := w.spec("acme-shop", "orders").Ports[0].Policy
	require.NotContains(t, fmt.Sprint(p), "canary-foreign")
	exact, prefixes := p.SANs()
	require.Equal(t, []string{workload("acme-web", "app").String(), workload("acme-web", "canary-own").String()}, exact)
	require.Equal(t, []string{"spiffe://acme.example/ns/acme-shop/sa/"}, prefixes)

	w.TakeTouched()
	w.set(KindPod, "acme-web", "third", &Pod{ServiceAccount: "new", IPs: []netip.Addr{ip(92)}})
	require.Equal(t, map[Selected]string{{Namespace: "acme-shop", Policy: "acme-shop/not"}: "acme"}, w.TakeTouched().Selected)
	w.set(KindPod, "globex-a", "third", &Pod{ServiceAccount: "new", IPs: []netip.Addr{ip(93)}})
	touched := w.TakeTouched()
	require.Empty(t, touched.Workloads)
	require.Empty(t, touched.Selected)
}

func TestSelect(t *testing.T) {
	w := newTown(t, Config{})
	pod := Key{Namespace: "acme-shop", Name: "orders"}
	sel, ips, ok := w.Select(pod, workload("acme-shop", "app"))
	require.True(t, ok)
	require.Equal(t, []netip.Addr{ip(1)}, ips)
	w.set(KindPod, "acme-shop", "replica", &Pod{ServiceAccount: "app", Labels: map[string]string{"app": "orders", "hash": "x"}, IPs: []netip.Addr{ip(50)}})
	w.set(KindEndpointSlice, "acme-shop", "orders-2", sliceOf("orders", Endpoint{Addresses: []netip.Addr{ip(50)}, Ready: true}))
	replica, _, _ := w.Select(Key{Namespace: "acme-shop", Name: "replica"}, workload("acme-shop", "app"))
	require.Equal(t, sel, replica, "replicas share")
	probed := func(host netip.Addr) Selection {
		w.set(KindPod, "acme-shop", "replica", &Pod{
			ServiceAccount: "app", Labels: map[string]string{"app": "orders"}, IPs: []netip.Addr{ip(50)},
			Probes: []Probe{{Port: 8080, Path: "/ready"}}, HostIPs: []netip.Addr{host},
		})
		require.Contains(t, w.TakeTouched().Pods, Key{Namespace: "acme-shop", Name: "replica"})
		sel, _, _ := w.Select(Key{Namespace: "acme-shop", Name: "replica"}, workload("acme-shop", "app"))
		return sel
	}
	here, there := probed(ip(90)), probed(ip(91))
	require.NotEqual(t, here, there, "who is asked from another node is another")
	spec := w.Workload(there)
	require.Equal(t, []Probe{{Port: 8080, Path: "/ready"}}, spec.Probes)
	require.Equal(t, []netip.Addr{ip(91)}, spec.ProbeSources)
	for _, other := range []identity.Workload{
		workload("acme-shop", "other"), workload("acme-web", "app"), {},
		{TrustDomain: "globex.example", Namespace: "acme-shop", ServiceAccount: "app"},
	} {
		_, _, ok = w.Select(pod, other)
		require.False(t, ok, "%v", other)
	}
	w.set(KindPod, "acme-shop", "orders", &Pod{ServiceAccount: "app", IPs: []netip.Addr{ip(1)}, Finished: true})
	_, _, ok = w.Select(pod, workload("acme-shop", "app"))
	require.False(t, ok)
	require.Empty(t, w.Workload(Selection{Workload: workload("acme-shop", "app"), Class: "?"}).Ports)
}
