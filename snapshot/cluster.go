package snapshot

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"bailiwick.dev/bailiwick/tenancy"
)

// Clusters that belong to no service.
const (
	blackholeCluster   = "blackhole"
	passthroughCluster = "passthrough"
)

const (
	// connectTimeout covers the TCP and TLS handshake with another proxy.
	connectTimeout = 5 * time.Second
	// appConnectTimeout covers the dial of the application in the same Pod.
	appConnectTimeout = time.Second
	// keepaliveInterval and keepaliveTimeout find out about peers that went
	// without a word; requests have no timeout that would.
	keepaliveInterval = 30 * time.Second
	keepaliveTimeout  = 10 * time.Second
)

// httpOptionsKey is where a cluster keeps its HTTP options.
const httpOptionsKey = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// Cluster makes the EDS cluster of a service port: mTLS with the service's
// accounts pinned, HTTP/2 for HTTP. It does not read p.Endpoints, so that
// endpoints come and go without a new cluster.
func (b *Builder) Cluster(s *tenancy.ServiceSpec, p *tenancy.PortSpec) (*Resource, error) {
	name := b.ClusterName(s.Key, p.Port)
	if s.TrustDomain == "" && !s.Plain {
		return nil, fmt.Errorf("build cluster %q: service has no trust domain", name)
	}
	if p.Port == 0 {
		return nil, fmt.Errorf("build cluster %q: port is 0", name)
	}
	var pk packer
	c := &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads()},
		ConnectTimeout:       durationpb.New(connectTimeout),
		// Power of two choices keeps away from replicas that are slow, which
		// round robin does not, and costs no more.
		LbPolicy:        clusterv3.Cluster_LEAST_REQUEST,
		CircuitBreakers: circuitBreakers(),
		// The default of 10 % would eject nobody of two.
		OutlierDetection: &clusterv3.OutlierDetection{MaxEjectionPercent: u32(50)},
	}
	if s.Headless() {
		c.LbSubsetConfig = singleEndpoints()
	}
	children := []Child{{Endpoint, name}}
	if !s.Plain {
		c.TransportSocket = b.upstreamTLS(&pk, s, p)
		children = append(children, Child{Secret, bundleName(s.TrustDomain)})
	}
	switch {
	case !p.Protocol.IsHTTP():
		c.UpstreamConnectionOptions = &clusterv3.UpstreamConnectionOptions{TcpKeepalive: tcpKeepalive()}
	case !s.Plain || p.Protocol == tenancy.HTTP2: // other proxies speak HTTP/2 whatever their application does
		c.TypedExtensionProtocolOptions = http2Options(&pk)
	}
	return pk.resource(Cluster, name, c, children, serviceRef(s.Key))
}

// PlainCluster is Cluster without mTLS, for a service of a tenant that both sides
// call plain.
func (b *Builder) PlainCluster(s *tenancy.ServiceSpec, p *tenancy.PortSpec) (*Resource, error) {
	plain := *s
	plain.Plain = true
	return b.Cluster(&plain, p)
}

// StaticClusters makes the clusters that every view has: blackhole, which has
// no endpoints, and where the policy says so passthrough, which dials where
// the application wanted to go.
func (b *Builder) StaticClusters(out tenancy.OutboundPolicy) ([]*Resource, error) {
	var pk packer
	blackhole, err := pk.resource(Cluster, blackholeCluster, &clusterv3.Cluster{
		Name:                 blackholeCluster,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(appConnectTimeout),
		LoadAssignment:       &endpointv3.ClusterLoadAssignment{ClusterName: blackholeCluster},
	}, nil, nil)
	if err != nil || out != tenancy.AllowAny {
		return []*Resource{blackhole}, err
	}
	passthrough, err := pk.resource(Cluster, passthroughCluster, &clusterv3.Cluster{
		Name:                 passthroughCluster,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST},
		LbPolicy:             clusterv3.Cluster_CLUSTER_PROVIDED,
		ConnectTimeout:       durationpb.New(connectTimeout),
		CircuitBreakers:      circuitBreakers(),
	}, nil, nil)
	return []*Resource{blackhole, passthrough}, err
}

// Names of the clusters behind inbound chains under transparent capture.
const (
	inboundHTTP1 = "inbound-http1"
	inboundHTTP2 = "inbound-http2"
	inboundTCP   = "inbound-tcp"
)

