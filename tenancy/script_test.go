package tenancy_test

import (
	"fmt"
	"net/netip"

	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/identity"
	. "bailiwick.dev/bailiwick/tenancy"
)

// A small universe, so that random events meet each other.
var (
	tenants    = []string{"acme", "globex", "umbrella"}
	domains    = []string{"acme.example", "globex.example"}
	namespaces = []string{"acme-a", "acme-b", "globex-a", "globex-b", "stray"}
	services   = []string{"logs", "shop"}
	pods       = []string{"p1", "p2"}
	accounts   = []string{"app", "job"}
	ports      = []uint16{80, 443}
	podPorts   = []uint16{8080, 8443}
	sources    = []string{"one", "one", "one", "one", "two"}
)

// evenly draws a number below n. The generators of rapid prefer small numbers,
// which would make most worlds ones where nothing meets.
var evenly = rapid.Custom(func(t *rapid.T) (n int) {
	for range 6 {
		if n *= 2; rapid.Bool().Draw(t, "bit") {
			n++
		}
	}
	return n
})

func number(t *rapid.T, label string, n int) int { return evenly.Draw(t, label) % n }

func pick[T any](t *rapid.T, label string, from []T) T { return from[number(t, label, len(from))] }

func some[T comparable](t *rapid.T, label string, from []T) []T {
	return rapid.SliceOfNDistinct(rapid.SampledFrom(from), 0, len(from), rapid.ID).Draw(t, label)
}

func often(t *rapid.T, label string) bool  { return number(t, label, 5) < 4 }
func seldom(t *rapid.T, label string) bool { return number(t, label, 8) == 7 }

func meta(t *rapid.T) Meta { return Meta{Created: int64(number(t, "created", 4))} }

func portSet(t *rapid.T) PortSet {
	if often(t, "all ports") {
		return PortSet{All: true}
	}
	return PortSet{Ports: some(t, "ports", []uint16{80, 443, 9999})}
}

func addr(namespace, pod string) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("10.0.%d.%d", index(namespaces, namespace), index(pods, pod)))
}

func index(in []string, s string) int {
	for i, v := range in {
		if v == s {
			return i + 1
		}
	}
	return 0
}

func key(source, namespace, name string) Key {
	return Key{Source: source, Namespace: namespace, Name: name}
}

// home is the tenant that a namespace mostly has.
func home(ns string) string {
	return map[byte]string{'a': "acme", 'g': "globex", 's': "umbrella"}[ns[0]]
}

func event(kind Kind, k Key, o Object) Event { return Event{Ref: Ref{Kind: kind, Key: k}, Object: o} }

func anyNamespace(t *rapid.T, ns string) Event {
	o := &Namespace{Meta: meta(t), Tenant: home(ns)}
	if seldom(t, "moved") {
		o.Tenant = pick(t, "tenant", append([]string{""}, tenants...))
	}
	if seldom(t, "labelled") {
		o.Labels = map[string]string{"bailiwick.dev/zone": pick(t, "zone", []string{"a", "b"})}
	}
	return event(KindNamespace, key(pick(t, "source", sources), "", ns), o)
}

func anyTenant(t *rapid.T, name string) Event {
	o := &Tenant{Meta: meta(t), TrustDomain: domains[index(tenants, name)%2], TLSMinimum13: seldom(t, "tls")}
	if seldom(t, "domain") {
		o.TrustDomain = pick(t, "domain", domains)
	}
	if seldom(t, "listed") {
		o.Namespaces = some(t, "namespaces", []string{"acme-", "acme-a", "globex-", "globex-a"})
	}
	o.Suspended = seldom(t, "suspended")
	o.Permissive, o.Plain = rapid.Bool().Draw(t, "permissive"), often(t, "plain")
	if rapid.Bool().Draw(t, "administered") {
		o.AdminNamespace = pick(t, "admin", namespaces)
	}
	if seldom(t, "narrow") {
		o.Visibility = VisibleInNamespace
	}
	if seldom(t, "open") {
		o.DefaultAction = AllowWithinTenant
	}
	if seldom(t, "any") {
		o.Outbound = AllowAny
	}
	return event(KindTenant, key("one", "", name), o)
}

