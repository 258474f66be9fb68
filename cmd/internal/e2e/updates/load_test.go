package updates

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// loadEvery is the pause of a worker between two requests, so that they leave
// the processor to those that they are for.
const loadEvery = 2 * time.Millisecond

// load is requests without end, each of which should be answered with 200.
type load struct {
	t      *testing.T
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	good   int            // guarded by mu
	failed map[string]int // guarded by mu
	stops  map[string]func()
}

func newLoad(ctx context.Context, t *testing.T) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	l := &load{t: t, ctx: ctx, cancel: cancel, failed: map[string]int{}, stops: map[string]func(){}}
	t.Cleanup(func() { cancel(); l.wg.Wait() })
	return l
}

// result is the outcome of one request, a status or what went wrong.
func result(ctx context.Context, client *http.Client, url string) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err.Error()
	}
	resp, err := client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err.Error()
	case resp.StatusCode == http.StatusOK:
		return "200"
	default:
		return fmt.Sprintf("%d %s", resp.StatusCode, body)
	}
}

// note counts a result.
func (l *load) note(url, result string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if result == "200" {
		l.good++
	} else {
		l.failed[url+": "+result]++
	}
}

// add starts a worker, which ends with remove or with the test.
func (l *load) add(client *http.Client, key, url string) {
	ctx, cancel := context.WithCancel(l.ctx)
	ended := make(chan struct{})
	l.stops[key] = func() { cancel(); <-ended }
	l.wg.Go(func() { // ends with ctx
		defer close(ended)
		tick := time.NewTicker(loadEvery)
		defer tick.Stop()
		for ctx.Err() == nil {
			// A request that is under way is brought to its end.
			if got := result(l.ctx, client, url); l.ctx.Err() == nil {
				l.note(key, got)
			}
			<-tick.C
		}
	})
}

// remove ends a worker and waits for its last request.
func (l *load) remove(key string) {
	l.stops[key]()
	delete(l.stops, key)
}

// more waits for as many more good requests, and requires that none failed.
func (l *load) more(n int) {
	l.t.Helper()
	l.mu.Lock()
	goal := l.good + n
	l.mu.Unlock()
	until(l.ctx, l.t, "requests are answered", func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.good < goal && len(l.failed) == 0 {
			return fmt.Errorf("%d are missing", goal-l.good)
		}
		return nil
	})
	l.clean()
}

// clean requires that no request has failed.
func (l *load) clean() {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	require.Empty(l.t, l.failed, "requests failed, %d did not", l.good)
}
