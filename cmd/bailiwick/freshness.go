package main

import (
	"context"
	"os"
	"sync"
	"time"
)

// freshness is whether what is served is as new as what the source has. The zero
// value is fresh.
type freshness struct {
	mu sync.Mutex
	// again is closed when it is fresh again; nil while it is.
	again chan struct{}
	// over is set when the source is followed again, and what it missed was
	// handed to the publisher.
	over bool
}

// fresh implements xds.Config.Fresh.
func (f *freshness) fresh() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.again != nil {
		return f.again
	}
	now := make(chan struct{})
	close(now)
	return now
}

// set tells whether the source is out of reach.
func (f *freshness) set(stale bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if stale && f.again == nil {
		f.again = make(chan struct{})
	}
	f.over = !stale
}

// thawEvery is how often is looked whether what was missed has been built, and
// thawMost how long at most: somebody who changes objects all the time must not
// keep anybody frozen.
const (
	thawEvery = 50 * time.Millisecond
	thawMost  = 10 * time.Second
)

// run ends staleness when all is built that was missed, until ctx ends.
func (f *freshness) run(ctx context.Context, settle func(context.Context) (busy []string, err error)) error {
	tick := time.NewTicker(thawEvery)
	defer tick.Stop()
	var since time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		f.mu.Lock()
		waiting := f.again != nil && f.over
		f.mu.Unlock()
		if !waiting {
			since = time.Time{}
			continue
		}
		if since.IsZero() {
			since = time.Now()
		}
		busy, err := settle(ctx)
		if err != nil || len(busy) > 0 && time.Since(since) < thawMost {
			continue
		}
		f.mu.Lock()
		if f.over && f.again != nil {
			close(f.again)
			f.again = nil
		}
		f.mu.Unlock()
	}
}

// noticeSoon makes client-go ping the API server when it is silent, so that a
// connection that hangs is noticed within seconds and not in the better part of a
// minute. Client-go takes these from the environment alone, as seconds; what is
// set there stays.
func noticeSoon() error {
	for _, name := range []string{"HTTP2_READ_IDLE_TIMEOUT_SECONDS", "HTTP2_PING_TIMEOUT_SECONDS"} {
		if _, set := os.LookupEnv(name); set {
			continue
		}
		if err := os.Setenv(name, "2"); err != nil {
			return err
		}
	}
	return nil
}
