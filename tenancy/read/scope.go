package read

import (
	"slices"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

// Scope says who asks. The zero value is nobody, who may know nothing.
type Scope struct {
	platform  bool
	tenant    string
	namespace string
}

// Platform may know everything: whoever holds the objects themselves.
func Platform() Scope { return Scope{platform: true} }

// Of is the scope of a verified workload.
func Of(m *tenancy.Model, w identity.Workload) Scope {
	tenant, ok := m.Resolve(w)
	if !ok {
		return Scope{}
	}
	s := Scope{tenant: tenant}
	if m.TenantObject(tenant).Visibility == tenancy.VisibleInNamespace {
		s.namespace = w.Namespace
	}
	return s
}

// OfTenant is the scope of all of a tenant, for whoever may read everything and
// wants to see what the tenant sees.
func OfTenant(tenant string) Scope { return Scope{tenant: tenant} }

// Reader answers for one scope. It is used by the goroutine that owns the
// Model, and not kept longer than the Model stays as it is.
type Reader struct {
	model *tenancy.Model
	scope Scope
	// domain ends service names, locate may be nil.
	domain string
	locate func(tenancy.Ref) string

	ports map[tenancy.Selection]map[uint16]*judged
	// behind is what kinds found.
	behind map[servicePort]kinds
}

type servicePort struct {
	service tenancy.Key
	port    uint16
}

// kinds are the Pods behind a service port, one of each kind that may decide
// differently, with what decides.
type kinds struct {
	pods []tenancy.Backend
	by   []*judged
}

// judged is one Pod port with what is computed of it once.
type judged struct {
	port policy.Port
	// plaintext is set where a PeerTLS may make the port Permissive.
	plaintext  bool
	extents    *policy.Extents
	conditions func(id string) string
}

// New makes a Reader. The cluster domain is that of the server; locate, if it
// is not nil, tells in which file and line an object stands.
func New(m *tenancy.Model, s Scope, clusterDomain string, locate func(tenancy.Ref) string) *Reader {
	return &Reader{model: m, scope: s, domain: clusterDomain, locate: locate, ports: map[tenancy.Selection]map[uint16]*judged{}, behind: map[servicePort]kinds{}}
}

// own reports whether the objects of a namespace are the scope's to know.
func (r *Reader) own(namespace string) bool {
	if r.scope.platform {
		return true
	}
	tenant, ok := r.model.TenantOf(namespace)
	return ok && tenant == r.scope.tenant && (r.scope.namespace == "" || r.scope.namespace == namespace)
}

// namespaces are those whose objects are the scope's to know, by tenant and name.
func (r *Reader) namespaces() []string {
	var all []string
	tenants := []string{r.scope.tenant}
	if r.scope.platform {
		tenants = r.model.TenantNames()
	}
	for _, t := range tenants {
		for _, ns := range r.model.NamespacesOf(t) {
			if r.own(ns) {
				all = append(all, ns)
			}
		}
	}
	return all
}

// sees tells whether the proxies of a namespace may know a service port.
func (r *Reader) sees(from string, service tenancy.Key, port uint16) bool {
	tenant, ok := r.model.TenantOf(from)
	if !ok {
		return false
	}
	sight, ok := r.model.See(tenancy.ViewKey{Tenant: tenant, Namespace: from}, service)
	return ok && sight.Ports.Has(port)
}

// ref is where an object stands, "" if that is not known.
func (r *Reader) place(ref tenancy.Ref) string {
	if r.locate == nil {
		return ""
	}
	return r.locate(ref)
}

func (r *Reader) fqdn(namespace, service string) string {
	return service + "." + namespace + ".svc." + r.domain
}

// workload is the identity of a namespace's service account.
func (r *Reader) workload(namespace, account string) identity.Workload {
	tenant, _ := r.model.TenantOf(namespace)
	return identity.Workload{TrustDomain: r.model.Settings(tenant).TrustDomain, Namespace: namespace, ServiceAccount: account}
}

// judge is what decides who may call a Pod's port, nil if no service leads there.
func (r *Reader) judge(b tenancy.Backend) *judged {
	sel, _, ok := r.model.Select(b.Pod, r.workload(b.Pod.Namespace, b.Account))
	if !ok {
		return nil
	}
	if r.ports[sel] == nil {
		r.ports[sel] = map[uint16]*judged{}
		for _, p := range r.model.Workload(sel).Ports {
			r.ports[sel][p.Port] = &judged{port: p.Policy, plaintext: p.Plaintext}
		}
	}
	return r.ports[sel][b.Port]
}

// kinds are those behind a service port.
func (r *Reader) kinds(service tenancy.Key, port uint16) kinds {
	at := servicePort{service, port}
	found, ok := r.behind[at]
	if ok {
		return found
	}
	for _, b := range r.model.Backends(service, port) {
		if j := r.judge(b); j != nil && !slices.Contains(found.by, j) {
			found.pods, found.by = append(found.pods, b), append(found.by, j)
		}
	}
	r.behind[at] = found
	return found
}
