package xds

import (
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"bailiwick.dev/bailiwick/snapshot"
)

// work is what a flush has found to write: per step of the order its batch,
// and what is sent apart because the client refused it in company.
type work struct {
	binding *snapshot.Binding
	steps   [len(order)]task
	// suspects are the tenant's.
	suspects *suspects
	// events are when what a type has to say came to the store.
	events [snapshot.NumTypes]time.Time
	// lost is true when the layers no longer remember what the client has.
	lost bool
}

// task is one step's share: the shared batch, the private one that stands for
// it where the client has refused something, what is sent again apart, and the
// next try of what is being taken apart.
type task struct {
	key     batchKey
	shared  *batch
	private *batch
	apart   *batch
	trial   *batch
}

// flush brings the client up to date in the order of the table. It reads one
// generation of each layer, holding their locks only to collect pointers, and
// encodes and writes outside.
func (s *stream) flush() error {
	if s.att == nil || s.frozen {
		return nil
	}
	var room [snapshot.NumTypes]*snapshot.Binding
	refused := false
	w := s.srv.works.Get().(*work)
	defer func() {
		*w = work{}
		s.srv.works.Put(w)
	}()
	s.att.ReadWith(s.former(room[:0]), func(b *snapshot.Binding) {
		if refused = b.Refused; !refused && !b.Held {
			s.read(w, b)
		}
	})
	if refused {
		return errElsewhere
	}
	if w.binding == nil {
		return nil
	}
	if w.lost {
		return status.Error(codes.Unavailable, "too far behind: reconnect")
	}
	if err := s.bound(w.binding); err != nil {
		return err
	}
	if err := s.write(w); err != nil {
		return err
	}
	s.publish()
	return nil
}

// former appends the bindings that types still stand at.
func (s *stream) former(out []*snapshot.Binding) []*snapshot.Binding {
	for t := range s.types {
		if b := s.types[t].at.binding; b != nil && !slices.Contains(out, b) {
			out = append(out, b)
		}
	}
	return out
}

// bound notes under which tenant the stream runs, and starts the clock of a
// binding that is the last one.
func (s *stream) bound(b *snapshot.Binding) error {
	if !s.served || s.tenant != b.Tenant {
		if err := s.ticket.enter(b.Tenant); err != nil {
			return err
		}
		s.served, s.tenant, s.meters = true, b.Tenant, s.srv.metrics.of(b.Tenant)
		s.log = s.log.With("tenant", b.Tenant)
		s.status.setTenant(b.Tenant)
	}
	if b.Final && !s.final {
		s.final, s.closeAt = true, time.Now().Add(finalGrace)
	}
	return nil
}

// read collects what each step has to write and moves the cursors. It runs
// inside Attachment.Read.
func (s *stream) read(w *work, b *snapshot.Binding) {
	w.binding, w.suspects = b, s.srv.suspicion.get(b.Tenant)
	now := cursor{binding: b, gens: b.Generations()}
	due := s.due(w, b)
	for i, line := range order {
		switch {
		case line.what == leftovers || line.what == removals:
			w.steps[i] = w.steps[stepOf(line.typ)]
		case line.what == changes && due[line.typ], line.parent != snapshot.NumTypes && due[line.parent]:
			s.readStep(w, i, now)
		}
	}
	waiting := false
	for i, line := range order {
		if line.what != changes {
			continue
		}
		if w.lost || !s.waits(line.typ) {
			s.moved(line.typ, now, w.steps[i].shared)
		} else {
			waiting = true
		}
	}
	s.keep(b)
	s.status.looked(now, waiting)
}

// due tells the types of which there may be something to say; the others are
// as the client has them, and need not be looked at.
func (s *stream) due(w *work, b *snapshot.Binding) (due [snapshot.NumTypes]bool) {
	for t := range s.types {
		st := &s.types[t]
		if st.at.binding == b {
			w.events[t] = st.at.event(snapshot.Type(t))
		}
		due[t] = st.faults != nil || st.asks() ||
			(st.at.binding != nil && st.at.behind(b, snapshot.Type(t)))
	}
	return due
}

// stepOf is the index of the step that writes the changes of a type.
func stepOf(t snapshot.Type) int { return changesOf[t] }

// waits reports whether a type has so much unacknowledged that the client is
// left to catch up; then the latest state wins.
func (s *stream) waits(t snapshot.Type) bool {
	return s.types[t].unacked >= s.srv.maxUnacked
}

