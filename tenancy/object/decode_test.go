package object

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

// texts are errors as "field: message" without their place.
func texts(d Decoded) []string {
	var out []string
	for _, e := range d.Errors() {
		out = append(out, FieldError{e.Field, e.Message}.Error())
	}
	return out
}

func compare(t *testing.T, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Fatalf("differs (-want +got):\n%s", diff)
	}
}

const (
	ours  = "apiVersion: bailiwick.dev/v1alpha1\n"
	head  = "metadata: {name: x, namespace: ns}\n"
	slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: x, namespace: ns, labels: {kubernetes.io/service-name: svc}}\n"
	pod   = "apiVersion: v1\nkind: Pod\n"
	svc   = "apiVersion: v1\nkind: Service\n" + head
)

// valid are documents and what they decode to.
func valid() map[string]struct {
	doc  string
	want tenancy.Object
} {
	ip := netip.MustParseAddr
	ends := tenancy.Meta{Expires: time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC).Unix()}
	type one = struct {
		doc  string
		want tenancy.Object
	}
	return map[string]one{
		"namespace": {"apiVersion: v1\nkind: Namespace\nmetadata: {name: x, labels: {bailiwick.dev/tenant: acme, bailiwick.dev/zone: pci, other: x}}\n",
			&tenancy.Namespace{Tenant: "acme", Labels: map[string]string{"bailiwick.dev/zone": "pci"}}},
		"namespace of nobody": {"apiVersion: v1\nkind: Namespace\nmetadata: {name: x, creationTimestamp: 2026-01-02T03:04:05Z, uid: u}\n",
			&tenancy.Namespace{Meta: tenancy.Meta{Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Unix(), UID: "u"}}},
		"service": {svc + `spec:
  type: LoadBalancer
  publishNotReadyAddresses: true
  clusterIPs: [10.0.0.1, "fd00::1"]
  ports:
  - {name: b, port: 90, appProtocol: kubernetes.io/h2c, targetPort: named}
  - {name: dns, port: 53, protocol: UDP}
  - {name: http-a, port: 80, protocol: TCP, targetPort: 8080}
  - {name: dns-tcp, port: 53}
`, &tenancy.Service{ClusterIPs: []netip.Addr{ip("10.0.0.1"), ip("fd00::1")}, PublishNotReady: true, Ports: []tenancy.ServicePort{
			{Name: "dns-tcp", Port: 53, Protocol: tenancy.ClientFirst}, {Name: "http-a", Port: 80, Protocol: tenancy.HTTP1}, {Name: "b", Port: 90, Protocol: tenancy.HTTP2},
		}}},
		"same zone":        {svc + "spec: {clusterIP: 10.0.0.1, trafficDistribution: PreferSameZone}\n", &tenancy.Service{ClusterIPs: []netip.Addr{ip("10.0.0.1")}, Traffic: tenancy.SameZone}},
		"close":            {svc + "spec: {clusterIP: 10.0.0.1, trafficDistribution: PreferClose}\n", &tenancy.Service{ClusterIPs: []netip.Addr{ip("10.0.0.1")}, Traffic: tenancy.SameZone}},
		"same node":        {svc + "spec: {clusterIP: 10.0.0.1, trafficDistribution: PreferSameNode}\n", &tenancy.Service{ClusterIPs: []netip.Addr{ip("10.0.0.1")}, Traffic: tenancy.SameNode}},
		"headless service": {svc + "spec: {clusterIP: None, ports: [{port: 80}]}\n", &tenancy.Service{Ports: []tenancy.ServicePort{{Port: 80, Protocol: tenancy.ClientFirst}}}},
		"cluster IP alone": {svc + "spec: {clusterIP: 10.0.0.1}\n", &tenancy.Service{ClusterIPs: []netip.Addr{ip("10.0.0.1")}}},
		"slice": {slice + `addressType: IPv4
ports: [{name: http, port: 8080}, {name: u, port: 1, protocol: SCTP}, {port: 9}]
endpoints:
- addresses: [10.1.0.1, 10.1.0.2]
  zone: a
  nodeName: node.a
  hostname: db-0
  targetRef: {kind: Pod, name: p, namespace: ns, uid: u}
  hints: {forZones: [{name: a}, {name: b}, {name: a}], forNodes: [{name: node.b}]}
- addresses: [10.1.0.3]
  conditions: {ready: false, terminating: true}
  targetRef: {kind: Node, name: node}
- addresses: [10.1.0.4]
  conditions: {ready: false, serving: true}
  hints: {}
`, &tenancy.EndpointSlice{Service: "svc", Ports: []tenancy.SlicePort{{Name: "http", Port: 8080}, {Port: 9}}, Endpoints: []tenancy.Endpoint{
			{Addresses: []netip.Addr{ip("10.1.0.1"), ip("10.1.0.2")}, Ready: true, Serving: true, PodName: "p", PodUID: "u", Hostname: "db-0", Zone: "a", Node: "node.a", Hints: &tenancy.Hints{Zones: []string{"a", "b"}, Nodes: []string{"node.b"}}},
			{Addresses: []netip.Addr{ip("10.1.0.3")}, Terminating: true},
			{Addresses: []netip.Addr{ip("10.1.0.4")}, Serving: true},
		}}},
		"pod": {pod + `metadata: {name: x.y, namespace: ns, labels: {app: a}}
spec: {serviceAccountName: sa, containers: [{name: c, image: i, resources: {limits: {cpu: 1, memory: 1Gi}}}]}
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}
`, &tenancy.Pod{ServiceAccount: "sa", Labels: map[string]string{"app": "a"}, IPs: []netip.Addr{ip("10.0.0.1"), ip("fd00::1")}}},
		"probed pod": {pod + head + `spec:
  initContainers:
  - {name: once, image: i, livenessProbe: {httpGet: {port: 1}}}
  - {name: side, image: i, restartPolicy: Always, readinessProbe: {httpGet: {port: 2, path: side}}}
  containers:
  - name: web
    image: i
    ports: [{name: http, containerPort: 8080}, {name: admin, containerPort: 9090}]
    startupProbe: {httpGet: {port: http, path: /live#part}}
    livenessProbe: {httpGet: {port: 8080, path: "/live"}}
    readinessProbe: {grpc: {port: 9000, service: a}}
    lifecycle: {postStart: {httpGet: {port: admin, path: "/x?y=%20z"}}, preStop: {exec: {command: [a]}}}
  - {name: b, image: i, livenessProbe: {grpc: {port: 9000}}, readinessProbe: {httpGet: {port: admin}}, startupProbe: {tcpSocket: {port: 1}}}
  - {name: c, image: i, livenessProbe: {httpGet: {port: 1, scheme: HTTPS}}, readinessProbe: {httpGet: {port: 1, host: other}}, startupProbe: {exec: {command: [a]}}}
status: {hostIP: 10.9.0.1, hostIPs: [{ip: 10.9.0.1}, {ip: "fd09::1"}, {ip: nonsense}]}
`, &tenancy.Pod{ServiceAccount: "default", HostIPs: []netip.Addr{ip("10.9.0.1"), ip("fd09::1")}, Probes: []tenancy.Probe{
			{Port: 2, Path: "/side"}, {Port: 8080, Path: "/live"}, {Port: 9000, GRPC: true}, {Port: 9090, Path: "/x?y=%20z"},
		}}},
		"finished pod": {pod + head + "spec: {hostNetwork: true}\nstatus: {phase: Failed}\n",
			&tenancy.Pod{ServiceAccount: "default", HostNetwork: true, Finished: true}},
		"tenant": {ours + `kind: Tenant
metadata: {name: x}
spec:
  trustDomain: x.example
  namespaces: [a, b-]
  outboundPolicy: AllowAny
  visibility: Namespace
  defaultAction: AllowWithinTenant
  tls: {minimumVersion: "1.2", peers: Permissive, plainDestinations: Allow}
  adminNamespace: a
  jwt:
    providers:
    - {name: idp, issuer: "https://idp.example", audiences: [shop], jwks: '{"keys":[{"kty":"EC","crv":"P-256","x":"QJ4hhY70VjHl4GT7GQRbNsg6cQ00ozAguUjp-Pz5zqk","y":"PgB2VM17xKMtua7jOl7t9oeBOTCSpONiuaCoFDwsfyg"}]}'}
    - {name: far, issuer: "https://far.example", audiences: [shop], jwksUri: "https://keys.far.example:8443/keys?a=b", jwksCA: "` + authority + `", jwksRefresh: 1h}
  suspended: true
  debounce: {quiet: 50ms, max: 1.5s}
  connections: {maxConnectionAge: 1h30m, maxStreamAge: 1m}
  limits: {services: 1, policies: 2, policiesPerWorkload: 13, grants: 3, requests: 4, endpoints: 5, viewResources: 6, viewBytes: 7, streams: 8, streamsPerID: 9, requestsPerSecond: 10, subscribedNames: 11, requestBytes: 12}
status: {conditions: [{type: Accepted, status: "True", reason: Accepted, message: ok, lastTransitionTime: 2026-01-01T00:00:00Z}]}
`, &tenancy.Tenant{TrustDomain: "x.example", Namespaces: []string{"a", "b-"}, Outbound: tenancy.AllowAny, Visibility: tenancy.VisibleInNamespace,
			DefaultAction: tenancy.AllowWithinTenant, Suspended: true, Quiet: 50 * time.Millisecond, Max: 1500 * time.Millisecond,
			MaxConnectionAge: 90 * time.Minute, MaxStreamAge: time.Minute, AdminNamespace: "a", Permissive: true, Plain: true,
			Providers: []policy.Provider{{Name: "far", Issuer: "https://far.example", Audiences: []string{"shop"}, Fetch: policy.KeyFetch{
				URI: "https://keys.far.example:8443/keys?a=b", Host: "keys.far.example", CA: strings.ReplaceAll(authority, `\n`, "\n"), Refresh: time.Hour,
			}}, {Name: "idp", Issuer: "https://idp.example", Audiences: []string{"shop"}, JWKS: `{"keys":[{"kty":"EC","crv":"P-256","x":"QJ4hhY70VjHl4GT7GQRbNsg6cQ00ozAguUjp-Pz5zqk","y":"PgB2VM17xKMtua7jOl7t9oeBOTCSpONiuaCoFDwsfyg"}]}`}},
			Limits: tenancy.Limits{Services: 1, Policies: 2, PoliciesPerWorkload: 13, Grants: 3, Requests: 4, Endpoints: 5, ViewResources: 6, ViewBytes: 7, Streams: 8,
				StreamsPerID: 9, RequestsPerSecond: 10, SubscribedNames: 11, RequestBytes: 12}}},
		"tenant with defaults": {ours + "kind: Tenant\nmetadata: {name: x}\nspec: {trustDomain: x.example}\n",
			&tenancy.Tenant{TrustDomain: "x.example", TLSMinimum13: true}},
		"grant": {ours + "kind: ServiceGrant\n" + head + "spec: {from: [{tenant: a, namespaces: [b, c]}, {tenant: d, all: true}], to: [{service: s, ports: [80, 443]}, {service: r, all: true, plain: true}], expiresAt: \"2027-01-31T12:00:00Z\"}\n",
			&tenancy.ServiceGrant{Meta: ends, From: []tenancy.GrantFrom{{Tenant: "a", Namespaces: []string{"b", "c"}}, {Tenant: "d", All: true}},
				To: []tenancy.GrantTo{{Service: "s", Ports: tenancy.PortSet{Ports: []uint16{80, 443}}}, {Service: "r", Ports: tenancy.PortSet{All: true}, Plain: true}}}},
		"request": {ours + "kind: ServiceRequest\n" + head + "spec: {to: {namespace: ns, service: s, ports: [80], plain: true}, expiresAt: \"2027-01-31T13:00:00+01:00\"}\n",
			&tenancy.ServiceRequest{Meta: ends, Namespace: "ns", Service: "s", Ports: tenancy.PortSet{Ports: []uint16{80}}, Plain: true}},
		"cluster grant": {ours + "kind: ClusterServiceGrant\nmetadata: {name: x}\nspec: {tenants: [a], to: [{namespace: ns, service: s, ports: [80], plain: true}], expiresAt: \"2027-01-31T12:00:00Z\"}\n",
			&tenancy.ClusterServiceGrant{Meta: ends, Tenants: []string{"a"}, To: []tenancy.ClusterGrantTo{{Namespace: "ns", Service: "s", Ports: tenancy.PortSet{Ports: []uint16{80}}, Plain: true}}}},
		"cluster grant for all": {ours + "kind: ClusterServiceGrant\nmetadata: {name: x}\nspec: {allTenants: true, to: [{namespace: ns, service: s, all: true}]}\n",
			&tenancy.ClusterServiceGrant{AllTenants: true, To: []tenancy.ClusterGrantTo{{Namespace: "ns", Service: "s", Ports: tenancy.PortSet{All: true}}}}},
		"policy": {ours + "kind: AccessPolicy\n" + head + `spec:
  selector: {matchLabels: {app: a, tier: ""}}
  action: Allow
  scope: Namespace
  mode: Enforce
  expiresAt: "2027-01-31T12:00:00Z"
  rules:
  - from:
    - {namespace: w, serviceAccount: web}
    - {tenant: g}
    - {tenant: g, namespace: h, serviceAccount: a.b}
    - {spiffeID: "spiffe://td.example/ns/x/sa/y"}
    - {granted: true}
    - {plaintext: true}
    - {spiffeIDPrefix: "spiffe://td.example/ns/x/sa/"}
    - {spiffeIDPrefix: "spiffe://td.example/ns/"}
    ports: [8080]
    methods: [GET, M-SEARCH]
    paths: [{exact: /a%20b}, {prefix: /b}, {prefix: /}, {exact: /c/}, {template: "/d/{*}/e/{**}"}]
    hosts: [orders.acme-shop]
    headers: [{name: X-A, exact: b}, {name: x-b, prefix: c}, {name: x_c, present: true}]
    jwt: {provider: idp, optional: true, claims: [{path: [realm, roles], values: [admin, ops]}]}
  - from: [{all: true}]
`, &tenancy.AccessPolicy{Meta: ends, MatchLabels: map[string]string{"app": "a", "tier": ""}, Action: tenancy.Allow, Rules: []tenancy.AccessRule{{
			Sources: []tenancy.AccessSource{{Namespace: "w", ServiceAccount: "web"}, {Tenant: "g"}, {Tenant: "g", Namespace: "h", ServiceAccount: "a.b"},
				{SPIFFEID: "spiffe://td.example/ns/x/sa/y"}, {Granted: true}, {Plaintext: true},
				{SPIFFEIDPrefix: "spiffe://td.example/ns/x/sa/"}, {SPIFFEIDPrefix: "spiffe://td.example/ns/"}},
			Ports: []uint16{8080}, Methods: []string{"GET", "M-SEARCH"},
			Paths: []tenancy.PathMatch{{Value: "/a%20b"}, {Prefix: true, Value: "/b"}, {Prefix: true, Value: "/"}, {Value: "/c/"}, {Template: true, Value: "/d/{*}/e/{**}"}},
			Token: &tenancy.TokenMatch{Provider: "idp", Optional: true, Claims: []tenancy.ClaimMatch{{Path: []string{"realm", "roles"}, Values: []string{"admin", "ops"}}}},
			Hosts: []string{"orders.acme-shop"}, Headers: []tenancy.HeaderMatch{{Name: "x-a", Exact: "b"}, {Name: "x-b", Prefix: "c"}, {Name: "x_c", Present: true}},
		}, {Sources: []tenancy.AccessSource{{All: true}}}}}},
		"denying policy": {ours + "kind: AccessPolicy\n" + head + `spec:
  selector: {}
  scope: Tenant
  mode: Observe
  action: Deny
  rules:
  - from: [{all: true}]
    notFrom: [{namespace: w, serviceAccount: web}, {tenant: g}, {granted: true}, {plaintext: true}, {spiffeID: "spiffe://td.example/ns/x/sa/y"}, {spiffeIDPrefix: "spiffe://td.example/ns/"}, {all: true}]
    notPorts: [8080]
    notMethods: [GET]
    notPaths: [{exact: /a}, {prefix: /b}, {template: "/c/{*}"}]
    notHosts: [a]
`, &tenancy.AccessPolicy{TenantWide: true, Observe: true, Action: tenancy.Deny, Rules: []tenancy.AccessRule{{
			Sources: []tenancy.AccessSource{{All: true}},
			NotSources: []tenancy.AccessSource{{Namespace: "w", ServiceAccount: "web"}, {Tenant: "g"}, {Granted: true}, {Plaintext: true},
				{SPIFFEID: "spiffe://td.example/ns/x/sa/y"}, {SPIFFEIDPrefix: "spiffe://td.example/ns/"}, {All: true}},
			NotPorts: []uint16{8080}, NotMethods: []string{"GET"}, NotHosts: []string{"a"},
			NotPaths: []tenancy.PathMatch{{Value: "/a"}, {Prefix: true, Value: "/b"}, {Template: true, Value: "/c/{*}"}},
		}}}},
		"auditing policy": {ours + "kind: AccessPolicy\n" + head + "spec: {selector: {}, action: Audit, rules: [{from: [{all: true}]}]}\n",
			&tenancy.AccessPolicy{Action: tenancy.Audit, Rules: []tenancy.AccessRule{{Sources: []tenancy.AccessSource{{All: true}}}}}},
		"cluster policy": {ours + "kind: ClusterAccessPolicy\nmetadata: {name: x}\n" + `spec:
  tier: Admin
  priority: 10
  mode: Observe
  expiresAt: "2027-01-31T12:00:00Z"
  subjects: [{allTenants: true}, {tenants: [a]}, {namespaces: [b, c]}, {namespaceLabels: {bailiwick.dev/zone: pci}}]
  rules:
  - action: Deny
    from:
    - {namespace: w, serviceAccount: web}
    - {tenant: g}
    - {granted: true}
    - {plaintext: true}
    - {spiffeID: "spiffe://td.example/ns/x/sa/y"}
    - {spiffeIDPrefix: "spiffe://td.example/ns/"}
    - {all: true}
    ports: [8080]
    methods: [GET]
    paths: [{exact: /a}, {prefix: /b}, {template: "/c/{*}"}]
    hosts: [orders]
    headers: [{name: x-a, exact: b}, {name: x-b, prefix: c}, {name: x_c, present: true}]
    jwt: {provider: idp, optional: true, claims: [{path: [roles], values: [admin]}]}
    notFrom: [{namespace: w, serviceAccount: web}, {tenant: g}, {granted: true}, {plaintext: true}, {spiffeID: "spiffe://td.example/ns/x/sa/y"}, {spiffeIDPrefix: "spiffe://td.example/ns/"}, {all: true}]
    notPorts: [8081]
    notMethods: [POST]
    notPaths: [{exact: /a}, {prefix: /b}, {template: "/c/{*}"}]
    notHosts: [b]
  - {action: Pass, from: [{all: true}]}
`, clusterPolicy()},
		"baseline policy": {ours + "kind: ClusterAccessPolicy\nmetadata: {name: x}\nspec: {tier: Baseline, priority: 0, subjects: [{tenants: [a]}], rules: [{action: Allow, from: [{tenant: a}]}, {action: Audit, from: [{all: true}]}]}\n",
			&tenancy.ClusterAccessPolicy{Baseline: true, Subjects: []tenancy.Subject{{Tenants: []string{"a"}}}, Rules: []tenancy.ClusterRule{
				{Action: tenancy.Allow, AccessRule: tenancy.AccessRule{Sources: []tenancy.AccessSource{{Tenant: "a"}}}},
				{Action: tenancy.Audit, AccessRule: tenancy.AccessRule{Sources: []tenancy.AccessSource{{All: true}}}},
			}}},
		"peer TLS": {ours + "kind: PeerTLS\n" + head + "spec: {selector: {matchLabels: {app: a}}, ports: [8080], mode: Permissive, until: \"2027-01-31T12:00:00Z\", enforceAtEnd: true}\n",
			&tenancy.PeerTLS{MatchLabels: map[string]string{"app": "a"}, Ports: []uint16{8080}, Permissive: true, Until: ends.Expires, EnforceAtEnd: true}},
		"policy for all Pods": {ours + "kind: AccessPolicy\n" + head + "spec: {selector: {}, action: Deny, rules: [{from: [{all: true}]}]}\n",
			&tenancy.AccessPolicy{Action: tenancy.Deny, Rules: []tenancy.AccessRule{{Sources: []tenancy.AccessSource{{All: true}}}}}},
	}
}

