package main

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

// clusterDomain is what service names end in; the server's default.
const clusterDomain = "cluster.local"

// world is what a directory of objects says, through the model. It is read
// anew after each change and never changed itself.
type world struct {
	events []tenancy.Event
	model  *tenancy.Model
	// actors are the Pods, sorted by namespace and name.
	actors []actor
	// targets are the ports of all services, sorted by namespace, name and port.
	targets []target
}

// actor is one Pod with its proxy.
type actor struct {
	pod      tenancy.Key
	tenant   string
	workload identity.Workload
	at       mesh.Addresses
	// ports are those on which services reach the Pod, with their protocol.
	ports map[uint16]tenancy.Protocol
}

// name is how the demo prints an actor.
func (a actor) name() string { return a.pod.Namespace + "/" + a.pod.Name }

func (a actor) view() tenancy.ViewKey {
	return tenancy.ViewKey{Tenant: a.tenant, Namespace: a.pod.Namespace}
}

// target is one port of one service.
type target struct {
	service tenancy.Key
	port    uint16
	// http tells whether the demo can send requests to it.
	http bool
}

// name is how the demo prints a target, host its name in requests.
func (t target) name() string {
	return fmt.Sprintf("%s.%s:%d", t.service.Name, t.service.Namespace, t.port)
}

func (t target) hostname() string {
	return fmt.Sprintf("%s.%s.svc.%s", t.service.Name, t.service.Namespace, clusterDomain)
}

// host is the name and port in a request, and the name of the cluster.
func (t target) host() string { return fmt.Sprintf("%s:%d", t.hostname(), t.port) }

// verdict is what becomes of a call.
type verdict string

// The verdicts; any other is what went wrong instead.
const (
	allowed   verdict = "200"
	refused   verdict = "403"
	invisible verdict = "-"
	nobody    verdict = "503"
)

// newWorld builds the model of the events.
func newWorld(events []tenancy.Event) (*world, error) {
	w := &world{events: events}
	tenants := map[string]*tenancy.Tenant{}
	owners := map[string]string{}
	for _, ev := range events {
		switch o := ev.Object.(type) {
		case *tenancy.Tenant:
			tenants[ev.Ref.Key.Name] = o
		case *tenancy.Namespace:
			owners[ev.Ref.Key.Name] = o.Tenant
		}
	}
	w.model = tenancy.NewModel(tenancy.Config{
		ClusterDomain: clusterDomain, TrustDomains: trustDomains(events), Limits: tenancy.DefaultLimits(),
	})
	for _, ev := range events {
		w.model.Apply(ev)
	}
	for _, ev := range events {
		switch o := ev.Object.(type) {
		case *tenancy.Pod:
			owner := tenants[owners[ev.Ref.Key.Namespace]]
			if owner == nil || o.HostNetwork || o.Finished || len(o.IPs) == 0 {
				continue
			}
			a, err := newActor(ev.Ref.Key, o, owners[ev.Ref.Key.Namespace], owner.TrustDomain)
			if err != nil {
				return nil, err
			}
			w.actors = append(w.actors, a)
		case *tenancy.Service:
			for _, p := range o.Ports {
				w.targets = append(w.targets, target{ev.Ref.Key, p.Port, p.Protocol.IsHTTP()})
			}
		}
	}
	slices.SortFunc(w.actors, func(a, b actor) int { return compareKeys(a.pod, b.pod) })
	slices.SortFunc(w.targets, func(a, b target) int {
		return cmp.Or(compareKeys(a.service, b.service), cmp.Compare(a.port, b.port))
	})
	w.findPorts()
	return w, nil
}

func newActor(key tenancy.Key, pod *tenancy.Pod, tenant, trustDomain string) (actor, error) {
	at, err := mesh.AddressesOf(pod.IPs[0])
	if err != nil {
		return actor{}, fmt.Errorf("Pod %s/%s: %w", key.Namespace, key.Name, err)
	}
	return actor{
		pod: key, tenant: tenant, at: at, ports: map[uint16]tenancy.Protocol{},
		workload: identity.Workload{TrustDomain: trustDomain, Namespace: key.Namespace, ServiceAccount: pod.ServiceAccount},
	}, nil
}

// findPorts gives each actor the ports on which services reach it.
func (w *world) findPorts() {
	for _, ev := range w.events {
		if ev.Ref.Kind != tenancy.KindService {
			continue
		}
		spec := w.model.Service(ev.Ref.Key)
		if spec == nil {
			continue
		}
		for _, port := range spec.Ports {
			for _, e := range port.Endpoints {
				if a := w.at(e.Address.Addr()); a != nil {
					a.ports[e.Address.Port()] = port.Protocol
				}
			}
		}
	}
}

