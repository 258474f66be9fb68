package main

import (
	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/condition"
	"bailiwick.dev/bailiwick/tenancy/guard"
	"bailiwick.dev/bailiwick/tenancy/object"
)

// feed is what every source hands its events to: past the guard, to the board
// of conditions and to the publisher.
type feed struct {
	guard     *guard.Guard
	board     *condition.Board
	publisher *snapshot.Publisher
}

// Apply takes the events of one change.
func (f *feed) Apply(events []tenancy.Event) { f.guard.Apply(events) }

// absorb takes what the guard passes on.
func (f *feed) absorb(events []tenancy.Event) {
	f.board.Apply(events)
	f.publisher.Apply(events)
}

// Errors says what is wrong with an object as it is written; nothing, if errs
// is empty.
func (f *feed) Errors(ref tenancy.Ref, generation int64, errs []object.FieldError) {
	f.board.Errors(ref, generation, errs)
}

// Synced says that the first complete load was handed in.
func (f *feed) Synced() { f.publisher.Synced() }