func clusterPolicy() *tenancy.ClusterAccessPolicy {
	sources := []tenancy.AccessSource{{Namespace: "w", ServiceAccount: "web"}, {Tenant: "g"}, {Granted: true}, {Plaintext: true},
		{SPIFFEID: "spiffe://td.example/ns/x/sa/y"}, {SPIFFEIDPrefix: "spiffe://td.example/ns/"}, {All: true}}
	paths := []tenancy.PathMatch{{Value: "/a"}, {Prefix: true, Value: "/b"}, {Template: true, Value: "/c/{*}"}}
	return &tenancy.ClusterAccessPolicy{
		Meta:     tenancy.Meta{Expires: time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC).Unix()},
		Priority: 10, Observe: true,
		Subjects: []tenancy.Subject{{AllTenants: true}, {Tenants: []string{"a"}}, {Namespaces: []string{"b", "c"}}, {Labels: map[string]string{"bailiwick.dev/zone": "pci"}}},
		Rules: []tenancy.ClusterRule{{Action: tenancy.Deny, AccessRule: tenancy.AccessRule{
			Sources: sources, Ports: []uint16{8080}, Methods: []string{"GET"}, Paths: paths, Hosts: []string{"orders"},
			Headers:    []tenancy.HeaderMatch{{Name: "x-a", Exact: "b"}, {Name: "x-b", Prefix: "c"}, {Name: "x_c", Present: true}},
			Token:      &tenancy.TokenMatch{Provider: "idp", Optional: true, Claims: []tenancy.ClaimMatch{{Path: []string{"roles"}, Values: []string{"admin"}}}},
			NotSources: sources, NotPorts: []uint16{8081}, NotMethods: []string{"POST"}, NotPaths: paths, NotHosts: []string{"b"},
		}}, {Action: tenancy.Pass, AccessRule: tenancy.AccessRule{Sources: []tenancy.AccessSource{{All: true}}}}},
	}
}

