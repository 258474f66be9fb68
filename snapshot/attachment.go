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
	// View, Listeners and Workload are never nil. View and Listeners are
	// swapped together; the workload layer is swapped before a view that needs it.
	View, Listeners, Workload *Layer
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

// Layers are the binding's layers in the order of their keys.
func (b *Binding) Layers() [3]*Layer { return [3]*Layer{b.View, b.Listeners, b.Workload} }

// Attachment is one stream's hold on the store. The publisher changes what it
// is bound to; the stream reads. Close it when the stream ends.
type Attachment struct {
	proxy   Proxy
	wake    chan struct{}
	woken   atomic.Pointer[func()]
	binding atomic.Pointer[Binding]
	// low is the lowest generation of each layer that the stream may still ask
	// changes from; 0 for none yet.
	low    [3]atomic.Uint64
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
// changes, in the order of Binding.Layers, so that older ones are forgotten.
// It does nothing once the attachment has another binding.
func (a *Attachment) Keep(b *Binding, gens [3]uint64) {
	if a.binding.Load() != b {
		return
	}
	for i, g := range gens {
		a.low[i].Store(g)
	}
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
		for _, l := range b.Layers() {
			if !slices.Contains(held, l.group) {
				l.group.mu.RLock()
				held = append(held, l.group)
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
