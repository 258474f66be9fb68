package snapshot

import (
	"slices"

	"bailiwick.dev/bailiwick/tenancy"
)

// builtService holds the resources that everybody who sees a service shares.
// They are made once per content: what an endpoint change leaves alone is the
// same pointer afterwards.
type builtService struct {
	spec  *tenancy.ServiceSpec
	ports map[uint16]*builtPort
	// faulty is set when a port's builder panicked: it is built again.
	faulty bool
}

type builtPort struct {
	spec    *tenancy.PortSpec
	cluster *Resource
	claims  *Resource // the ClusterLoadAssignment
	hosts   map[hostVariant]*HostPart
	// open is the cluster without mTLS, for those views that have agreed on it; nil
	// until one asks.
	open *Resource
	// near are the assignments for those who use some endpoints alone, as far as
	// anybody asked, by what decides it; nil where there are none.
	near map[tenancy.Place]*Resource
}

// hostVariant is what a virtual host depends on besides its service.
type hostVariant struct {
	grade tenancy.Grade
	vips  bool
	// endpoint is the name of the one endpoint that it is for, "" for all.
	endpoint string
}

// service returns the shared resources of s, building what differs from the
// last time. A port that cannot be built keeps its last good resources.
func (p *Publisher) service(s *tenancy.ServiceSpec) *builtService {
	old := p.services[s.Key]
	if old != nil && old.spec == s && !old.faulty {
		return old
	}
	b := p.makeService(s, old)
	p.services[s.Key] = b
	return b
}

// makeService is service without what is remembered: it may be called by any
// goroutine, for one service at a time.
func (p *Publisher) makeService(s *tenancy.ServiceSpec, old *builtService) *builtService {
	b := &builtService{spec: s, ports: make(map[uint16]*builtPort, len(s.Ports))}
	for i := range s.Ports {
		port := &s.Ports[i]
		var last *builtPort
		if old != nil {
			last = old.ports[port.Port]
		}
		built := last
		if !p.contain("service port", func() { built = p.buildPort(s, port, old, last) }, "namespace", s.Key.Namespace, "service", s.Key.Name, "port", port.Port) {
			b.faulty = true
		}
		if built != nil {
			b.ports[port.Port] = built
		}
	}
	return b
}

func (p *Publisher) buildPort(s *tenancy.ServiceSpec, port *tenancy.PortSpec, old *builtService, last *builtPort) *builtPort {
	built := &builtPort{spec: port, hosts: map[hostVariant]*HostPart{}, near: nearLeft(last, port)}
	var err error
	switch {
	case last != nil && sameCluster(old.spec, s) && last.spec.Protocol == port.Protocol:
		built.cluster, built.hosts, built.open = last.cluster, last.hosts, last.open
		if !slices.Equal(last.spec.Hosts, port.Hosts) {
			built.hosts = hostsLeft(last.hosts, port)
		}
	default:
		p.stats.built(Cluster)
		if built.cluster, err = p.builder.Cluster(s, port); err != nil {
			p.log.Error("service port left as it was", "service", s.Key, "port", port.Port, "err", err)
			return last
		}
	}
	if last != nil && slices.Equal(last.spec.Endpoints, port.Endpoints) {
		built.claims = last.claims
		return built
	}
	p.stats.built(Endpoint)
	if built.claims, err = p.builder.Endpoints(s, port); err != nil {
		p.log.Error("endpoints left as they were", "service", s.Key, "port", port.Port, "err", err)
		if last == nil {
			return nil
		}
		built.claims = last.claims
	}
	return built
}

// openly is a port as it is called without mTLS. If that cannot be built it is
// called with mTLS.
func (p *Publisher) openly(s *tenancy.ServiceSpec, b *builtPort) *builtPort {
	if b.open == nil {
		p.stats.built(Cluster)
		r, err := contained(p, "plain cluster", func() (*Resource, error) { return p.builder.PlainCluster(s, b.spec) })
		if err != nil {
			p.log.Error("service port is called with mTLS", "service", s.Key, "port", b.spec.Port, "err", err)
			return b
		}
		b.open = r
	}
	return &builtPort{spec: b.spec, cluster: b.open, claims: b.claims, hosts: b.hosts, near: b.near, open: b.open}
}

// sameCluster reports whether clusters and hosts of both specs are equal:
// everything but the endpoints is.
func sameCluster(a, b *tenancy.ServiceSpec) bool {
	return a.Plain == b.Plain && a.Tenant == b.Tenant && a.TrustDomain == b.TrustDomain && a.TLSMinimum13 == b.TLSMinimum13 &&
		slices.Equal(a.Accounts, b.Accounts) && slices.Equal(a.VIPs, b.VIPs)
}

// host returns the virtual host of a port for one way of seeing it.
func (p *Publisher) host(s *tenancy.ServiceSpec, b *builtPort, v hostVariant) *HostPart {
	if h := b.hosts[v]; h != nil {
		return h
	}
	p.stats.built(Route)
	h, err := contained(p, "virtual host", func() (*HostPart, error) {
		if v.endpoint != "" {
			return p.builder.EndpointHost(s, b.spec, v.grade, v.endpoint)
		}
		return p.builder.VirtualHost(s, b.spec, v.grade, v.vips)
	})
	if err != nil {
		p.log.Error("virtual host left out", "service", s.Key, "port", b.spec.Port, "err", err)
		return nil
	}
	b.hosts[v] = h
	return h
}
