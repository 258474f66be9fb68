package tenancy

import (
	"cmp"
	"container/heap"
)

// entry is what limits count: an object in the fixed order of creation time,
// then namespace and name. It is embedded in the state of such an object.
type entry struct {
	space *space
	name  string
	// created is Meta.Created at the time of ranking.
	created int64
	// dropped entries are over their tenant's limit.
	dropped bool
	// in is the ranking that holds the entry, nil for none; at is its place
	// in one of its heaps.
	in *ranking
	at int
	// state points back to what embeds the entry.
	state any
}

func (e *entry) key() Key { return Key{Source: e.space.source, Namespace: e.space.name, Name: e.name} }

func (e *entry) before(o *entry) int {
	return cmp.Or(cmp.Compare(e.created, o.created), cmp.Compare(e.space.name, o.space.name), cmp.Compare(e.name, o.name))
}

// ranking keeps the first limit entries of one kind and tenant and drops the
// rest. Adding, removing and each step of a limit cost the logarithm of its
// size.
type ranking struct {
	limit int
	kept  entryHeap // the last one on top
	rest  entryHeap // the first one on top
}

// toggle is told of each entry that comes over the limit or back under it; it
// sets entry.dropped.
type toggle func(e *entry, dropped bool)

func newRanking(limit int) *ranking {
	return &ranking{limit: limit, kept: entryHeap{last: true}}
}

// add ranks e. Other entries that thereby move are toggled; e.dropped is set
// without a word.
func (r *ranking) add(e *entry, t toggle) {
	e.in = r
	if len(r.kept.entries) < r.limit {
		e.dropped = false
		heap.Push(&r.kept, e)
		return
	}
	if r.limit > 0 && e.before(r.kept.entries[0]) < 0 {
		out := heap.Pop(&r.kept).(*entry)
		heap.Push(&r.rest, out)
		t(out, true)
		e.dropped = false
		heap.Push(&r.kept, e)
		return
	}
	e.dropped = true
	heap.Push(&r.rest, e)
}

// remove takes e out of its ranking, if it is in one.
func (e *entry) remove(t toggle) {
	r := e.in
	if r == nil {
		return
	}
	if e.dropped {
		heap.Remove(&r.rest, e.at)
	} else {
		heap.Remove(&r.kept, e.at)
	}
	e.in, e.dropped = nil, false
	r.balance(t)
}

func (r *ranking) setLimit(limit int, t toggle) {
	if r.limit == limit {
		return
	}
	r.limit = limit
	r.balance(t)
}

func (r *ranking) balance(t toggle) {
	for len(r.kept.entries) > max(r.limit, 0) {
		out := heap.Pop(&r.kept).(*entry)
		heap.Push(&r.rest, out)
		t(out, true)
	}
	for len(r.kept.entries) < r.limit && len(r.rest.entries) > 0 {
		in := heap.Pop(&r.rest).(*entry)
		heap.Push(&r.kept, in)
		t(in, false)
	}
}

type entryHeap struct {
	last    bool
	entries []*entry
}

// Len is of heap.Interface, as are the methods below.
func (h *entryHeap) Len() int { return len(h.entries) }

// Less puts the first entry on top, or the last one.
func (h *entryHeap) Less(i, j int) bool {
	c := h.entries[i].before(h.entries[j])
	return (c < 0) != h.last
}

// Swap keeps the entries' places.
func (h *entryHeap) Swap(i, j int) {
	e := h.entries
	e[i], e[j] = e[j], e[i]
	e[i].at, e[j].at = i, j
}

// Push appends an *entry.
func (h *entryHeap) Push(x any) {
	e := x.(*entry)
	e.at = len(h.entries)
	h.entries = append(h.entries, e)
}

// Pop removes the last entry.
func (h *entryHeap) Pop() any {
	n := len(h.entries) - 1
	e := h.entries[n]
	h.entries[n] = nil
	h.entries = h.entries[:n]
	return e
}
