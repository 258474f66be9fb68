package xdstest

import (
	"sync"

	"bailiwick.dev/bailiwick/snapshot"
)

// View is a binding whose layers a test publishes to.
type View struct{ *snapshot.Binding }

// NewView makes an empty view of a tenant.
func NewView(tenant string) View {
	v, l := snapshot.NewView()
	return View{&snapshot.Binding{Tenant: tenant, View: v, Listeners: l, Workload: snapshot.NewWorkload()}}
}

// Variant returns a view with the same layers but listeners of its own.
func (v View) Variant() View {
	b := *v.Binding
	b.Listeners = snapshot.NewVariant(v.View)
	return View{&b}
}

// Set publishes resources, each in the layer that its type has in production.
// What is in one layer is published at once.
func (v View) Set(rs ...*snapshot.Resource) {
	outbound, listeners, inbound := snapshot.Update{Layer: v.View}, snapshot.Update{Layer: v.Listeners}, snapshot.Update{Layer: v.Workload}
	for _, r := range rs {
		u := &outbound
		switch r.Type() {
		case snapshot.Listener:
			u = &listeners
		case snapshot.Extension:
			u = &inbound
		default:
		}
		u.Set = append(u.Set, r)
	}
	snapshot.Publish(inbound)
	snapshot.Publish(outbound, listeners)
}

// Remove takes resources away.
func (v View) Remove(names ...snapshot.Child) {
	snapshot.Publish(snapshot.Update{Layer: v.Workload, Remove: names})
	snapshot.Publish(snapshot.Update{Layer: v.View, Remove: names}, snapshot.Update{Layer: v.Listeners, Remove: names})
}

// Get finds a resource, or nil.
func (v View) Get(t snapshot.Type, name string) (found *snapshot.Resource) {
	a := snapshot.NewAttachment(snapshot.Proxy{}, func(*snapshot.Attachment) {})
	defer a.Close()
	a.Bind(v.Binding)
	defer a.Bind(nil)
	a.Read(func(b *snapshot.Binding) {
		for _, l := range b.Layers() {
			if r := l.Get(t, name); r != nil {
				found = r
			}
		}
	})
	return found
}

// Store is an xds.Store that binds each attachment to what Choose says: nothing
// is known yet of a proxy for which it says nil.
type Store struct {
	Choose func(snapshot.Proxy) *snapshot.Binding

	mu   sync.Mutex
	open map[*snapshot.Attachment]struct{} // guarded by mu
	seen []snapshot.Proxy                  // guarded by mu
}

// Attach implements xds.Store.
func (s *Store) Attach(p snapshot.Proxy) *snapshot.Attachment {
	a := snapshot.NewAttachment(p, func(a *snapshot.Attachment) {
		s.mu.Lock()
		defer s.mu.Unlock()
		a.Bind(nil)
		delete(s.open, a)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[*snapshot.Attachment]struct{}{}
	}
	s.open[a] = struct{}{}
	s.seen = append(s.seen, p)
	if b := s.Choose(p); b != nil {
		a.Bind(b)
	}
	return a
}

// Seen are all proxies that ever attached, in that order.
func (s *Store) Seen() []snapshot.Proxy {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]snapshot.Proxy(nil), s.seen...)
}

// Rebind asks Choose again for every open attachment.
func (s *Store) Rebind() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := range s.open {
		if b := s.Choose(a.Proxy()); b != nil && b != a.Binding() {
			a.Bind(b)
		}
	}
}
