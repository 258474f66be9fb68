package updates

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

// The world of the planted tests: one Pod that calls itself by the names of ten
// services. Service number i is svc-i, on port 8080, and leads to port
// 9000 + i%4 of the Pod, svc-9 to port 9000.
const (
	services    = 10
	servicePort = 8080
	firstPort   = 9000
	ports       = 4
	firstTCP    = 7000
	tcps        = 4
	routeName   = "http-8080"
)

// maker makes the resources of a Pod, each of them different in every
// generation, as far as it can be.
type maker struct {
	t   *testing.T
	b   *snapshot.Builder
	p   *planted
	pod *pod
}

func newMaker(p *planted, pod *pod) *maker {
	return &maker{t: p.t, b: snapshot.NewBuilder(snapshot.BuilderConfig{}), p: p, pod: pod}
}

// state is all that a Pod is to have.
type state struct {
	m     *maker
	g     int
	of    held
	hosts []*snapshot.Part
	// bad is what Envoy refuses of it.
	bad      held
	badHosts []*snapshot.Part
}

func child(t snapshot.Type, name string) snapshot.Child {
	return snapshot.Child{Type: t, Name: name}
}

func ref(kind tenancy.Kind, name string) tenancy.Ref {
	return tenancy.Ref{Kind: kind, Key: tenancy.Key{Namespace: "acme-shop", Name: name}}
}

func serviceName(i int) string { return fmt.Sprintf("svc-%d", i) }

// clusterOf is the name of a service's cluster and assignment.
func clusterOf(service string) string { return service + ".acme-shop.svc.cluster.local:8080" }

func (s *state) put(rs ...*snapshot.Resource) {
	for _, r := range rs {
		s.of[child(r.Type(), r.Name())] = r
	}
}

func (s *state) drop(t snapshot.Type, name string) { delete(s.of, child(t, name)) }

// hostAt is the place of a virtual host.
func (s *state) hostAt(key string) int {
	return slices.IndexFunc(s.hosts, func(p *snapshot.Part) bool { return p.Key == key })
}

// setHost replaces the virtual host of that key, or adds one.
func (s *state) setHost(p *snapshot.Part) {
	if at := s.hostAt(p.Key); at >= 0 {
		s.hosts[at] = p
		return
	}
	s.hosts = append(s.hosts, p)
}

// all are the resources, with the RouteConfiguration put together.
func (s *state) all() held {
	s.m.t.Helper()
	r, err := s.m.b.RouteConfiguration(servicePort, nil, tenancy.RegistryOnly)
	require.NoError(s.m.t, err)
	all := maps.Clone(s.of)
	all[child(snapshot.Route, routeName)] = r.Recompose(append(slices.Clone(s.hosts), r.Parts()...))
	return all
}

// state is the one of a generation, with nothing wrong.
func (m *maker) state(g int) *state {
	m.t.Helper()
	s := &state{m: m, g: g, of: held{}, bad: held{}}
	for i := range services {
		m.service(s, serviceName(i), "acme.example", uint16(firstPort+i%9%ports))
	}
	m.service(s, "third", "third.example", firstPort)
	static, err := m.b.StaticClusters(tenancy.RegistryOnly)
	require.NoError(m.t, err)
	s.put(static...)
	for _, td := range []string{"acme.example", "third.example"} {
		r, err := m.b.Bundle(td, m.bundles(g)[td])
		require.NoError(m.t, err)
		s.put(r)
	}
	variant := snapshot.Variant{Explicit: true, Bind: m.pod.at.Bind, App: m.pod.at.App}
	l, err := m.b.HTTPListener(servicePort, variant)
	require.NoError(m.t, err)
	s.put(l)
	for i := range tcps {
		l, err := m.b.TCPListener(m.pod.at.Bind, uint16(firstTCP+i), clusterOf(serviceName(g%8)), variant, []tenancy.Ref{ref(tenancy.KindService, "tcp")})
		require.NoError(m.t, err)
		s.put(l)
	}
	m.inbound(s, variant, "acme.example", "third.example")
	return s
}

// bundles differ between generations in authorities that sign nothing.
func (m *maker) bundles(g int) map[string][]byte {
	all := m.p.ca.Bundles()
	if g%2 == 1 {
		spare := string(all[serverDomain])
		for _, td := range []string{"acme.example", "third.example", "fourth.example"} {
			all[td] = []byte(string(all[td]) + spare)
		}
	}
	return all
}

