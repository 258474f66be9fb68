package e2e

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/reference"
)

// names are all names in what an Envoy holds.
type names struct {
	Clusters, Warming, Listeners, Secrets, Extensions []string
	// Endpoints are addresses by cluster, Routes domains by RouteConfiguration.
	Endpoints, Routes map[string][]string
}

// namesIn are those of a configuration dump.
func namesIn(d *mesh.Dump) names {
	return names{
		Clusters: d.Clusters, Warming: d.Warming, Listeners: d.Listeners, Secrets: d.Secrets, Extensions: d.Extensions,
		Endpoints: d.Endpoints, Routes: d.Routes,
	}
}

// expected are the names that the proxy of a Pod under explicit capture has to
// hold: for each visible service port a cluster with its endpoints, on HTTP
// ports a virtual host whose names depend on how near the service is, one
// listener per port number; and for each of the Pod's own ports a listener, a
// cluster and a policy.
func expected(w reference.World, p *pod) names {
	key := podKey(p.name)
	tenant, _ := w.Tenant(key.Namespace)
	n := names{Endpoints: map[string][]string{}, Routes: map[string][]string{}}
	n.Secrets = []string{"default", "spiffe://" + serverDomain}
	for _, seen := range w.VisibleNames(tenant, key.Namespace) {
		service := tenancy.Key{Namespace: seen.Namespace, Name: seen.Service}
		fqdn := seen.Service + "." + seen.Namespace + ".svc.cluster.local"
		cluster := fmt.Sprintf("%s:%d", fqdn, seen.Port)
		n.Clusters = append(n.Clusters, cluster)
		n.Endpoints[cluster] = endpoints(w, service, seen.Port)
		n.Listeners = append(n.Listeners, fmt.Sprintf("%s_%d", p.at.Bind, seen.Port))
		_, owner := w.Tenant(seen.Namespace)
		n.Secrets = append(n.Secrets, "bundle/"+owner.TrustDomain)
		object := serviceIn(w, service)
		if i := portIndex(object, seen.Port); !object.Ports[i].Protocol.IsHTTP() {
			continue
		}
		domains := []string{fqdn}
		if seen.Grade <= tenancy.OwnTenant {
			domains = append(domains, seen.Service+"."+seen.Namespace, seen.Service+"."+seen.Namespace+".svc")
		}
		if seen.Grade == tenancy.OwnNamespace {
			domains = append(domains, seen.Service)
		}
		for _, ip := range object.ClusterIPs {
			domains = append(domains, ip.String())
		}
		route := fmt.Sprintf("http-%d", seen.Port)
		n.Routes[route] = append(n.Routes[route], domains...)
	}
	if tenant != "" {
		n.Clusters = append(n.Clusters, "blackhole")
		n.Endpoints["blackhole"] = []string{}
	}
	n.addInbound(inboundPorts(w, key), p)
	n.tidy()
	return n
}

func (n *names) addInbound(ports map[uint16]tenancy.Protocol, p *pod) {
	for port, protocol := range ports {
		cluster, secret, kind := fmt.Sprintf("inbound-%d", port), "inbound", "http"
		if !protocol.IsHTTP() {
			kind = "tcp"
		}
		if protocol == tenancy.ServerFirst {
			secret = cluster
		}
		n.Clusters = append(n.Clusters, cluster)
		n.Endpoints[cluster] = []string{netip.AddrPortFrom(p.at.App, port).String()}
		n.Listeners = append(n.Listeners, fmt.Sprintf("inbound_%d", port))
		n.Secrets = append(n.Secrets, secret)
		n.Extensions = append(n.Extensions, fmt.Sprintf("rbac-%s-%d", kind, port))
	}
}

// tidy sorts, and removes what several services share.
func (n *names) tidy() {
	for _, list := range []*[]string{&n.Clusters, &n.Listeners, &n.Secrets, &n.Extensions} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	for route, domains := range n.Routes {
		domains = append(domains, "*")
		slices.Sort(domains)
		n.Routes[route] = domains
	}
}

// endpoints are the addresses of the living Pods behind a service port.
func endpoints(w reference.World, service tenancy.Key, port uint16) []string {
	found := []string{}
	eachBackend(w, service, port, func(_ tenancy.Key, at netip.AddrPort) { found = append(found, at.String()) })
	slices.Sort(found)
	return found
}

// inboundPorts are the Pod ports that services of a tenant lead to. Here no two
// services lead to one port with different protocols.
func inboundPorts(w reference.World, pod tenancy.Key) map[uint16]tenancy.Protocol {
	found := map[uint16]tenancy.Protocol{}
	if tenant, _ := w.Tenant(pod.Namespace); tenant == "" {
		return found
	}
	for ref, o := range w {
		if service, ok := o.(*tenancy.Service); ok && ref.Key.Namespace == pod.Namespace {
			for _, port := range service.Ports {
				eachBackend(w, ref.Key, port.Port, func(behind tenancy.Key, at netip.AddrPort) {
					if behind == pod {
						found[at.Port()] = port.Protocol
					}
				})
			}
		}
	}
	return found
}

// eachBackend calls yield for the Pods behind a service port: those at a
// slice's addresses that have not finished.
func eachBackend(w reference.World, service tenancy.Key, port uint16, yield func(pod tenancy.Key, at netip.AddrPort)) {
	name := serviceIn(w, service).Ports[portIndex(serviceIn(w, service), port)].Name
	for ref, o := range w {
		slice, ok := o.(*tenancy.EndpointSlice)
		if !ok || ref.Key.Namespace != service.Namespace || slice.Service != service.Name {
			continue
		}
		for _, to := range slice.Ports {
			for _, e := range slice.Endpoints {
				if pod, ok := podAt(w, service.Namespace, e.Addresses[0]); ok && to.Name == name {
					yield(pod, netip.AddrPortFrom(e.Addresses[0], to.Port))
				}
			}
		}
	}
}

func podAt(w reference.World, namespace string, at netip.Addr) (tenancy.Key, bool) {
	for ref, o := range w {
		if p, ok := o.(*tenancy.Pod); ok && ref.Key.Namespace == namespace && !p.Finished && slices.Contains(p.IPs, at) {
			return ref.Key, true
		}
	}
	return tenancy.Key{}, false
}

func serviceIn(w reference.World, key tenancy.Key) *tenancy.Service {
	return w[tenancy.Ref{Kind: tenancy.KindService, Key: key}].(*tenancy.Service)
}

func portIndex(s *tenancy.Service, port uint16) int {
	i, _ := slices.BinarySearchFunc(s.Ports, port, func(p tenancy.ServicePort, n uint16) int { return cmp.Compare(p.Port, n) })
	return i
}