func TestValid(t *testing.T) {
	for name, c := range valid() {
		t.Run(name, func(t *testing.T) {
			got := DecodeAll("f.yaml", []byte(c.doc), Options{Source: "src"})
			require.Empty(t, texts(got))
			require.Len(t, got.Entries, 1)
			compare(t, c.want, got.Entries[0].Object)
			ref := got.Events("src")[0].Ref
			require.Equal(t, "src", ref.Key.Source)
			require.NotZero(t, ref.Kind)
			require.NotEmpty(t, ref.Key.Name)
		})
	}
}

// TestInvalidData: no object, and an error for each mistake.
func TestInvalidData(t *testing.T) {
	for name, c := range map[string]struct {
		doc  string
		want []string // beginnings of errors, in any order, all of them
	}{
		"external name":         {svc + "spec: {type: ExternalName, externalName: a.b}\n", []string{"spec.type: ExternalName services are refused"}},
		"external IPs":          {svc + "spec: {externalIPs: [1.1.1.1]}\n", []string{"spec.externalIPs: external IPs are refused"}},
		"service type":          {svc + "spec: {type: Cluster}\n", []string{`spec.type: "Cluster" is none of`}},
		"port range":            {svc + "spec: {ports: [{port: 65536}]}\n", []string{"spec.ports[0].port: 65536 is no port number"}},
		"port overflow":         {svc + "spec: {ports: [{port: 4294967376}]}\n", []string{"spec.ports[0].port: 4294967376 is out of range"}},
		"port fraction":         {svc + "spec: {ports: [{port: 80.5}]}\n", []string{"spec.ports[0].port: expected a whole number"}},
		"port text":             {svc + "spec: {ports: [{port: \"80\"}]}\n", []string{"spec.ports[0].port: expected a number, got a string"}},
		"port names":            {svc + "spec: {ports: [{port: 1}, {port: 2, name: A}]}\n", []string{"spec.ports[0].name: required", `spec.ports[1].name: "A"`}},
		"port twice":            {svc + "spec: {ports: [{port: 1, name: a}, {port: 1, name: b}]}\n", []string{"spec.ports[1].port: 1 is given twice"}},
		"port name twice":       {svc + "spec: {ports: [{port: 1, name: a}, {port: 2, name: a}]}\n", []string{`spec.ports[1].name: "a" is given twice`}},
		"protocol":              {svc + "spec: {ports: [{port: 1, protocol: tcp}]}\n", []string{`spec.ports[0].protocol: "tcp"`}},
		"cluster IP":            {svc + "spec: {clusterIP: 1.2.3}\n", []string{`spec.clusterIP: "1.2.3" is no IP`}},
		"cluster IPs differ":    {svc + "spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.2]}\n", []string{"spec.clusterIP: "}},
		"unknown field":         {svc + "spec: {Ports: []}\n", []string{"spec.Ports: unknown field, did you mean ports?"}},
		"unknown field at top":  {svc + "sepc: {}\n", []string{"sepc: unknown field"}},
		"duplicate field":       {svc + "spec: {}\nspec: {}\n", []string{"spec: given twice"}},
		"duplicate label":       {"apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: ns, labels: {a: b, a: b}}\n", []string{"metadata.labels.a: given twice"}},
		"YAML 1.1 boolean":      {"apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: ns, labels: {a: on}}\n", []string{`metadata.labels.a: expected a string, got a boolean`}},
		"label value":           {"apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: ns, labels: {a: \"b c\"}}\n", []string{`metadata.labels.a: "b c"`}},
		"no namespace":          {"apiVersion: v1\nkind: Service\nmetadata: {name: x}\n", []string{"metadata.namespace: required"}},
		"namespace not allowed": {"apiVersion: v1\nkind: Namespace\nmetadata: {name: x, namespace: z}\n", []string{"metadata.namespace: Namespace is no namespaced kind"}},
		"no name":               {"apiVersion: v1\nkind: Service\nmetadata: {namespace: x}\n", []string{"metadata.name: required"}},
		"bad names":             {"apiVersion: v1\nkind: Service\nmetadata: {name: A_B, namespace: ../x}\n", []string{`metadata.name: "A_B"`, `metadata.namespace: "../x"`}},
		"name twice":            {"apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: x, name: b}\n", []string{"metadata.name: given twice"}},
		"no metadata":           {"apiVersion: v1\nkind: Service\n", []string{"metadata.name: required", "metadata.namespace: required"}},
		"time":                  {"apiVersion: v1\nkind: Namespace\nmetadata: {name: x, creationTimestamp: yesterday}\n", []string{"metadata.creationTimestamp: "}},
		"tenant label":          {"apiVersion: v1\nkind: Namespace\nmetadata: {name: x, labels: {bailiwick.dev/tenant: a.b}}\n", []string{"metadata.labels[bailiwick.dev/tenant]: "}},
		"unknown kind":          {"apiVersion: v1\nkind: Secret\n" + head, []string{`kind: "Secret" of "v1" is not read`}},
		"unknown version":       {"apiVersion: bailiwick.dev/v1\nkind: Tenant\nmetadata: {name: x}\n", []string{`apiVersion: "bailiwick.dev/v1" is not known of kind Tenant, expected bailiwick.dev/v1alpha1`}},
		"no kind":               {"apiVersion: v1\n", []string{"kind: required"}},
		"kind is a number":      {"apiVersion: v1\nkind: 5\n", []string{"kind: required"}},
		"a list":                {"- a\n", []string{"expected an object, got a list"}},
		"text":                  {"hello\n", []string{"expected an object, got a string"}},
		"slice without service": {"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n" + head + "addressType: IPv4\n", []string{"metadata.labels[kubernetes.io/service-name]: required"}},
		"FQDN slice":            {slice + "addressType: FQDN\n", []string{"addressType: FQDN is refused"}},
		"address types":         {slice + "addressType: IPv6\nendpoints: [{addresses: [10.0.0.1]}]\n", []string{"endpoints[0].addresses[0]: 10.0.0.1 is not of addressType"}},
		"no address":            {slice + "addressType: IPv4\nendpoints: [{addresses: []}]\n", []string{"endpoints[0].addresses: 0 given"}},
		"port missing":          {slice + "addressType: IPv4\nports: [{name: a}]\n", []string{"ports[0].port: required"}},
		"other namespace's Pod": {slice + "addressType: IPv4\nendpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, namespace: o, name: p}}]\n", []string{"endpoints[0].targetRef.namespace: a slice has Pods of its own"}},
		"hostname":              {slice + "addressType: IPv4\nendpoints: [{addresses: [10.0.0.1], hostname: \"*\"}]\n", []string{`endpoints[0].hostname: "*"`}},
		"traffic":               {svc + "spec: {clusterIP: 10.0.0.1, trafficDistribution: PreferClos}\n", []string{`spec.trafficDistribution: "PreferClos" is none of PreferClose, PreferSameZone, PreferSameNode`}},
		"node":                  {slice + "addressType: IPv4\nendpoints: [{addresses: [10.0.0.1], nodeName: \"A_b\"}]\n", []string{`endpoints[0].nodeName: "A_b"`}},
		"hinted node":           {slice + "addressType: IPv4\nendpoints: [{addresses: [10.0.0.1], hints: {forNodes: [{name: \"A_b\"}]}}]\n", []string{`endpoints[0].hints.forNodes[0].name: "A_b"`}},
		"hints":                 {slice + "addressType: IPv4\nendpoints: [{addresses: [10.0.0.1], hints: {forZones: [" + strings.Repeat("{name: a},", 9) + "]}}]\n", []string{`endpoints[0].hints.forZones: more than 8`}},
		"zone":                  {slice + "addressType: IPv4\nendpoints: [{addresses: [10.0.0.1], zone: \"a\\n\"}]\n", []string{`endpoints[0].zone: "a\n"`}},
		"phase":                 {pod + head + "status: {phase: Done}\n", []string{`status.phase: "Done"`}},
		"account":               {pod + head + "spec: {serviceAccountName: A}\n", []string{`spec.serviceAccountName: "A"`}},
		"trust domain":          {ours + "kind: Tenant\nmetadata: {name: x}\nspec: {trustDomain: \"spiffe://x\"}\n", []string{`spec.trustDomain: "spiffe://x"`}},
		"no trust domain":       {ours + "kind: Tenant\nmetadata: {name: x}\nspec: {}\n", []string{"spec.trustDomain: required"}},
		"no namespaces":         {ours + "kind: Tenant\nmetadata: {name: x}\nspec: {trustDomain: x, namespaces: []}\n", []string{"spec.namespaces: is empty"}},
		"null namespaces":       {ours + "kind: Tenant\nmetadata: {name: x}\nspec: {trustDomain: x, namespaces: }\n", []string{"spec.namespaces: is empty"}},
		"namespace pattern":     {ours + "kind: Tenant\nmetadata: {name: x}\nspec: {trustDomain: x, namespaces: [\"a*\", \"-\", a-]}\n", []string{"spec.namespaces[0]: ", "spec.namespaces[1]: "}},
		"durations":             {ours + "kind: Tenant\nmetadata: {name: x}\nspec: {trustDomain: x, debounce: {quiet: 2s, max: 1s}, connections: {maxConnectionAge: -1h, maxStreamAge: 1ms}}\n", []string{"spec.debounce.quiet: longer than max", "spec.connections.maxConnectionAge: ", "spec.connections.maxStreamAge: "}},
		"limit of zero":         {ours + "kind: Tenant\nmetadata: {name: x}\nspec: {trustDomain: x, limits: {services: 0, policies: -1}}\n", []string{"spec.limits.services: is empty", "spec.limits.policies: -1 is out of range"}},
		"tenant name":           {ours + "kind: Tenant\nmetadata: {name: a.b}\nspec: {trustDomain: x}\n", []string{`metadata.name: "a.b"`}},
	} {
		t.Run(name, func(t *testing.T) {
			got := DecodeAll("f.yaml", []byte(c.doc), Options{})
			errs := texts(got)
			require.Len(t, errs, len(c.want), "%q", errs)
			for _, want := range c.want {
				require.Condition(t, func() bool {
					for _, e := range errs {
						if strings.HasPrefix(e, want) {
							return true
						}
					}
					return false
				}, "no error begins with %q: %q", want, errs)
			}
			require.Empty(t, got.Events(""))
			require.Nil(t, got.Unreadable)
		})
	}
}

