package tenancy

import (
	"cmp"
	"net/netip"
	"slices"

	"bailiwick.dev/bailiwick/identity"
)

// What follows answers questions of people (explain, matrix, whoami): it lists
// what there is and decides nothing. All of it is for package read, which
// knows who may hear it.

// TenantOf is the tenant that a namespace belongs to.
func (m *Model) TenantOf(namespace string) (string, bool) {
	sp := m.owned(namespace)
	if sp == nil {
		return "", false
	}
	return sp.tenant.name, true
}

// TenantNames are the tenants that own at least one namespace, sorted.
func (m *Model) TenantNames() []string {
	var names []string
	for name, t := range m.tenants {
		if len(t.members) > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// NamespacesOf are the namespaces that a tenant owns, sorted.
func (m *Model) NamespacesOf(tenant string) []string {
	if t := m.tenants[tenant]; t != nil {
		return sortedKeys(t.members)
	}
	return nil
}

// TenantObject is the Tenant in force, nil if there is none.
func (m *Model) TenantObject(tenant string) *Tenant {
	if t := m.tenants[tenant]; t != nil {
		return t.now
	}
	return nil
}

// ServicesIn are the services of a namespace that count, sorted.
func (m *Model) ServicesIn(namespace string) []Key {
	var keys []Key
	if sp := m.owned(namespace); sp != nil {
		for _, s := range sp.services {
			if s.live() {
				keys = append(keys, s.key())
			}
		}
	}
	slices.SortFunc(keys, Key.compare)
	return keys
}

// FindService is the service that counts under a name, with its ports.
func (m *Model) FindService(namespace, name string) (Key, []ServicePort, bool) {
	s := m.liveService(target{namespace, name})
	if s == nil {
		return Key{}, nil, false
	}
	return s.key(), s.obj.Ports, true
}

// AccountsIn are the service accounts of a namespace's Pods, sorted.
func (m *Model) AccountsIn(namespace string) []string {
	if sp := m.owned(namespace); sp != nil {
		return sortedKeys(sp.accounts)
	}
	return nil
}

// Backend is one Pod behind a service port.
type Backend struct {
	// Pod is the Pod's key, Port the one of its ports that the service port
	// leads to.
	Pod     Key
	Port    uint16
	Account string
	Labels  map[string]string
}

// Backends are the Pods behind a service port, ready or not, sorted.
func (m *Model) Backends(service Key, port uint16) []Backend {
	sp := m.owned(service.Namespace)
	if sp == nil || sp.source != service.Source || sp.services[service.Name] == nil {
		return nil
	}
	behind := set[*pod]{}
	for _, sl := range sp.services[service.Name].slices {
		for _, p := range sl.pods {
			if p != nil {
				behind[p] = struct{}{}
			}
		}
	}
	var found []Backend
	for p := range behind {
		for _, l := range p.leads() {
			if l.Service == service.Name && l.ServicePort == port {
				found = append(found, Backend{Pod: sp.ref(KindPod, p.name).Key, Port: l.Port, Account: p.obj.ServiceAccount, Labels: p.obj.Labels})
			}
		}
	}
	slices.SortFunc(found, func(a, b Backend) int {
		return cmp.Or(a.Pod.compare(b.Pod), cmp.Compare(a.Port, b.Port))
	})
	return found
}

// RequestsFor are the requests of a namespace for a service port that are
// within its tenant's limit, sorted.
func (m *Model) RequestsFor(from, namespace, service string, port uint16) []Ref {
	sp := m.owned(from)
	if sp == nil {
		return nil
	}
	var refs []Ref
	for r := range sp.requestsFor[target{namespace, service}] {
		if !r.dropped && r.obj.Ports.Has(port) {
			refs = append(refs, r.ref())
		}
	}
	slices.SortFunc(refs, func(a, b Ref) int { return a.Key.compare(b.Key) })
	return refs
}

// GrantsFor are the grants of a service's owner that offer a port of it to a
// namespace of another tenant, sorted; cluster grants are not among them.
func (m *Model) GrantsFor(service Key, port uint16, to string) []Ref {
	sp, from := m.owned(service.Namespace), m.owned(to)
	if sp == nil || from == nil {
		return nil
	}
	var refs []Ref
	for g := range sp.grantsFor[service.Name] {
		if slices.ContainsFunc(g.offers(from, service.Name), func(s PortSet) bool { return s.Has(port) }) {
			refs = append(refs, g.ref())
		}
	}
	slices.SortFunc(refs, func(a, b Ref) int { return a.Key.compare(b.Key) })
	return refs
}

// HasPodAt reports whether a Pod of a workload's namespace and account has an
// address.
func (m *Model) HasPodAt(w identity.Workload, at netip.Addr) bool {
	sp := m.owned(w.Namespace)
	if sp == nil {
		return false
	}
	for p := range sp.addresses[at].all() {
		if p.obj.ServiceAccount == w.ServiceAccount {
			return true
		}
	}
	return false
}
