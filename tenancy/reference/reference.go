// Package reference says naively what package tenancy has to say by its
// indexes. It goes through the list of all objects for every question, shares
// no code with the Model, and is imported by tests only. It knows no limits:
// tests stay below them, or say so.
package reference

import (
	"slices"
	"strings"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

// Name is one service port that a namespace may know.
type Name struct {
	Namespace, Service string
	Port               uint16
	Grade              tenancy.Grade
	// Plain ports are called without mTLS.
	Plain bool
}

// World is the list of objects after some events: the last one of each.
type World map[tenancy.Ref]tenancy.Object

// Fold puts events together.
func Fold(events []tenancy.Event) World {
	w := World{}
	for _, ev := range events {
		if delete(w, ev.Ref); ev.Object != nil {
			w[ev.Ref] = ev.Object
		}
	}
	return w
}

// VisibleNames are the service ports that the proxies of a tenant's namespace
// may know after the events, sorted.
func VisibleNames(events []tenancy.Event, tenant, namespace string) []Name {
	return Fold(events).VisibleNames(tenant, namespace)
}

// MayCall tells whether a workload may call a port of a Pod (by namespace and
// name) with a request, after the events.
func MayCall(events []tenancy.Event, from identity.Workload, pod tenancy.Key, port uint16, r policy.Request) bool {
	return Fold(events).MayCall(from, pod, port, r)
}

// all are the objects of one kind, with their keys.
func all[T any](w World) map[tenancy.Key]*T {
	found := map[tenancy.Key]*T{}
	for ref, o := range w {
		if t, ok := any(o).(*T); ok {
			found[ref.Key] = t
		}
	}
	return found
}

// source is the source whose namespace of that name counts: the oldest.
func (w World) source(namespace string) (source string, ns *tenancy.Namespace) {
	for k, o := range all[tenancy.Namespace](w) {
		if k.Name == namespace && (ns == nil || o.Created < ns.Created || o.Created == ns.Created && k.Source < source) {
			source, ns = k.Source, o
		}
	}
	return source, ns
}

// Tenant is the tenant of a namespace, nil for nobody's. Where no object says
// what authorities a trust domain has, every domain is accepted.
func (w World) Tenant(namespace string) (string, *tenancy.Tenant) {
	_, ns := w.source(namespace)
	if ns == nil || ns.Tenant == "" {
		return "", nil
	}
	var t *tenancy.Tenant
	source := ""
	for k, o := range all[tenancy.Tenant](w) {
		if k.Name == ns.Tenant && (t == nil || o.Created < t.Created || o.Created == t.Created && k.Source < source) {
			source, t = k.Source, o
		}
	}
	if t == nil || t.Suspended || t.TrustDomain == "" {
		return "", nil
	}
	admitted, known := t.Namespaces == nil, len(all[tenancy.TrustBundle](w)) == 0
	for _, n := range t.Namespaces {
		admitted = admitted || n == namespace || n[len(n)-1] == '-' && strings.HasPrefix(namespace, n)
	}
	for k := range all[tenancy.TrustBundle](w) {
		known = known || k.Name == t.TrustDomain
	}
	if !admitted || !known {
		return "", nil
	}
	return ns.Tenant, t
}

// sees tells by which right a namespace knows a service port, if it does.
func (w World) sees(namespace string, svc tenancy.Key, port uint16) (tenancy.Grade, bool) {
	viewer, settings := w.Tenant(namespace)
	owner, _ := w.Tenant(svc.Namespace)
	source, _ := w.source(svc.Namespace)
	switch {
	case settings == nil || source != svc.Source:
		return 0, false
	case owner == "": // only what the platform shows as plain
		return tenancy.Granted, w.clusterGranted(viewer, svc, port, true)
	case namespace == svc.Namespace:
		return tenancy.OwnNamespace, true
	case viewer == owner:
		return tenancy.OwnTenant, settings.Visibility == tenancy.VisibleInTenant
	}
	if w.clusterGranted(viewer, svc, port, false) {
		return tenancy.Granted, true
	}
	return tenancy.Granted, w.requested(namespace, svc, port) && w.granted(viewer, namespace, svc, port)
}

// clusterGranted tells whether the platform shows a service port to a tenant, as
// plain or not.
func (w World) clusterGranted(viewer string, svc tenancy.Key, port uint16, plain bool) bool {
	for _, g := range all[tenancy.ClusterServiceGrant](w) {
		for _, to := range g.To {
			if to.Plain == plain && (g.AllTenants || slices.Contains(g.Tenants, viewer)) &&
				to.Namespace == svc.Namespace && to.Service == svc.Name && to.Ports.Has(port) {
				return true
			}
		}
	}
	return false
}

// plain tells whether a namespace calls what it sees without mTLS: what is nobody's,
// and what everybody involved calls plain where both Tenants permit that.
func (w World) plain(namespace string, svc tenancy.Key, port uint16) bool {
	viewer, ours := w.Tenant(namespace)
	owner, theirs := w.Tenant(svc.Namespace)
	if owner == "" {
		return true
	}
	source, _ := w.source(namespace)
	asked, offered, tls := false, false, !ours.Plain || !theirs.Plain
	for k, r := range all[tenancy.ServiceRequest](w) {
		if k.Source == source && k.Namespace == namespace && r.Namespace == svc.Namespace && r.Service == svc.Name && r.Ports.Has(port) {
			asked, tls = true, tls || !r.Plain
		}
	}
	for k, g := range all[tenancy.ServiceGrant](w) {
		for _, from := range g.From {
			for _, to := range g.To {
				if k.Source == svc.Source && k.Namespace == svc.Namespace && from.Tenant == viewer && (from.All || slices.Contains(from.Namespaces, namespace)) &&
					to.Service == svc.Name && to.Ports.Has(port) {
					offered, tls = true, tls || !to.Plain
				}
			}
		}
	}
	return asked && offered && !tls
}

func (w World) requested(namespace string, svc tenancy.Key, port uint16) bool {
	source, _ := w.source(namespace)
	for k, r := range all[tenancy.ServiceRequest](w) {
		if k.Source == source && k.Namespace == namespace && r.Namespace == svc.Namespace && r.Service == svc.Name && r.Ports.Has(port) {
			return true
		}
	}
	return false
}

func (w World) granted(tenant, namespace string, svc tenancy.Key, port uint16) bool {
	for k, g := range all[tenancy.ServiceGrant](w) {
		if k.Source != svc.Source || k.Namespace != svc.Namespace {
			continue
		}
		from := slices.ContainsFunc(g.From, func(f tenancy.GrantFrom) bool {
			return f.Tenant == tenant && (f.All || slices.Contains(f.Namespaces, namespace))
		})
		to := slices.ContainsFunc(g.To, func(t tenancy.GrantTo) bool { return t.Service == svc.Name && t.Ports.Has(port) })
		if from && to {
			return true
		}
	}
	return false
}

// VisibleNames is the method form of the function of that name.
func (w World) VisibleNames(tenant, namespace string) []Name {
	var names []Name
	if t, _ := w.Tenant(namespace); t != tenant || tenant == "" {
		return nil
	}
	for k, s := range all[tenancy.Service](w) {
		for _, p := range s.Ports {
			if grade, ok := w.sees(namespace, k, p.Port); ok {
				names = append(names, Name{k.Namespace, k.Name, p.Port, grade, w.plain(namespace, k, p.Port)})
			}
		}
	}
	slices.SortFunc(names, func(a, b Name) int {
		if c := strings.Compare(a.Namespace+"/"+a.Service, b.Namespace+"/"+b.Service); c != 0 {
			return c
		}
		return int(a.Port) - int(b.Port)
	})
	return names
}
