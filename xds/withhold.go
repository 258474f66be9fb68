package xds

import (
	"slices"

	"bailiwick.dev/bailiwick/snapshot"
)

// withhold returns what of a shared batch this client may get that has refused
// some of it before, or nil if that is all of it.
func (s *stream) withhold(t snapshot.Type, b *batch) *batch {
	st := &s.types[t]
	if s.mode == state && isSet(t) {
		return s.withholdSet(t, st, b)
	}
	if st.faults == nil {
		return nil
	}
	p := s.srv.memo.private()
	p.gone, p.late, p.removed, p.empty = b.gone, b.late, b.removed, b.empty
	for _, group := range b.groups {
		var kept []*snapshot.Resource
		for _, r := range group {
			if r = st.permit(t, r); r != nil {
				kept = append(kept, r)
			}
		}
		if len(kept) > 0 {
			p.groups = append(p.groups, kept)
			p.fresh = append(p.fresh, kept...)
		}
	}
	for _, name := range b.removed {
		st.faults.forget(name)
	}
	for _, r := range b.late {
		st.faults.forget(r.Name())
	}
	st.tidy()
	return p
}

// forget drops what is known of a name that is gone.
func (f *faults) forget(name string) {
	delete(f.exceptions, name)
	delete(f.composites, name)
}

// forget drops what was refused of names that the client wants no more; with a
// wildcard it still has them.
func (st *typeState) forget(names []string) {
	if st.faults == nil || st.wildcard {
		return
	}
	for _, name := range names {
		st.faults.forget(name)
	}
	st.tidy()
}

// permit returns the form in which a client takes a resource: r itself unless
// it has refused it; of a composite what it accepts; of an RBAC extension the
// one that denies all; of a secret, once, what it had; else nil, and it keeps
// what it has.
func (st *typeState) permit(t snapshot.Type, r *snapshot.Resource) *snapshot.Resource {
	f := st.faults
	if f == nil {
		return r
	}
	if c := f.composites[r.Name()]; c != nil {
		if c.whole.Version() != r.Version() {
			c.whole = r
			c.retarget(r.Parts(), true)
		}
		return nil
	}
	e := f.exceptions[r.Name()]
	switch {
	case e == nil:
		return r
	case e.parts != nil:
		return st.permitParts(e, r)
	case t == snapshot.Secret && e.version != r.Version():
		e.restored = "" // the refusal counts until the client has taken this
		return r
	case e.version != r.Version():
		delete(f.exceptions, r.Name())
		return r
	case t == snapshot.Extension && !e.closed:
		return snapshot.Absent(t, r.Name())
	case t == snapshot.Secret && e.due:
		e.due = false
		return st.accepted[r.Name()]
	default:
		return nil
	}
}

// permitParts puts accepted parts in the place of refused ones.
func (st *typeState) permitParts(e *exception, r *snapshot.Resource) *snapshot.Resource {
	acc := st.accepted[r.Name()]
	good := map[string]*snapshot.Part{}
	if acc != nil {
		for _, p := range acc.Parts() {
			good[p.Key] = p
		}
	}
	still := map[string]*snapshot.Part{}
	var parts []*snapshot.Part
	for _, p := range r.Parts() {
		if bad := e.parts[p.Key]; bad != nil && bad.Equal(p) {
			still[p.Key] = bad
			p = good[p.Key]
		}
		if p != nil {
			parts = append(parts, p)
		}
	}
	if len(still) == 0 {
		delete(st.faults.exceptions, r.Name())
		return r
	}
	e.parts, e.version = still, r.Version()
	out := r.Recompose(parts)
	if acc != nil && acc.Version() == out.Version() {
		return nil
	}
	return out
}

// withholdSet does the same for a type whose responses are whole sets: what
// was refused is in them as it was last accepted, or not at all.
func (s *stream) withholdSet(t snapshot.Type, st *typeState, b *batch) *batch {
	if st.faults != nil && st.faults.set != nil {
		st.faults.set.retarget(b.full, true)
		return s.srv.memo.private()
	}
	trust := s.srv.suspicion.get(s.tenant)
	if st.good != nil && len(b.fresh) > 1 && slices.ContainsFunc(b.fresh, func(r *snapshot.Resource) bool { return trust.has(t, r.Name()) }) {
		// A suspect with new content goes out behind its siblings.
		st.fault().set = s.newSetSearch(t, st, b.full)
		return s.srv.memo.private()
	}
	if st.faults == nil {
		return nil
	}
	good := map[string]*snapshot.Resource{}
	if st.good != nil {
		for _, r := range st.good.resources {
			good[r.Name()] = r
		}
	}
	p := s.srv.memo.private()
	p.isFull = true
	present := map[string]struct{}{}
	for _, r := range b.full {
		present[r.Name()] = struct{}{}
		if e := st.faults.exceptions[r.Name()]; e != nil {
			if e.version == r.Version() {
				r = good[r.Name()]
			} else {
				delete(st.faults.exceptions, r.Name())
			}
		}
		if r != nil {
			p.full = append(p.full, r)
		}
	}
	for name := range st.faults.exceptions {
		if _, ok := present[name]; !ok {
			delete(st.faults.exceptions, name)
		}
	}
	for _, r := range b.fresh {
		if slices.Contains(p.full, r) {
			p.fresh = append(p.fresh, r)
		}
	}
	if !b.nothing() {
		p.groups = [][]*snapshot.Resource{p.full}
	}
	st.tidy()
	return p
}

// apart returns what goes out again in responses of its own after it was
// refused in company. A delta client answers each by its nonce; in the state of
// the world one at a time keeps the answers apart.
func (s *stream) apart(t snapshot.Type, b *snapshot.Binding) *batch {
	st := &s.types[t]
	if st.faults == nil || len(st.faults.queue) == 0 {
		return nil
	}
	if s.mode == state && len(st.inflight) > 0 {
		return nil
	}
	p := s.srv.memo.private()
	for len(st.faults.queue) > 0 {
		names := st.faults.queue[0]
		st.faults.queue = st.faults.queue[1:]
		var group []*snapshot.Resource
		for _, name := range names {
			r := b.Get(t, name)
			if r == nil {
				r = snapshot.Absent(t, name)
			}
			if r == nil {
				continue
			}
			if r = st.permit(t, r); r != nil {
				group = append(group, r)
			}
		}
		if len(group) == 0 {
			continue
		}
		p.groups = append(p.groups, group)
		p.fresh = append(p.fresh, group...)
		if s.mode == state {
			break
		}
	}
	st.tidy()
	if len(p.groups) == 0 {
		return nil
	}
	return p
}

// trial returns the next tries of what is being taken apart.
func (s *stream) trial(t snapshot.Type) *batch {
	st := &s.types[t]
	f := st.faults
	if f == nil || (s.mode == state && len(st.inflight) > 0) {
		return nil
	}
	p := s.srv.memo.private()
	if f.set != nil {
		if items, ok := f.set.next(); ok {
			p.groups, p.empty = [][]*snapshot.Resource{items}, true
			p.fresh = f.set.trying
		} else if f.set.over() {
			f.endSet()
		}
	}
	for name, c := range f.composites {
		if s.mode == state && len(p.groups) > 0 {
			break
		}
		if parts, ok := c.next(); ok {
			r := c.whole.Recompose(parts)
			p.groups = append(p.groups, []*snapshot.Resource{r})
			p.fresh = append(p.fresh, r)
		} else if c.over() {
			delete(f.composites, name)
		}
	}
	st.tidy()
	if len(p.groups) == 0 {
		return nil
	}
	return p
}
