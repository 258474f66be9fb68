package tenancy

import (
	"net/netip"
	"time"
)

// PodPatience is for how long an endpoint whose Pod has not arrived is nothing to
// speak of, where objects of different kinds come on watches of their own.
const PodPatience = 30 * time.Second

// absent is a Pod as an endpoint knows it.
type absent struct {
	address   netip.Addr
	name, uid string
}

// wait files the slice under the names of Pods that it names in vain, because
// what they are is told in its problems, and notes since when they are missed.
func (m *Model) wait(sl *slice) {
	for _, name := range sl.waiting {
		drop(sl.space.waiting, name, sl)
	}
	before := sl.missed
	sl.waiting, sl.missed = nil, nil
	for i, p := range sl.pods {
		if p != nil {
			continue
		}
		e := &sl.obj.Endpoints[i]
		if e.PodName != "" {
			sl.waiting = append(sl.waiting, e.PodName)
			insert(&sl.space.waiting, e.PodName, sl)
		}
		if m.config.PodPatience > 0 {
			since, ok := before[e.absent()]
			if !ok {
				since = m.now
			}
			if sl.missed == nil {
				sl.missed = map[absent]time.Time{}
			}
			sl.missed[e.absent()] = since
		}
	}
	m.wakeForPods(sl)
}

func (e *Endpoint) absent() absent {
	a, _ := e.address()
	return absent{a, e.PodName, e.PodUID}
}

// pending reports whether the Pod of an endpoint may be on its way still.
func (m *Model) pending(sl *slice, e *Endpoint) bool {
	since, ok := sl.missed[e.absent()]
	return ok && m.now.Before(since.Add(m.config.PodPatience))
}

// wakeForPods has the Model woken when the next of the Pods that a slice waits
// for is late.
func (m *Model) wakeForPods(sl *slice) {
	var next time.Time
	for _, since := range sl.missed {
		if at := since.Add(m.config.PodPatience); m.now.Before(at) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	m.late.cancel(sl.late)
	sl.late = nil
	if !next.IsZero() {
		sl.late = m.late.set(next, sl)
	}
}

// tickPods has the slices looked at whose Pods are late.
func (m *Model) tickPods() {
	for sl, ok := m.late.due(m.now); ok; sl, ok = m.late.due(m.now) {
		m.steps++
		m.check(sl.space.ref(KindEndpointSlice, sl.name))
		m.wakeForPods(sl)
	}
}