func TestAddresses(t *testing.T) {
	doc := func(ip string) []byte {
		family := "IPv4"
		if strings.Contains(ip, ":") {
			family = "IPv6"
		}
		return []byte(fmt.Sprintf("%saddressType: %s\nendpoints: [{addresses: [%q]}]\n", slice, family, ip))
	}
	for ip, why := range map[string]string{
		"127.0.0.1": "loopback", "127.8.9.1": "loopback", "::1": "loopback", "169.254.169.254": "link-local", "fe80::1": "link-local",
		"224.0.0.1": "multicast", "ff02::1": "multicast", "255.255.255.255": "broadcast", "0.0.0.0": "unspecified", "::": "unspecified",
		"::ffff:127.0.0.1": "write the IPv4", "fe80::1%eth0": "no IP", "010.0.0.1": "no IP", "a.b": "no IP",
	} {
		got := DecodeAll("f.yaml", doc(ip), Options{})
		require.Len(t, texts(got), 1, ip)
		require.Contains(t, texts(got)[0], why, ip)
		require.Empty(t, got.Events(""))
		allowed := DecodeAll("f.yaml", doc(ip), Options{AllowLoopback: true})
		require.Equal(t, why == "loopback", len(allowed.Events("")) == 1, ip)
	}
	require.Empty(t, texts(DecodeAll("f.yaml", doc("10.0.0.1"), Options{})))
}

