package tenancy

import (
	"reflect"
	"slices"
	"time"

	"bailiwick.dev/bailiwick/identity"
)

// Config is what a Model needs to know beside the objects.
type Config struct {
	// ClusterDomain ends the service names in the texts of Problems, for
	// example cluster.local.
	ClusterDomain string
	// TrustDomains are the accepted ones. Empty accepts those that have a
	// TrustBundle.
	TrustDomains []string
	// SVIDMaxTTL is the longest life of a workload's certificate: for so long a
	// namespace that changed hands is nobody's. 0 turns that off.
	SVIDMaxTTL time.Duration
	// ExpiryGrace is for how long at most an object's end is put off while its
	// source cannot be followed.
	ExpiryGrace time.Duration
	// PodPatience is for how long an endpoint may wait for its Pod before that is
	// a Problem; 0 where nothing is on its way.
	PodPatience time.Duration
	// Limits are those of a tenant that overrides none; zero fields are those
	// of DefaultLimits.
	Limits Limits
}

// Model holds the objects with indexes over them. It is not safe for
// concurrent use: one goroutine owns it.
type Model struct {
	config  Config
	domains set[string]
	limits  Limits

	spaces  map[spaceKey]*space
	names   map[string]*claim
	tenants map[string]*tenant
	// byDomain are the tenants by the trust domain of their object.
	byDomain map[string]set[*tenant]
	// bundles are PEM by trust domain and source.
	bundles map[string]map[string]*TrustBundle

	// requests are those of spaces that have a tenant.
	requests map[wanted]set[*request]
	// clusterFor are the cluster grants by service, clusterOf by tenant,
	// clusterAll those for all tenants.
	clusterGrants map[Key]*clusterGrant
	clusterFor    map[target]set[*clusterGrant]
	clusterOf     map[string]set[*clusterGrant]
	clusterAll    set[*clusterGrant]
	// clusterPolicies are the platform's; byLabel are the namespaces that have a
	// guarded label.
	clusterPolicies clusterPolicies
	byLabel         map[label]set[*space]
	// denying are the policies that deny single accounts of a namespace.
	denying map[string]set[*accessPolicy]

	// former are the holders of namespaces' names whose SVIDs may still be good,
	// with the time until when, for which waits are set.
	former map[string]map[holder]*alarm[formerHolder]
	waits  alarms[formerHolder]
	// holdings are the names that each tenant has or had, with the time until when
	// that matters, zero for those that it has; unsaid are the tenants of which
	// TakeHoldings has something new to say.
	holdings map[string]map[formerHolder]time.Time
	unsaid   set[string]
	// ends are the objects that end at a time; stale puts that off.
	ends endings
	// late are the slices with endpoints that wait for their Pods, until that is a
	// Problem.
	late  alarms[*slice]
	stale bool
	now   time.Time

	touched Touched
	// cause is the tenant that pays for the event that is being applied.
	cause string
	// problems are the ones last taken; unchecked are the objects to look at.
	problems  map[Ref][]Problem
	unchecked set[Ref]
	// usage are the tenants whose usage is to be told.
	usage set[string]
	// crowds are the spaces in which other policies may be over the limit of a
	// workload than before.
	crowds set[*space]
	// steps counts what events cost: visibility decisions, joins and touched
	// things. Tests compare it between sizes of mesh.
	steps int
}

// NewModel returns an empty Model.
func NewModel(c Config) *Model {
	m := &Model{
		config: c, limits: DefaultLimits().Override(c.Limits), domains: set[string]{},
		spaces: map[spaceKey]*space{}, names: map[string]*claim{}, tenants: map[string]*tenant{},
		byDomain: map[string]set[*tenant]{}, bundles: map[string]map[string]*TrustBundle{},
		requests: map[wanted]set[*request]{}, clusterGrants: map[Key]*clusterGrant{},
		clusterFor: map[target]set[*clusterGrant]{}, clusterOf: map[string]set[*clusterGrant]{},
		clusterAll: set[*clusterGrant]{}, denying: map[string]set[*accessPolicy]{},
		problems: map[Ref][]Problem{}, unchecked: set[Ref]{}, usage: set[string]{}, crowds: set[*space]{}, former: map[string]map[holder]*alarm[formerHolder]{},
		holdings: map[string]map[formerHolder]time.Time{}, unsaid: set[string]{},
		clusterPolicies: newClusterPolicies(),
		ends:            endings{byRef: map[Ref]*ending{}},
	}
	for _, d := range c.TrustDomains {
		m.domains[d] = struct{}{}
	}
	return m
}

// Apply absorbs one event and remembers what it touched. An event that changes
// nothing touches nothing. An object of another type than its Ref says is
// taken as gone.
func (m *Model) Apply(ev Event) { m.apply(m.timed(ev)) }

func (m *Model) apply(ev Event) {
	k := ev.Ref.Key
	m.cause = ""
	switch ev.Ref.Kind {
	case KindNamespace:
		m.applyNamespace(k, as[Namespace](ev.Object))
	case KindTenant:
		m.applyTenant(k, as[Tenant](ev.Object))
	case KindHoldings:
		m.applyHoldings(k, as[Holdings](ev.Object))
	case KindTrustBundle:
		m.applyBundle(k, as[TrustBundle](ev.Object))
	case KindClusterServiceGrant:
		m.applyClusterGrant(k, as[ClusterServiceGrant](ev.Object))
	case KindClusterAccessPolicy:
		m.applyClusterPolicy(k, as[ClusterAccessPolicy](ev.Object))
	default:
		m.applyIn(ev)
	}
}

