package tenancy

import (
	"container/heap"
	"time"
)

// alarm is a time that something waits for.
type alarm[T any] struct {
	at time.Time
	of T
	// place is its index in the heap, -1 once it is in none.
	place int
}

// alarms are those set, the earliest on top: what a tick costs follows what is
// due, and not how much is waiting.
type alarms[T any] struct{ waiting []*alarm[T] }

func (h *alarms[T]) set(at time.Time, of T) *alarm[T] {
	a := &alarm[T]{at: at, of: of}
	heap.Push(h, a)
	return a
}

// cancel takes an alarm back; one that was due, or is nil, is none.
func (h *alarms[T]) cancel(a *alarm[T]) {
	if a != nil && a.place >= 0 {
		heap.Remove(h, a.place)
	}
}

// due takes the earliest alarm if its time has come.
func (h *alarms[T]) due(now time.Time) (of T, ok bool) {
	if len(h.waiting) == 0 || now.Before(h.waiting[0].at) {
		return of, false
	}
	return heap.Pop(h).(*alarm[T]).of, true
}

// first is when the earliest alarm is due, zero for never.
func (h *alarms[T]) first() time.Time {
	if len(h.waiting) == 0 {
		return time.Time{}
	}
	return h.waiting[0].at
}

// Len is of heap.Interface, as are the methods below.
func (h *alarms[T]) Len() int { return len(h.waiting) }

// Less puts the earliest on top.
func (h *alarms[T]) Less(i, j int) bool { return h.waiting[i].at.Before(h.waiting[j].at) }

// Swap keeps the alarms' places.
func (h *alarms[T]) Swap(i, j int) {
	w := h.waiting
	w[i], w[j] = w[j], w[i]
	w[i].place, w[j].place = i, j
}

// Push appends an *alarm.
func (h *alarms[T]) Push(x any) {
	a := x.(*alarm[T])
	a.place = len(h.waiting)
	h.waiting = append(h.waiting, a)
}

// Pop removes the last alarm.
func (h *alarms[T]) Pop() any {
	n := len(h.waiting) - 1
	a := h.waiting[n]
	h.waiting[n] = nil
	h.waiting = h.waiting[:n]
	a.place = -1
	return a
}