func anyService(t *rapid.T, ns string) Event {
	o := &Service{Meta: meta(t), PublishNotReady: seldom(t, "not ready")}
	if often(t, "virtual") {
		o.ClusterIPs = []netip.Addr{addr(ns, "p1")}
		o.Traffic = pick(t, "traffic", []Traffic{AnyEndpoint, SameZone, SameNode})
	}
	for i, p := range ports {
		if often(t, "port") {
			o.Ports = append(o.Ports, ServicePort{Name: fmt.Sprint("p", i), Port: p, Protocol: pick(t, "protocol", []Protocol{ServerFirst, HTTP1, HTTP1, HTTP2, ClientFirst})})
		}
	}
	return event(KindService, key(pick(t, "source", sources), ns, pick(t, "service", services)), o)
}

func anySlice(t *rapid.T, ns string) Event {
	o := &EndpointSlice{Meta: meta(t), Service: pick(t, "service", services)}
	for i := range ports {
		o.Ports = append(o.Ports, SlicePort{Name: fmt.Sprint("p", i), Port: pick(t, "pod port", podPorts)})
	}
	for range number(t, "endpoints", 4) {
		e := Endpoint{Addresses: []netip.Addr{addr(ns, pick(t, "pod", pods))}, Ready: often(t, "ready")}
		if seldom(t, "foreign") {
			e.Addresses[0] = addr(pick(t, "namespace", namespaces), "p1")
		}
		if !e.Ready {
			e.Serving, e.Terminating = rapid.Bool().Draw(t, "serving"), rapid.Bool().Draw(t, "terminating")
		}
		if seldom(t, "named") {
			e.PodName = pick(t, "pod", pods)
		}
		if seldom(t, "uid") {
			e.PodUID = pick(t, "uid", []string{"u1", "u2"})
		}
		if often(t, "zoned") {
			e.Zone, e.Node = pick(t, "zone", []string{"a", "b"}), pick(t, "node", []string{"", "n1", "n2"})
		}
		if seldom(t, "hinted") {
			e.Hints = &Hints{Zones: some(t, "zones", []string{"a", "b"})}
		}
		o.Endpoints = append(o.Endpoints, e)
	}
	return event(KindEndpointSlice, key(pick(t, "source", sources), ns, pick(t, "slice", []string{"s1", "s2"})), o)
}

func anyPod(t *rapid.T, ns string) Event {
	name := pick(t, "pod", pods)
	o := &Pod{Meta: meta(t), ServiceAccount: pick(t, "account", accounts), Labels: map[string]string{"app": pick(t, "app", services)}, IPs: []netip.Addr{addr(ns, name)}}
	if seldom(t, "other address") {
		o.IPs = []netip.Addr{addr(ns, pick(t, "pod", pods))}
	}
	o.UID = pick(t, "uid", []string{"", "u1", "u2"})
	o.HostNetwork, o.Finished = seldom(t, "host"), seldom(t, "finished")
	return event(KindPod, key(pick(t, "source", sources), ns, name), o)
}

func anyGrant(t *rapid.T, ns string) Event {
	o := &ServiceGrant{Meta: meta(t)}
	for range 1 + number(t, "from", 2) {
		f := GrantFrom{Tenant: pick(t, "tenant", tenants), All: rapid.Bool().Draw(t, "all")}
		if !f.All {
			f.Namespaces = some(t, "namespaces", namespaces)
		}
		o.From = append(o.From, f)
	}
	for range 1 + number(t, "to", 2) {
		o.To = append(o.To, GrantTo{Service: pick(t, "service", services), Ports: portSet(t), Plain: rapid.Bool().Draw(t, "plain")})
	}
	return event(KindServiceGrant, key(pick(t, "source", sources), ns, pick(t, "grant", []string{"g1", "g2"})), o)
}

func anyRequest(t *rapid.T, ns string) Event {
	return event(KindServiceRequest, key(pick(t, "source", sources), ns, pick(t, "request", []string{"r1", "r2"})), &ServiceRequest{
		Meta: meta(t), Namespace: pick(t, "namespace", namespaces), Service: pick(t, "service", services), Ports: portSet(t), Plain: rapid.Bool().Draw(t, "plain"),
	})
}

