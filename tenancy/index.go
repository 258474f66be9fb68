package tenancy

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"bailiwick.dev/bailiwick/tenancy/policy"
)

type set[T comparable] map[T]struct{}

// insert adds v to the set that m holds under k, making both as needed.
func insert[K, V comparable](m *map[K]set[V], k K, v V) {
	if *m == nil {
		*m = map[K]set[V]{}
	}
	if (*m)[k] == nil {
		(*m)[k] = set[V]{}
	}
	(*m)[k][v] = struct{}{}
}

// drop is the opposite of insert; it leaves no empty set behind.
func drop[K, V comparable](m map[K]set[V], k K, v V) {
	if s := m[k]; s != nil {
		delete(s, v)
		if len(s) == 0 {
			delete(m, k)
		}
	}
}

// put stores v under k, or removes k if v is nil.
func put[K comparable, V any](m *map[K]*V, k K, v *V) {
	if v == nil {
		delete(*m, k)
		return
	}
	if *m == nil {
		*m = map[K]*V{}
	}
	(*m)[k] = v
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// target names a service as grants and requests do: by namespace and name,
// whatever the source, because namespaces are unique over sources.
type target struct{ namespace, service string }

// wanted are the requests of one tenant for one service, so that requests of
// strangers cost the service's owner nothing.
type wanted struct {
	target target
	tenant string
}

// label is one label of a Pod; the zero label indexes empty selectors.
type label struct{ key, value string }

type spaceKey struct{ source, name string }

// space is one namespace of one source with all that is in it. It may exist
// before its Namespace object, and beside a space of the same name of another
// source; then only one of them has a tenant.
type space struct {
	model        *Model
	source, name string
	obj          *Namespace
	// tenant is the one in force, nil for nobody's.
	tenant *tenant
	// holder is whose it ought to be; see former.go.
	holder holder

	services map[string]*service
	slices   map[string]*slice
	pods     map[string]*pod
	policies map[string]*accessPolicy
	grants   map[string]*grant
	requests map[string]*request
	peers    map[string]*PeerTLS

	// endpoints are the slices that name an address.
	endpoints map[netip.Addr]bag[*slice]
	// addresses are the eligible Pods that have an address.
	addresses map[netip.Addr]bag[*pod]
	// waiting are the slices with an endpoint that is left out, by the name of
	// the Pod that it names.
	waiting map[string]set[*slice]
	// accounts counts the eligible Pods of each service account.
	accounts map[string]int
	// selectors are the policies by one label that they ask for.
	selectors map[label]set[*accessPolicy]
	// grantsFor and requestsFor index the accepted and the dropped ones alike.
	grantsFor   map[string]set[*grant]
	requestsFor map[target]set[*request]
	// wide are the policies that ask for all namespaces of the tenant.
	wide set[*accessPolicy]
	// denying are the policies that deny one account in any namespace of the tenant.
	denying set[*accessPolicy]
	// crowded are the policies that are over the limit for a Pod in here, and
	// overfull the services with endpoints over theirs.
	crowded  set[*accessPolicy]
	overfull set[*service]
	// leftOut is how many services the limits of the view leave out.
	leftOut int
}

func (s *space) empty() bool {
	return s.obj == nil && len(s.services) == 0 && len(s.slices) == 0 && len(s.pods) == 0 &&
		len(s.policies) == 0 && len(s.grants) == 0 && len(s.requests) == 0 && len(s.peers) == 0
}

// view is the key of the view of s, which must have a tenant.
func (s *space) view() ViewKey { return ViewKey{Tenant: s.tenant.name, Namespace: s.name} }

func (s *space) ref(k Kind, name string) Ref {
	return Ref{Kind: k, Key: Key{Source: s.source, Namespace: s.name, Name: name}}
}

// tenant is what is known under one tenant name: the Tenant object if there is
// one, the namespaces that ask for it, the open views.
type tenant struct {
	name string
	// claims are the Tenant objects of that name by source; obj is the one
	// that counts, now the one in force: they differ only inside Apply.
	claims   map[string]*Tenant
	obj, now *Tenant
	// labelled are the spaces whose label names the tenant, members those of
	// them that are its own, by name.
	labelled set[*space]
	members  map[string]*space
	// refs caches the members for floors, nil when stale.
	refs []policy.NamespaceRef
	// open are the namespaces with an open view.
	open set[string]

	services, policies, grants, requests *ranking
	// over are the members in which limits leave something out that is not
	// ranked; said is what was left out when the Tenant was last looked at.
	over set[*space]
	said LeftOut
}

func (t *tenant) rankings() []*ranking {
	return []*ranking{t.services, t.policies, t.grants, t.requests}
}

// service exists while it has an object or a slice that names it.
type service struct {
	entry
	obj    *Service
	slices map[string]*slice
	// spec is the last one handed out; stale asks for a new look.
	spec  *ServiceSpec
	stale bool
	// excess counts the endpoints over the limit in spec.
	excess int
}

// live reports whether the service is somebody's and within limits, or
// nobody's and shown as plain.
func (s *service) live() bool {
	return s.obj != nil && !s.dropped && (s.space.tenant != nil || s.space.model.isPlain(s))
}

func (s *service) target() target { return target{s.space.name, s.name} }

type slice struct {
	space   *space
	name    string
	obj     *EndpointSlice
	service *service
	// pods are the Pods behind the endpoints of obj, nil where there is none.
	pods []*pod
	// waiting are the names of Pods under which the slice waits.
	waiting []string
	// missed are the Pods that are not there, with the time since when; empty
	// without Config.PodPatience.
	missed map[absent]time.Time
	// late is for the next of them that is.
	late *alarm[*slice]
}

type pod struct {
	space *space
	name  string
	obj   *Pod
	// slices counts the endpoints of each slice that the Pod is behind.
	slices bag[*slice]
}

type accessPolicy struct {
	entry
	obj *AccessPolicy
	// crowds counts the spaces in which it is over the limit for a Pod.
	crowds int
}

// invalid reports whether the policy cannot be honoured as written.
func (p *accessPolicy) invalid() bool {
	return p.obj.Invalid || p.obj.TenantWide && !p.space.admin()
}

// identity is how selections name the policy.
func (p *accessPolicy) identity() string { return p.space.name + "/" + p.name }

// admin reports whether the space is its tenant's admin namespace.
func (s *space) admin() bool {
	return s.tenant != nil && s.tenant.now.AdminNamespace == s.name
}

type grant struct {
	entry
	obj *ServiceGrant
}

type request struct {
	entry
	obj *ServiceRequest
}

func (r *request) target() target { return target{r.obj.Namespace, r.obj.Service} }

type clusterGrant struct {
	key     Key
	obj     *ClusterServiceGrant
	tenants set[string]
}

func (g *clusterGrant) covers(tenant string) bool {
	if g.obj.AllTenants {
		return true
	}
	_, ok := g.tenants[tenant]
	return ok
}

// claim are the spaces of one name that have a Namespace object.
type claim struct {
	spaces set[*space]
	// active is the one in force.
	active *space
}

// first is the space that has the name by right: the oldest, then the first
// source by name.
func (c *claim) first() *space {
	var first *space
	for s := range c.spaces {
		if first == nil || cmp.Or(cmp.Compare(s.obj.Created, first.obj.Created), cmp.Compare(s.source, first.source)) < 0 {
			first = s
		}
	}
	return first
}
