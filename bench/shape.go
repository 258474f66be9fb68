package main

import (
	"fmt"
	"net/netip"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy"
)

// Names that are the same in every mesh of the benchmark.
const (
	trustDomain   = "mesh.example"
	clusterDomain = "cluster.local"
	serverPath    = "/ns/bailiwick-system/sa/bailiwick"
	servicePort   = 8000
	podPort       = 8080
)

// shape is a mesh in which every tenant has one namespace, and every service as
// many endpoints, each with its Pod and the service's own account.
type shape struct {
	Tenants, Services, Endpoints int
	// Network, unless it is 0, is the second byte of Pod addresses on loopback,
	// where a real Envoy can listen; else Pods are in 10.0.0.0/8.
	Network byte
}

func tenantName(tenant int) string   { return fmt.Sprintf("t-%05d", tenant) }
func namespaceOf(tenant int) string  { return fmt.Sprintf("%s%05d", namespaceMark, tenant) }
func serviceName(service int) string { return fmt.Sprintf("s%d", service) }
func podName(service, endpoint int) string {
	return fmt.Sprintf("s%d-%d", service, endpoint)
}

// namespaceMark begins the name of every namespace and nothing else, so that a
// foreign name is found in a response by looking for it.
const namespaceMark = "ns-"

func clusterName(tenant, service int) string {
	return fmt.Sprintf("%s.%s.svc.%s:%d", serviceName(service), namespaceOf(tenant), clusterDomain, servicePort)
}

func workloadOf(tenant, service int) identity.Workload {
	return identity.Workload{TrustDomain: trustDomain, Namespace: namespaceOf(tenant), ServiceAccount: serviceName(service)}
}

// address gives every Pod one of its own.
func (s shape) address(tenant, service, endpoint int) netip.Addr {
	// Services beyond the shape are those that the service scenario adds.
	n := (tenant*(s.Services+extraServices)+service)*s.Endpoints + endpoint + 2
	if s.Network != 0 {
		return netip.AddrFrom4([4]byte{127, s.Network, byte(n >> 8), byte(n)})
	}
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

func (s shape) virtualIP(tenant, service int) netip.Addr {
	n := tenant*(s.Services+extraServices) + service + 1
	return netip.AddrFrom4([4]byte{172, byte(16 + n>>16), byte(n >> 8), byte(n)})
}

// extraServices is how many services a tenant may have beyond its shape.
const extraServices = 8

func event(kind tenancy.Kind, namespace, name string, object tenancy.Object) tenancy.Event {
	return tenancy.Event{Ref: tenancy.Ref{Kind: kind, Key: tenancy.Key{Namespace: namespace, Name: name}}, Object: object}
}

// sliceEvent is a service's slice whose last endpoint is ready or not.
func (s shape) sliceEvent(tenant, service int, lastReady bool) tenancy.Event {
	slice := &tenancy.EndpointSlice{
		Service: serviceName(service), Ports: []tenancy.SlicePort{{Name: "http", Port: podPort}},
	}
	for e := range s.Endpoints {
		ready := lastReady || e < s.Endpoints-1
		slice.Endpoints = append(slice.Endpoints, tenancy.Endpoint{
			Addresses: []netip.Addr{s.address(tenant, service, e)}, Ready: ready, Serving: ready, PodName: podName(service, e),
		})
	}
	return event(tenancy.KindEndpointSlice, namespaceOf(tenant), serviceName(service), slice)
}

// serviceEvents are a service with its Pods and its slice.
func (s shape) serviceEvents(tenant, service int) []tenancy.Event {
	ns, name := namespaceOf(tenant), serviceName(service)
	events := []tenancy.Event{event(tenancy.KindService, ns, name, &tenancy.Service{
		ClusterIPs: []netip.Addr{s.virtualIP(tenant, service)},
		Ports:      []tenancy.ServicePort{{Name: "http", Port: servicePort, Protocol: tenancy.HTTP1}},
	})}
	for e := range s.Endpoints {
		events = append(events, event(tenancy.KindPod, ns, podName(service, e), &tenancy.Pod{
			ServiceAccount: name, Labels: map[string]string{"app": name}, IPs: []netip.Addr{s.address(tenant, service, e)},
		}))
	}
	return append(events, s.sliceEvent(tenant, service, true))
}

// removalEvents take a service away again.
func (s shape) removalEvents(tenant, service int) []tenancy.Event {
	events := s.serviceEvents(tenant, service)
	for i := range events {
		events[i].Object = nil
	}
	return events
}

func (s shape) tenantEvents(tenant int) []tenancy.Event {
	ns := namespaceOf(tenant)
	events := []tenancy.Event{
		event(tenancy.KindTenant, "", tenantName(tenant), &tenancy.Tenant{TrustDomain: trustDomain}),
		event(tenancy.KindNamespace, "", ns, &tenancy.Namespace{Tenant: tenantName(tenant)}),
		policyEvent(tenant, true),
	}
	for service := range s.Services {
		events = append(events, s.serviceEvents(tenant, service)...)
	}
	return events
}

// policyEvent is the policy that lets a tenant's workloads call one another, or
// its removal.
func policyEvent(tenant int, there bool) tenancy.Event {
	ns := namespaceOf(tenant)
	ev := event(tenancy.KindAccessPolicy, ns, "within", nil)
	if there {
		ev.Object = &tenancy.AccessPolicy{Rules: []tenancy.AccessRule{{Sources: []tenancy.AccessSource{{Namespace: ns}}}}}
	}
	return ev
}

// members are clients proxies of each of the first tenants tenants: those of
// the first Pods of its first services.
func members(tenants, clients int) []member {
	var out []member
	for c := range clients {
		for t := range tenants {
			out = append(out, member{Tenant: t, Service: c})
		}
	}
	return out
}

// limits are those without which a tenant could not have all its services.
func (s shape) limits() tenancy.Limits {
	if s.Services <= tenancy.DefaultLimits().Services {
		return tenancy.Limits{}
	}
	return tenancy.Limits{Services: s.Services, ViewResources: 4 * s.Services, SubscribedNames: 2 * s.Services}
}
