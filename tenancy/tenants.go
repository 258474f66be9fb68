package tenancy

import (
	"cmp"
	"slices"
	"strings"

	"bailiwick.dev/bailiwick/tenancy/policy"
)

// makeTenant returns what is known under a tenant name.
func (m *Model) makeTenant(name string) *tenant {
	t := m.tenants[name]
	if t == nil {
		l := m.limits
		t = &tenant{
			name: name, claims: map[string]*Tenant{}, labelled: set[*space]{}, members: map[string]*space{}, open: set[string]{},
			services: newRanking(l.Services), policies: newRanking(l.Policies), grants: newRanking(l.Grants), requests: newRanking(l.Requests),
		}
		m.tenants[name] = t
	}
	return t
}

func (m *Model) sweepTenant(t *tenant) {
	if len(t.claims) == 0 && len(t.labelled) == 0 && len(t.open) == 0 {
		delete(m.tenants, t.name)
	}
}

// applyNamespace changes what a namespace asks for, and which source has its
// name.
func (m *Model) applyNamespace(k Key, obj *Namespace) {
	key := spaceKey{k.Source, k.Name}
	sp := m.spaces[key]
	if sp == nil {
		if obj == nil {
			return
		}
		sp = m.makeSpace(key)
	}
	if same(sp.obj, obj) {
		return
	}
	c := m.names[k.Name]
	if c == nil {
		c = &claim{spaces: set[*space]{}}
		m.names[k.Name] = c
	}
	if old := sp.obj; old != nil && old.Tenant != "" {
		t := m.tenants[old.Tenant]
		delete(t.labelled, sp)
		defer m.sweepTenant(t)
	}
	labels := m.relabel(sp, obj)
	sp.obj = obj
	if obj != nil {
		c.spaces[sp] = struct{}{}
		if obj.Tenant != "" {
			m.makeTenant(obj.Tenant).labelled[sp] = struct{}{}
		}
	} else {
		delete(c.spaces, sp)
	}
	asked := []*space{sp}
	for other := range c.spaces {
		m.checkNamespace(other)
		if other != sp {
			asked = append(asked, other)
		}
	}
	m.checkNamespace(sp)
	m.settle(asked, func() { c.active = c.first() })
	if labels {
		m.touchWorkloads(sp)
	}
	if len(c.spaces) == 0 {
		delete(m.names, k.Name)
	}
	m.sweep(sp)
}

// applyTenant changes a Tenant object: first who belongs to the tenant, then
// what its settings mean to those who stay.
func (m *Model) applyTenant(k Key, obj *Tenant) {
	t := m.tenants[k.Name]
	if t == nil {
		if obj == nil {
			return
		}
		t = m.makeTenant(k.Name)
	}
	if same(t.claims[k.Source], obj) {
		return
	}
	put(&t.claims, k.Source, obj)
	m.check(Ref{Kind: KindTenant, Key: k})
	m.checkTenant(t)
	old := t.obj
	t.obj = firstTenant(t.claims)
	if same(old, t.obj) {
		t.now = t.obj
		return
	}
	if old != nil {
		drop(m.byDomain, old.TrustDomain, t)
	}
	if t.obj != nil {
		insert(&m.byDomain, t.obj.TrustDomain, t)
	}
	var asked []*space
	for sp := range t.labelled {
		m.checkNamespace(sp)
		asked = append(asked, sp)
	}
	before := m.Settings(t.name)
	shows := old != nil && t.obj != nil && old.Visibility != t.obj.Visibility
	if shows {
		m.touchOpen(t)
	}
	m.settle(asked, func() { t.now = t.obj })
	if shows {
		m.touchOpen(t)
	}
	m.applySettings(t, old, before)
	m.sweepTenant(t)
}

// applySettings spreads what the settings of a tenant mean to its members and
// open views. Members that came or went are touched already.
func (m *Model) applySettings(t *tenant, old *Tenant, before TenantSettings) {
	now := m.Settings(t.name)
	if before != now {
		for ns := range t.open {
			m.touchView(ViewKey{t.name, ns}).Settings = true
		}
		l := now.Limits
		for i, limit := range []int{l.Services, l.Policies, l.Grants, l.Requests} {
			t.rankings()[i].setLimit(limit, m.toggle)
		}
	}
	if old == nil || t.now == nil {
		return
	}
	m.applyAdmin(t, old)
	if old.Plain != t.now.Plain || old.Visibility != t.now.Visibility {
		m.touchAgreements(t)
	}
	tls := old.TLSMinimum13 != t.now.TLSMinimum13
	endpoints := before.Limits.Endpoints != now.Limits.Endpoints
	inbound := tls || old.DefaultAction != t.now.DefaultAction ||
		old.MaxConnectionAge != t.now.MaxConnectionAge || old.MaxStreamAge != t.now.MaxStreamAge ||
		old.Permissive != t.now.Permissive || !slices.EqualFunc(old.Providers, t.now.Providers, policy.Provider.Equal)
	crowds := before.Limits.PoliciesPerWorkload != now.Limits.PoliciesPerWorkload
	inbound = inbound || crowds
	for _, sp := range t.members {
		if crowds {
			m.touchCrowd(sp)
		}
		if inbound {
			m.touchWorkloads(sp)
			m.checkPolicies(sp)
		}
		if tls || endpoints {
			for _, s := range sp.services {
				m.touchService(s)
				m.check(s.ref())
			}
		}
	}
}

