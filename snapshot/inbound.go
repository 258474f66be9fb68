package snapshot

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"bailiwick.dev/bailiwick/tenancy"
)

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
		in.decisions(p)
		in.secret(p)
	}
	clusters, err := inboundClusters(in.served, v, w.Origins)
	in.out = append(in.out, clusters...)
	in.fail(err)
	in.keySources()
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

// decisions compiles who may call a port; if that fails, nobody may.
func (in *inbound) decisions(p tenancy.InboundPort) {
	made := []func(tenancy.InboundPort, []tenancy.Ref) (*Resource, error){RBAC}
	names := []string{rbacName(p)}
	if p.Plaintext {
		made, names = append(made, PlainRBAC), append(names, plainRBACName(p))
	}
	if in.tokens(p) {
		r, err := JWT(p, in.v, in.w.Origins)
		if err != nil { // what cannot be verified cannot be judged
			in.keep(Absent(Extension, jwtName(p)), fmt.Errorf("port %d denies everybody: %w", p.Port, err))
			for _, name := range names {
				in.keep(Absent(Extension, name), nil)
			}
			return
		}
		in.keep(r, nil)
	}
	for i, build := range made {
		r, err := build(p, in.w.Origins)
		if err != nil {
			r, err = Absent(Extension, names[i]), fmt.Errorf("port %d denies everybody: %w", p.Port, err)
		}
		in.keep(r, err)
	}
}

// tokens reports whether the chains of a port verify tokens.
func (in *inbound) tokens(p tenancy.InboundPort) bool { return in.w.Tokens && p.Protocol.IsHTTP() }

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
		chains, err := in.chains(p)
		if err != nil {
			in.fail(fmt.Errorf("port %d is closed: %w", p.Port, err))
			continue
		}
		parts = append(parts, chains...)
		if c := (Child{Secret, inboundSecretName(p)}); !slices.Contains(secrets, c) {
			secrets = append(secrets, c)
		}
		if in.tokens(p) {
			extensions = append(extensions, Child{Extension, jwtName(p)})
		}
		extensions = append(extensions, Child{Extension, rbacName(p)})
		if p.Plaintext {
			extensions = append(extensions, Child{Extension, plainRBACName(p)})
		}
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

func listenerFilter(pk *packer, name string, config proto.Message) *listenerv3.ListenerFilter {
	return &listenerv3.ListenerFilter{Name: name, ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: pk.any(config)}}
}
