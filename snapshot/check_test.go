package snapshot

import (
	"strings"
	"testing"

	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

// mutate changes the message packed in a, which must be an M.
func mutate[M proto.Message](t *testing.T, a *anypb.Any, change func(M)) {
	t.Helper()
	inner, err := a.UnmarshalNew()
	require.NoError(t, err)
	m, ok := inner.(M)
	require.True(t, ok, "%T", inner)
	change(m)
	require.NoError(t, a.MarshalFrom(m))
}

// refused requires that Check finds what change did to a good resource.
func refused[M proto.Message](t *testing.T, good *Resource, want string, change func(M)) {
	t.Helper()
	require.NoError(t, Check(good))
	m := value[M](t, good)
	change(m)
	bad, err := NewResource(good.Type(), good.Name(), m, nil, nil)
	require.NoError(t, err)
	err = Check(bad)
	require.Error(t, err, want)
	require.Contains(t, err.Error(), want)
}

func TestCheckRefusesWhatEnvoyRefuses(t *testing.T) {
	b, s := NewBuilder(BuilderConfig{}), ordersSpec()
	build := func(r *Resource, err error) *Resource {
		require.NoError(t, err)
		return r
	}
	host, err := b.VirtualHost(s, &s.Ports[0], tenancy.OwnTenant, false)
	require.NoError(t, err)
	in := inboundOf(t, b, workloadSpec(t), Variant{}, nil)
	listener := find(t, in, Listener, "virtual-inbound")
	routes := build(b.RouteConfiguration(80, []*Part{host.Part}, tenancy.RegistryOnly))
	cluster := build(b.Cluster(s, &s.Ports[0]))
	rbac := find(t, in, Extension, "rbac-http-8080")
	// chain 3 is that of the HTTP port 8080.
	hcm := func(l *listenerv3.Listener) *anypb.Any {
		return l.GetFilterChains()[3].GetFilters()[0].GetTypedConfig()
	}

	refused(t, cluster, "calls itself", func(c *clusterv3.Cluster) { c.Name = "other" })
	refused(t, cluster, "is negative", func(c *clusterv3.Cluster) {
		c.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{UpdateMergeWindow: durationpb.New(-1)}
	})
	refused(t, cluster, "where its endpoints are", func(c *clusterv3.Cluster) { c.EdsClusterConfig = nil })
	refused(t, cluster, "unknown fields", func(c *clusterv3.Cluster) {
		c.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 9999, protowire.VarintType), 1))
	})
	refused(t, cluster, "pins no name", func(c *clusterv3.Cluster) {
		mutate(t, c.GetTransportSocket().GetTypedConfig(), func(u *tlsv3.UpstreamTlsContext) {
			u.GetCommonTlsContext().GetCombinedValidationContext().DefaultValidationContext = &tlsv3.CertificateValidationContext{}
		})
	})
	keys := build(b.jwksCluster(policy.Provider{Name: "idp", Fetch: policy.KeyFetch{URI: "https://idp/", Host: "idp"}}, nil))
	for wrong, change := range map[string]func(*tlsv3.CertificateValidationContext){
		"trusts no authority": func(v *tlsv3.CertificateValidationContext) { v.TrustedCa = nil },
		"pins no name":        func(v *tlsv3.CertificateValidationContext) { v.MatchTypedSubjectAltNames = nil },
	} {
		refused(t, keys, wrong, func(c *clusterv3.Cluster) {
			mutate(t, c.GetTransportSocket().GetTypedConfig(), func(u *tlsv3.UpstreamTlsContext) { change(u.GetCommonTlsContext().GetValidationContext()) })
		})
	}
	refused(t, cluster, "unpack", func(c *clusterv3.Cluster) {
		c.GetTransportSocket().GetTypedConfig().TypeUrl = "type.googleapis.com/no.such"
	})
	refused(t, build(b.Endpoints(s, &s.Ports[0])), "LbEndpoints", func(m proto.Message) {
		mustEndpoint(t, m).GetAddress().GetSocketAddress().PortSpecifier = nil
	})
	refused(t, build(b.Endpoints(s, &s.Ports[0])), "not-an-ip", func(m proto.Message) {
		mustEndpoint(t, m).GetAddress().GetSocketAddress().Address = "not-an-ip"
	})

	refused(t, routes, "is there twice", func(r *routev3.RouteConfiguration) {
		r.GetVirtualHosts()[1].Domains = []string{"*", "Orders.acme-shop"}
	})
	refused(t, routes, "is there twice", func(r *routev3.RouteConfiguration) { r.GetVirtualHosts()[0].Domains = []string{"*"} })
	refused(t, routes, "wildcard inside", func(r *routev3.RouteConfiguration) { r.GetVirtualHosts()[0].Domains = []string{"a*b"} })
	refused(t, routes, "VirtualHosts[0]", func(r *routev3.RouteConfiguration) { r.GetVirtualHosts()[0].Routes[0].Action = nil })
	for _, regex := range []string{"(a", strings.Repeat("[a-c]x", 60)} {
		refused(t, routes, "RegexMatcher", func(r *routev3.RouteConfiguration) {
			r.GetVirtualHosts()[0].Routes[0].Match.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: regex}}
		})
	}
	refused(t, routes, "weights add up to 0", func(r *routev3.RouteConfiguration) {
		r.GetVirtualHosts()[0].Routes[0].GetRoute().ClusterSpecifier = &routev3.RouteAction_WeightedClusters{
			WeightedClusters: &routev3.WeightedCluster{Clusters: []*routev3.WeightedCluster_ClusterWeight{{Name: "a"}}},
		}
	})

	refused(t, listener, "match the same", func(l *listenerv3.Listener) {
		l.FilterChains[1].FilterChainMatch = l.FilterChains[2].FilterChainMatch
	})
	refused(t, listener, "is there twice", func(l *listenerv3.Listener) { l.FilterChains[1].Name = l.FilterChains[2].Name })
	refused(t, listener, "has no filter chain", func(l *listenerv3.Listener) { l.FilterChains, l.DefaultFilterChain = nil, nil })
	refused(t, listener, "not in the router", func(l *listenerv3.Listener) {
		mutate(t, hcm(l), func(h *hcmv3.HttpConnectionManager) { h.HttpFilters = h.HttpFilters[:1] })
	})
	refused(t, listener, "HttpConnectionManager", func(l *listenerv3.Listener) {
		mutate(t, hcm(l), func(h *hcmv3.HttpConnectionManager) { h.StatPrefix = "" })
	})
	refused(t, listener, "no client certificate", func(l *listenerv3.Listener) {
		mutate(t, l.FilterChains[3].GetTransportSocket().GetTypedConfig(), func(d *tlsv3.DownstreamTlsContext) { d.RequireClientCertificate = nil })
	})
	refused(t, listener, "let everybody in", func(l *listenerv3.Listener) {
		mutate(t, l.FilterChains[1].GetFilters()[0].GetConfigDiscovery().GetDefaultConfig(), func(r *netrbacv3.RBAC) { r.Matcher = nil })
	})

	change := func(f func(*xdsmatcherv3.Matcher)) func(*corev3.TypedExtensionConfig) {
		return func(e *corev3.TypedExtensionConfig) {
			mutate(t, e.GetTypedConfig(), func(r *httprbacv3.RBAC) { f(r.GetMatcher()) })
		}
	}
	refused(t, rbac, "let everybody in", func(e *corev3.TypedExtensionConfig) {
		mutate(t, e.GetTypedConfig(), func(r *httprbacv3.RBAC) { r.Matcher = nil })
	})
	refused(t, rbac, "no on_no_match", change(func(m *xdsmatcherv3.Matcher) { m.OnNoMatch = nil }))
	refused(t, rbac, "no on_no_match", change(func(m *xdsmatcherv3.Matcher) { m.GetOnNoMatch().GetMatcher().OnNoMatch = nil }))
	refused(t, rbac, "MatchMap", change(func(m *xdsmatcherv3.Matcher) {
		m.GetOnNoMatch().GetMatcher().GetMatcherTree().GetExactMatchMap().Map = nil
	}))
	refused(t, find(t, in, Secret, "inbound"), "is there twice", func(m *tlsv3.Secret) {
		mutate(t, m.GetValidationContext().GetCustomValidatorConfig().GetTypedConfig(), func(c *tlsv3.SPIFFECertValidatorConfig) {
			c.TrustDomains = append(c.TrustDomains, c.TrustDomains[0])
		})
	})
	refused(t, find(t, in, Secret, "inbound"), "no certificate", func(m *tlsv3.Secret) {
		mutate(t, m.GetValidationContext().GetCustomValidatorConfig().GetTypedConfig(), func(c *tlsv3.SPIFFECertValidatorConfig) {
			c.TrustDomains[0].TrustBundle = &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: "PEM"}}
		})
	})
}

func mustEndpoint(t *testing.T, m proto.Message) *endpointv3.Endpoint {
	t.Helper()
	cla, ok := m.(*endpointv3.ClusterLoadAssignment)
	require.True(t, ok)
	return cla.GetEndpoints()[0].GetLbEndpoints()[0].GetEndpoint()
}
