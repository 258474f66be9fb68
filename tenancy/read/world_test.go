package read_test

import (
	"fmt"
	"net/netip"

	"pgregory.net/rapid"

	. "bailiwick.dev/bailiwick/tenancy"
)

// Every name of a tenant has the tenant's word in it, so that an answer that
// says more than it may gives itself away.
var words = []string{"amber", "birch", "cedar"}

const (
	none  = "zzz" // a word that nobody has
	stray = "stray"
)

func namespace(word string, i int) string { return fmt.Sprintf("%s-ns%d", word, i) }
func service(word string, i int) string   { return fmt.Sprintf("%s-svc%d", word, i) }
func account(word string, i int) string   { return fmt.Sprintf("%s-sa%d", word, i) }
func domain(word string) string           { return word + ".example" }

func ref(kind Kind, ns, name string) Ref {
	return Ref{Kind: kind, Key: Key{Namespace: ns, Name: name}}
}

var ports = []uint16{80, 443}

func coin(t *rapid.T, label string) bool { return rapid.Bool().Draw(t, label) }

func seldom(t *rapid.T, label string) bool { return rapid.IntRange(0, 5).Draw(t, label) == 5 }

func pick[T any](t *rapid.T, label string, from ...T) T {
	return rapid.SampledFrom(from).Draw(t, label)
}

func portSet(t *rapid.T) PortSet {
	if coin(t, "all ports") {
		return PortSet{All: true}
	}
	return PortSet{Ports: []uint16{pick(t, "port", ports...)}}
}

// world draws tenants of two namespaces with services, Pods, policies, grants
// and requests that partly meet.
func world(t *rapid.T) (events []Event) {
	put := func(kind Kind, ns, name string, o Object) {
		events = append(events, Event{Ref: ref(kind, ns, name), Object: o})
	}
	for w, word := range words {
		tenant := &Tenant{TrustDomain: domain(word)}
		if seldom(t, "narrow") {
			tenant.Visibility = VisibleInNamespace
		}
		if coin(t, "open") {
			tenant.DefaultAction = AllowWithinTenant
		}
		if coin(t, "admin namespace") {
			tenant.AdminNamespace = namespace(word, 0)
		}
		tenant.Suspended = seldom(t, "suspended") && seldom(t, "really")
		put(KindTenant, "", word, tenant)
		put(KindTrustBundle, "", domain(word), &TrustBundle{PEM: []byte("x")})
		for n := range 2 {
			ns := namespace(word, n)
			put(KindNamespace, "", ns, &Namespace{Tenant: word})
			fill(t, put, w, n)
			for i := range rapid.IntRange(0, 2).Draw(t, "policies") {
				put(KindAccessPolicy, ns, fmt.Sprintf("%s-policy%d", word, i), anyPolicy(t, word))
			}
			if coin(t, "grants") {
				g := &ServiceGrant{To: []GrantTo{{Service: service(word, rapid.IntRange(0, 1).Draw(t, "service")), Ports: portSet(t)}}}
				for _, other := range words {
					g.From = append(g.From, GrantFrom{Tenant: other, All: coin(t, "all"), Namespaces: []string{namespace(other, 0)}})
				}
				put(KindServiceGrant, ns, word+"-grant", g)
			}
			other := pick(t, "producer", words...)
			put(KindServiceRequest, ns, word+"-request", &ServiceRequest{
				Namespace: namespace(other, rapid.IntRange(0, 1).Draw(t, "of")), Service: service(other, rapid.IntRange(0, 1).Draw(t, "service")), Ports: portSet(t),
			})
		}
	}
	// A service of nobody's, which the platform may show.
	put(KindNamespace, "", namespace(stray, 0), &Namespace{})
	put(KindService, namespace(stray, 0), service(stray, 0), &Service{Ports: []ServicePort{{Name: "http", Port: 80, Protocol: HTTP1}}})
	if coin(t, "plain") {
		put(KindClusterServiceGrant, "", "plain", &ClusterServiceGrant{
			AllTenants: coin(t, "all"), Tenants: []string{pick(t, "to", words...)},
			To: []ClusterGrantTo{{Namespace: namespace(stray, 0), Service: service(stray, 0), Ports: portSet(t), Plain: true}},
		})
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "cluster policies") {
		put(KindClusterAccessPolicy, "", fmt.Sprint("everybody", i), anyClusterPolicy(t))
	}
	if coin(t, "cluster grant") {
		of := pick(t, "of", words...)
		put(KindClusterServiceGrant, "", "everywhere", &ClusterServiceGrant{
			AllTenants: coin(t, "all"), Tenants: []string{pick(t, "to", words...)},
			To: []ClusterGrantTo{{Namespace: namespace(of, 0), Service: service(of, 0), Ports: portSet(t)}},
		})
	}
	return events
}

