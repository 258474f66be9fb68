package tenancy

// Steps is what the events so far have cost.
func (m *Model) Steps() int { return m.steps }

// Left counts what an emptied Model still holds.
func (m *Model) Left() int {
	return len(m.spaces) + len(m.names) + len(m.tenants) + len(m.byDomain) + len(m.bundles) + len(m.requests) +
		len(m.clusterGrants) + len(m.clusterFor) + len(m.clusterOf) + len(m.clusterAll) + len(m.denying) +
		len(m.former) + len(m.waits.waiting) + len(m.holdings) + len(m.unsaid) + len(m.ends.byRef) + len(m.ends.soon.waiting) + len(m.ends.over.waiting) + len(m.late.waiting)
}