// TestFailClosed: what gives access leaves an object that gives none.
func TestFailClosed(t *testing.T) {
	policy := func(spec string) string { return ours + "kind: AccessPolicy\n" + head + "spec: " + spec + "\n" }
	rules := "rules: [{from: [{all: true}]}]"
	for name, c := range map[string]struct {
		doc   string
		want  tenancy.Object
		error string
	}{
		"grant without from":   {ours + "kind: ServiceGrant\n" + head + "spec: {to: [{service: s, all: true}]}\n", &tenancy.ServiceGrant{}, "spec.from: required"},
		"grant to nobody":      {ours + "kind: ServiceGrant\n" + head + "spec: {from: [{tenant: a}], to: [{service: s, all: true}]}\n", &tenancy.ServiceGrant{}, "spec.from[0]: exactly one of"},
		"grant typo":           {ours + "kind: ServiceGrant\n" + head + "spec: {from: [{tenant: a, all: true}], to: [{service: s, port: [80]}]}\n", &tenancy.ServiceGrant{}, "spec.to[0].port: unknown field"},
		"one bad port of two":  {ours + "kind: ServiceGrant\n" + head + "spec: {from: [{tenant: a, all: true}], to: [{service: s, ports: [80, 0]}]}\n", &tenancy.ServiceGrant{}, "spec.to[0].ports[1]: is empty"},
		"grant in both ways":   {ours + "kind: ServiceGrant\n" + head + "spec: {from: [{tenant: a, all: true, namespaces: [b]}], to: [{service: s, all: true}]}\n", &tenancy.ServiceGrant{}, "spec.from[0]: exactly one of"},
		"request without port": {ours + "kind: ServiceRequest\n" + head + "spec: {to: {namespace: ns, service: s}}\n", &tenancy.ServiceRequest{}, "spec.to: exactly one of"},
		"request all false":    {ours + "kind: ServiceRequest\n" + head + "spec: {to: {namespace: ns, service: s, all: false}}\n", &tenancy.ServiceRequest{}, "spec.to: exactly one of"},
		"cluster grant":        {ours + "kind: ClusterServiceGrant\nmetadata: {name: x}\nspec: {allTenants: true, tenants: [a], to: [{namespace: ns, service: s, all: true}]}\n", &tenancy.ClusterServiceGrant{}, "spec: exactly one of"},
		"cluster grant scope":  {ours + "kind: ClusterServiceGrant\nmetadata: {name: x, namespace: z}\nspec: {allTenants: true, to: [{namespace: ns, service: s, all: true}]}\n", &tenancy.ClusterServiceGrant{}, "metadata.namespace: "},
		"policy without rules": {policy("{selector: {matchLabels: {a: b}}, action: Allow}"), &tenancy.AccessPolicy{MatchLabels: map[string]string{"a": "b"}, Invalid: true}, "spec.rules: required"},
		"policy empty rules":   {policy("{selector: {}, action: Deny, rules: []}"), &tenancy.AccessPolicy{Action: tenancy.Deny, Invalid: true}, "spec.rules: is empty"},
		"no selector":          {policy("{action: Allow, " + rules + "}"), &tenancy.AccessPolicy{Invalid: true}, "spec.selector: required"},
		"null selector":        {policy("{selector: , action: Allow, " + rules + "}"), &tenancy.AccessPolicy{Invalid: true}, "spec.selector: is empty"},
		"null labels":          {policy("{selector: {matchLabels: }, action: Allow, " + rules + "}"), &tenancy.AccessPolicy{Invalid: true}, "spec.selector.matchLabels: is empty"},
		"null label":           {policy("{selector: {matchLabels: {a: }}, action: Allow, " + rules + "}"), &tenancy.AccessPolicy{Invalid: true}, "spec.selector.matchLabels.a: is empty"},
		"selector of a number": {policy("{selector: {matchLabels: {a: 5, b: c}}, action: Allow, " + rules + "}"), &tenancy.AccessPolicy{MatchLabels: map[string]string{"b": "c"}, Invalid: true}, "spec.selector.matchLabels.a: expected a string"},
		"selector typo":        {policy("{selector: {matchlabels: {a: b}}, action: Deny, " + rules + "}"), &tenancy.AccessPolicy{Action: tenancy.Deny, Invalid: true}, "spec.selector.matchlabels: unknown field, did you mean matchLabels?"},
		"selector twice":       {policy("{selector: {matchLabels: {a: b}}, selector: {matchLabels: {c: d}}, action: Deny, " + rules + "}"), &tenancy.AccessPolicy{Action: tenancy.Deny, Invalid: true}, "spec.selector: given twice"},
		"action":               {policy("{selector: {}, action: ALLOW, " + rules + "}"), &tenancy.AccessPolicy{Action: tenancy.Deny, Invalid: true}, `spec.action: "ALLOW" is none of`},
		"action twice":         {policy("{selector: {}, action: Allow, action: Allow, " + rules + "}"), &tenancy.AccessPolicy{Action: tenancy.Deny, Invalid: true}, "spec.action: given twice"},
		"spec is text":         {policy("hello"), &tenancy.AccessPolicy{Action: tenancy.Deny, Invalid: true}, "spec: expected a mapping"},
	} {
		t.Run(name, func(t *testing.T) {
			got := DecodeAll("f.yaml", []byte(c.doc), Options{})
			require.NotEmpty(t, texts(got))
			require.Condition(t, func() bool { return strings.HasPrefix(texts(got)[0], c.error) }, "%q", texts(got))
			require.Len(t, got.Entries, 1)
			compare(t, c.want, got.Entries[0].Object)
		})
	}
}

