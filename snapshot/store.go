package snapshot

import (
	"sync/atomic"
	"time"
)

// NewAttachment makes the attachment of a proxy. Detach is called once, from
// Close. The owner of the store binds it with Bind; until then the stream
// waits.
func NewAttachment(p Proxy, detach func(*Attachment)) *Attachment {
	var closed atomic.Bool
	return &Attachment{
		proxy: p,
		wake:  make(chan struct{}, 1),
		detach: func(a *Attachment) {
			if !closed.Swap(true) {
				detach(a)
			}
		},
	}
}

// Proxy is what the stream asked for.
func (a *Attachment) Proxy() Proxy { return a.proxy }

// NewView makes a view and its layer for one variant of listeners, both empty
// and in one group. Further variants join with NewVariant.
func NewView() (view, listeners *Layer) {
	g := newGroup()
	return newLayer(g), newLayer(g)
}

// NewVariant makes one more layer in the view's group, of other listeners or of
// what is near a place.
func NewVariant(view *Layer) *Layer { return newLayer(view.group) }

// NewWorkload makes an empty workload layer.
func NewWorkload() *Layer { return newLayer(newGroup()) }

// Bind gives the attachment another binding and wakes its stream. Only the
// store's owner calls it, from one goroutine; nil takes the attachment out of
// every group, for its end.
func (a *Attachment) Bind(b *Binding) {
	old := a.binding.Load()
	if old != nil {
		for _, g := range old.groups() {
			g.mu.Lock()
			delete(g.readers, a)
			g.mu.Unlock()
		}
	}
	if b == nil {
		return
	}
	for i := range a.low {
		a.low[i].Store(1) // forget nothing before the stream says what it needs
	}
	for _, g := range b.groups() {
		g.mu.Lock()
		g.readers[a] = struct{}{}
		g.mu.Unlock()
	}
	a.binding.Store(b)
	a.notify()
}

// Binding is the current binding, nil before the first. The owner reads it
// back to compare; streams use Read.
func (a *Attachment) Binding() *Binding { return a.binding.Load() }

// Update is what a publication changes in one layer.
type Update struct {
	Layer *Layer
	// Set are resources to add or replace; one of an equal version changes nothing.
	Set []*Resource
	// Remove are names to take away.
	Remove []Child
}

// Publish applies updates to layers of one group, all in one generation, and
// wakes the streams that read it. It reports whether anything changed; if not,
// nobody is woken. Only the store's owner calls it.
func Publish(updates ...Update) bool { return PublishSince(time.Time{}, updates...) }

// PublishSince is Publish that also says when the first of the events came that
// the updates follow from, for streams to tell how long they took; zero where
// that is not known.
func PublishSince(event time.Time, updates ...Update) bool {
	if len(updates) == 0 {
		return false
	}
	g := updates[0].Layer.group
	g.mu.Lock()
	defer g.mu.Unlock()
	changed := false
	for _, u := range updates {
		for _, r := range u.Set {
			changed = u.Layer.set(r.typ, r.name, r, g.gen+1) || changed
		}
		for _, c := range u.Remove {
			changed = u.Layer.set(c.Type, c.Name, nil, g.gen+1) || changed
		}
	}
	if !changed {
		return false
	}
	g.gen++
	if !event.IsZero() {
		g.stamps[g.gen%stamps] = stamp{g.gen, event}
	}
	for _, u := range updates {
		if u.Layer.long() {
			u.Layer.trim(g.lowest())
		}
	}
	for a := range g.readers {
		a.notify()
	}
	return true
}

// lowest is the lowest generation that a reader may ask changes from. The caller
// holds the lock.
func (g *group) lowest() uint64 {
	low := g.gen
	for a := range g.readers {
		b := a.binding.Load()
		if b == nil {
			continue
		}
		for i, bg := range b.groups() {
			// 0 is a stream that has nothing yet: it will ask for everything.
			if v := a.low[i].Load(); bg == g && v != 0 {
				low = min(low, v)
			}
		}
	}
	return low
}
