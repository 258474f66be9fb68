package xds

import (
	"log/slog"
	"sync"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/tenancy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var shop = identity.Workload{TrustDomain: "acme.example", Namespace: "acme-shop", ServiceAccount: "web"}

func child(t snapshot.Type, name string) snapshot.Child {
	return snapshot.Child{Type: t, Name: name}
}

// res makes a resource whose content is text.
func res(typ snapshot.Type, name, text string, children ...snapshot.Child) *snapshot.Resource {
	var m proto.Message
	switch typ {
	case snapshot.Cluster:
		m = &clusterv3.Cluster{Name: name, AltStatName: text}
	case snapshot.Endpoint:
		m = &endpointv3.ClusterLoadAssignment{ClusterName: name, NamedEndpoints: map[string]*endpointv3.Endpoint{text: {Hostname: text}}}
	case snapshot.Secret:
		m = &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_GenericSecret{GenericSecret: &tlsv3.GenericSecret{
			Secret: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: text}}}}}
	case snapshot.Listener:
		m = &listenerv3.Listener{Name: name, StatPrefix: text}
	case snapshot.Extension:
		value, err := anypb.New(wrapperspb.String(text))
		if err != nil {
			panic(err)
		}
		m = &corev3.TypedExtensionConfig{Name: name, TypedConfig: value}
	case snapshot.Route:
		m = &routev3.RouteConfiguration{Name: name, InternalOnlyHeaders: []string{text}}
	}
	origin := tenancy.Ref{Kind: tenancy.KindService, Key: tenancy.Key{Namespace: "acme-shop", Name: name}}
	r, err := snapshot.NewResource(typ, name, m, children, []tenancy.Ref{origin})
	if err != nil {
		panic(err)
	}
	return r
}

// svc is a cluster with its assignment; the cluster brings the assignment and
// the bundle along.
func svc(name, text string) []*snapshot.Resource {
	return []*snapshot.Resource{
		res(snapshot.Cluster, name, text, child(snapshot.Endpoint, name), child(snapshot.Secret, "bundle/td")),
		res(snapshot.Endpoint, name, text),
	}
}

// host is a virtual host part.
func host(key, text string) *snapshot.Part {
	const virtualHosts = 2
	p, err := snapshot.NewPart(key, virtualHosts, &routev3.VirtualHost{Name: key, Domains: []string{text}},
		[]tenancy.Ref{{Kind: tenancy.KindService, Key: tenancy.Key{Namespace: "acme-shop", Name: key}}})
	if err != nil {
		panic(err)
	}
	return p
}

func routes(name string, hosts ...*snapshot.Part) *snapshot.Resource {
	r, err := snapshot.Assemble(snapshot.Route, name, &routev3.RouteConfiguration{Name: name}, hosts, nil, nil, nil)
	if err != nil {
		panic(err)
	}
	return r
}

// view is a binding whose layers a test publishes to.
type view struct{ *snapshot.Binding }

func newView(tenant string) view {
	v, l := snapshot.NewView()
	return view{&snapshot.Binding{Tenant: tenant, View: v, Listeners: l, Workload: snapshot.NewWorkload()}}
}

// near is the same view where some assignments may differ.
func (v view) near() view {
	b := *v.Binding
	b.Near = snapshot.NewVariant(v.View)
	return view{&b}
}

// set publishes resources to the layer that holds their type in production.
func (v view) set(rs ...*snapshot.Resource) view {
	var outbound, listeners []*snapshot.Resource
	var inbound []*snapshot.Resource
	for _, r := range rs {
		switch r.Type() {
		case snapshot.Listener:
			listeners = append(listeners, r)
		case snapshot.Extension:
			inbound = append(inbound, r)
		default:
			outbound = append(outbound, r)
		}
	}
	snapshot.Publish(snapshot.Update{Layer: v.Workload, Set: inbound})
	snapshot.Publish(snapshot.Update{Layer: v.View, Set: outbound}, snapshot.Update{Layer: v.Listeners, Set: listeners})
	return v
}

func (v view) remove(cs ...snapshot.Child) {
	snapshot.Publish(snapshot.Update{Layer: v.Workload, Remove: cs})
	snapshot.Publish(snapshot.Update{Layer: v.View, Remove: cs}, snapshot.Update{Layer: v.Listeners, Remove: cs})
}

// fakeStore binds every attachment to one binding, or to none.
type fakeStore struct {
	mu      sync.Mutex
	binding *snapshot.Binding
	others  map[identity.Workload]*snapshot.Binding // of those who have their own
	open    map[*snapshot.Attachment]struct{}
}

func (s *fakeStore) Attach(p snapshot.Proxy) *snapshot.Attachment {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := snapshot.NewAttachment(p, func(a *snapshot.Attachment) {
		s.mu.Lock()
		defer s.mu.Unlock()
		a.Bind(nil)
		delete(s.open, a)
	})
	if s.open == nil {
		s.open = map[*snapshot.Attachment]struct{}{}
	}
	s.open[a] = struct{}{}
	if b := s.others[p.Workload]; b != nil {
		a.Bind(b)
	} else if s.binding != nil {
		a.Bind(s.binding)
	}
	return a
}

func (s *fakeStore) bind(b *snapshot.Binding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.binding = b
	for a := range s.open {
		a.Bind(b)
	}
}

func (s *fakeStore) proxies() []snapshot.Proxy {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []snapshot.Proxy
	for a := range s.open {
		out = append(out, a.Proxy())
	}
	return out
}

// world is a server with a store, inside a synctest bubble.
type world struct {
	t     *testing.T
	store *fakeStore
	srv   *Server
}

func newWorld(t *testing.T, b view, edit ...func(*Config)) *world {
	t.Helper()
	w := &world{t: t, store: &fakeStore{}}
	if b.Binding != nil {
		w.store.binding = b.Binding
	}
	c := Config{Store: w.store, Logger: slog.New(slog.DiscardHandler)}
	for _, e := range edit {
		e(&c)
	}
	var err error
	w.srv, err = NewServer(c)
	require.NoError(t, err)
	return w
}
