package xds

import (
	"slices"
	"strings"

	"bailiwick.dev/bailiwick/snapshot"
)

// searchParts starts to take a composite apart, from the parts that the client
// has of it.
func (s *stream) searchParts(st *typeState, r *snapshot.Resource) *compositeSearch {
	var base []*snapshot.Part
	if acc := st.accepted[r.Name()]; acc != nil {
		base = acc.Parts()
	}
	c := &compositeSearch{whole: r}
	c.search = newSearch(
		func(p *snapshot.Part) string { return p.Key },
		(*snapshot.Part).Equal,
		func(*snapshot.Part) bool { return false },
		r.Parts(), base, true)
	c.baseDue = !c.has(st)
	return c
}

// has reports whether the base is what the client has already.
func (c *compositeSearch) has(st *typeState) bool {
	acc := st.accepted[c.whole.Name()]
	return acc != nil && c.whole.Recompose(c.with(nil)).Version() == acc.Version()
}

// searchSet starts to take a whole set apart.
func (s *stream) searchSet(t snapshot.Type, st *typeState, detail string) {
	f := st.fault()
	if f.set != nil {
		return // a response from before the search; the search goes on
	}
	// The target is what the client should have by now, which may be more than
	// what was in the refused response.
	s.recall(t, st)
	f.note(detail, st.full.full)
	f.set = s.newSetSearch(t, st, st.full.full)
	s.log.Warn("set refused", "type_url", t.URL(), "detail", detail)
}

func (s *stream) newSetSearch(t snapshot.Type, st *typeState, target []*snapshot.Resource) *search[*snapshot.Resource] {
	trust := s.srv.suspicion.get(s.tenant)
	var good []*snapshot.Resource
	known := st.good != nil
	if known {
		good = st.good.resources
	}
	found := newSearch(
		(*snapshot.Resource).Name,
		func(a, b *snapshot.Resource) bool { return a.Version() == b.Version() },
		func(r *snapshot.Resource) bool { return trust.has(t, r.Name()) || st.faults.named(r.Name()) },
		target, good, known && shrinks(good, target))
	found.blind = !known
	if st.faults != nil {
		for _, r := range target {
			if e := st.faults.exceptions[r.Name()]; e != nil && e.version == r.Version() {
				found.refused[r.Name()] = r
			}
		}
	}
	found.regroup()
	return found
}

// recall finds the set that the client took last on an earlier stream, by the
// version that it stated when it began this one.
func (s *stream) recall(t snapshot.Type, st *typeState) {
	if st.good != nil || st.stated == "" || st.at.binding == nil {
		return
	}
	if set, ok := s.srv.accepted.Get(acceptedKey{layerIDs(st.at.binding), t, st.stated}); ok {
		st.good = &body{typ: t, resources: set, version: st.stated}
	}
}

// acceptedKey names a set that a client has acknowledged: the layers that it was
// made of and its version_info. With the layers in it, nobody is given by a
// version what was made for somebody else.
type acceptedKey struct {
	layers  [4]uint64
	typ     snapshot.Type
	version string
}

// note remembers which of the refused resources the client's text names. That
// decides nothing but the order of tries.
func (f *faults) note(detail string, refused []*snapshot.Resource) (more bool) {
	var found []string
	for _, r := range refused {
		if !f.named(r.Name()) && mentions(detail, r.Name()) {
			found = append(found, r.Name())
		}
	}
	if len(found) == 0 || len(found) > maxSingles {
		return false
	}
	if f.blamed == nil {
		f.blamed = map[string]struct{}{}
	}
	for _, name := range found {
		f.blamed[name] = struct{}{}
	}
	return true
}

// named reports whether the client's text has named a resource in this search.
func (f *faults) named(name string) bool {
	if f == nil {
		return false
	}
	_, ok := f.blamed[name]
	return ok
}

// mentions reports whether a text has a name in it, not as a part of a longer one.
func mentions(text, name string) bool {
	for from := 0; name != ""; {
		i := strings.Index(text[from:], name)
		if i < 0 {
			return false
		}
		i += from
		end := i + len(name)
		if (i == 0 || !inName(text[i-1])) && (end == len(text) || !inName(text[end])) {
			return true
		}
		from = i + 1
	}
	return false
}

// inName reports whether a byte goes on with a name. A dot or a colon may as
// well end a sentence or a clause, so they do not.
func inName(c byte) bool {
	return c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// shrinks reports whether a set has lost a name on the way to another.
func shrinks(from, to []*snapshot.Resource) bool {
	names := make(map[string]struct{}, len(to))
	for _, r := range to {
		names[r.Name()] = struct{}{}
	}
	return slices.ContainsFunc(from, func(r *snapshot.Resource) bool {
		_, ok := names[r.Name()]
		return !ok
	})
}

// tried takes the answer to a try of a search.
func (s *stream) tried(t snapshot.Type, st *typeState, in inflight, ok bool, detail string) {
	f := st.fault()
	defer st.tidy()
	if s.mode == state && isSet(t) {
		s.triedSet(t, f, ok, detail)
		return
	}
	r := in.body.resources[0]
	c := f.composites[r.Name()]
	if c == nil || !c.busy {
		return // it has been removed meanwhile
	}
	if part, found := c.answer(ok); found {
		s.log.Warn("part refused", "type_url", t.URL(), "resource", r.Name(), "part", part.Key, "origins", origins(part.Origins), "detail", detail)
		if o := s.srv.observer; o != nil {
			report := s.report(t, in.nonce, in.body)
			report.Part, report.Origins = part.Key, part.Origins
			o.Nacked(report, detail)
		}
	}
	if !c.over() {
		return
	}
	delete(f.composites, r.Name())
	switch {
	case c.hopeless:
		f.exceptions[r.Name()] = &exception{version: c.whole.Version(), detail: detail, origin: c.whole.Origins()}
	case len(c.refused) > 0:
		e := &exception{version: c.whole.Version(), parts: c.refused, detail: detail}
		if old := f.exceptions[r.Name()]; old != nil {
			for key, p := range old.parts {
				if e.parts[key] == nil {
					e.parts[key] = p
				}
			}
		}
		for _, p := range e.parts {
			e.origin = append(e.origin, p.Origins...)
		}
		f.exceptions[r.Name()] = e
	default:
		// Everything was accepted after all, one by one.
	}
}

func (s *stream) triedSet(t snapshot.Type, f *faults, ok bool, detail string) {
	if f.set == nil || !f.set.busy {
		return
	}
	if !ok && len(f.set.trying) > 1 && f.note(detail, f.set.trying) {
		f.set.doubt()
	}
	if r, found := f.set.answer(ok); found {
		s.srv.suspicion.add(s.tenant, t, r.Name())
		s.log.Warn("resource refused", "type_url", t.URL(), "resource", r.Name(), "version", r.Version(), "origins", origins(r.Origins()), "detail", detail)
		f.exceptions[r.Name()] = newException(r, detail)
	}
	if f.set.over() {
		f.endSet()
	}
}

// endSet ends the search in a set. What it did not refuse is refused no more.
func (f *faults) endSet() {
	still := map[string]bool{}
	for _, r := range f.set.target {
		bad := f.set.refused[r.Name()]
		still[r.Name()] = bad != nil && bad.Version() == r.Version()
	}
	for name := range f.exceptions {
		if !still[name] {
			delete(f.exceptions, name)
		}
	}
	f.set, f.blamed = nil, nil
}
