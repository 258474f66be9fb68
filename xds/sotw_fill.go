package xds

import (
	"maps"
	"slices"

	"bailiwick.dev/bailiwick/snapshot"
)

// fillSet answers with the whole set of a type. What has left the set stays in
// the first response, and goes with the second one behind all other steps.
func (q *query) fillSet(b *batch) {
	b.isFull = true
	full := map[string]*snapshot.Resource{}
	if q.wildcard {
		q.now.binding.All(q.typ, func(r *snapshot.Resource) { full[r.Name()] = r })
	}
	for name := range q.names.all() {
		if r := q.now.binding.Get(q.typ, name); r != nil {
			full[name] = r
		}
	}
	b.full = slices.Collect(maps.Values(full))
	sortResources(b.full)

	before := q.prev.set()
	grown := slices.Clone(b.full)
	for name, r := range before {
		if full[name] == nil && q.interested(name) {
			grown = append(grown, r)
			b.removed = append(b.removed, name)
		}
	}
	slices.Sort(b.removed)
	for _, r := range b.full {
		if was := before[r.Name()]; was == nil || was.Version() != r.Version() {
			b.fresh = append(b.fresh, r)
		}
	}
	switch {
	case len(b.fresh) > 0 || (len(b.full) > 0 && (q.all || q.empty || q.asked != nil)):
		sortResources(grown)
		b.groups = [][]*snapshot.Resource{grown}
	case len(b.removed) == 0:
		// A set that shrinks to nothing and one that was nothing are both told.
		b.empty = q.empty || q.all || q.asked != nil
	}
}

// set is what the client has after it got b.
func (b *batch) set() map[string]*snapshot.Resource {
	if b == nil {
		return nil
	}
	m := make(map[string]*snapshot.Resource, len(b.full))
	for _, r := range b.full {
		m[r.Name()] = r
	}
	return m
}
