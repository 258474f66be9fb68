package tenancy

import (
	"cmp"
	"net/netip"
	"reflect"
	"slices"
)

// Service returns what the shared resources of a service are made from, the
// same pointer as long as the content is equal; nil if the service is not
// there, nobody's or over its tenant's limit.
func (m *Model) Service(k Key) *ServiceSpec {
	sp := m.spaces[spaceKey{k.Source, k.Namespace}]
	if sp == nil || sp.services[k.Name] == nil {
		return nil
	}
	s := sp.services[k.Name]
	if !s.live() {
		s.spec = nil
		return nil
	}
	if s.spec == nil || s.stale {
		s.stale = false
		excess := s.excess
		spec := m.spec(s)
		if s.spec == nil || !reflect.DeepEqual(s.spec, spec) {
			s.spec = spec
		}
		if s.excess != excess {
			m.check(s.ref())
			m.noteOverfull(s)
		}
	}
	return s.spec
}

func (m *Model) spec(s *service) *ServiceSpec {
	spec := &ServiceSpec{Key: s.key(), Plain: true, Created: s.obj.Created, Origins: []Ref{s.ref()}}
	limit := m.limits.Endpoints
	if t := s.space.tenant; t != nil {
		spec.Plain, spec.Tenant, spec.TrustDomain, spec.TLSMinimum13 = false, t.name, t.now.TrustDomain, t.now.TLSMinimum13
		limit = m.limits.Override(t.now.Limits).Endpoints
	}
	spec.VIPs = slices.Clone(s.obj.ClusterIPs)
	slices.SortFunc(spec.VIPs, netip.Addr.Compare)
	spec.VIPs = slices.Compact(spec.VIPs)
	accounts := set[string]{}
	var parts []*slice
	for _, name := range sortedKeys(s.slices) {
		parts = append(parts, s.slices[name])
		spec.Origins = append(spec.Origins, s.space.ref(KindEndpointSlice, name))
		for _, p := range s.slices[name].pods {
			if p != nil {
				accounts[p.obj.ServiceAccount] = struct{}{}
			}
		}
	}
	spec.Accounts = sortedKeys(accounts)
	s.excess = 0
	for _, p := range s.obj.Ports {
		endpoints := endpointsOf(parts, p.Name, s.obj.PublishNotReady, spec.Plain)
		if len(endpoints) > limit {
			s.excess = max(s.excess, len(endpoints)-limit)
			endpoints = endpoints[:limit:limit]
		}
		port := PortSpec{Name: p.Name, Port: p.Port, Protocol: p.Protocol, Endpoints: endpoints}
		if spec.Headless() && p.Protocol.IsHTTP() {
			port.Hosts = endpointNames(parts, p.Name, spec.Plain)
			port.Hosts = port.Hosts[:min(limit, len(port.Hosts))]
		} else {
			for i := range endpoints {
				endpoints[i].Host = ""
			}
		}
		if !spec.Headless() { // whose endpoints are found by name and address, by all
			port.Nearby = nearby(s.obj, parts, p.Name, spec.Plain, endpoints)
		}
		spec.Ports = append(spec.Ports, port)
	}
	return spec
}

// endpointNames are the host names of the endpoints of a service port. They do not depend
// on who is ready, so that a restart changes endpoints and no routes.
func endpointNames(parts []*slice, port string, plain bool) []string {
	var hosts []string
	for _, sl := range parts {
		if !slices.ContainsFunc(sl.obj.Ports, func(p SlicePort) bool { return p.Name == port }) {
			continue
		}
		for i := range sl.obj.Endpoints {
			if host := sl.obj.Endpoints[i].Hostname; host != "" && (sl.pods[i] != nil || plain) {
				hosts = append(hosts, host)
			}
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// endpointsOf are the endpoints of the service port of that name, sorted and
// without duplicates. As long as one of them is ready, those that serve while
// they terminate are draining; when none is, they are all there is and take
// new connections, as kube-proxy has it. Endpoints of a plain service need no Pod.
func endpointsOf(parts []*slice, port string, notReady, plain bool) []EndpointSpec {
	var all []EndpointSpec
	eachEndpoint(parts, port, notReady, plain, func(at netip.AddrPort, e *Endpoint, ready bool) {
		all = append(all, EndpointSpec{Address: at, Draining: !ready, Zone: e.Zone, Host: e.Hostname})
	})
	slices.SortStableFunc(all, func(a, b EndpointSpec) int {
		return cmp.Or(a.Address.Compare(b.Address), compareBool(a.Draining, b.Draining))
	})
	all = slices.CompactFunc(all, func(a, b EndpointSpec) bool { return a.Address == b.Address })
	if !slices.ContainsFunc(all, func(e EndpointSpec) bool { return !e.Draining }) {
		for i := range all {
			all[i].Draining = false
		}
	}
	return all
}

// eachEndpoint calls f for the endpoints of a service port that may be used,
// ready or draining, with their doubles, in the order of the slices.
func eachEndpoint(parts []*slice, port string, notReady, plain bool, f func(at netip.AddrPort, e *Endpoint, ready bool)) {
	for _, sl := range parts {
		for _, sp := range sl.obj.Ports {
			if sp.Name != port {
				continue
			}
			for i := range sl.obj.Endpoints {
				e := &sl.obj.Endpoints[i]
				ready := e.Ready || notReady
				address, ok := e.address()
				if !ok || sl.pods[i] == nil && !plain || !ready && !(e.Serving && e.Terminating) {
					continue
				}
				f(netip.AddrPortFrom(address, sp.Port), e, ready)
			}
		}
	}
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}
