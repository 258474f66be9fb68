package updates

import (
	"fmt"
	"testing"
	"time"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	sslv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/ssl/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/tenancy"
)

// held are resources by type and name.
type held = map[snapshot.Child]*snapshot.Resource

// poison is what Envoy refuses, in the place of something good and beside it.
type poison struct {
	name string
	// put spoils a state. It returns what a proxy that has had before is to have
	// instead of what the state says; nil stands for nothing.
	put func(s *state, had held) (instead held)
	// origins are the objects to blame, each of kind Service in acme-shop.
	origins []string
	// refused are how many resources of the type the dump is to list.
	refused int
}

// blame is an object that a poison comes from.
func blame(name string) []tenancy.Ref { return []tenancy.Ref{ref(tenancy.KindService, name)} }

// spoil changes a resource of the state and blames an object for it.
func spoil[M proto.Message](s *state, c snapshot.Child, m M, object string, change func(M)) *snapshot.Resource {
	s.m.t.Helper()
	good := s.of[c]
	require.NoError(s.m.t, proto.Unmarshal(good.Value(), m))
	change(m)
	return bad(s, c, m, good.Children(), object)
}

func bad(s *state, c snapshot.Child, m proto.Message, children []snapshot.Child, object string) *snapshot.Resource {
	s.m.t.Helper()
	r, err := snapshot.NewResource(c.Type, c.Name, m, children, blame(object))
	require.NoError(s.m.t, err)
	s.put(r)
	s.bad[c] = r
	return r
}

// badHost spoils a virtual host.
func (s *state) badHost(key string, host *routev3.VirtualHost, object string) {
	s.m.t.Helper()
	const fieldVirtualHosts = 2
	host.Name = key
	p, err := snapshot.NewPart(key, fieldVirtualHosts, host, blame(object))
	require.NoError(s.m.t, err)
	s.setHost(p)
	s.badHosts = append(s.badHosts, p)
}

// keepBad takes what is bad from another state.
func (s *state) keepBad(from *state) {
	for _, r := range from.bad {
		s.put(r)
	}
	for _, p := range from.badHosts {
		s.setHost(p)
	}
}

func packed(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	require.NoError(t, err)
	return a
}

// poisons are those of each type: one that Envoy refuses together with all of
// its response, where there is such a thing, and one that it can name.
func poisons() []poison {
	return []poison{
		{"cluster", poisonClusters, []string{"bad-timeout", "bad-address"}, 2},
		{"endpoint", poisonEndpoints, []string{"bad-weight", "bad-ip"}, 2},
		{"secret", poisonSecrets, []string{"bad-bundle", "bad-new-bundle"}, 2},
		{"listener", poisonListeners, []string{"bad-filter", "bad-name"}, 2},
		{"extension", poisonExtensions, []string{"bad-policy"}, 1},
		{"route", poisonHosts, []string{"bad-regex", "bad-domain"}, 1},
	}
}

func poisonClusters(s *state, had held) held {
	old, fresh := child(snapshot.Cluster, clusterOf("svc-5")), child(snapshot.Cluster, "fresh")
	// This one costs all of the response.
	spoil(s, old, &clusterv3.Cluster{}, "bad-timeout", func(c *clusterv3.Cluster) { c.ConnectTimeout = durationpb.New(-time.Second) })
	// This one costs itself alone.
	bad(s, fresh, &clusterv3.Cluster{
		Name: fresh.Name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		LoadAssignment: assignment(fresh.Name, fmt.Sprintf("host-%d.invalid", s.g)),
	}, nil, "bad-address")
	return held{old: had[old], fresh: nil}
}

func assignment(cluster, address string) *endpointv3.ClusterLoadAssignment {
	return &endpointv3.ClusterLoadAssignment{ClusterName: cluster, Endpoints: []*endpointv3.LocalityLbEndpoints{{
		LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
				Address: address, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 1},
			}}},
		}}}},
	}}}
}

func poisonEndpoints(s *state, had held) held {
	old, fresh := child(snapshot.Endpoint, clusterOf("svc-6")), child(snapshot.Endpoint, clusterOf("late"))
	// A cluster that changes forgets its endpoints when the next ones are bad.
	s.put(had[child(snapshot.Cluster, old.Name)])
	spoil(s, old, &endpointv3.ClusterLoadAssignment{}, "bad-weight", func(m *endpointv3.ClusterLoadAssignment) {
		m.Endpoints[0].LbEndpoints[0].LoadBalancingWeight = wrapperspb.UInt32(0)
	})
	// Its cluster is good, and comes with it.
	s.m.service(s, "late", "acme.example", firstPort)
	bad(s, fresh, assignment(fresh.Name, fmt.Sprintf("host-%d.invalid", s.g)), nil, "bad-ip")
	return held{old: had[old], fresh: nil}
}