// service adds cluster, assignment and virtual host.
func (m *maker) service(s *state, name, td string, port uint16) {
	m.t.Helper()
	spec := &tenancy.ServiceSpec{
		Key: tenancy.Key{Namespace: "acme-shop", Name: name}, Tenant: "acme", TrustDomain: td, TLSMinimum13: true,
		VIPs:     []netip.Addr{netip.AddrFrom4([4]byte{10, byte(s.g), name[0], name[len(name)-1]})},
		Accounts: []string{"web", fmt.Sprintf("web-%d", s.g)},
		Origins:  []tenancy.Ref{ref(tenancy.KindService, name)},
		Ports: []tenancy.PortSpec{{Name: "http", Port: servicePort, Protocol: tenancy.HTTP1, Endpoints: []tenancy.EndpointSpec{
			{Address: netip.AddrPortFrom(podAddress(1, 1), port), Zone: fmt.Sprintf("zone-%d", s.g)},
		}}},
	}
	c, err := m.b.Cluster(spec, &spec.Ports[0])
	require.NoError(m.t, err)
	e, err := m.b.Endpoints(spec, &spec.Ports[0])
	require.NoError(m.t, err)
	s.put(c, e)
	h, err := m.b.VirtualHost(spec, &spec.Ports[0], tenancy.OwnNamespace, true)
	require.NoError(m.t, err)
	s.hosts = append(s.hosts, h.Part)
}

// inbound adds what the Pod takes in: from its own namespace, on all ports but
// those that are closed.
func (m *maker) inbound(s *state, v snapshot.Variant, domains ...string) {
	m.t.Helper()
	spec := &tenancy.WorkloadSpec{
		Workload: m.pod.workload, Tenant: "acme", TrustDomains: domains, TLSMinimum13: true,
		Origins: []tenancy.Ref{ref(tenancy.KindPod, m.pod.name)},
	}
	for i := range uint16(ports) {
		spec.Ports = append(spec.Ports, tenancy.InboundPort{Port: firstPort + i, Protocol: tenancy.HTTP1, Policy: m.policy(s.g, firstPort+i)})
	}
	rs, errs := m.b.Inbound(spec, v, []netip.Addr{m.pod.at.Pod}, m.bundles(s.g))
	require.Empty(m.t, errs)
	s.put(rs...)
}

func (m *maker) policy(g int, port uint16) policy.Port {
	own := policy.NamespaceRef{TrustDomain: m.pod.workload.TrustDomain, Namespace: m.pod.workload.Namespace}
	return policy.Port{
		Number: port, HTTP: true, Floor: policy.Floor{Tenant: []policy.NamespaceRef{own}}, AllowSelected: true,
		Rules: []policy.Rule{{
			Policy: fmt.Sprintf("acme-shop/policy-%d", g), Action: policy.Allow, From: policy.Principals{Namespaces: []policy.NamespaceRef{own}},
		}},
	}
}

// revoke takes away one thing of every type: who may call port 9002, whom the
// Pod believes, a listener, the endpoint of svc-8, and svc-9 as a whole.
func (s *state) revoke() *state {
	s.m.t.Helper()
	closed := s.m.policy(s.g, firstPort+2)
	closed.Rules = nil
	deny, err := snapshot.RBAC(tenancy.InboundPort{Port: firstPort + 2, Protocol: tenancy.HTTP1, Policy: closed}, nil)
	require.NoError(s.m.t, err)
	variant := snapshot.Variant{Explicit: true, Bind: s.m.pod.at.Bind, App: s.m.pod.at.App}
	s.m.inbound(s, variant, "acme.example")
	s.put(deny, snapshot.Absent(snapshot.Endpoint, clusterOf("svc-8")))
	s.drop(snapshot.Listener, snapshot.ListenerName(s.m.pod.at.Bind, firstTCP+3))
	s.drop(snapshot.Cluster, clusterOf("svc-9"))
	s.drop(snapshot.Endpoint, clusterOf("svc-9"))
	at := s.hostAt(clusterOf("svc-9"))
	s.hosts = slices.Delete(s.hosts, at, at+1)
	return s
}

// layers are what a Pod is bound to, and what was published there last.
type layers struct {
	*snapshot.Binding
	now held
}

func newLayers(tenant string) *layers {
	view, listeners := snapshot.NewView()
	return &layers{Binding: &snapshot.Binding{Tenant: tenant, View: view, Listeners: listeners, Workload: snapshot.NewWorkload()}}
}

// layerOf is the layer that holds a resource when objects are its cause.
func (l *layers) layerOf(c snapshot.Child) *snapshot.Layer {
	switch {
	case c.Type == snapshot.Extension, strings.HasPrefix(c.Name, "inbound"):
		return l.Workload
	case c.Type == snapshot.Listener:
		return l.Listeners
	default:
		return l.View
	}
}

// publish replaces everything by the resources given, the workload layer first
// and then the view, as the publisher does.
func (l *layers) publish(all held) {
	updates := map[*snapshot.Layer]*snapshot.Update{}
	for _, layer := range l.Layers() {
		updates[layer] = &snapshot.Update{Layer: layer}
	}
	for c, r := range all {
		u := updates[l.layerOf(c)]
		u.Set = append(u.Set, r)
	}
	for c := range l.now {
		if all[c] == nil {
			u := updates[l.layerOf(c)]
			u.Remove = append(u.Remove, c)
		}
	}
	l.now = all
	snapshot.Publish(*updates[l.Workload])
	snapshot.Publish(*updates[l.View], *updates[l.Listeners])
}
