package tenancy

func (m *Model) applyGrant(sp *space, name string, obj *ServiceGrant) {
	g := sp.grants[name]
	if g == nil {
		if obj == nil {
			return
		}
		g = &grant{entry: entry{space: sp, name: name}}
		g.state = g
		put(&sp.grants, name, g)
	}
	if same(g.obj, obj) {
		return
	}
	m.touchGrant(g)
	if g.obj != nil {
		for _, to := range g.obj.To {
			drop(sp.grantsFor, to.Service, g)
		}
	}
	g.obj = obj
	if obj != nil {
		for _, to := range obj.To {
			insert(&sp.grantsFor, to.Service, g)
		}
	} else {
		delete(sp.grants, name)
	}
	m.rank(&g.entry)
	m.touchGrant(g)
	m.check(g.ref())
}

func (m *Model) applyRequest(sp *space, name string, obj *ServiceRequest) {
	r := sp.requests[name]
	if r == nil {
		if obj == nil {
			return
		}
		r = &request{entry: entry{space: sp, name: name}}
		r.state = r
		put(&sp.requests, name, r)
	}
	if same(r.obj, obj) {
		return
	}
	m.touchRequest(r)
	if r.obj != nil {
		drop(sp.requestsFor, r.target(), r)
		if sp.tenant != nil {
			drop(m.requests, wanted{r.target(), sp.tenant.name}, r)
		}
	}
	r.obj = obj
	if obj != nil {
		insert(&sp.requestsFor, r.target(), r)
		if sp.tenant != nil {
			insert(&m.requests, wanted{r.target(), sp.tenant.name}, r)
		}
	} else {
		delete(sp.requests, name)
	}
	m.rank(&r.entry)
	m.touchRequest(r)
	m.check(r.ref())
}

func (m *Model) applyClusterGrant(k Key, obj *ClusterServiceGrant) {
	g := m.clusterGrants[k]
	if g == nil && obj == nil || g != nil && same(g.obj, obj) {
		return
	}
	if g != nil {
		m.touchClusterGrant(g)
		m.unlinkClusterGrant(g)
	}
	if obj != nil {
		g = &clusterGrant{key: k, obj: obj, tenants: set[string]{}}
		for _, t := range obj.Tenants {
			g.tenants[t] = struct{}{}
		}
		m.linkClusterGrant(g)
		m.touchClusterGrant(g)
	}
	m.check(Ref{Kind: KindClusterServiceGrant, Key: k})
}

func (m *Model) linkClusterGrant(g *clusterGrant) {
	m.clusterGrants[g.key] = g
	for _, to := range g.obj.To {
		insert(&m.clusterFor, target{to.Namespace, to.Service}, g)
	}
	if g.obj.AllTenants {
		m.clusterAll[g] = struct{}{}
		return
	}
	for t := range g.tenants {
		insert(&m.clusterOf, t, g)
	}
}

func (m *Model) unlinkClusterGrant(g *clusterGrant) {
	delete(m.clusterGrants, g.key)
	for _, to := range g.obj.To {
		drop(m.clusterFor, target{to.Namespace, to.Service}, g)
	}
	delete(m.clusterAll, g)
	for t := range g.tenants {
		drop(m.clusterOf, t, g)
	}
}
