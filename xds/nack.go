package xds

import (
	"cmp"
	"slices"
	"time"

	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/tenancy"
)

// faults is what one client has refused of one type. It concerns no other
// stream: a NACK is the statement of a peer that may lie.
type faults struct {
	// exceptions are resources that were refused alone, by name. They are not
	// sent again before their content changes.
	exceptions map[string]*exception
	// queue are groups of names that wait to be sent in a response of their own.
	queue [][]string
	// composites are being taken apart, by name; set is the whole set (sotw).
	composites map[string]*compositeSearch
	set        *search[*snapshot.Resource]
	// blamed are names that the client's texts have named in that search.
	blamed map[string]struct{}
}

// exception is content that this client refuses.
type exception struct {
	version string
	// parts are the refused parts of a composite by key; nil if it was refused
	// as a whole.
	parts  map[string]*snapshot.Part
	detail string
	origin []tenancy.Ref
	// closed is true for an RBAC extension for which deny-all was refused too.
	closed bool
	// restored is the version of a secret that went out again in its place; due
	// is true until it has.
	restored string
	due      bool
	// children of a cluster or listener: the cause may be a secret among them.
	children []snapshot.Child
}

// compositeSearch takes a composite apart.
type compositeSearch struct {
	*search[*snapshot.Part]
	whole *snapshot.Resource
}

func (st *typeState) fault() *faults {
	if st.faults == nil {
		st.faults = &faults{exceptions: map[string]*exception{}, composites: map[string]*compositeSearch{}}
	}
	return st.faults
}

// tidy drops the faults once there are none.
func (st *typeState) tidy() {
	if f := st.faults; f != nil && len(f.exceptions)+len(f.queue)+len(f.composites) == 0 && f.set == nil {
		st.faults = nil
	}
}

// accept notes that the client applied responses.
func (s *stream) accept(t snapshot.Type, st *typeState, in []inflight) {
	for _, f := range in {
		s.meters.answered(t, resultACK)
		s.srv.metrics.eventAcked.observe(t, f.event)
		s.status.answered(t, f.nonce, true)
		if o := s.srv.observer; o != nil {
			o.Acked(s.report(t, f.nonce, f.body))
		}
		if s.mode == state && isSet(t) {
			st.good = f.body
			if st.at.binding != nil {
				s.srv.accepted.Add(acceptedKey{layerIDs(st.at.binding), t, f.body.version}, f.body.resources)
			}
		}
		s.remember(st, f.body)
		if t == snapshot.Secret {
			s.mended(st, f.body)
		}
		if f.search {
			s.tried(t, st, f, true, "")
		}
	}
}

// remember keeps the composites and secrets that a client has, so that it can be
// given them again should it refuse the next ones.
func (s *stream) remember(st *typeState, b *body) {
	for _, r := range b.resources {
		if r.Parts() == nil && r.Type() != snapshot.Secret {
			delete(st.accepted, r.Name())
			continue
		}
		if st.refused(r) {
			continue // a secret that came again: Envoy takes it for known
		}
		if st.accepted == nil {
			st.accepted = map[string]*snapshot.Resource{}
		}
		st.accepted[r.Name()] = r
	}
	for _, name := range b.removed {
		delete(st.accepted, name)
	}
	if len(st.accepted) == 0 {
		st.accepted = nil
	}
}

// refused reports whether it is this content that the client has refused.
func (st *typeState) refused(r *snapshot.Resource) bool {
	if st.faults == nil {
		return false
	}
	e := st.faults.exceptions[r.Name()]
	return e != nil && e.version == r.Version()
}

// mended forgets the refusal of secrets that the client has in another form now,
// and lets clusters and listeners go out again that may have been refused for
// their sake: Envoy builds them from a secret as it was last sent, refused or not.
func (s *stream) mended(st *typeState, b *body) {
	if st.faults == nil {
		return
	}
	defer st.tidy()
	for _, r := range b.resources {
		e := st.faults.exceptions[r.Name()]
		if e == nil || r.Version() == e.version || r.Version() == e.restored {
			continue
		}
		delete(st.faults.exceptions, r.Name())
		s.retry(snapshot.Cluster, secretChild(r))
		s.retry(snapshot.Listener, secretChild(r))
	}
}

func secretChild(r *snapshot.Resource) snapshot.Child {
	return snapshot.Child{Type: r.Type(), Name: r.Name()}
}

// retry sends what the client has refused of a type once more, if it has that
// child.
func (s *stream) retry(t snapshot.Type, of snapshot.Child) {
	st := &s.types[t]
	if st.faults == nil {
		return
	}
	defer st.tidy()
	for name, e := range st.faults.exceptions {
		if !slices.Contains(e.children, of) {
			continue
		}
		delete(st.faults.exceptions, name)
		if s.mode == state {
			st.empty = true // the whole set
		} else {
			st.faults.queue = append(st.faults.queue, []string{name})
		}
	}
}

// refuse notes that the client refused at least one of the responses. What was
// in them goes out again apart, so that the good ones are applied and named in
// what the client says it has.
func (s *stream) refuse(t snapshot.Type, st *typeState, in []inflight, detail string) {
	defer st.tidy()
	for _, f := range in {
		if f.search {
			s.observeRefusal(t, f, detail)
			s.tried(t, st, f, false, detail)
		}
	}
	in = slices.DeleteFunc(slices.Clone(in), func(f inflight) bool { return f.search })
	if len(in) == 0 {
		return
	}
	var suspects []*snapshot.Resource
	for _, f := range in {
		s.observeRefusal(t, f, detail)
		suspects = append(suspects, f.body.resources...)
	}
	if s.mode == state && isSet(t) {
		s.searchSet(t, st, detail)
		return
	}
	switch len(suspects) {
	case 0:
	case 1:
		s.refusedAlone(t, st, suspects[0], detail)
	default:
		names := make([]string, 0, len(suspects))
		for _, r := range suspects {
			names = append(names, r.Name())
		}
		slices.Sort(names)
		names = slices.Compact(names)
		trust := s.srv.suspicion.get(s.tenant)
		slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(rank(trust.has(t, a)), rank(trust.has(t, b))) })
		st.fault().queue = append(st.fault().queue, halve(names)...)
	}
}

