package snapshot

import "time"

// Defaults of the debounce; a server's flags and a Tenant override the first two.
const (
	DefaultQuiet = 100 * time.Millisecond
	DefaultMax   = time.Second
	// immediateBuilds is how many builds a tenant may have without waiting;
	// one comes back each quiet period.
	immediateBuilds = 8
	// urgentGather is how long a flooding tenant's changes of decisions wait.
	urgentGather = 10 * time.Millisecond
)

// window decides when what was touched is built: at once while immediate
// builds are left, otherwise when quiet has passed without a change, and at
// most max after the first. It is arithmetic on times given as arguments; the
// publisher owns it.
type window struct {
	quiet, max time.Duration
	// tokens are the immediate builds left at time refilled.
	tokens   int
	refilled time.Time
	// first and last change of the pending burst; pending is false without one.
	pending     bool
	gathering   bool
	first, last time.Time
	// since is when the first event of the burst came; told are the quiet and the
	// max that metrics show.
	since time.Time
	told  [2]time.Duration
	// merged counts changes that joined a burst already pending.
	merged int
}

func newWindow(quiet, maximum time.Duration, now time.Time) *window {
	return &window{quiet: quiet, max: max(quiet, maximum), tokens: immediateBuilds, refilled: now}
}

// touch says that something changed at now.
func (w *window) touch(now time.Time) {
	w.refill(now)
	w.last = now
	if w.pending {
		w.merged++
		return
	}
	w.pending, w.first = true, now
	w.gathering = w.tokens == 0
}

// touchSince is touch for a change whose event came at arrived.
func (w *window) touchSince(arrived, now time.Time) {
	if !w.pending {
		w.since = arrived
	}
	w.touch(now)
}

// due returns when the pending burst is to be built, and false without one.
func (w *window) due() (time.Time, bool) {
	if !w.pending {
		return time.Time{}, false
	}
	if !w.gathering {
		return w.first, true
	}
	quiet, limit := w.last.Add(w.quiet), w.first.Add(w.max)
	if limit.Before(quiet) {
		return limit, true
	}
	return quiet, true
}

// built says that the burst was built; an equal output spends no immediate build.
func (w *window) built(changed bool) {
	if changed && !w.gathering {
		w.tokens--
	}
	w.pending, w.gathering = false, false
}

func (w *window) refill(now time.Time) {
	if w.quiet <= 0 {
		w.tokens, w.refilled = immediateBuilds, now
		return
	}
	n := int(now.Sub(w.refilled) / w.quiet)
	if n <= 0 {
		return
	}
	w.refilled = w.refilled.Add(time.Duration(n) * w.quiet)
	if w.tokens = min(immediateBuilds, w.tokens+n); w.tokens == immediateBuilds {
		w.refilled = now
	}
}