// applyIn absorbs an event of a kind that lives in a namespace.
func (m *Model) applyIn(ev Event) {
	k := ev.Ref.Key
	key := spaceKey{k.Source, k.Namespace}
	sp := m.spaces[key]
	if sp == nil {
		if ev.Object == nil {
			return
		}
		sp = m.makeSpace(key)
	}
	if sp.tenant != nil {
		m.cause = sp.tenant.name
	}
	switch ev.Ref.Kind {
	case KindService:
		m.applyService(sp, k.Name, as[Service](ev.Object))
	case KindEndpointSlice:
		m.applySlice(sp, k.Name, as[EndpointSlice](ev.Object))
	case KindPod:
		m.applyPod(sp, k.Name, as[Pod](ev.Object))
	case KindServiceGrant:
		m.applyGrant(sp, k.Name, as[ServiceGrant](ev.Object))
	case KindServiceRequest:
		m.applyRequest(sp, k.Name, as[ServiceRequest](ev.Object))
	case KindPeerTLS:
		m.applyPeerTLS(sp, k.Name, as[PeerTLS](ev.Object))
	case KindAccessPolicy:
		m.applyPolicy(sp, k.Name, as[AccessPolicy](ev.Object))
	}
	m.sweep(sp)
}

// as is o if it is a *T, else nil.
func as[T any](o Object) *T {
	t, _ := any(o).(*T)
	return t
}

// same reports whether an event changes nothing.
func same[T any](old, obj *T) bool {
	return old == obj || old != nil && obj != nil && reflect.DeepEqual(old, obj)
}

func (m *Model) makeSpace(k spaceKey) *space {
	sp := m.spaces[k]
	if sp == nil {
		sp = &space{model: m, source: k.source, name: k.name}
		m.spaces[k] = sp
	}
	return sp
}

func (m *Model) sweep(sp *space) {
	if sp.empty() {
		delete(m.spaces, spaceKey{sp.source, sp.name})
	}
}

// active is the space that has the name by right, nil if no Namespace object
// of any source has it.
func (m *Model) active(namespace string) *space {
	if c := m.names[namespace]; c != nil {
		return c.active
	}
	return nil
}

// owned is the active space of that name if it has a tenant, else nil.
func (m *Model) owned(namespace string) *space {
	if sp := m.active(namespace); sp != nil && sp.tenant != nil {
		return sp
	}
	return nil
}

// liveService finds a service as grants and requests name it, nil if it is not
// there, nobody's (and not shown as plain) or over its tenant's limit.
func (m *Model) liveService(t target) *service {
	sp := m.active(t.namespace)
	if sp == nil {
		return nil
	}
	if s := sp.services[t.service]; s != nil && s.live() {
		return s
	}
	return nil
}

// Resolve returns the tenant of a verified workload. It is the only way in:
// trust domain and namespace have to agree.
func (m *Model) Resolve(w identity.Workload) (tenant string, ok bool) {
	sp := m.owned(w.Namespace)
	if sp == nil || sp.tenant.now.TrustDomain != w.TrustDomain {
		return "", false
	}
	return sp.tenant.name, true
}

// Settings returns what builders and windows read of a tenant; of one that has
// no Tenant object, the server's limits and otherwise zero values.
func (m *Model) Settings(tenant string) TenantSettings {
	s := TenantSettings{Name: tenant, Limits: m.limits}
	if t := m.tenants[tenant]; t != nil && t.now != nil {
		s.TrustDomain, s.Outbound = t.now.TrustDomain, t.now.Outbound
		s.Quiet, s.Max = t.now.Quiet, t.now.Max
		s.Limits = m.limits.Override(t.now.Limits)
	}
	return s
}

// Bundle returns the X.509 authorities of a trust domain as PEM, nil if it has
// none. Of several sources the first by name counts.
func (m *Model) Bundle(trustDomain string) []byte {
	sources := sortedKeys(m.bundles[trustDomain])
	if len(sources) == 0 {
		return nil
	}
	return m.bundles[trustDomain][sources[0]].PEM
}

func (m *Model) applyBundle(k Key, obj *TrustBundle) {
	if obj != nil && len(obj.PEM) == 0 {
		obj = nil
	}
	had, before := m.accepts(k.Name), m.Bundle(k.Name)
	by := m.bundles[k.Name]
	if same(by[k.Source], obj) {
		return
	}
	put(&by, k.Source, obj)
	m.bundles[k.Name] = by
	if len(by) == 0 {
		delete(m.bundles, k.Name)
	}
	if !slices.Equal(before, m.Bundle(k.Name)) {
		m.touchBundle(k.Name)
	}
	if had == m.accepts(k.Name) {
		return
	}
	var asked []*space
	for t := range m.byDomain[k.Name] {
		m.checkTenant(t)
		for sp := range t.labelled {
			asked = append(asked, sp)
		}
	}
	m.settle(asked, func() {})
}

// accepts reports whether workloads of a trust domain may be anybody's.
func (m *Model) accepts(trustDomain string) bool {
	if trustDomain == "" {
		return false
	}
	if len(m.domains) > 0 {
		_, ok := m.domains[trustDomain]
		return ok
	}
	return len(m.bundles[trustDomain]) > 0
}