// fill puts services, slices and Pods into a namespace.
func fill(t *rapid.T, put func(Kind, string, string, Object), w, n int) {
	word, ns := words[w], namespace(words[w], n)
	for i := range 2 {
		at := netip.AddrFrom4([4]byte{10, byte(w), byte(n), byte(i + 1)})
		protocol := pick(t, "protocol", HTTP1, HTTP1, ClientFirst)
		svc := &Service{}
		slice := &EndpointSlice{Service: service(word, i), Endpoints: []Endpoint{{Addresses: []netip.Addr{at}, Ready: true, Serving: true}}}
		for _, p := range ports {
			if seldom(t, "no port") {
				continue
			}
			svc.Ports = append(svc.Ports, ServicePort{Name: fmt.Sprint("p", p), Port: p, Protocol: protocol})
			slice.Ports = append(slice.Ports, SlicePort{Name: fmt.Sprint("p", p), Port: pick[uint16](t, "target", 8080, 8443)})
		}
		put(KindService, ns, service(word, i), svc)
		put(KindEndpointSlice, ns, service(word, i), slice)
		if !seldom(t, "no pod") {
			put(KindPod, ns, fmt.Sprintf("%s-pod%d", word, i), &Pod{
				ServiceAccount: account(word, i), Labels: map[string]string{"app": fmt.Sprintf("%s-app%d", word, i)}, IPs: []netip.Addr{at},
			})
		}
	}
}

// anyClusterPolicy is one of the platform, about anybody.
func anyClusterPolicy(t *rapid.T) *ClusterAccessPolicy {
	p := &ClusterAccessPolicy{Baseline: coin(t, "baseline"), Priority: rapid.IntRange(0, 1).Draw(t, "priority"), Observe: seldom(t, "observe")}
	p.Subjects = []Subject{pick(t, "subject", Subject{AllTenants: true}, Subject{Tenants: []string{pick(t, "of", words...)}}, Subject{Namespaces: []string{namespace(pick(t, "of", words...), 0)}})}
	for range rapid.IntRange(1, 2).Draw(t, "rules") {
		rule := anyPolicy(t, pick(t, "rule's", words...)).Rules[0]
		p.Rules = append(p.Rules, ClusterRule{Action: pick(t, "action", Allow, Deny, Pass, Audit), AccessRule: rule})
	}
	return p
}

func anyPolicy(t *rapid.T, word string) *AccessPolicy {
	p := &AccessPolicy{Action: pick(t, "action", Allow, Allow, Deny, Audit), Observe: seldom(t, "observe"), TenantWide: seldom(t, "scope"), Invalid: seldom(t, "invalid") && seldom(t, "really")}
	if coin(t, "selector") {
		p.MatchLabels = map[string]string{"app": fmt.Sprintf("%s-app%d", word, rapid.IntRange(0, 1).Draw(t, "app"))}
	}
	other := pick(t, "source's", words...)
	rule := AccessRule{Sources: []AccessSource{pick(t, "source",
		AccessSource{All: true}, AccessSource{Granted: true}, AccessSource{Namespace: namespace(word, 0)}, AccessSource{Tenant: other},
		AccessSource{Namespace: namespace(word, 1), ServiceAccount: account(word, 0)},
		AccessSource{SPIFFEID: "spiffe://" + domain(other) + "/ns/" + namespace(other, 0) + "/sa/" + account(other, 0)},
	)}}
	if seldom(t, "ports") {
		rule.Ports = []uint16{8080}
	}
	if coin(t, "method") {
		rule.Methods = []string{"GET"}
	}
	if coin(t, "path") {
		rule.Paths = []PathMatch{{Prefix: true, Value: "/a"}}
	}
	p.Rules = []AccessRule{rule}
	return p
}