func TestRules(t *testing.T) {
	for rule, want := range map[string]string{
		`{ports: [80]}`:                                                    "from: required",
		`{from: []}`:                                                       "from: is empty",
		`{from: [{}]}`:                                                     "from[0]: exactly one of",
		`{from: [{all: true, granted: true}]}`:                             "from[0]: exactly one of",
		`{from: [{all: false}]}`:                                           "from[0].all: can only be true",
		`{from: [{serviceAccount: a}]}`:                                    "from[0].serviceAccount: needs namespace",
		`{from: [{namespace: ""}]}`:                                        "from[0].namespace: is empty",
		`{from: [{spiffeID: "spiffe://td/ns/a"}]}`:                         "from[0].spiffeID: ",
		`{from: [{spiffeID: "spiffe://td/ns/a*/sa/b"}]}`:                   "from[0].spiffeID: ",
		`{from: [{spiffeID: "spiffe://td"}]}`:                              "from[0].spiffeID: ",
		`{from: [{spiffeID: "spiffe://td/ns/a/sa/b,spiffe"}]}`:             "from[0].spiffeID: ",
		`{from: [{all: true}], ports: []}`:                                 "ports: is empty",
		`{from: [{all: true}], ports: [80, 80]}`:                           `ports[1]: "80" is given twice`,
		`{from: [{all: true}], methods: [get]}`:                            "methods[0]: ",
		`{from: [{all: true}], paths: [{}]}`:                               "paths[0]: exactly one of",
		`{from: [{all: true}], paths: [{exact: /a, prefix: /b}]}`:          "paths[0]: exactly one of",
		`{from: [{all: true}], paths: [{exact: a}]}`:                       "paths[0].exact: ",
		`{from: [{all: true}], paths: [{prefix: /a/}]}`:                    "paths[0].prefix: ",
		`{from: [{all: true}], paths: [{exact: /a//b}]}`:                   "paths[0].exact: ",
		`{from: [{all: true}], paths: [{exact: /a/../b}]}`:                 "paths[0].exact: ",
		`{from: [{all: true}], paths: [{exact: "/a?b"}]}`:                  "paths[0].exact: ",
		`{from: [{all: true}], paths: [{exact: "/%61"}]}`:                  "paths[0].exact: ",
		`{from: [{all: true}], paths: [{exact: "/a%2Fb"}]}`:                "paths[0].exact: ",
		`{from: [{all: true}], paths: [{exact: "/%zz"}]}`:                  "paths[0].exact: ",
		`{from: [{all: true}], paths: [{exact: "/%"}]}`:                    "paths[0].exact: ",
		`{from: [{all: true}], paths: [{exact: "/é"}]}`:                    "paths[0].exact: ",
		`{from: [{all: true}], hosts: ["*.a"]}`:                            "hosts[0]: ",
		`{from: [{all: true}], hosts: ["a:80"]}`:                           "hosts[0]: ",
		`{from: [{all: true}], headers: [{name: ":path", exact: a}]}`:      "headers[0].name: ",
		`{from: [{all: true}], headers: [{name: Host, exact: a}]}`:         "headers[0].name: ",
		`{from: [{all: true}], headers: [{name: a}]}`:                      "headers[0]: exactly one of",
		`{from: [{all: true}], headers: [{name: a, present: false}]}`:      "headers[0].present: can only be true",
		`{from: [{all: true}], headers: [{name: a, exact: "b\nc"}]}`:       "headers[0].exact: ",
		`{from: [{all: true}], headers: [{name: a, exact: b, prefix: c}]}`: "headers[0]: exactly one of",
	} {
		t.Run(rule, func(t *testing.T) {
			doc := ours + "kind: AccessPolicy\n" + head + "spec: {selector: {}, action: Allow, rules: [{from: [{all: true}]}, " + rule + "]}\n"
			got := DecodeAll("f.yaml", []byte(doc), Options{})
			require.NotEmpty(t, texts(got))
			require.True(t, strings.HasPrefix(texts(got)[0], "spec.rules[1]."+want), "%q", texts(got))
			compare(t, tenancy.Object(&tenancy.AccessPolicy{Invalid: true}), got.Entries[0].Object)
		})
	}
}