func anyClusterGrant(t *rapid.T) Event {
	o := &ClusterServiceGrant{Meta: meta(t), AllTenants: seldom(t, "all"), Tenants: some(t, "tenants", tenants)}
	o.To = []ClusterGrantTo{{
		Namespace: pick(t, "namespace", namespaces), Service: pick(t, "service", services), Ports: portSet(t), Plain: seldom(t, "plain"),
	}}
	return event(KindClusterServiceGrant, key("one", "", pick(t, "name", []string{"c1", "c2"})), o)
}

func anySource(t *rapid.T) AccessSource {
	switch number(t, "form", 10) {
	case 8:
		return AccessSource{SPIFFEIDPrefix: "spiffe://" + pick(t, "domain", domains) + "/ns/"}
	case 9:
		return AccessSource{SPIFFEIDPrefix: "spiffe://" + pick(t, "domain", domains) + "/ns/" + pick(t, "namespace", namespaces) + "/sa/"}
	case 0:
		return AccessSource{All: true}
	case 1:
		return AccessSource{Granted: true}
	case 2:
		return AccessSource{SPIFFEID: identity.Workload{TrustDomain: pick(t, "domain", domains), Namespace: pick(t, "namespace", namespaces), ServiceAccount: pick(t, "account", accounts)}.String()}
	case 3:
		return AccessSource{Tenant: pick(t, "tenant", tenants)}
	case 4:
		return AccessSource{Tenant: pick(t, "tenant", tenants), Namespace: pick(t, "namespace", namespaces)}
	case 5:
		return AccessSource{Namespace: pick(t, "namespace", namespaces), ServiceAccount: pick(t, "account", accounts)}
	case 6:
		return AccessSource{ServiceAccount: pick(t, "account", accounts)}
	default:
		return AccessSource{Namespace: pick(t, "namespace", namespaces)}
	}
}

func anyPolicy(t *rapid.T, ns string) Event {
	o := &AccessPolicy{Meta: meta(t), Action: pick(t, "action", []Action{Allow, Allow, Deny, Audit}), Observe: seldom(t, "observe"), TenantWide: seldom(t, "wide"), Invalid: seldom(t, "invalid") && seldom(t, "really")}
	if rapid.Bool().Draw(t, "selector") {
		o.MatchLabels = map[string]string{"app": pick(t, "app", services)}
	}
	for range 1 + number(t, "rules", 2) {
		o.Rules = append(o.Rules, anyRule(t, o.Action))
	}
	return event(KindAccessPolicy, key(pick(t, "source", sources), ns, pick(t, "policy", []string{"a1", "a2"})), o)
}

func anyRule(t *rapid.T, action Action) AccessRule {
	r := AccessRule{Sources: []AccessSource{anySource(t), anySource(t)}}
	if seldom(t, "ports") {
		r.Ports = some(t, "ports", podPorts)
	}
	if seldom(t, "methods") {
		r.Methods = []string{"GET"}
	}
	if seldom(t, "paths") {
		r.Paths = []PathMatch{{Prefix: rapid.Bool().Draw(t, "prefix"), Value: pick(t, "path", []string{"/a", "/"})}}
	}
	if seldom(t, "template") {
		r.Paths = []PathMatch{{Template: true, Value: "/{*}"}}
	}
	if seldom(t, "hosts") {
		r.Hosts = []string{"logs"}
	}
	if seldom(t, "headers") {
		r.Headers = []HeaderMatch{{Name: "x-a", Exact: "b"}}
	}
	if action == Deny && rapid.Bool().Draw(t, "negative") {
		r.NotSources = []AccessSource{anySource(t)}
		if seldom(t, "not ports") {
			r.NotPorts = some(t, "not ports", podPorts)
		}
		if seldom(t, "not methods") {
			r.NotMethods = []string{"GET"}
		}
	}
	return r
}

func anyClusterPolicy(t *rapid.T) Event {
	o := &ClusterAccessPolicy{Baseline: rapid.Bool().Draw(t, "baseline"), Priority: number(t, "priority", 3), Observe: seldom(t, "observe"), Invalid: seldom(t, "invalid") && seldom(t, "really")}
	for range 1 + number(t, "subjects", 2) {
		o.Subjects = append(o.Subjects, pick(t, "subject", []Subject{
			{AllTenants: true}, {Tenants: some(t, "tenants", tenants)}, {Namespaces: some(t, "namespaces", namespaces)}, {Labels: map[string]string{"bailiwick.dev/zone": "a"}},
		}))
	}
	for range 1 + number(t, "rules", 2) {
		a := pick(t, "action", []Action{Allow, Deny, Pass, Audit})
		o.Rules = append(o.Rules, ClusterRule{Action: a, AccessRule: anyRule(t, a)})
	}
	return event(KindClusterAccessPolicy, key("one", "", pick(t, "name", []string{"c1", "c2"})), o)
}