func poisonSecrets(s *state, had held) held {
	old, fresh := child(snapshot.Secret, "bundle/third.example"), child(snapshot.Secret, "bundle/fourth.example")
	garbage := fmt.Sprintf("-----BEGIN CERTIFICATE-----\n%d\n-----END CERTIFICATE-----\n", s.g)
	spoil(s, old, &tlsv3.Secret{}, "bad-bundle", func(m *tlsv3.Secret) { breakBundle(s.m.t, m, garbage) })
	// What has a bad secret and nothing before it cannot change: its cluster does not.
	g := s.g
	s.g = 0
	s.m.service(s, "fourth", "fourth.example", firstPort)
	s.g = g
	good, err := s.m.b.Bundle("fourth.example", s.m.bundles(s.g)["fourth.example"])
	require.NoError(s.m.t, err)
	s.put(good)
	spoil(s, fresh, &tlsv3.Secret{}, "bad-new-bundle", func(m *tlsv3.Secret) { breakBundle(s.m.t, m, garbage) })
	return held{old: had[old]}
}

func breakBundle(t *testing.T, m *tlsv3.Secret, text string) {
	t.Helper()
	validator := m.GetValidationContext().GetCustomValidatorConfig()
	var config tlsv3.SPIFFECertValidatorConfig
	require.NoError(t, validator.GetTypedConfig().UnmarshalTo(&config))
	config.TrustDomains[0].TrustBundle = &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: text}}
	validator.TypedConfig = packed(t, &config)
}

func poisonListeners(s *state, had held) held {
	bind := s.m.pod.at.Bind
	old := child(snapshot.Listener, snapshot.ListenerName(bind, firstTCP+1))
	fresh := child(snapshot.Listener, snapshot.ListenerName(bind, firstTCP+tcps))
	spoil(s, old, &listenerv3.Listener{}, "bad-filter", func(l *listenerv3.Listener) {
		l.FilterChains[0].Filters[0].ConfigType = &listenerv3.Filter_TypedConfig{
			TypedConfig: packed(s.m.t, &clusterv3.Cluster{Name: fmt.Sprintf("no-filter-%d", s.g)}),
		}
	})
	l, err := s.m.b.TCPListener(bind, firstTCP+tcps, clusterOf(serviceName(s.g%8)), snapshot.Variant{Explicit: true, Bind: bind}, nil)
	require.NoError(s.m.t, err)
	s.put(l)
	// This one costs all of the response.
	spoil(s, fresh, &listenerv3.Listener{}, "bad-name", func(l *listenerv3.Listener) { l.FilterChains[0].Filters[0].Name = "" })
	return held{old: had[old], fresh: nil}
}

func poisonExtensions(s *state, _ held) held {
	c := child(snapshot.Extension, fmt.Sprintf("rbac-http-%d", firstPort+1))
	input := &xdscorev3.TypedExtensionConfig{Name: "envoy.matching.inputs.uri_san", TypedConfig: packed(s.m.t, &sslv3.UriSanInput{})}
	config := &httprbacv3.RBAC{
		RulesStatPrefix: fmt.Sprintf("bad_%d_", s.g),
		Matcher: &xdsmatcherv3.Matcher{MatcherType: &xdsmatcherv3.Matcher_MatcherTree_{MatcherTree: &xdsmatcherv3.Matcher_MatcherTree{
			Input: input,
			TreeType: &xdsmatcherv3.Matcher_MatcherTree_ExactMatchMap{
				ExactMatchMap: &xdsmatcherv3.Matcher_MatcherTree_MatchMap{}, // an empty map is refused
			},
		}}},
	}
	bad(s, c, &corev3.TypedExtensionConfig{Name: c.Name, TypedConfig: packed(s.m.t, config)}, nil, "bad-policy")
	// What it may have allowed before may have been revoked since.
	return held{c: snapshot.Absent(snapshot.Extension, c.Name)}
}

func poisonHosts(s *state, had held) held {
	route := child(snapshot.Route, routeName)
	key := clusterOf("svc-5")
	forward := func(match *routev3.RouteMatch) []*routev3.Route {
		return []*routev3.Route{{Match: match, Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: key},
		}}}}
	}
	for _, p := range had[route].Parts() {
		if p.Key == key {
			s.setHost(p)
		}
	}
	whole := s.all()[route]
	s.badHost(key, &routev3.VirtualHost{
		Domains: []string{"svc-5", fmt.Sprintf("svc-5.generation-%d", s.g)},
		Routes: forward(&routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_SafeRegex{
			SafeRegex: &matcherv3.RegexMatcher{Regex: "(a"},
		}}),
	}, "bad-regex")
	// A service that another tenant has granted takes a name that is taken.
	s.badHost("granted", &routev3.VirtualHost{
		Domains: []string{"svc-0", fmt.Sprintf("granted.generation-%d", s.g)},
		Routes:  forward(&routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}),
	}, "bad-domain")
	return held{route: whole}
}
