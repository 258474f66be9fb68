package kube

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/object"
)

// liveness is whether one kind is followed, and since when not. Guarded by
// Source.mu.
type liveness struct {
	// at is when the kind was last known to be up to date; zero if never.
	at time.Time
	// live is whether a watch is open. Then at is only its last sign of life.
	live bool
	// lostAt is when it was noticed that the watch had ended; zero if there was
	// none yet.
	lostAt time.Time
	// reason is why there is none.
	reason error
	// unserved is whether the API server does not know the kind.
	unserved bool
	// told is whether the log and the report have it as out of reach.
	told bool
}

func (l *liveness) followed() { l.at, l.live, l.reason = time.Now(), true, nil }

func (l *liveness) lost(err error) {
	if l.live || l.lostAt.IsZero() {
		l.live, l.lostAt = false, time.Now()
	}
	l.reason = err
}

// stale is for how long the kind has been out of reach. Watches end and begin
// again all the time: that is 0 for as long as tolerance. Began is when the source
// did.
func (l *liveness) stale(began, now time.Time, tolerance time.Duration) time.Duration {
	since, noticed := l.at, l.lostAt
	if since.IsZero() {
		since, noticed = began, began
	}
	if l.live || now.Sub(noticed) < tolerance {
		return 0
	}
	return now.Sub(since)
}

// watchStaleness logs, once each, which kinds are out of reach and which are not
// any more.
func (s *Source) watchStaleness() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, k := range s.kinds {
		stale := k.state.stale(s.began, now, s.cfg.Tolerance)
		switch log := s.cfg.Logger.With("kind", k.info.Name); {
		case !k.state.told && stale > 0:
			k.state.told, s.unsaid = true, true
			if k.read {
				log.Warn("the API server cannot be followed: what was read stays as it is", "stale", stale, "unserved", k.state.unserved, "reason", oneLine(k.state.reason))
			} else {
				log.Warn("a kind cannot be read from the API server: see that it answers, serves the kind and permits to list and watch it",
					"stale", stale, "unserved", k.state.unserved, "reason", oneLine(k.state.reason))
			}
		case k.state.told && k.state.live:
			k.state.told, s.unsaid = false, true
			log.Info("the API server is followed again")
		}
	}
}

// State is what would be reported now. It may be called at any time by any
// goroutine.
func (s *Source) State() Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report()
}

// report describes the state. Source.mu is held.
func (s *Source) report() Report {
	r := Report{Ready: s.synced, Errors: []*object.Error{}, Invalid: map[tenancy.Ref]Fault{}}
	for _, k := range s.kinds {
		r.Objects += len(k.applied)
		for _, key := range slices.SortedFunc(maps.Keys(k.faults), compareKeys) {
			fault := k.faults[key]
			r.Invalid[tenancy.Ref{Kind: k.info.Kind, Key: key}] = fault
			for _, e := range fault.Errors {
				r.Errors = append(r.Errors, k.wrong(key, e))
			}
			if _, good := k.applied[key]; good {
				continue
			}
			// What never was good and would, by its absence, take something away.
			switch k.info.Kind {
			case tenancy.KindTenant:
				r.Held = append(r.Held, key.Name)
			case tenancy.KindNamespace:
				r.HeldNamespaces = append(r.HeldNamespaces, key.Name)
			}
		}
		if k.state.told {
			r.Stale = append(r.Stale, Stale{Kind: k.info.Name, Since: k.state.at, Reason: oneLine(k.state.reason), Unserved: k.state.unserved})
		}
	}
	slices.SortFunc(r.Stale, func(a, b Stale) int { return cmp.Compare(a.Kind, b.Kind) })
	return r
}
