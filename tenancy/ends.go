package tenancy

import (
	"fmt"
	"slices"
	"time"
)

// ExpirySoon is how long before its end an object is reported as ExpiringSoon.
const ExpirySoon = 14 * 24 * time.Hour

// ending is an object that ends at a time, kept as it came.
type ending struct {
	event Event
	at    time.Time
	// over is set once the end was applied: nothing brings it back but another
	// event. soon is set once it was reported.
	over, soon bool
	// What is not yet so is in the alarms of each.
	untilSoon, untilOver *alarm[*ending]
}

// endings are the objects that end at a time, with alarms for what each of them
// waits for. Both are set by the end itself: how long before it an object is
// reported, and how long an end is put off, is the same for all of them.
type endings struct {
	byRef      map[Ref]*ending
	soon, over alarms[*ending]
}

// EndOf is when an object ends by what it says itself, zero for never.
func EndOf(o Object) time.Time {
	at := int64(0)
	switch o := o.(type) {
	case *ServiceGrant:
		at = o.Expires
	case *ServiceRequest:
		at = o.Expires
	case *ClusterServiceGrant:
		at = o.Expires
	case *AccessPolicy:
		at = o.Expires
	case *ClusterAccessPolicy:
		at = o.Expires
	case *PeerTLS:
		at = o.Until
	}
	if at == 0 {
		return time.Time{}
	}
	return time.Unix(at, 0)
}

// ended is what is left of an object after its end: nothing, and of a PeerTLS
// what it is, Strict if it says that it ends by itself.
func ended(o Object) Object {
	peer, ok := o.(*PeerTLS)
	if !ok {
		return nil
	}
	if peer.EnforceAtEnd {
		strict := *peer
		strict.Permissive = false
		return &strict
	}
	return peer
}

// timed notes when the object of an event ends, and returns the event as it is
// to be applied now.
func (m *Model) timed(ev Event) Event {
	if old := m.ends.byRef[ev.Ref]; old != nil {
		m.ends.soon.cancel(old.untilSoon)
		m.ends.over.cancel(old.untilOver)
		delete(m.ends.byRef, ev.Ref)
	}
	at := EndOf(ev.Object)
	if ev.Object == nil || at.IsZero() {
		return ev
	}
	e := &ending{event: ev, at: at}
	m.ends.byRef[ev.Ref] = e
	e.soon = !m.now.Before(at.Add(-ExpirySoon))
	e.over = !m.clock().Before(at)
	if !e.soon {
		e.untilSoon = m.ends.soon.set(at, e)
	}
	if !e.over {
		e.untilOver = m.ends.over.set(at, e)
		return ev
	}
	m.check(ev.Ref)
	ev.Object = ended(ev.Object)
	return ev
}

// clock is what time it is for ends. While a source cannot be followed, a
// renewal may be on its way: then an end is put off, by no more than the grace.
func (m *Model) clock() time.Time {
	if m.stale {
		return m.now.Add(-m.config.ExpiryGrace)
	}
	return m.now
}

// nextEnd is when tickEnds has something to do, zero for never.
func (m *Model) nextEnd() time.Time {
	soon, over := m.ends.soon.first(), m.ends.over.first()
	if !soon.IsZero() {
		soon = soon.Add(-ExpirySoon)
	}
	if !over.IsZero() {
		over = over.Add(m.now.Sub(m.clock()))
	}
	return earlier(soon, over)
}

// tickEnds applies the ends that have come. The platform pays, for it runs the
// clock.
func (m *Model) tickEnds() {
	for e, ok := m.ends.soon.due(m.now.Add(ExpirySoon)); ok; e, ok = m.ends.soon.due(m.now.Add(ExpirySoon)) {
		m.steps++
		e.soon = true
		m.check(e.event.Ref)
	}
	for e, ok := m.ends.over.due(m.clock()); ok; e, ok = m.ends.over.due(m.clock()) {
		m.steps++
		e.over = true
		m.check(e.event.Ref)
		ev := e.event
		ev.Object = ended(ev.Object)
		m.apply(ev)
	}
}

// SetStale says whether a source cannot be followed. Ends are put off while it
// is so, by Config.ExpiryGrace at most; those that were come with the next Tick.
func (m *Model) SetStale(stale bool) { m.stale = stale }

// endProblems are what is to be said about an object's end.
func (m *Model) endProblems(ref Ref) []Problem {
	e := m.ends.byRef[ref]
	if e == nil || !e.soon && !e.over {
		return nil
	}
	when := e.at.UTC().Format(time.RFC3339)
	if peer, ok := e.event.Object.(*PeerTLS); ok {
		switch {
		case !e.over:
			return []Problem{{Reason: ReasonExpiringSoon, Field: "spec.until", Message: "Permissive should end at " + when}}
		case peer.EnforceAtEnd:
			return []Problem{{Reason: ReasonOverdue, Field: "spec.until", Message: "Permissive ended at " + when + ": it is Strict"}}
		default:
			return []Problem{{Reason: ReasonOverdue, Field: "spec.until", Message: "Permissive should have ended at " + when + ", and still holds"}}
		}
	}
	if e.over {
		return []Problem{{Reason: ReasonExpired, Field: "spec.expiresAt", Message: fmt.Sprintf("ended at %s: it is as if it were not there", when)}}
	}
	return []Problem{{Reason: ReasonExpiringSoon, Field: "spec.expiresAt", Message: "ends at " + when}}
}

// End is when an object ends, and whether it has; zero for never.
func (m *Model) End(ref Ref) (at time.Time, over bool) {
	if e := m.ends.byRef[ref]; e != nil {
		return e.at, e.over
	}
	return time.Time{}, false
}

// Ended are the objects of a kind and namespace that have ended, as they were,
// sorted by name.
func (m *Model) Ended(kind Kind, namespace string) []Event {
	var found []Event
	for ref, e := range m.ends.byRef {
		if sp := m.active(namespace); ref.Kind == kind && ref.Key.Namespace == namespace && e.over && (namespace == "" || sp != nil && sp.source == ref.Key.Source) {
			found = append(found, e.event)
		}
	}
	slices.SortFunc(found, func(a, b Event) int { return a.Ref.Key.compare(b.Ref.Key) })
	return found
}
