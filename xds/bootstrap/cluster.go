package bootstrap

import (
	"fmt"
	"net/netip"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// connectTimeout is for one address of the xDS server, TLS handshake included.
const connectTimeout = 2 * time.Second

// Keepalive of the ADS connection. The server permits a ping every 10 s.
const (
	keepaliveInterval = 30 * time.Second
	keepaliveTimeout  = 10 * time.Second
)

func staticClusters(c Config) ([]*clusterv3.Cluster, error) {
	xds, err := serverCluster(c)
	if err != nil {
		return nil, err
	}
	clusters := []*clusterv3.Cluster{xds}
	if c.SDSSocket != "" {
		sds, err := socketCluster(c)
		if err != nil {
			return nil, err
		}
		clusters = append(clusters, sds)
	}
	return clusters, nil
}

func serverCluster(c Config) (*clusterv3.Cluster, error) {
	tls, err := anypb.New(upstreamTLS(c))
	if err != nil {
		return nil, fmt.Errorf("encode the TLS context: %w", err)
	}
	options, err := http2(&corev3.Http2ProtocolOptions{ConnectionKeepalive: &corev3.KeepaliveSettings{
		Interval: durationpb.New(keepaliveInterval), Timeout: durationpb.New(keepaliveTimeout),
	}})
	if err != nil {
		return nil, err
	}
	discovery := clusterv3.Cluster_STATIC
	var endpoints []*endpointv3.LbEndpoint
	for _, server := range c.Servers {
		host, port, err := splitAddress(server)
		if err != nil {
			return nil, err
		}
		if _, err := netip.ParseAddr(host); err != nil {
			discovery = clusterv3.Cluster_STRICT_DNS // takes IP addresses as well
		}
		endpoints = append(endpoints, lbEndpoint(socketAddress(host, port)))
	}
	cluster := &clusterv3.Cluster{
		Name:                          ServerCluster,
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: discovery},
		ConnectTimeout:                durationpb.New(connectTimeout),
		LoadAssignment:                assignment(ServerCluster, endpoints),
		TypedExtensionProtocolOptions: options,
		TransportSocket: &corev3.TransportSocket{
			Name:       "envoy.transport_sockets.tls",
			ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: tls},
		},
	}
	if discovery == clusterv3.Cluster_STRICT_DNS {
		// Try all addresses that a name has, of both families.
		cluster.DnsLookupFamily = clusterv3.Cluster_ALL
	}
	return cluster, nil
}

// socketCluster is where certificates come from if not from files.
func socketCluster(c Config) (*clusterv3.Cluster, error) {
	options, err := http2(&corev3.Http2ProtocolOptions{})
	if err != nil {
		return nil, err
	}
	pipe := &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: c.SDSSocket}}}
	return &clusterv3.Cluster{
		Name:                          SDSCluster,
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:                durationpb.New(connectTimeout),
		LoadAssignment:                assignment(SDSCluster, []*endpointv3.LbEndpoint{lbEndpoint(pipe)}),
		TypedExtensionProtocolOptions: options,
	}, nil
}

// upstreamTLS believes nobody but the holder of the server's ID.
func upstreamTLS(c Config) *tlsv3.UpstreamTlsContext {
	pin := &tlsv3.SubjectAltNameMatcher{
		SanType: tlsv3.SubjectAltNameMatcher_URI,
		Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: c.ServerID.String()}},
	}
	return &tlsv3.UpstreamTlsContext{
		// The server resumes nothing, so there is nothing to remember.
		MaxSessionKeys: wrapperspb.UInt32(0),
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams: &tlsv3.TlsParameters{
				TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
				TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
			},
			AlpnProtocols: []string{"h2"},
			TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{
				{Name: SecretName, SdsConfig: secretSource(c, SecretFile)},
			},
			ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{
				CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
					DefaultValidationContext: &tlsv3.CertificateValidationContext{
						MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{pin},
					},
					ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{
						Name: serverBundleName(c), SdsConfig: secretSource(c, ServerSecretFile),
					},
				},
			},
		},
	}
}

// serverBundleName is how SPIRE's SDS names the bundle of a trust domain; the
// file uses the same name.
func serverBundleName(c Config) string { return c.ServerID.TrustDomain().IDString() }

func secretSource(c Config, file string) *corev3.ConfigSource {
	if c.SDSSocket == "" {
		return &corev3.ConfigSource{
			ResourceApiVersion: corev3.ApiVersion_V3,
			ConfigSourceSpecifier: &corev3.ConfigSource_PathConfigSource{PathConfigSource: &corev3.PathConfigSource{
				Path: file, WatchedDirectory: &corev3.WatchedDirectory{Path: SecretDir},
			}},
		}
	}
	return &corev3.ConfigSource{
		ResourceApiVersion: corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_ApiConfigSource{ApiConfigSource: &corev3.ApiConfigSource{
			ApiType:                   corev3.ApiConfigSource_GRPC,
			TransportApiVersion:       corev3.ApiVersion_V3,
			SetNodeOnFirstMessageOnly: true,
			GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: SDSCluster},
			}}},
		}},
	}
}

func http2(options *corev3.Http2ProtocolOptions) (map[string]*anypb.Any, error) {
	packed, err := anypb.New(&upstreamhttpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: options},
			},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("encode the HTTP/2 options: %w", err)
	}
	return map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": packed}, nil
}

func assignment(cluster string, endpoints []*endpointv3.LbEndpoint) *endpointv3.ClusterLoadAssignment {
	return &endpointv3.ClusterLoadAssignment{
		ClusterName: cluster,
		Endpoints:   []*endpointv3.LocalityLbEndpoints{{LbEndpoints: endpoints}},
	}
}

func lbEndpoint(address *corev3.Address) *endpointv3.LbEndpoint {
	return &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address}}}
}

func socketAddress(host string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}
