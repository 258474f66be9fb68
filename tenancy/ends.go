package tenancy

import (
	"fmt"
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
}

// endOf is when an object ends, zero for never.
func endOf(o Object) time.Time {
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
	delete(m.ends, ev.Ref)
	at := endOf(ev.Object)
	if ev.Object == nil || at.IsZero() {
		return ev
	}
	e := &ending{event: ev, at: at}
	m.ends[ev.Ref] = e
	m.wakeFor(e)
	if e.over {
		m.check(ev.Ref)
		ev.Object = ended(ev.Object)
	}
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

// wakeFor marks what an object has come to by now, and has the Model woken for
// what comes next.
func (m *Model) wakeFor(e *ending) {
	now := m.clock()
	grace := m.now.Sub(now)
	e.soon = e.soon || !m.now.Before(e.at.Add(-ExpirySoon))
	e.over = e.over || !now.Before(e.at)
	if !e.soon {
		m.expires(e.at.Add(-ExpirySoon))
	}
	if !e.over {
		m.expires(e.at.Add(grace))
	}
}

// tickEnds applies the ends that have come. The platform pays, for it runs the
// clock.
func (m *Model) tickEnds() {
	for ref, e := range m.ends {
		soon, over := e.soon, e.over
		m.wakeFor(e)
		if e.soon != soon || e.over != over {
			m.check(ref)
		}
		if e.over && !over {
			ev := e.event
			ev.Object = ended(ev.Object)
			m.apply(ev)
		}
	}
}

// SetStale says whether a source cannot be followed. Ends are put off while it
// is so, by Config.ExpiryGrace at most.
func (m *Model) SetStale(stale bool) {
	if m.stale == stale {
		return
	}
	m.stale = stale
	if len(m.ends) > 0 {
		m.expires(m.now) // the next Tick looks again
	}
}

// endProblems are what is to be said about an object's end.
func (m *Model) endProblems(ref Ref) []Problem {
	e := m.ends[ref]
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
