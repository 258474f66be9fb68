package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/condition"
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

// fleet is where replicas tell each other what their streams lack, and where
// conditions are written. Nil stands for a replica that is alone and keeps them
// to itself.
type fleet interface {
	// Share publishes the report of this replica and returns those of all that
	// run, this one among them. Lead tells whether this replica is to write.
	Share(ctx context.Context, own condition.Report) (all []condition.Report, lead bool, err error)
	// Write writes conditions down; what could not be written is returned.
	Write(ctx context.Context, said []condition.Said) (failed []tenancy.Ref)
}

// keeper brings the conditions of all objects up to date.
type keeper struct {
	replica   string
	board     *condition.Board
	publisher *snapshot.Publisher
	streams   func() []xds.StreamStatus
	fleet     fleet
	log       *slog.Logger

	mu sync.Mutex
	// last and mark are those of the last pass, guarded by mu.
	last condition.Report
	mark uint64
}

// run keeps conditions until ctx ends, which is no error.
func (k *keeper) run(ctx context.Context) error {
	ticker := time.NewTicker(keepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := k.pass(ctx); err != nil && ctx.Err() == nil {
			k.log.Warn("conditions of objects are not up to date", "err", err)
		}
	}
}

// pass looks once at what is there. Where nothing differs from the last pass
// and nobody else has a word, that is all.
func (k *keeper) pass(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	mark, asOf := k.board.Mark(), time.Now()
	busy, err := k.publisher.Settle(ctx)
	if err != nil {
		return err
	}
	own := gather(k.streams(), asOf).Report(k.replica, asOf, busy)
	all, lead := []condition.Report{own}, false
	if k.fleet != nil {
		if all, lead, err = k.fleet.Share(ctx, own); err != nil {
			return err
		}
	} else if mark == k.mark && own.Same(k.last) {
		return nil
	}
	said := k.board.Say(condition.NewFleet(all), mark)
	k.last, k.mark = own, mark
	if lead && len(said) > 0 {
		for _, ref := range k.fleet.Write(ctx, said) {
			k.board.Again(ref)
		}
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
