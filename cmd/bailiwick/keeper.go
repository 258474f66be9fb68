package main

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/condition"
	"bailiwick.dev/bailiwick/tenancy/guard"
	"bailiwick.dev/bailiwick/xds"
)

// Times of conditions.
const (
	// keepEvery is how often conditions are brought up to date at most.
	keepEvery = time.Second
	// ackPatience is how long a proxy may take to acknowledge something before
	// that shows.
	ackPatience = 5 * time.Second
)

// confirmEvery is how often it is looked whether removals were confirmed.
const confirmEvery = 5 * time.Second

// fleet is where replicas tell each other what their streams lack, and where
// conditions are written; see package tenancy/kube/status. Nil stands for a
// replica that is alone and keeps them to itself.
type fleet interface {
	Share(ctx context.Context, own condition.Report, fresh bool) ([]condition.Report, error)
	Term() uint64
	Recall(ctx context.Context, into func(tenancy.Ref, []metav1.Condition)) error
	Write(ctx context.Context, said []condition.Said) (failed []tenancy.Ref)
	Confirmed(ctx context.Context) (time.Time, error)
}

// keeper brings the conditions of all objects up to date.
type keeper struct {
	replica   string
	board     *condition.Board
	publisher *snapshot.Publisher
	streams   func() []xds.StreamStatus
	guard     *guard.Guard
	fleet     fleet
	log       *slog.Logger

	mu sync.Mutex
	// last and mark are those of the last pass, guarded by mu.
	last condition.Report
	mark uint64
	// all are the reports of the last pass, of all replicas; guarded by mu.
	all []condition.Report
	// term is the one for which the statuses of all objects were read, guarded by mu.
	term uint64
	// asked is when it was last looked whether removals were confirmed, confirmed
	// up to when they were; guarded by mu.
	asked, confirmed time.Time
}

// run keeps conditions until ctx ends, which is no error.
func (k *keeper) run(ctx context.Context) error {
	ticker := time.NewTicker(keepEvery)
	defer ticker.Stop()
	failing := "" // what was said last, so that it is said once
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		err := k.pass(ctx)
		switch {
		case ctx.Err() != nil:
		case err == nil && failing != "":
			k.log.Info("conditions of objects are up to date again")
			failing = ""
		case err != nil && err.Error() != failing:
			k.log.Warn("conditions of objects are not up to date", "err", err)
			failing = err.Error()
		}
	}
}

// pass looks once at what is there. Where nothing differs from the last pass
// and nobody else has a word, that is all.
func (k *keeper) pass(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-k.publisher.Ready():
	default:
		// What is not loaded yet would be taken for gone, and then for new.
		return nil
	}
	mark, asOf := k.board.Mark(), time.Now()
	busy, err := k.publisher.Settle(ctx)
	if err != nil {
		return err
	}
	own := gather(k.streams(), asOf).Report(k.replica, asOf, busy)
	fresh := mark != k.mark
	if k.fleet == nil {
		if fresh || !own.Same(k.last) {
			k.board.Say(condition.NewFleet([]condition.Report{own}), mark)
		}
		k.last, k.mark = own, mark
		return nil
	}
	return k.passOn(ctx, own, mark, fresh)
}

// passOn is the part of a pass in which other replicas and the API server have
// a part.
func (k *keeper) passOn(ctx context.Context, own condition.Report, mark uint64, fresh bool) error {
	if err := k.confirm(ctx); err != nil {
		return err
	}
	all, err := k.fleet.Share(ctx, own, fresh)
	if err != nil {
		return err
	}
	term := k.fleet.Term()
	if !fresh && term == k.term && !k.board.Open() && slices.EqualFunc(all, k.all, condition.Report.Same) {
		return nil
	}
	if term != 0 && term != k.term {
		if err := k.fleet.Recall(ctx, k.board.Recall); err != nil {
			return err
		}
	}
	k.mark, k.all, k.term = mark, all, term
	said := k.board.Say(condition.NewFleet(all), mark)
	if term == 0 || len(said) == 0 {
		return nil
	}
	for _, ref := range k.fleet.Write(ctx, said) {
		k.board.Again(ref)
	}
	return nil
}

// confirm lets held removals go that somebody has confirmed for all replicas.
func (k *keeper) confirm(ctx context.Context) error {
	if time.Since(k.asked) < confirmEvery {
		return nil
	}
	at, err := k.fleet.Confirmed(ctx)
	if err != nil {
		return err
	}
	if k.asked = time.Now(); at.After(k.confirmed) {
		k.confirmed = at
		k.guard.Confirm(at)
	}
	return nil
}

// gather sums up what the streams of this replica lack.
func gather(streams []xds.StreamStatus, now time.Time) *condition.Gather {
	g := condition.NewGather()
	for i := range streams {
		g.Add(lacks(&streams[i], now))
	}
	return g
}

func lacks(st *xds.StreamStatus, now time.Time) condition.Stream {
	s := condition.Stream{Tenant: st.Tenant, Namespace: st.Workload.Namespace, Faulty: len(st.Refused) > 0}
	var oldest time.Time
	for t := range st.Types {
		for _, u := range st.Types[t].Unanswered {
			if now.Sub(u.Since) < ackPatience {
				s.Unsettled = true
				continue
			}
			s.Late = true
			if oldest.IsZero() || u.Since.Before(oldest) {
				oldest = u.Since
			}
			for _, r := range u.Resources {
				s.Pending = append(s.Pending, r.Origins()...)
				for _, p := range r.Parts() {
					s.Pending = append(s.Pending, p.Origins...)
				}
			}
		}
	}
	for _, r := range st.Refused {
		s.Refused = append(s.Refused, r.Origins...)
	}
	switch {
	case st.Behind && s.Late:
		s.StuckSince = oldest
	case st.Behind:
		s.Unsettled = true
	}
	return s
}
