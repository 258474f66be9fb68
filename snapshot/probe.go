package snapshot

import (
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"bailiwick.dev/bailiwick/tenancy"
)

// healthCheck is the method that a gRPC probe calls.
const healthCheck = "/grpc.health.v1.Health/Check"

// probeChains are the chains of the ports that the kubelet asks, and makes the
// clusters behind them. Without a node nobody may ask; under explicit capture
// only the ports that services lead to are the proxy's.
func (in *inbound) probeChains() map[uint16]*Part {
	if len(in.w.ProbeSources) == 0 {
		return nil
	}
	ports := map[uint16][]tenancy.Probe{}
	for _, p := range in.w.Probes {
		if in.mayProbe(p.Port) {
			ports[p.Port] = append(ports[p.Port], p)
		}
	}
	made := map[string]bool{}
	for _, p := range in.served {
		made[inboundCluster(p, in.v)] = true
	}
	chains := make(map[uint16]*Part, len(ports))
	for _, port := range slices.Sorted(maps.Keys(ports)) {
		chain, err := in.probeChain(port, ports[port])
		if err != nil {
			in.fail(fmt.Errorf("port %d refuses probes: %w", port, err))
			continue
		}
		in.probeClusters(ports[port], made)
		chains[port] = chain
	}
	return chains
}

func (in *inbound) mayProbe(port uint16) bool {
	if !in.v.Explicit {
		return port != outboundPort && port != inboundPort
	}
	return slices.ContainsFunc(in.served, func(p tenancy.InboundPort) bool { return p.Port == port })
}

// probePort stands for what answers a probe: the same port, as the kubelet
// speaks.
func probePort(p tenancy.Probe) tenancy.InboundPort {
	if p.GRPC {
		return tenancy.InboundPort{Port: p.Port, Protocol: tenancy.HTTP2}
	}
	return tenancy.InboundPort{Port: p.Port, Protocol: tenancy.HTTP1}
}

// probeChain lets the kubelet ask without TLS, from the Pod's node and nothing
// but what the Pod says it asks. Everything else that comes this way is told
// that it is not there.
func (in *inbound) probeChain(port uint16, probes []tenancy.Probe) (*Part, error) {
	var pk packer
	match := &listenerv3.FilterChainMatch{TransportProtocol: "raw_buffer"}
	if !in.v.Explicit {
		match.DestinationPort = u32(uint32(port))
	}
	for _, ip := range in.w.ProbeSources {
		match.SourcePrefixRanges = append(match.SourcePrefixRanges, cidr(netip.PrefixFrom(ip, ip.BitLen())))
	}
	for _, p := range in.b.kubelet {
		match.SourcePrefixRanges = append(match.SourcePrefixRanges, cidr(p))
	}
	name := "probe-" + portText(port)
	vh := &routev3.VirtualHost{Name: name, Domains: []string{"*"}}
	for _, p := range probes {
		vh.Routes = append(vh.Routes, &routev3.Route{
			Match:  probeMatch(p),
			Action: &routev3.Route_Route{Route: forward(in.probeCluster(p), nil)},
		})
	}
	hcm := &hcmv3.HttpConnectionManager{
		StatPrefix:                    "inbound_probe_" + portText(port),
		RouteSpecifier:                &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{vh}}},
		EarlyHeaderMutationExtensions: []*corev3.TypedExtensionConfig{in.b.identityHeader(&pk)},
		// What is compared is what the application will read.
		NormalizePath:            wrapperspb.Bool(false),
		ForwardClientCertDetails: hcmv3.HttpConnectionManager_SANITIZE,
		RequestHeadersTimeout:    durationpb.New(headersTimeout),
	}
	commonHTTP(&pk, hcm)
	hcm.UpgradeConfigs = nil
	c := &listenerv3.FilterChain{Name: name, FilterChainMatch: match, Filters: []*listenerv3.Filter{
		{Name: hcmFilter, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pk.any(hcm)}},
	}}
	return pk.part(name, fieldFilterChains, c, in.w.Origins)
}

func probeMatch(p tenancy.Probe) *routev3.RouteMatch {
	method, target := http.MethodGet, p.Path
	if p.GRPC {
		method, target = http.MethodPost, healthCheck
	}
	m := anyRequest()
	if p.GRPC {
		m.Grpc = &routev3.RouteMatch_GrpcRouteMatchOptions{}
	}
	for _, header := range [][2]string{{":method", method}, {":path", target}} {
		m.Headers = append(m.Headers, &routev3.HeaderMatcher{
			Name: header[0],
			HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
				MatchPattern: &matcherv3.StringMatcher_Exact{Exact: header[1]},
			}},
		})
	}
	return m
}

// probeCluster is the cluster that a probe's requests go to. Under explicit
// capture a port's cluster speaks one protocol, which may not be the probe's.
func (in *inbound) probeCluster(p tenancy.Probe) string {
	name := inboundCluster(probePort(p), in.v)
	if !in.v.Explicit {
		return name
	}
	if p.GRPC {
		return name + "-grpc-probe"
	}
	return name + "-http-probe"
}

// probeClusters makes them, but for those that are there already.
func (in *inbound) probeClusters(probes []tenancy.Probe, made map[string]bool) {
	for _, p := range probes {
		name := in.probeCluster(p)
		if made[name] {
			continue
		}
		made[name] = true
		in.keep(inboundClusterNamed(name, probePort(p), in.v, in.w.Origins))
	}
}

func cidr(p netip.Prefix) *corev3.CidrRange {
	return &corev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: u32(uint32(p.Bits()))}
}
