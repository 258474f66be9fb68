package snapshot

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"bailiwick.dev/bailiwick/identity"
)

// Proxy is what one stream asks for. Only Workload is proven; Pod picks among
// the Pods of that workload, Variant shapes the proxy's own listeners.
type Proxy struct {
	Workload identity.Workload
	// Pod is the name from the node id, empty if there is none.
	Pod     string
	Variant Variant
	// Address is where the connection comes from, if streams are bound to the
	// addresses of Pods: then it must be one of a Pod of Workload. The zero
	// value asks for nothing.
	Address netip.Addr
}

// Binding is what a stream is to be served from. It is immutable; a change of
// tenant, Pod selection or hold makes a new one.
type Binding struct {
	// Tenant is empty for an identity without one, which gets the empty view.
	Tenant string
	// View, Listeners and Workload are never nil. View, Listeners and Near are
	// swapped together; the workload layer is swapped before a view that needs it.
	View, Listeners, Workload *Layer
	// Near holds the assignments that differ where the proxy is; they stand before
	// those of View. It is nil where nothing does.
	Near *Layer
	// Held streams get no answer at all: their tenant could not be read since
	// the start, so that nothing may be said about it.
	Held bool
	// Final bindings are empty because the identity lost its tenant or got
	// another: they are served, and then the connection is to be closed.
	Final bool
	// Refused bindings are for identities that show themselves at an address
	// where no Pod of theirs is: nothing is served, the connection is closed.
	Refused bool
}

// Layers are the binding's layers in the order of their keys, nil where there is
// none: a nil Layer is an empty one that never changes.
func (b *Binding) Layers() [4]*Layer { return [4]*Layer{b.View, b.Listeners, b.Workload, b.Near} }

// Generations are up to where a stream has read the layers of a binding: Outbound
// of those that are swapped with the view, Inbound of the workload layer.
type Generations struct{ Outbound, Inbound uint64 }

// Of is the generation of the layer at index i of Binding.Layers.
func (g Generations) Of(i int) uint64 {
	if i == 2 {
		return g.Inbound
	}
	return g.Outbound
}

// Generations are the current ones. Call it inside Attachment.Read.
func (b *Binding) Generations() Generations {
	return Generations{Outbound: b.View.Generation(), Inbound: b.Workload.Generation()}
}

// groups are those of the generations in their order.
func (b *Binding) groups() [2]*group { return [2]*group{b.View.group, b.Workload.group} }

// Get finds a resource by its name, nil if it is not there. It is the only way
// from a name to a resource. Call it inside Attachment.Read.
func (b *Binding) Get(t Type, name string) *Resource {
	if r := b.Near.Get(t, name); r != nil {
		return r
	}
	for _, l := range [...]*Layer{b.View, b.Listeners, b.Workload} {
		if r := l.Get(t, name); r != nil {
			return r
		}
	}
	return nil
}

// All calls f for each resource of a type, in no order. Call it inside
// Attachment.Read.
func (b *Binding) All(t Type, f func(*Resource)) {
	b.Near.All(t, f)
	for i, l := range [...]*Layer{b.View, b.Listeners, b.Workload} {
		if i == 1 && l == b.View {
			continue
		}
		l.All(t, func(r *Resource) {
			if b.Near.Get(t, r.name) == nil {
				f(r)
			}
		})
	}
}

// Had is what Get found at earlier generations; it is not known of a name that
// has changed since. Call it inside Attachment.ReadWith.
func (b *Binding) Had(t Type, name string, at Generations) (r *Resource, known bool) {
	for _, l := range [...]struct {
		layer *Layer
		from  uint64
	}{{b.Near, at.Outbound}, {b.View, at.Outbound}, {b.Listeners, at.Outbound}, {b.Workload, at.Inbound}} {
		if l.layer == nil {
			continue
		}
		tb := &l.layer.tables[t]
		e, there := tb.entries[name]
		switch {
		case there && e.gen <= l.from:
			return e.res, true
		case there || tb.gone[name] > l.from:
			return nil, false
		}
	}
	return nil, true
}

// Attachment is one stream's hold on the store. The publisher changes what it
// is bound to; the stream reads. Close it when the stream ends.
type Attachment struct {
	proxy   Proxy
	wake    chan struct{}
	woken   atomic.Pointer[func()]
	binding atomic.Pointer[Binding]
	// low are the lowest of the Generations that the stream may still ask changes
	// from; 0 for none yet.
	low    [2]atomic.Uint64
	detach func(*Attachment)
}

// Wake receives a value after the binding or one of its layers changed. One
// value may stand for many changes.
func (a *Attachment) Wake() <-chan struct{} { return a.wake }

// OnWake has f called where Wake would receive a value. F must not block and must
// not read the attachment: the layers' locks may be held. Whoever reads after OnWake
// has returned misses nothing that came before.
func (a *Attachment) OnWake(f func()) { a.woken.Store(&f) }

// Close ends the attachment. It is idempotent and does not wait.
func (a *Attachment) Close() { a.detach(a) }

// Keep tells from which generations of b's layers the stream may still ask for
// changes, so that older ones are forgotten. It does nothing once the attachment
// has another binding.
func (a *Attachment) Keep(b *Binding, gens Generations) {
	if a.binding.Load() != b {
		return
	}
	a.low[0].Store(gens.Outbound)
	a.low[1].Store(gens.Inbound)
}

// Read calls f with the current binding, holding all its layers at one
// generation each. It returns false without calling f while nothing is known
// about the proxy yet. F must be short, must not block and must not keep the
// layers' lock-protected state; resources are immutable and may be kept.
func (a *Attachment) Read(f func(*Binding)) bool {
	b := a.binding.Load()
	if b == nil {
		return false
	}
	b.View.group.mu.RLock()
	defer b.View.group.mu.RUnlock()
	if b.Workload.group != b.View.group {
		b.Workload.group.mu.RLock()
		defer b.Workload.group.mu.RUnlock()
	}
	f(b)
	return true
}

// ReadWith is Read that also holds the layers of former bindings, of a stream
// that has to find out how what it has got from those differs from what it is
// bound to now.
func (a *Attachment) ReadWith(former []*Binding, f func(*Binding)) bool {
	b := a.binding.Load()
	if b == nil {
		return false
	}
	// A group must not be locked twice by one reader: a writer that waits in
	// between would stop both. The order does not matter, as no writer holds
	// more than one.
	var room [6]*group
	held := room[:0]
	hold := func(b *Binding) {
		for _, g := range b.groups() {
			if !slices.Contains(held, g) {
				g.mu.RLock()
				held = append(held, g)
			}
		}
	}
	defer func() {
		for _, g := range held {
			g.mu.RUnlock()
		}
	}()
	hold(b)
	for _, o := range former {
		hold(o)
	}
	f(b)
	return true
}

// notify wakes the stream; it never blocks.
func (a *Attachment) notify() {
	if f := a.woken.Load(); f != nil {
		(*f)()
		return
	}
	select {
	case a.wake <- struct{}{}:
	default:
	}
}