func anyPeerTLS(t *rapid.T, ns string) Event {
	o := &PeerTLS{Permissive: often(t, "permissive")}
	if rapid.Bool().Draw(t, "selector") {
		o.MatchLabels = map[string]string{"app": pick(t, "app", services)}
	}
	if seldom(t, "ports") {
		o.Ports = some(t, "ports", podPorts)
	}
	return event(KindPeerTLS, key(pick(t, "source", sources), ns, pick(t, "peer", []string{"t1", "t2"})), o)
}

func anyBundle(t *rapid.T) Event {
	return event(KindTrustBundle, key("one", "", pick(t, "domain", domains)), &TrustBundle{PEM: []byte(pick(t, "pem", []string{"x", "y"}))})
}

func anyEvent(t *rapid.T) Event {
	ns := pick(t, "in", namespaces)
	var ev Event
	switch number(t, "kind", 17) {
	case 14, 15:
		ev = anyClusterPolicy(t)
	case 16:
		ev = anyPeerTLS(t, ns)
	case 0:
		ev = anyNamespace(t, ns)
	case 1:
		ev = anyTenant(t, pick(t, "tenant", tenants))
	case 2, 3:
		ev = anyService(t, ns)
	case 4, 5:
		ev = anySlice(t, ns)
	case 6:
		ev = anyPod(t, ns)
	case 7, 8:
		ev = anyGrant(t, ns)
	case 9, 10:
		ev = anyRequest(t, ns)
	case 11:
		ev = anyClusterGrant(t)
	case 12:
		ev = anyPolicy(t, ns)
	default:
		ev = anyBundle(t)
	}
	if number(t, "gone", 4) == 3 {
		ev.Object = nil
	}
	return ev
}

// anyWorld populates the universe.
func anyWorld(t *rapid.T) []Event {
	// A domain of nobody's keeps the reference from accepting every domain.
	script := []Event{event(KindTrustBundle, key("one", "", "other.example"), &TrustBundle{PEM: []byte("x")})}
	for _, d := range domains {
		script = append(script, event(KindTrustBundle, key("one", "", d), &TrustBundle{PEM: []byte("x")}))
	}
	for _, name := range tenants {
		script = append(script, anyTenant(t, name))
	}
	for _, ns := range namespaces {
		script = append(script, anyNamespace(t, ns), anyService(t, ns), anySlice(t, ns), anyPod(t, ns), anyPod(t, ns), anyPolicy(t, ns), anyGrant(t, ns), anyRequest(t, ns))
		if seldom(t, "with platform") {
			script = append(script, anyClusterPolicy(t), anyPeerTLS(t, ns))
		}
	}
	// Something that is mostly live, for the rest to break.
	for i, svc := range services {
		from := []string{"acme", "globex"}[i]
		script = append(script, event(KindServiceGrant, key("one", from+"-a", "g1"), &ServiceGrant{
			From: []GrantFrom{{Tenant: tenants[1-i], All: true}}, To: []GrantTo{{Service: svc, Ports: portSet(t), Plain: often(t, "plain")}},
		}), event(KindServiceRequest, key("one", tenants[1-i]+"-a", "r1"), &ServiceRequest{Namespace: from + "-a", Service: svc, Ports: portSet(t), Plain: rapid.Bool().Draw(t, "plain")}))
	}
	return script
}

// anyEvents are what happens to the world.
func anyEvents(t *rapid.T, most int) (events []Event) {
	for range number(t, "events", most+1) {
		events = append(events, anyEvent(t))
	}
	return events
}

func anyScript(t *rapid.T, most int) []Event { return append(anyWorld(t), anyEvents(t, most)...) }

// limited gives tenants limits of their own.
func limited(script []Event) []Event {
	for _, ev := range script {
		if o, ok := ev.Object.(*Tenant); ok {
			n := int(o.Created)
			o.Limits = Limits{Services: n, Policies: n, PoliciesPerWorkload: (n + 1) / 2, Grants: n, Requests: n, Endpoints: n}
		}
	}
	return script
}
