package snapshot

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"bailiwick.dev/bailiwick/tenancy"
)

// chains are those of one Pod port: for callers with a certificate, and where
// the tenant permits it for those without. The second is there whether or not
// it lets anybody in, so that what is refused is counted, and a change of that
// touches no chain.
func (in *inbound) chains(p tenancy.InboundPort) ([]*Part, error) {
	chain, err := in.chain(p)
	if err != nil || !p.Plaintext {
		return []*Part{chain}, err
	}
	plain, err := in.plainChain(p)
	return []*Part{chain, plain}, err
}

// plainChain is RBAC, then the application.
func (in *inbound) plainChain(p tenancy.InboundPort) (*Part, error) {
	var pk packer
	match := &listenerv3.FilterChainMatch{TransportProtocol: "raw_buffer"}
	if !in.v.Explicit {
		match.DestinationPort = u32(uint32(p.Port))
	}
	c := &listenerv3.FilterChain{Name: inboundName(p.Port) + "-plain", FilterChainMatch: match}
	c.Filters = in.filters(&pk, p, plainRBACName(p), "inbound_"+portText(p.Port)+"_plain")
	return pk.part(c.Name, fieldFilterChains, c, in.w.Origins)
}

// filters are what a chain of a port does, with one of its decisions.
func (in *inbound) filters(pk *packer, p tenancy.InboundPort, rbac, stats string) []*listenerv3.Filter {
	if p.Protocol.IsHTTP() {
		return []*listenerv3.Filter{in.http(pk, p, rbac, stats)}
	}
	return []*listenerv3.Filter{
		{Name: rbac, ConfigType: &listenerv3.Filter_ConfigDiscovery{ConfigDiscovery: rbacSource(pk, rbacTCP)}},
		in.tcp(pk, p, stats),
	}
}

// chain is one Pod port: mTLS, then RBAC, then the application.
func (in *inbound) chain(p tenancy.InboundPort) (*Part, error) {
	var pk packer
	match := &listenerv3.FilterChainMatch{TransportProtocol: "tls"}
	if !in.v.Explicit {
		match.DestinationPort = u32(uint32(p.Port))
	}
	c := &listenerv3.FilterChain{
		Name:                          inboundName(p.Port),
		FilterChainMatch:              match,
		TransportSocket:               in.b.downstreamTLS(&pk, p, in.w.TLSMinimum13),
		TransportSocketConnectTimeout: durationpb.New(handshakeTimeout),
	}
	c.Filters = in.filters(&pk, p, rbacName(p), "inbound_"+portText(p.Port))
	return pk.part(c.Name, fieldFilterChains, c, in.w.Origins)
}

// http judges each request, with a path as the application will read it, and
// tells the application who calls.
func (in *inbound) http(pk *packer, p tenancy.InboundPort, rbac, stats string) *listenerv3.Filter {
	hcm := &hcmv3.HttpConnectionManager{
		StatPrefix:                    stats,
		AccessLog:                     []*accesslogv3.AccessLog{accessLog(pk, httpRBACFilter, httpLog())},
		RouteSpecifier:                &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: in.route(p)},
		EarlyHeaderMutationExtensions: []*corev3.TypedExtensionConfig{in.b.identityHeader(pk)},
		ForwardClientCertDetails:      hcmv3.HttpConnectionManager_SANITIZE_SET,
		SetCurrentClientCertDetails:   &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{Uri: true},
		NormalizePath:                 wrapperspb.Bool(true),
		MergeSlashes:                  true,
		PathWithEscapedSlashesAction:  hcmv3.HttpConnectionManager_REJECT_REQUEST,
		RequestHeadersTimeout:         durationpb.New(headersTimeout),
		CommonHttpProtocolOptions:     &corev3.HttpProtocolOptions{},
	}
	if age := in.w.MaxStreamAge; age > 0 {
		hcm.CommonHttpProtocolOptions.MaxStreamDuration = durationpb.New(age)
	}
	if age := in.w.MaxConnectionAge; age > 0 {
		// Ends no stream, but makes callers show their certificate again.
		hcm.CommonHttpProtocolOptions.MaxConnectionDuration = durationpb.New(age * agePart / ageWhole)
		hcm.CommonHttpProtocolOptions.MaxConnectionDurationJitter = &typev3.Percent{Value: ageJitter}
	}
	var filters []*hcmv3.HttpFilter
	if in.tokens(p) {
		filters = append(filters, &hcmv3.HttpFilter{
			Name: jwtName(p), ConfigType: &hcmv3.HttpFilter_ConfigDiscovery{ConfigDiscovery: jwtSource(pk)},
		})
	}
	commonHTTP(pk, hcm, append(filters, &hcmv3.HttpFilter{
		Name:       rbac,
		ConfigType: &hcmv3.HttpFilter_ConfigDiscovery{ConfigDiscovery: rbacSource(pk, rbacHTTP)},
	})...)
	return &listenerv3.Filter{Name: hcmFilter, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pk.any(hcm)}}
}

func (in *inbound) route(p tenancy.InboundPort) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{
		Name: inboundName(p.Port),
		VirtualHosts: []*routev3.VirtualHost{{
			Name:    inboundName(p.Port),
			Domains: []string{"*"},
			Routes: []*routev3.Route{{
				Match:  anyRequest(),
				Action: &routev3.Route_Route{Route: forward(inboundCluster(p, in.v), nil)},
			}},
		}},
	}
}

// tcp never dials the application before the caller has proven who it is: else
// a silent stranger could make connections that come back as more of them.
func (in *inbound) tcp(pk *packer, p tenancy.InboundPort, stats string) *listenerv3.Filter {
	t := &tcpproxyv3.TcpProxy{
		StatPrefix:          stats,
		AccessLog:           []*accesslogv3.AccessLog{accessLog(pk, tcpRBACFilter, tcpLog())},
		UpstreamConnectMode: tcpproxyv3.UpstreamConnectMode_ON_DOWNSTREAM_TLS_HANDSHAKE,
		MaxEarlyDataBytes:   u32(maxEarlyData),
	}
	if p.Protocol == tenancy.ClientFirst {
		t.UpstreamConnectMode = tcpproxyv3.UpstreamConnectMode_ON_DOWNSTREAM_DATA
	}
	if age := in.w.MaxConnectionAge; age > 0 {
		t.MaxDownstreamConnectionDuration = durationpb.New(age * agePart / ageWhole)
		t.MaxDownstreamConnectionDurationJitterPercentage = &typev3.Percent{Value: ageJitter}
	}
	return tcpProxy(pk, t, inboundCluster(p, in.v))
}
