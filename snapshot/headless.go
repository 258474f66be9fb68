package snapshot

import (
	"fmt"
	"net/netip"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"bailiwick.dev/bailiwick/tenancy"
)

// Where Envoy's load balancer looks for the names of single endpoints.
const (
	lbMetadata   = "envoy.lb"
	endpointName = "endpoint"
)

// EndpointHost makes the virtual host of one endpoint of a headless service, as
// DNS knows it: below the service's names, and as short as those may be. It
// leads to the service's cluster and there to that endpoint alone, so that an
// endpoint that comes back at another address changes endpoints only.
func (b *Builder) EndpointHost(s *tenancy.ServiceSpec, p *tenancy.PortSpec, g tenancy.Grade, endpoint string) (*HostPart, error) {
	name := endpoint + "." + b.ClusterName(s.Key, p.Port)
	if endpoint == "" {
		return nil, fmt.Errorf("build virtual host %q: no endpoint", name)
	}
	domains := b.domains(s.Key, g)
	for i, d := range domains {
		domains[i] = endpoint + "." + d
	}
	return b.virtualHost(s, p, name, domains, endpoint)
}

// endpointAt is how the endpoints of a headless TCP port are called: clients know
// their addresses, and no names arrive.
func endpointAt(addr netip.AddrPort) string { return addr.String() }

// EndpointListener makes the listener of one endpoint of a headless TCP service,
// which is dialled at its own address and port, for transparent capture.
func (b *Builder) EndpointListener(at netip.AddrPort, cluster string, v Variant, origins []tenancy.Ref) (*Resource, error) {
	return b.tcpListener(at.Addr(), at.Port(), cluster, v, origins, endpointNamed(endpointAt(at)))
}

// singles are the addresses of a port's endpoints where clients dial each of
// them: those of TCP ports of headless services.
func (s *seen) singles(b *builtPort) []tenancy.EndpointSpec {
	if !s.built.spec.Headless() || b.spec.Protocol.IsHTTP() {
		return nil
	}
	return b.spec.Endpoints
}

// portOf is the port that claims a socket, and whether for one endpoint alone.
func (s *seen) portOf(sock socket) (b *builtPort, single bool) {
	if !s.built.spec.Headless() || !sock.addr.IsValid() {
		return s.built.ports[sock.port], false
	}
	for _, b := range s.ports {
		// They are sorted by address.
		if _, ok := slices.BinarySearchFunc(s.singles(b), netip.AddrPortFrom(sock.addr, sock.port), func(e tenancy.EndpointSpec, at netip.AddrPort) int {
			return e.Address.Compare(at)
		}); ok {
			return b, true
		}
	}
	return nil, false
}

// sameSingles reports whether both are dialled at the same addresses.
func sameSingles(a, b *seen, p, q *builtPort) bool {
	return slices.EqualFunc(a.singles(p), b.singles(q), func(x, y tenancy.EndpointSpec) bool { return x.Address == y.Address })
}

// endpointNamed is how endpoints say their name, and routes whom they mean.
func endpointNamed(name string) *corev3.Metadata {
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
		lbMetadata: {Fields: map[string]*structpb.Value{endpointName: structpb.NewStringValue(name)}},
	}}
}

// singleEndpoints lets routes mean one endpoint. One that is not there has no
// substitute; routes that mean none go to any. All clusters of headless services
// have it, for a cluster that changes loses its connections.
func singleEndpoints() *clusterv3.Cluster_LbSubsetConfig {
	return &clusterv3.Cluster_LbSubsetConfig{
		FallbackPolicy: clusterv3.Cluster_LbSubsetConfig_ANY_ENDPOINT,
		SubsetSelectors: []*clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector{{
			Keys:           []string{endpointName},
			FallbackPolicy: clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector_NO_FALLBACK,
		}},
	}
}

// hostsLeft are the virtual hosts of a port without those of endpoints whose
// names are gone.
func hostsLeft(hosts map[hostVariant]*HostPart, port *tenancy.PortSpec) map[hostVariant]*HostPart {
	known := map[string]bool{"": true}
	for _, name := range port.Hosts {
		known[name] = true
	}
	left := make(map[hostVariant]*HostPart, len(hosts))
	for v, h := range hosts {
		if known[v.endpoint] {
			left[v] = h
		}
	}
	return left
}
