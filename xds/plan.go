package xds

import (
	"slices"
	"time"

	"bailiwick.dev/bailiwick/snapshot"
)

// protocol is the flavour of a stream.
type protocol uint8

const (
	delta protocol = iota
	state
)

func (p protocol) String() string {
	if p == state {
		return "sotw"
	}
	return "delta"
}

// cursor is up to where a stream has got a type: a binding and the generations
// of its layers. The zero value is nowhere.
type cursor struct {
	binding *snapshot.Binding
	gens    snapshot.Generations
}

// versions are the initial_resource_versions of the first request of a type,
// kept until that request is answered.
type versions struct {
	of  map[string]string
	sum sum
}

func (v *versions) get(name string) (string, bool) {
	if v == nil {
		return "", false
	}
	s, ok := v.of[name]
	return s, ok
}

// query is what one step asks of the layers: all that its answer depends on.
// Batches are shared by equal keys, so nothing may be read that is not in the
// key.
type query struct {
	mode protocol
	typ  snapshot.Type
	what what
	at   cursor
	now  cursor
	// wildcard and names are the subscription.
	wildcard bool
	names    *nameSet
	// all and asked have to be answered, changed or not.
	all   bool
	asked *nameSet
	// empty wants a response even if it is empty.
	empty bool
	// has is what the client said it has, nil if it said nothing.
	has *versions
	// orphans are clusters that the client may have and did not name.
	orphans *nameSet
	// parents are this flush's batches of the type that brings children.
	parents [3]*batch
	// except are secrets that went out before in the same flush.
	except *batch
	// prev is the full set that was last sent (sotw).
	prev *batch
	// suspects are names of the tenant that failed alone once.
	suspects *suspects
}

type batchKey struct {
	mode                           protocol
	typ                            snapshot.Type
	what                           what
	wildcard, all, empty, told     bool
	old, new                       [4]uint64
	from, to                       snapshot.Generations
	names, asked, orphans          uint64
	has                            sum
	parents                        [3]uint64
	except, prev, suspectsRevision uint64
}

func (q *query) key() batchKey {
	k := batchKey{
		mode: q.mode, typ: q.typ, what: q.what,
		wildcard: q.wildcard, all: q.all, empty: q.empty,
		names: q.names.key(), asked: q.asked.key(), orphans: q.orphans.key(),
		except: q.except.key(), prev: q.prev.key(), suspectsRevision: q.suspects.key(),
	}
	k.old, k.from = q.at.place(q.typ)
	k.new, k.to = q.now.place(q.typ)
	if q.has != nil {
		k.told, k.has = true, q.has.sum
	}
	for i, p := range q.parents {
		k.parents[i] = p.key()
	}
	return k
}

func (b *batch) key() uint64 {
	if b == nil {
		return 0
	}
	return b.id
}

// place is where a cursor is, as far as answers of a type depend on it: on the
// layers that have ever held any of that type. The view is always among them, as
// it says whose the answer is.
func (c *cursor) place(t snapshot.Type) (ids [4]uint64, at snapshot.Generations) {
	if c.binding == nil {
		return ids, at
	}
	ids[0] = c.binding.View.ID()
	for i, l := range c.binding.Layers() {
		switch {
		case !l.Changed(t, 0):
		case l == c.binding.Workload:
			ids[i], at.Inbound = l.ID(), c.gens.Inbound
		default:
			ids[i], at.Outbound = l.ID(), c.gens.Outbound
		}
	}
	return ids, at
}

func layerIDs(b *snapshot.Binding) [4]uint64 {
	var ids [4]uint64
	for i, l := range b.Layers() {
		ids[i] = l.ID()
	}
	return ids
}

// moot reports whether the answer is certainly nothing, without building it.
func (q *query) moot() bool {
	if q.all || q.empty || q.asked != nil || q.orphans != nil || q.has != nil {
		return false
	}
	for _, p := range q.parents {
		if p != nil && hasChildren(p, q.typ) {
			return false
		}
	}
	return q.what == children || q.at.binding == nil || !q.at.behind(q.now.binding, q.typ)
}

