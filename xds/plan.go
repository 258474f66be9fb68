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
	gens    [3]uint64
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
	old, new                       [3]uint64
	from, to                       [3]uint64
	names, asked, orphans          uint64
	has                            sum
	parents                        [3]uint64
	except, prev, suspectsRevision uint64
}

func (q *query) key() batchKey {
	k := batchKey{
		mode: q.mode, typ: q.typ, what: q.what,
		wildcard: q.wildcard, all: q.all, empty: q.empty,
		from: q.at.gens, to: q.now.gens, new: layerIDs(q.now.binding),
		names: q.names.key(), asked: q.asked.key(), orphans: q.orphans.key(),
		except: q.except.key(), prev: q.prev.key(), suspectsRevision: q.suspects.key(),
	}
	if q.at.binding != nil {
		k.old = layerIDs(q.at.binding)
	}
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

func layerIDs(b *snapshot.Binding) [3]uint64 {
	var ids [3]uint64
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
		if !l.Changed(t, c.gens[i]) {
			continue
		}
		if at := l.Event(c.gens[i]); first.IsZero() || (!at.IsZero() && at.Before(first)) {
			first = at
		}
	}
	return first
}

// behind reports whether a type changed in the layers of b since the cursor.
func (c *cursor) behind(b *snapshot.Binding, t snapshot.Type) bool {
	old := c.binding.Layers()
	for i, l := range b.Layers() {
		if l != old[i] || l.Changed(t, c.gens[i]) {
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

// lookup finds a name in the layers of a binding. It is the only way from a
// name to a resource: what is not in the stream's own layers does not exist.
func lookup(b *snapshot.Binding, t snapshot.Type, name string) *snapshot.Resource {
	for _, l := range b.Layers() {
		if r := l.Get(t, name); r != nil {
			return r
		}
	}
	return nil
}

// each calls f for all resources of a type in a binding.
func each(b *snapshot.Binding, t snapshot.Type, f func(*snapshot.Resource)) {
	for _, l := range distinct(b) {
		l.All(t, f)
	}
}

func distinct(b *snapshot.Binding) []*snapshot.Layer {
	ls := b.Layers()
	out := ls[:1:1]
	for _, l := range ls[1:] {
		if !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	return out
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
			ok = l.Since(q.typ, q.at.gens[i], func(name string, _ *snapshot.Resource) { note(name) })
		} else {
			ok = differ(q.typ, old[i], q.at.gens[i], l, note)
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