func rank(suspect bool) int {
	if suspect {
		return 1
	}
	return 0
}

func (s *stream) observeRefusal(t snapshot.Type, f inflight, detail string) {
	s.meters.answered(t, resultNACK)
	s.status.answered(t, f.nonce, false)
	r := s.report(t, f.nonce, f.body)
	if len(f.body.resources) == 1 {
		r.Origins = f.body.resources[0].Origins()
	}
	s.log.Warn("NACK", "type_url", t.URL(), "nonce", f.nonce, "resources", len(f.body.resources), "detail", detail, "first", firstName(f.body))
	if o := s.srv.observer; o != nil {
		o.Nacked(r, detail)
	}
}

func firstName(b *body) string {
	if len(b.resources) == 0 {
		return ""
	}
	return b.resources[0].Name()
}

// refusedAlone notes content that the client does not take even by itself.
func (s *stream) refusedAlone(t snapshot.Type, st *typeState, r *snapshot.Resource, detail string) {
	s.srv.suspicion.add(s.tenant, t, r.Name())
	if st.outdated(r) {
		return
	}
	f := st.fault()
	if len(r.Parts()) > 0 {
		if f.composites[r.Name()] == nil {
			f.composites[r.Name()] = s.searchParts(st, r)
		}
		return
	}
	s.log.Warn("resource refused", "type_url", t.URL(), "resource", r.Name(), "version", r.Version(), "origins", origins(r.Origins()), "detail", detail)
	switch t {
	case snapshot.Extension:
		s.refusedExtension(f, r, detail)
	case snapshot.Secret:
		st.refusedSecret(f, r, detail)
	default:
		f.exceptions[r.Name()] = newException(r, detail)
	}
}

func newException(r *snapshot.Resource, detail string) *exception {
	return &exception{version: r.Version(), detail: detail, origin: r.Origins(), children: r.Children()}
}

// refusedSecret gives the client back what it had. It goes on with that by
// itself, but what it builds later it would build from the refused bytes.
func (st *typeState) refusedSecret(f *faults, r *snapshot.Resource, detail string) {
	acc, e := st.accepted[r.Name()], f.exceptions[r.Name()]
	if acc != nil && acc.Version() == r.Version() {
		delete(st.accepted, r.Name()) // it does not take even that any more
		if e != nil {
			return
		}
		acc = nil
	}
	e = newException(r, detail)
	f.exceptions[r.Name()] = e
	if acc != nil {
		e.restored, e.due = acc.Version(), true
		f.queue = append(f.queue, []string{r.Name()})
	}
}

// outdated reports whether a later response has said something else of a
// resource's name by now, so that it is that one's answer that counts.
func (st *typeState) outdated(r *snapshot.Resource) bool {
	return slices.ContainsFunc(st.inflight, func(f inflight) bool {
		return slices.Contains(f.body.removed, r.Name()) ||
			slices.ContainsFunc(f.body.resources, func(o *snapshot.Resource) bool {
				// The same content once more is nothing else: of a secret that
				// Envoy has refused, it acknowledges a repetition.
				return o.Name() == r.Name() && o.Version() != r.Version()
			})
	})
}

// refusedExtension closes a port whose RBAC the client does not take: what it
// has may allow what has been revoked since.
func (s *stream) refusedExtension(f *faults, r *snapshot.Resource, detail string) {
	closed := snapshot.Absent(snapshot.Extension, r.Name())
	if e := f.exceptions[r.Name()]; e != nil && closed != nil && r.Version() == closed.Version() {
		e.closed = true
		return
	}
	f.exceptions[r.Name()] = &exception{version: r.Version(), detail: detail, origin: r.Origins(), closed: closed == nil}
	f.queue = append(f.queue, []string{r.Name()})
}

// expire counts clusters that stay unanswered as refused. A single one whose
// assignment and secrets have been answered is not to blame: Envoy withholds the
// answers to all while it waits for anything of any.
func (s *stream) expire(now time.Time) {
	st := &s.types[snapshot.Cluster]
	for len(st.inflight) > 0 && !now.Before(st.inflight[0].at.Add(clusterGrace)) {
		in := st.inflight[:1:1]
		st.inflight = st.inflight[1:]
		st.unacked -= len(in[0].body.bytes)
		s.meters.answered(snapshot.Cluster, resultTimeout)
		if rs := in[0].body.resources; s.mode == delta && len(rs) == 1 && !s.awaited(rs[0]) {
			s.log.Warn("cluster not acknowledged, though all that belongs to it is", "resource", rs[0].Name(), "after", clusterGrace)
			continue
		}
		s.refuse(snapshot.Cluster, st, in, "neither ACK nor NACK in "+clusterGrace.String())
	}
}

// awaited reports whether something that a resource needs has not been answered
// yet, or has been refused.
func (s *stream) awaited(r *snapshot.Resource) bool {
	return slices.ContainsFunc(r.Children(), func(c snapshot.Child) bool {
		st := &s.types[c.Type]
		if st.faults != nil && st.faults.exceptions[c.Name] != nil {
			return true
		}
		return slices.ContainsFunc(st.inflight, func(f inflight) bool {
			return slices.ContainsFunc(f.body.resources, func(o *snapshot.Resource) bool { return o.Name() == c.Name })
		})
	})
}
