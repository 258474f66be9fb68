package xds

import (
	"maps"
	"slices"

	"bailiwick.dev/bailiwick/snapshot"
)

// difference gathers what a response of single resources has to say.
type difference struct {
	q   *query
	out map[string]*snapshot.Resource
	// held are names that are not there and that the client has, unknown those
	// that it merely asked for.
	held, unknown map[string]struct{}
}

// fillDifference answers with what changed since the cursor, what was asked
// for and what must follow its parents. It serves delta streams, and of
// state-of-the-world streams the types whose responses may be partial.
func (q *query) fillDifference(b *batch) bool {
	d := &difference{q: q, out: map[string]*snapshot.Resource{}, held: map[string]struct{}{}, unknown: map[string]struct{}{}}
	if q.what != children {
		if !q.changed(d.changed) {
			return false
		}
		d.answer()
	}
	q.followers(d.follow)
	d.finish(b)
	b.empty = q.empty
	return true
}

// changed takes a name that is not as the client got it.
func (d *difference) changed(name string) {
	if !d.q.interested(name) {
		return
	}
	r := d.q.now.binding.Get(d.q.typ, name)
	switch {
	case r == nil:
		d.held[name] = struct{}{}
	case !d.q.hidden(r):
		d.out[name] = r
	}
}

// hidden reports whether a change is none for the stream, because what it has of
// the name is from another layer: what is near it stands before the rest.
func (q *query) hidden(r *snapshot.Resource) bool {
	if q.at.binding.Near == nil && q.now.binding.Near == nil {
		return false
	}
	had, known := q.at.binding.Had(q.typ, r.Name(), q.at.gens)
	return known && had != nil && had.Version() == r.Version()
}

// answer adds what is due whether it changed or not.
func (d *difference) answer() {
	q := d.q
	if q.all {
		q.now.binding.All(q.typ, d.unlessHeld)
	}
	for name := range q.asked.all() {
		if r := q.now.binding.Get(q.typ, name); r != nil {
			d.unlessHeld(r)
		} else {
			d.unknown[name] = struct{}{}
		}
	}
	if q.has != nil {
		for name := range q.has.of {
			if q.now.binding.Get(q.typ, name) == nil {
				d.held[name] = struct{}{}
			}
		}
	}
	for name := range q.orphans.all() {
		if q.now.binding.Get(q.typ, name) == nil {
			d.held[name] = struct{}{}
		}
	}
}

// unlessHeld adds a resource that the client did not say it has.
func (d *difference) unlessHeld(r *snapshot.Resource) {
	if v, ok := d.q.has.get(r.Name()); !ok || v != r.Version() {
		d.out[r.Name()] = r
	}
}

// follow adds a child of a new or changed parent.
func (d *difference) follow(name string) {
	if r := d.q.now.binding.Get(d.q.typ, name); r != nil {
		d.out[name] = r
	} else if r := snapshot.Absent(d.q.typ, name); r != nil {
		d.out[name] = r
	}
}

// finish turns names that are not there into what their type demands and sorts
// all of it.
func (d *difference) finish(b *batch) {
	for name := range d.held {
		delete(d.unknown, name)
	}
	switch d.q.typ {
	case snapshot.Cluster, snapshot.Listener:
		maps.Copy(d.held, d.unknown)
		b.removed = slices.Sorted(maps.Keys(d.held))
	case snapshot.Endpoint:
		for name := range d.held {
			if d.out[name] != nil {
				continue
			}
			if r := snapshot.Absent(d.q.typ, name); r != nil {
				b.late = append(b.late, r)
			}
		}
		sortResources(b.late)
		d.missing(b)
	case snapshot.Route, snapshot.Extension:
		maps.Copy(d.held, d.unknown)
		for name := range d.held {
			if d.out[name] != nil {
				continue
			}
			if r := snapshot.Absent(d.q.typ, name); r != nil {
				d.unlessHeld(r)
			}
		}
	case snapshot.Secret, snapshot.NumTypes:
		// Envoy keeps using a secret that is removed; and the listener that
		// waits for an unknown one opens and drops everything if it is told so.
	}
	b.fresh = slices.Collect(maps.Values(d.out))
	sortResources(b.fresh)
	b.groups = d.q.suspects.split(d.q.typ, b.fresh)
}

// missing answers for assignments that were asked for and do not exist. That
// they are removed ends the warming of a cluster at once; in the state of the
// world only an empty one does.
func (d *difference) missing(b *batch) {
	if d.q.mode == delta {
		for name := range d.unknown {
			if d.out[name] == nil {
				b.gone = append(b.gone, name)
			}
		}
		slices.Sort(b.gone)
		return
	}
	for name := range d.unknown {
		if d.out[name] != nil {
			continue
		}
		if r := snapshot.Absent(d.q.typ, name); r != nil {
			d.out[name] = r
		}
	}
}