func (s *stream) readStep(w *work, i int, now cursor) {
	line := order[i]
	st := &s.types[line.typ]
	q := s.query(w, line, now)
	if s.waits(line.typ) {
		// What the parents bring along must not be forgotten.
		var owed []string
		q.followers(func(name string) { owed = append(owed, name) })
		st.asked = s.srv.names.change(st.asked, owed, nil)
		return
	}
	task := &w.steps[i]
	if !q.moot() {
		task.key = q.key()
		task.shared = s.srv.memo.get(task.key)
		task.shared.collectOnce(&q)
		if task.shared.lost {
			w.lost = true
			return
		}
		task.private = s.withhold(line.typ, task.shared)
	}
	if line.what == changes {
		task.apart = s.apart(line.typ, now.binding)
		task.trial = s.trial(line.typ)
	}
}

// query says what a step asks of the layers.
func (s *stream) query(w *work, line step, now cursor) query {
	st := &s.types[line.typ]
	q := query{
		mode: s.mode, typ: line.typ, what: line.what, now: now,
		wildcard: st.wildcard, names: st.names,
		suspects: w.suspects,
	}
	if line.parent != snapshot.NumTypes {
		parent := w.steps[stepOf(line.parent)]
		q.parents = [3]*batch{parent.said(), parent.apart, parent.trial}
		if !s.brings(line) {
			s.owe(st, &q)
			q.parents = [3]*batch{}
		}
	}
	if line.what == children {
		q.except = w.steps[stepOf(line.typ)].said()
		return q
	}
	q.at = st.at
	q.all, q.asked, q.empty, q.has, q.orphans = st.all, st.asked, st.empty, st.has, st.orphans
	q.prev = st.full
	return q
}

// brings reports whether a step sends children unasked. A client that never
// asked for a type is about to: it would get the same twice, and in the state of
// the world does not take what it has not asked for. The same goes for what the
// first answer of the parents' type names, but for assignments: a client that
// returns has those clusters and does not ask again.
func (s *stream) brings(line step) bool {
	if !s.types[line.typ].requested {
		return false
	}
	return s.mode == state || line.typ == snapshot.Endpoint || s.types[line.parent].at.binding != nil
}

// owe notes assignments that did not follow their clusters because the client
// has not asked for any yet: it is to get them when it does, whatever it has.
func (s *stream) owe(st *typeState, q *query) {
	if s.mode != delta || q.typ != snapshot.Endpoint || q.parents == [3]*batch{} {
		return
	}
	var names []string
	q.followers(func(name string) { names = append(names, name) })
	st.owed = s.srv.names.change(st.owed, names, nil)
}

// said is what the step writes of a batch: the private one if there is one.
func (t task) said() *batch {
	if t.private != nil {
		return t.private
	}
	return t.shared
}

// moved notes that a type is served up to now.
func (s *stream) moved(t snapshot.Type, now cursor, b *batch) {
	st := &s.types[t]
	if st.requested || st.unasked {
		st.at = now
	}
	st.all, st.empty, st.asked, st.has, st.orphans = false, false, nil, nil, nil
	if b != nil && b.isFull {
		st.full = b
	}
}

// keep tells the store what may be forgotten. It must run under the locks:
// a publication in between would forget too much.
func (s *stream) keep(b *snapshot.Binding) {
	var low snapshot.Generations
	lower := func(low *uint64, g uint64) {
		if *low == 0 || g < *low {
			*low = g
		}
	}
	for t := range s.types {
		if at := s.types[t].at; at.binding == b {
			lower(&low.Outbound, at.gens.Outbound)
			lower(&low.Inbound, at.gens.Inbound)
		}
	}
	s.att.Keep(b, low)
}

// write encodes what no other stream has encoded yet and sends it.
func (s *stream) write(w *work) error {
	for i, line := range order {
		task := w.steps[i]
		for _, b := range [...]*batch{task.said(), task.apart, task.trial} {
			if b == nil {
				continue
			}
			if line.what == changes || line.what == children {
				s.encode(line.typ, task.key, b)
			}
			if err := s.writeBatch(line, b, b == task.trial, w.events[line.typ]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *stream) encode(t snapshot.Type, key batchKey, b *batch) {
	size := int64(0)
	b.build(s.mode, t, func(e *body) {
		size += int64(len(e.bytes))
		s.srv.metrics.encoded(t, len(e.bytes))
	})
	if size > 0 {
		s.srv.memo.note(key, b, size)
	}
}

func (s *stream) writeBatch(line step, b *batch, trial bool, event time.Time) error {
	bodies := b.bodies
	switch line.what {
	case leftovers:
		bodies = []*body{b.lateBody}
	case removals:
		bodies = []*body{b.rmBody}
	case changes, children:
	}
	for _, e := range bodies {
		if e == nil {
			continue
		}
		if err := s.send(line.typ, e, trial, event); err != nil {
			return err
		}
	}
	return nil
}
