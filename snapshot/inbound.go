package snapshot

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"bailiwick.dev/bailiwick/tenancy"
)

const (
	// PeerHeader carries the caller's SPIFFE ID to the application.
	PeerHeader = "x-bailiwick-peer"
	// peerSpellings is every name that an application may take for PeerHeader.
	peerSpellings = `(?i)x[-_]bailiwick[-_]peer`
)

// proxyControls are the beginnings of headers that steer Envoy's router
// (retries, timeouts, names of statistics); a caller has no business with those
// of another workload.
func proxyControls() []string {
	return []string{
		"x-envoy-retry-", "x-envoy-max-retries", "x-envoy-retriable-", "x-envoy-upstream-", "x-envoy-hedge-",
		"x-envoy-force-trace", "x-envoy-decorator-operation", "x-envoy-internal", "x-envoy-ip-tags",
	}
}

const (
	// handshakeTimeout bounds how long a stranger may hold a connection.
	handshakeTimeout = 10 * time.Second
	// helloTimeout is how long a client may wait before its first TLS byte.
	helloTimeout = 5 * time.Second
	// headersTimeout is from the first byte of a request's headers to the last.
	headersTimeout = 15 * time.Second
	// maxEarlyData is what a client may send before the application is dialled.
	maxEarlyData = 65536
	// agePart and ageJitter spread the ends of connections over the last fifth
	// of the age that they are allowed: 4/5 of it and up to a quarter of that.
	agePart, ageWhole = 4, 5
	ageJitter         = 25
)

// inboundName names what belongs to one Pod port.
func inboundName(port uint16) string { return "inbound-" + portText(port) }

// Inbound makes all that a workload's inbound side consists of: listeners,
// clusters, an RBAC extension per port, Secrets with the bundles given (by
// trust domain). PodIPs are needed for explicit capture only. A decision that
// cannot be built is deny-all under its name, anything else is left out; each
// error says which.
func (b *Builder) Inbound(w *tenancy.WorkloadSpec, v Variant, podIPs []netip.Addr, bundles map[string][]byte) ([]*Resource, []error) {
	in := &inbound{b: b, w: w, v: v, podIPs: podIPs}
	in.bundles = in.usable(bundles)
	in.ports()
	for _, p := range in.served {
		in.keep(in.rbac(p))
		in.secret(p)
	}
	clusters, err := inboundClusters(in.served, v, w.Origins)
	in.out = append(in.out, clusters...)
	in.fail(err)
	probes := in.probeChains()
	if v.Explicit {
		in.explicit(probes)
	} else {
		in.keep(in.transparent(probes))
	}
	return in.out, in.errs
}

// inbound collects what one call of Builder.Inbound makes.
type inbound struct {
	b       *Builder
	w       *tenancy.WorkloadSpec
	v       Variant
	podIPs  []netip.Addr
	bundles map[string][]byte
	served  []tenancy.InboundPort
	out     []*Resource
	errs    []error
	secrets map[string]bool // tried already
}

func (in *inbound) fail(err error) {
	if err == nil {
		return
	}
	origins := make([]string, len(in.w.Origins))
	for i, o := range in.w.Origins {
		origins[i] = OriginString(o)
	}
	in.errs = append(in.errs, fmt.Errorf("inbound of %s, made from [%s]: %w", in.w.Workload, strings.Join(origins, ", "), err))
}

func (in *inbound) keep(r *Resource, err error) {
	in.fail(err)
	if r != nil {
		in.out = append(in.out, r)
	}
}

// usable are the bundles of the domains that may call, as far as they parse.
func (in *inbound) usable(bundles map[string][]byte) map[string][]byte {
	wanted := make(map[string][]byte, len(in.w.TrustDomains))
	for _, td := range in.w.TrustDomains {
		if bundle, ok := bundles[td]; ok {
			wanted[td] = bundle
		}
	}
	usable, err := usableBundles(wanted)
	in.fail(err)
	return usable
}

