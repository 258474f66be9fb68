package snapshot

import (
	"fmt"
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"bailiwick.dev/bailiwick/tenancy"
)

// The two sockets that iptables leads to.
const (
	outboundPort = 15001
	inboundPort  = 15006
)

const (
	hcmFilter      = "envoy.filters.network.http_connection_manager"
	tcpProxyFilter = "envoy.filters.network.tcp_proxy"
	routerFilter   = "envoy.filters.http.router"
)

// VirtualOutbound makes the listener that iptables sends all outbound
// connections to. It hands them to the listener of their original address, and
// what has none to blackhole or, where the policy says so, to where it wanted
// to go. Connections to the port itself would come back for ever and end.
func (b *Builder) VirtualOutbound(out tenancy.OutboundPolicy) (*Resource, error) {
	rest, prefix := blackholeCluster, "out_blackhole"
	if out == tenancy.AllowAny {
		rest, prefix = passthroughCluster, "out_passthrough"
	}
	var pk packer
	const name = "virtual-outbound"
	return pk.resource(Listener, name, &listenerv3.Listener{
		Name:                name,
		Address:             address(netip.AddrFrom4([4]byte{127, 0, 0, 1}), outboundPort),
		AdditionalAddresses: []*listenerv3.AdditionalAddress{{Address: address(netip.IPv6Loopback(), outboundPort)}},
		// Where IPv6 is switched off there is no ::1 to bind.
		Freebind:         wrapperspb.Bool(true),
		UseOriginalDst:   wrapperspb.Bool(true),
		TrafficDirection: corev3.TrafficDirection_OUTBOUND,
		FilterChains: []*listenerv3.FilterChain{
			{Name: rest, Filters: []*listenerv3.Filter{tcpProxy(&pk, &tcpproxyv3.TcpProxy{StatPrefix: prefix}, rest)}},
			loopGuard(&pk, outboundPort),
		},
	}, nil, nil)
}

// loopGuard ends connections to the port of a capturing listener itself.
func loopGuard(pk *packer, port uint16) *listenerv3.FilterChain {
	return &listenerv3.FilterChain{
		Name:             "loop-guard",
		FilterChainMatch: &listenerv3.FilterChainMatch{DestinationPort: u32(uint32(port))},
		Filters:          []*listenerv3.Filter{tcpProxy(pk, &tcpproxyv3.TcpProxy{StatPrefix: "loop"}, blackholeCluster)},
	}
}

// HTTPListener makes the listener of all HTTP services of a port. Under
// transparent capture it has no socket: virtual-outbound hands over to it.
// There is no inspector, which would stall protocols that begin at the server.
// The one port that has none there is the inbound listener's own.
func (b *Builder) HTTPListener(port uint16, v Variant) (*Resource, error) {
	addr := HTTPBindAddress(v)
	name := ListenerName(addr, port)
	if !v.Explicit && port == inboundPort {
		// It would have the address of virtual-inbound, and whichever came second
		// be refused.
		return nil, fmt.Errorf("build listener %q: HTTP services on port %d cannot be reached under transparent capture: it is the inbound listener's", name, port)
	}
	var pk packer
	l, err := outboundListener(name, addr, port, v)
	if err != nil {
		return nil, err
	}
	if !v.Explicit {
		l.AdditionalAddresses = []*listenerv3.AdditionalAddress{{Address: address(netip.IPv6Unspecified(), port)}}
	}
	hcm := &hcmv3.HttpConnectionManager{
		StatPrefix: "outbound_" + portText(port),
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			ConfigSource: ads(), RouteConfigName: RouteName(port),
		}},
		// Widespread reverse proxies still speak it to their upstreams.
		HttpProtocolOptions: &corev3.Http1ProtocolOptions{AcceptHttp_10: true},
	}
	commonHTTP(&pk, hcm)
	l.FilterChains = []*listenerv3.FilterChain{{Name: RouteName(port), Filters: []*listenerv3.Filter{
		{Name: hcmFilter, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pk.any(hcm)}},
	}}}
	return pk.resource(Listener, name, l, []Child{{Route, RouteName(port)}}, nil)
}

// TCPListener makes the listener of one TCP service port: at a virtual IP
// under transparent capture, else at the address where the proxy binds.
func (b *Builder) TCPListener(addr netip.Addr, port uint16, cluster string, v Variant, origins []tenancy.Ref) (*Resource, error) {
	return b.tcpListener(addr, port, cluster, v, origins, nil)
}

func (b *Builder) tcpListener(addr netip.Addr, port uint16, cluster string, v Variant, origins []tenancy.Ref, only *corev3.Metadata) (*Resource, error) {
	name := ListenerName(addr, port)
	var pk packer
	l, err := outboundListener(name, addr, port, v)
	if err != nil {
		return nil, err
	}
	l.FilterChains = []*listenerv3.FilterChain{{Name: "tcp", Filters: []*listenerv3.Filter{
		tcpProxy(&pk, &tcpproxyv3.TcpProxy{
			StatPrefix: "outbound_tcp",
			// An attempt that failed sent nothing to the application.
			MaxConnectAttempts: u32(3),
			MetadataMatch:      only,
		}, cluster),
	}}}
	return pk.resource(Listener, name, l, nil, origins)
}

func outboundListener(name string, addr netip.Addr, port uint16, v Variant) (*listenerv3.Listener, error) {
	if !addr.IsValid() || addr.Zone() != "" || port == 0 {
		return nil, fmt.Errorf("build listener %q: not an address to bind", name)
	}
	l := &listenerv3.Listener{
		Name:             name,
		Address:          address(addr, port),
		TrafficDirection: corev3.TrafficDirection_OUTBOUND,
	}
	if !v.Explicit {
		l.BindToPort = wrapperspb.Bool(false)
	}
	return l, nil
}

// tcpProxy completes t with the cluster that it leads to.
func tcpProxy(pk *packer, t *tcpproxyv3.TcpProxy, cluster string) *listenerv3.Filter {
	t.ClusterSpecifier = &tcpproxyv3.TcpProxy_Cluster{Cluster: cluster}
	return &listenerv3.Filter{Name: tcpProxyFilter, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pk.any(t)}}
}

// commonHTTP sets what holds for HTTP in both directions. Filters come before
// the router.
func commonHTTP(pk *packer, hcm *hcmv3.HttpConnectionManager, filters ...*hcmv3.HttpFilter) {
	hcm.CodecType = hcmv3.HttpConnectionManager_AUTO
	hcm.HttpFilters = append(filters, &hcmv3.HttpFilter{
		Name:       routerFilter,
		ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pk.any(&routerv3.Router{})},
	})
	hcm.UpgradeConfigs = []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}}
	hcm.Http2ProtocolOptions = http2Protocol()
	// Watches and event streams may be silent for as long as they like; dead
	// peers are found by pings.
	hcm.StreamIdleTimeout = durationpb.New(0)
	// What the application sends is not ours to sign.
	hcm.ServerHeaderTransformation = hcmv3.HttpConnectionManager_PASS_THROUGH
	// orders.shop.svc.cluster.local. is orders.shop.svc.cluster.local.
	hcm.StripTrailingHostDot = true
}
