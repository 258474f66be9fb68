package snapshot

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"bailiwick.dev/bailiwick/tenancy"
)

// Endpoints makes the ClusterLoadAssignment of a service port, an empty one if
// there is nobody. Endpoints that are draining get no new requests and keep
// what they have.
func (b *Builder) Endpoints(s *tenancy.ServiceSpec, p *tenancy.PortSpec) (*Resource, error) {
	name := b.ClusterName(s.Key, p.Port)
	endpoints := slices.Clone(p.Endpoints)
	for i, e := range endpoints {
		addr := e.Address.Addr().Unmap()
		if !addr.IsValid() || addr.Zone() != "" || addr.IsUnspecified() || e.Address.Port() == 0 {
			return nil, fmt.Errorf("build endpoint %q: %q is not an address to connect to", name, e.Address)
		}
		endpoints[i].Address = netip.AddrPortFrom(addr, e.Address.Port())
	}
	slices.SortFunc(endpoints, func(x, y tenancy.EndpointSpec) int {
		return cmp.Or(x.Address.Compare(y.Address), cmp.Compare(x.Zone, y.Zone), boolCompare(x.Draining, y.Draining))
	})
	endpoints = slices.CompactFunc(endpoints, func(x, y tenancy.EndpointSpec) bool { return x.Address == y.Address })
	slices.SortStableFunc(endpoints, func(x, y tenancy.EndpointSpec) int { return cmp.Compare(x.Zone, y.Zone) })

	cla := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	var zone *endpointv3.LocalityLbEndpoints
	for i, e := range endpoints {
		if i == 0 || e.Zone != endpoints[i-1].Zone {
			zone = &endpointv3.LocalityLbEndpoints{Locality: &corev3.Locality{Zone: e.Zone}}
			cla.Endpoints = append(cla.Endpoints, zone)
		}
		lb := lbEndpoint(e.Address)
		if e.Draining {
			lb.HealthStatus = corev3.HealthStatus_DRAINING
		}
		switch {
		case s.Headless() && !p.Protocol.IsHTTP():
			lb.Metadata = endpointNamed(endpointAt(e.Address))
		case e.Host != "":
			lb.Metadata = endpointNamed(e.Host)
		}
		zone.LbEndpoints = append(zone.LbEndpoints, lb)
	}
	var pk packer
	return pk.resource(Endpoint, name, cla, nil, s.Origins)
}

func lbEndpoint(a netip.AddrPort) *endpointv3.LbEndpoint {
	return &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
		Endpoint: &endpointv3.Endpoint{Address: address(a.Addr(), a.Port())},
	}}
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}