// inboundCluster is the cluster that a port's chain leads to.
func inboundCluster(p tenancy.InboundPort, v Variant) string {
	switch {
	case v.Explicit:
		return inboundName(p.Port)
	case p.Protocol == tenancy.HTTP2:
		return inboundHTTP2
	case p.Protocol == tenancy.HTTP1:
		return inboundHTTP1
	default:
		return inboundTCP
	}
}

// originalDestination makes a cluster that dials the application at the
// address that the connection was for. The source addresses tell its
// connections from others, so that they are not captured again.
func originalDestination(name string, http2 bool) (*Resource, error) {
	var pk packer
	c := &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST},
		LbPolicy:             clusterv3.Cluster_CLUSTER_PROVIDED,
		ConnectTimeout:       durationpb.New(appConnectTimeout),
		CircuitBreakers:      circuitBreakers(),
		UpstreamBindConfig: &corev3.BindConfig{
			SourceAddress: socketAddress(netip.AddrFrom4([4]byte{127, 0, 0, 6}), 0),
			ExtraSourceAddresses: []*corev3.ExtraSourceAddress{
				{Address: socketAddress(netip.AddrFrom16([16]byte{15: 6}), 0)},
			},
		},
	}
	if http2 {
		c.TypedExtensionProtocolOptions = http2Options(&pk)
	}
	return pk.resource(Cluster, name, c, nil, nil)
}

// appCluster makes the cluster of one Pod port under explicit capture.
func appCluster(name string, p tenancy.InboundPort, v Variant, origins []tenancy.Ref) (*Resource, error) {
	if !v.App.IsValid() {
		return nil, fmt.Errorf("build cluster %q: no application address", name)
	}
	var pk packer
	c := &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(appConnectTimeout),
		CircuitBreakers:      circuitBreakers(),
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: name,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{
				LbEndpoints: []*endpointv3.LbEndpoint{lbEndpoint(netip.AddrPortFrom(v.App, p.Port))},
			}},
		},
	}
	if p.Protocol == tenancy.HTTP2 {
		c.TypedExtensionProtocolOptions = http2Options(&pk)
	}
	return pk.resource(Cluster, name, c, nil, origins)
}

// inboundClusters makes the clusters that the chains of these ports lead to.
func inboundClusters(ports []tenancy.InboundPort, v Variant, origins []tenancy.Ref) ([]*Resource, error) {
	var out []*Resource
	var errs []error
	var names []string
	for _, p := range ports {
		name := inboundCluster(p, v)
		if slices.Contains(names, name) {
			continue
		}
		names = append(names, name)
		r, err := inboundClusterNamed(name, p, v, origins)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, r)
	}
	return out, errors.Join(errs...)
}

func inboundClusterNamed(name string, p tenancy.InboundPort, v Variant, origins []tenancy.Ref) (*Resource, error) {
	if v.Explicit {
		return appCluster(name, p, v, origins)
	}
	return originalDestination(name, p.Protocol == tenancy.HTTP2)
}

// circuitBreakers are the same everywhere: wide enough never to be what limits
// a healthy service, and narrow enough that a runaway ends. On HTTP/2
// max_requests is the one that counts.
func circuitBreakers() *clusterv3.CircuitBreakers {
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections:     u32(16384),
		MaxPendingRequests: u32(65536),
		MaxRequests:        u32(65536),
		MaxRetries:         u32(1024),
	}}}
}

// http2Options speaks HTTP/2 whatever the request came in as, with WebSocket
// tunnelled, and notices when the other side is gone.
func http2Options(pk *packer) map[string]*anypb.Any {
	return map[string]*anypb.Any{httpOptionsKey: pk.any(proto.Message(&httpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
					Http2ProtocolOptions: http2Protocol(),
				},
			},
		},
	}))}
}

func http2Protocol() *corev3.Http2ProtocolOptions {
	return &corev3.Http2ProtocolOptions{
		AllowConnect: true,
		ConnectionKeepalive: &corev3.KeepaliveSettings{
			Interval: durationpb.New(keepaliveInterval),
			Timeout:  durationpb.New(keepaliveTimeout),
		},
	}
}

func tcpKeepalive() *corev3.TcpKeepalive {
	return &corev3.TcpKeepalive{
		KeepaliveTime:     u32(uint32(keepaliveInterval / time.Second)),
		KeepaliveInterval: u32(uint32(keepaliveTimeout / time.Second)),
		KeepaliveProbes:   u32(3),
	}
}
