package snapshot

import (
	"sync"
	"time"

	"bailiwick.dev/bailiwick/tenancy"
)

// keptEvents is for how many events an inbox keeps its room.
const keptEvents = 1 << 14

// inbox takes what sources and streams say without ever blocking them. Events
// of one object merge: only the latest is kept, at the place of the first.
type inbox struct {
	signal chan struct{} // capacity 1: something is there

	mu       sync.Mutex
	order    []tenancy.Ref
	events   map[tenancy.Ref]tenancy.Event
	since    time.Time // arrival of the oldest event
	merged   int
	attached []*Attachment
	detached []*Attachment
	held     *hold // nil where nothing was said
	synced   bool
	calls    []func()
}

func newInbox() *inbox {
	return &inbox{signal: make(chan struct{}, 1), events: map[tenancy.Ref]tenancy.Event{}}
}

// batch is what an inbox held.
type batch struct {
	events   []tenancy.Event
	since    time.Time
	merged   int
	attached []*Attachment
	detached []*Attachment
	held     *hold // nil where nothing was said
	synced   bool
	calls    []func()
}

func (in *inbox) put(f func()) {
	in.mu.Lock()
	f()
	in.mu.Unlock()
	select {
	case in.signal <- struct{}{}:
	default:
	}
}

func (in *inbox) apply(events []tenancy.Event, now time.Time) {
	in.put(func() {
		if len(in.order) == 0 {
			in.since = now
		}
		for _, ev := range events {
			if _, ok := in.events[ev.Ref]; ok {
				in.merged++
			} else {
				in.order = append(in.order, ev.Ref)
			}
			in.events[ev.Ref] = ev
		}
	})
}

// take empties the inbox.
func (in *inbox) take() batch {
	in.mu.Lock()
	defer in.mu.Unlock()
	b := batch{
		since: in.since, merged: in.merged, attached: in.attached, detached: in.detached,
		held: in.held, synced: in.synced, calls: in.calls,
	}
	if len(in.order) > 0 {
		b.events = make([]tenancy.Event, len(in.order))
		for i, ref := range in.order {
			b.events[i] = in.events[ref]
		}
		if len(in.order) > keptEvents {
			// A first load: what held it is not needed again.
			in.order, in.events = nil, map[tenancy.Ref]tenancy.Event{}
		}
		in.order = in.order[:0]
		clear(in.events)
	}
	in.merged, in.attached, in.detached, in.held, in.calls = 0, nil, nil, nil, nil
	return b
}