// at is the actor with that Pod address, or nil.
func (w *world) at(addr netip.Addr) *actor {
	for i := range w.actors {
		if w.actors[i].at.Pod == addr {
			return &w.actors[i]
		}
	}
	return nil
}

// sees says whether the model shows a target to an actor.
func (w *world) sees(from actor, to target) bool {
	sight, ok := w.model.See(from.view(), to.service)
	return ok && sight.Ports.Has(to.port)
}

// knows says whether any workload of a tenant sees a service.
func (w *world) knows(tenant string, service tenancy.Key) bool {
	return slices.ContainsFunc(w.actors, func(a actor) bool {
		_, sees := w.model.See(a.view(), service)
		return a.tenant == tenant && sees
	})
}

// owner is the tenant of a target.
func (w *world) owner(to target) string {
	if spec := w.model.Service(to.service); spec != nil {
		return spec.Tenant
	}
	return ""
}

// visible are the names of the targets that an actor sees.
func (w *world) visible(from actor) []string {
	var names []string
	for _, t := range w.targets {
		if w.sees(from, t) {
			names = append(names, t.name())
		}
	}
	return names
}

// expect is what the model says about a call through the caller's proxy.
func (w *world) expect(from actor, to target) verdict {
	if !w.sees(from, to) {
		return invisible
	}
	return w.admits(from, to)
}

// admits is what the model says once the call is at the destination. Pods of one
// service that decide differently give a verdict that no call gets.
func (w *world) admits(from actor, to target) verdict {
	said := nobody
	for _, b := range w.backends(to) {
		one := refused
		if w.decide(from, b, to.hostname()) {
			one = allowed
		}
		if said != nobody && said != one {
			return "mixed"
		}
		said = one
	}
	return said
}

// backend is one Pod port behind a target.
type backend struct {
	actor *actor
	port  uint16
}

func (w *world) backends(to target) []backend {
	spec := w.model.Service(to.service)
	if spec == nil {
		return nil
	}
	var found []backend
	for _, port := range spec.Ports {
		if port.Port != to.port {
			continue
		}
		for _, e := range port.Endpoints {
			if a := w.at(e.Address.Addr()); a != nil {
				found = append(found, backend{a, e.Address.Port()})
			}
		}
	}
	return found
}

func (w *world) decide(from actor, to backend, host string) bool {
	selection, _, ok := w.model.Select(to.actor.pod, to.actor.workload)
	if !ok {
		return false
	}
	spec := w.model.Workload(selection)
	for _, p := range spec.Ports {
		if p.Port == to.port {
			return p.Policy.Decide(from.workload.String(), policy.Request{Method: "GET", Path: probePath, Host: host}).Allowed
		}
	}
	return false
}

// trustDomains are those of all tenants, sorted.
func trustDomains(events []tenancy.Event) []string {
	domains := map[string]struct{}{}
	for _, ev := range events {
		if t, ok := ev.Object.(*tenancy.Tenant); ok {
			domains[t.TrustDomain] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(domains))
}

// counts says how large the mesh is.
func (w *world) counts() string {
	tenants := map[string]struct{}{}
	for _, a := range w.actors {
		tenants[a.tenant] = struct{}{}
	}
	services := map[tenancy.Key]struct{}{}
	for _, t := range w.targets {
		services[t.service] = struct{}{}
	}
	return fmt.Sprintf("%d tenants (%s), %d workloads, %d services",
		len(tenants), strings.Join(slices.Sorted(maps.Keys(tenants)), ", "), len(w.actors), len(services))
}

func compareKeys(a, b tenancy.Key) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

// callable are the targets that requests can be sent to.
func (w *world) callable() []target {
	return slices.DeleteFunc(slices.Clone(w.targets), func(t target) bool { return !t.http })
}

// namesOf turns names of clusters into those of the targets they are for, in
// the order of the targets. What is neither that nor the proxy's own comes last,
// as it is: the proxy should not have it.
func (w *world) namesOf(clusters []string) []string {
	var names []string
	rest := slices.DeleteFunc(slices.Clone(clusters), func(c string) bool {
		return c == "blackhole" || c == "passthrough" || strings.HasPrefix(c, "inbound-")
	})
	for _, t := range w.targets {
		if i := slices.Index(rest, t.host()); i >= 0 {
			names = append(names, t.name())
			rest = slices.Delete(rest, i, i+1)
		}
	}
	return append(names, rest...)
}