// event is when what changed of a type since the cursor came to the store, zero
// if nothing did.
func (c *cursor) event(t snapshot.Type) time.Time {
	var first time.Time
	for i, l := range c.binding.Layers() {
		if !l.Changed(t, c.gens.Of(i)) {
			continue
		}
		if at := l.Event(c.gens.Of(i)); first.IsZero() || (!at.IsZero() && at.Before(first)) {
			first = at
		}
	}
	return first
}

// behind reports whether a type changed in the layers of b since the cursor.
func (c *cursor) behind(b *snapshot.Binding, t snapshot.Type) bool {
	old := c.binding.Layers()
	for i, l := range b.Layers() {
		if l != old[i] || l.Changed(t, c.gens.Of(i)) {
			return true
		}
	}
	return false
}

func hasChildren(b *batch, t snapshot.Type) bool {
	for _, r := range b.fresh {
		for _, c := range r.Children() {
			if c.Type == t {
				return true
			}
		}
	}
	return false
}

// changed calls note for every name of the type that is not in now as the
// stream got it at its cursor. It costs what changed, or, where the stream was
// bound to other layers, both layers. It returns false if that is forgotten.
func (q *query) changed(note func(name string)) bool {
	if q.at.binding == nil {
		return true
	}
	old := q.at.binding.Layers()
	for i, l := range q.now.binding.Layers() {
		var ok bool
		if l == old[i] {
			ok = l.Since(q.typ, q.at.gens.Of(i), func(name string, _ *snapshot.Resource) { note(name) })
		} else {
			ok = differ(q.typ, old[i], q.at.gens.Of(i), l, note)
		}
		if !ok {
			return false
		}
	}
	return true
}

// differ notes the names by which what a stream has of one layer differs from
// another layer.
func differ(t snapshot.Type, old *snapshot.Layer, from uint64, next *snapshot.Layer, note func(string)) bool {
	next.All(t, func(r *snapshot.Resource) {
		was, same := old.GetSince(t, r.Name(), from)
		if !same || was.Version() != r.Version() {
			note(r.Name())
		}
	})
	old.All(t, func(r *snapshot.Resource) {
		if next.Get(t, r.Name()) == nil {
			note(r.Name())
		}
	})
	return old.Had(t, from, func(name string) {
		if next.Get(t, name) == nil {
			note(name)
		}
	})
}

// fill answers the query into b. It runs inside Attachment.Read. It returns
// false if the layers no longer remember what the stream has.
func (q *query) fill(b *batch) bool {
	if q.mode == state && isSet(q.typ) {
		q.fillSet(b)
		return true
	}
	return q.fillDifference(b)
}

// interested reports whether the stream is subscribed to a name.
func (q *query) interested(name string) bool { return q.wildcard || q.names.has(name) }

// followers calls f for the children of the parents that the type has to add.
func (q *query) followers(f func(name string)) {
	for _, p := range q.parents {
		if p == nil {
			continue
		}
		for _, r := range p.fresh {
			for _, c := range r.Children() {
				if c.Type == q.typ && !q.skip(c.Name) {
					f(c.Name)
				}
			}
		}
	}
}

// skip reports whether a child need not follow because the client has it: all
// but assignments, which a cluster waits for each time.
func (q *query) skip(name string) bool {
	if q.typ == snapshot.Endpoint {
		return false
	}
	return q.interested(name) || q.except.mentions(name)
}

// mentions reports whether a name is among the resources of b.
func (b *batch) mentions(name string) bool {
	if b == nil {
		return false
	}
	for _, g := range b.groups {
		if slices.ContainsFunc(g, func(r *snapshot.Resource) bool { return r.Name() == name }) {
			return true
		}
	}
	return false
}