// ports are those that can be served, in the order of their number.
func (in *inbound) ports() {
	taken := map[uint16]bool{0: true}
	if !in.v.Explicit {
		taken[outboundPort], taken[inboundPort] = true, true
	}
	for _, p := range in.w.Ports {
		if taken[p.Port] {
			in.fail(fmt.Errorf("port %d is reserved or there twice", p.Port))
			continue
		}
		taken[p.Port] = true
		// How a port is judged follows from how it is carried.
		p.Policy.HTTP = p.Protocol.IsHTTP()
		in.served = append(in.served, p)
	}
	slices.SortFunc(in.served, func(x, y tenancy.InboundPort) int { return int(x.Port) - int(y.Port) })
}

// rbac compiles who may call a port; if that fails, nobody may.
func (in *inbound) rbac(p tenancy.InboundPort) (*Resource, error) {
	r, err := RBAC(p, in.w.Origins)
	if err != nil {
		return Absent(Extension, rbacName(p)), fmt.Errorf("port %d denies everybody: %w", p.Port, err)
	}
	return r, nil
}

func (in *inbound) secret(p tenancy.InboundPort) {
	name := inboundSecretName(p)
	if in.secrets[name] {
		return
	}
	if in.secrets == nil {
		in.secrets = map[string]bool{}
	}
	in.secrets[name] = true
	in.keep(inboundSecret(p, in.w.Workload.TrustDomain, in.bundles, in.w.Origins))
}

// transparent makes the one listener that iptables leads to. A change of its
// own fields would cut all connections, so whatever varies is a chain.
func (in *inbound) transparent(probes map[uint16]*Part) (*Resource, error) {
	const name = "virtual-inbound"
	var pk packer
	head := in.listener(&pk, name, netip.IPv4Unspecified(), inboundPort)
	head.AdditionalAddresses = []*listenerv3.AdditionalAddress{{Address: address(netip.IPv6Unspecified(), inboundPort)}}
	head.ListenerFilters = slices.Insert(head.ListenerFilters, 0, listenerFilter(&pk, "envoy.filters.listener.original_dst", &originaldstv3.OriginalDst{}))
	// Never use_original_dst: it would hand plaintext to outbound listeners.
	head.DefaultFilterChain = &listenerv3.FilterChain{Name: blackholeCluster, Filters: []*listenerv3.Filter{
		tcpProxy(&pk, &tcpproxyv3.TcpProxy{StatPrefix: "in_blackhole"}, blackholeCluster),
	}}
	guard, err := pk.part("loop-guard", fieldFilterChains, loopGuard(&pk, inboundPort), nil)
	if err != nil {
		return nil, fmt.Errorf("build listener %q: %w", name, err)
	}
	parts := []*Part{guard}
	for _, port := range slices.Sorted(maps.Keys(probes)) {
		parts = append(parts, probes[port])
	}
	return in.assemble(name, head, parts, in.served)
}

// explicit makes a listener per port at the Pod's addresses.
func (in *inbound) explicit(probes map[uint16]*Part) {
	if len(in.served) == 0 {
		return
	}
	if len(in.podIPs) == 0 {
		in.fail(errors.New("no inbound listeners: the Pod has no address"))
		return
	}
	if slices.Contains(in.podIPs, in.v.App) {
		in.fail(fmt.Errorf("no inbound listeners: the application's address %s is the Pod's, where the proxy listens", in.v.App))
		return
	}
	for _, p := range in.served {
		var pk packer
		name := "inbound_" + portText(p.Port)
		head := in.listener(&pk, name, in.podIPs[0], p.Port)
		for _, ip := range in.podIPs[1:] {
			head.AdditionalAddresses = append(head.AdditionalAddresses, &listenerv3.AdditionalAddress{Address: address(ip, p.Port)})
		}
		if pk.err != nil {
			in.fail(pk.err)
			continue
		}
		var parts []*Part
		if probe := probes[p.Port]; probe != nil {
			parts = append(parts, probe)
		}
		in.keep(in.assemble(name, head, parts, []tenancy.InboundPort{p}))
	}
}

const fieldFilterChains = 3 // Listener.filter_chains