// firstTenant is the one of several objects of one name that counts: the
// oldest, then the first source by name.
func firstTenant(claims map[string]*Tenant) *Tenant {
	var first *Tenant
	for _, source := range sortedKeys(claims) {
		if o := claims[source]; first == nil || o.Created < first.Created {
			first = o
		}
	}
	return first
}

// rightful is the tenant that a space ought to have now.
func (m *Model) rightful(sp *space) *tenant {
	if !m.reserved(sp).IsZero() {
		return nil
	}
	return m.entitled(sp)
}

// entitled is the tenant that a space ought to have by the objects.
func (m *Model) entitled(sp *space) *tenant {
	if sp.obj == nil || sp.obj.Tenant == "" || m.names[sp.name].first() != sp {
		return nil
	}
	t := m.tenants[sp.obj.Tenant]
	if t.obj == nil || t.obj.Suspended || !m.accepts(t.obj.TrustDomain) || !admits(t.obj, sp.name) {
		return nil
	}
	return t
}

func admits(t *Tenant, namespace string) bool {
	return t.Namespaces == nil || slices.ContainsFunc(t.Namespaces, func(n string) bool {
		return n == namespace || strings.HasSuffix(n, "-") && strings.HasPrefix(namespace, n)
	})
}

// settle gives spaces the tenants that they ought to have by the objects, and
// touches whatever depended on it before and depends on it after. commit makes
// the objects count that asked for it; it runs when the spaces are nobody's.
func (m *Model) settle(asked []*space, commit func()) {
	for _, sp := range asked {
		m.noteHolder(sp)
	}
	var moved []*space
	for _, sp := range asked {
		to := m.rightful(sp)
		if to != sp.tenant || to != nil && to.now.TrustDomain != to.obj.TrustDomain {
			moved = append(moved, sp)
		}
	}
	slices.SortFunc(moved, func(a, b *space) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.source, b.source))
	})
	m.touchMoved(moved)
	m.touchPlain(asked)
	for _, sp := range moved {
		m.leave(sp)
	}
	commit()
	for _, sp := range moved {
		if t := m.rightful(sp); t != nil {
			m.join(sp, t)
		}
	}
	m.touchMoved(moved)
	m.touchPlain(asked)
}

// leave makes a space nobody's.
func (m *Model) leave(sp *space) {
	t := sp.tenant
	if t == nil {
		return
	}
	for _, s := range sp.services {
		s.remove(m.toggle)
	}
	for _, p := range sp.policies {
		p.remove(m.toggle)
	}
	for _, g := range sp.grants {
		g.remove(m.toggle)
	}
	for _, r := range sp.requests {
		drop(m.requests, wanted{r.target(), t.name}, r)
		r.remove(m.toggle)
	}
	m.touchCrowd(sp)
	delete(t.members, sp.name)
	delete(t.over, sp)
	m.used(t)
	t.refs, sp.tenant, sp.leftOut = nil, nil, 0
}

// join makes a space t's.
func (m *Model) join(sp *space, t *tenant) {
	l := m.limits.Override(t.now.Limits)
	for i, limit := range []int{l.Services, l.Policies, l.Grants, l.Requests} {
		t.rankings()[i].setLimit(limit, m.toggle)
	}
	t.members[sp.name] = sp
	t.refs, sp.tenant = nil, t
	m.noteOver(sp)
	for _, s := range sp.services {
		m.rank(&s.entry)
	}
	for _, p := range sp.policies {
		m.rank(&p.entry)
	}
	for _, g := range sp.grants {
		m.rank(&g.entry)
	}
	for _, r := range sp.requests {
		insert(&m.requests, wanted{r.target(), t.name}, r)
		m.rank(&r.entry)
	}
}

// rank puts the object of e where its tenant's limits count it, or takes it
// out where they do not.
func (m *Model) rank(e *entry) {
	var in *ranking
	created := int64(0)
	if t := e.space.tenant; t != nil {
		switch s := e.state.(type) {
		case *service:
			if s.obj != nil {
				in, created = t.services, s.obj.Created
			}
		case *accessPolicy:
			if s.obj != nil && s.obj.Action == Allow {
				in, created = t.policies, s.obj.Created
			}
		case *grant:
			if s.obj != nil {
				in, created = t.grants, s.obj.Created
			}
		case *request:
			if s.obj != nil {
				in, created = t.requests, s.obj.Created
			}
		}
	}
	if in == e.in && (in == nil || created == e.created) {
		return
	}
	e.remove(m.toggle)
	if e.created = created; in != nil {
		in.add(e, m.toggle)
	}
	m.check(e.ref())
	m.used(e.space.tenant)
}

// toggle drops an object that came over its tenant's limit, or takes it back.
func (m *Model) toggle(e *entry, dropped bool) {
	m.touchEntry(e)
	e.dropped = dropped
	m.touchEntry(e)
	if p, ok := e.state.(*accessPolicy); ok {
		m.touchCrowds(p)
	}
	m.check(e.ref())
	m.used(e.space.tenant)
}

func (t *tenant) floor() []policy.NamespaceRef {
	if t.refs == nil {
		for _, name := range sortedKeys(t.members) {
			t.refs = append(t.refs, policy.NamespaceRef{TrustDomain: t.now.TrustDomain, Namespace: name})
		}
	}
	return t.refs
}