// assemble puts an inbound listener together from head and the chains of ports.
func (in *inbound) assemble(name string, head *listenerv3.Listener, parts []*Part, ports []tenancy.InboundPort) (*Resource, error) {
	var secrets, extensions []Child
	for _, p := range ports {
		chain, err := in.chain(p)
		if err != nil {
			in.fail(fmt.Errorf("port %d is closed: %w", p.Port, err))
			continue
		}
		parts = append(parts, chain)
		if c := (Child{Secret, inboundSecretName(p)}); !slices.Contains(secrets, c) {
			secrets = append(secrets, c)
		}
		extensions = append(extensions, Child{Extension, rbacName(p)})
	}
	r, err := Assemble(Listener, name, head, parts, nil, append(secrets, extensions...), in.w.Origins)
	if err != nil {
		return nil, err
	}
	if err := Check(r); err != nil {
		return nil, fmt.Errorf("build listener %q: %w", name, err)
	}
	return r, nil
}

func (in *inbound) listener(pk *packer, name string, addr netip.Addr, port uint16) *listenerv3.Listener {
	return &listenerv3.Listener{
		Name:             name,
		Address:          address(addr, port),
		TrafficDirection: corev3.TrafficDirection_INBOUND,
		// From the start, so that chains without TLS can come and go.
		ListenerFilters: []*listenerv3.ListenerFilter{
			listenerFilter(pk, "envoy.filters.listener.tls_inspector", &tlsinspectorv3.TlsInspector{}),
		},
		ListenerFiltersTimeout: durationpb.New(helloTimeout),
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
	if p.Protocol.IsHTTP() {
		c.Filters = []*listenerv3.Filter{in.http(&pk, p)}
	} else {
		c.Filters = []*listenerv3.Filter{
			{Name: rbacName(p), ConfigType: &listenerv3.Filter_ConfigDiscovery{ConfigDiscovery: rbacSource(&pk, rbacTCP)}},
			in.tcp(&pk, p),
		}
	}
	return pk.part(c.Name, fieldFilterChains, c, in.w.Origins)
}

// http judges each request, with a path as the application will read it, and
// tells the application who calls.
func (in *inbound) http(pk *packer, p tenancy.InboundPort) *listenerv3.Filter {
	hcm := &hcmv3.HttpConnectionManager{
		StatPrefix:                    "inbound_" + portText(p.Port),
		RouteSpecifier:                &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: in.route(p)},
		EarlyHeaderMutationExtensions: []*corev3.TypedExtensionConfig{peerHeader(pk)},
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
	commonHTTP(pk, hcm, &hcmv3.HttpFilter{
		Name:       rbacName(p),
		ConfigType: &hcmv3.HttpFilter_ConfigDiscovery{ConfigDiscovery: rbacSource(pk, rbacHTTP)},
	})
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
func (in *inbound) tcp(pk *packer, p tenancy.InboundPort) *listenerv3.Filter {
	t := &tcpproxyv3.TcpProxy{
		StatPrefix:          "inbound_" + portText(p.Port),
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

// peerHeader removes what a caller claims to be before it says who it is: with
// a mere overwrite a claim would survive where there is no URI SAN.
func peerHeader(pk *packer) *corev3.TypedExtensionConfig {
	remove := func(m *matcherv3.StringMatcher) *mutationv3.HeaderMutation {
		return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_RemoveOnMatch_{
			RemoveOnMatch: &mutationv3.HeaderMutation_RemoveOnMatch{KeyMatcher: m},
		}}
	}
	mutations := []*mutationv3.HeaderMutation{remove(&matcherv3.StringMatcher{
		MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: peerSpellings}},
	})}
	for _, prefix := range proxyControls() {
		mutations = append(mutations, remove(&matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix}, IgnoreCase: true,
		}))
	}
	mutations = append(mutations, &mutationv3.HeaderMutation{
		Action: &mutationv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: PeerHeader, Value: "%DOWNSTREAM_PEER_URI_SAN%"},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}},
	})
	return pk.extension("envoy.http.early_header_mutation.header_mutation", &headermutationv3.HeaderMutation{Mutations: mutations})
}

func listenerFilter(pk *packer, name string, config proto.Message) *listenerv3.ListenerFilter {
	return &listenerv3.ListenerFilter{Name: name, ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: pk.any(config)}}
}
