package snapshot

import (
	"bytes"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy"
)

// What a tenant's objects break in the publisher is that tenant's damage: its
// proxies keep what they have, the others are served on, and when the fault is
// gone everything is as if it had never been. Nothing is retried in silence.
func TestAPanicIsContained(t *testing.T) {
	for _, c := range []struct {
		what  string // where
		event tenancy.Event
		// denies is whether the ports of the tenant are closed meanwhile.
		denies bool
	}{
		{"model", slice(0, 0, false), false},
		{"service port", slice(0, 0, false), false},
		{"virtual host", service(0, 0, 81), false},
		{"routes", service(0, 0, 81), false},
		{"listener", service(0, 0, 81), false},
		{"view", slice(0, 0, false), false},
		{"inbound configuration", gone(tenancy.KindAccessPolicy, nsName(0), serviceName(0)), true},
	} {
		t.Run(c.what, func(t *testing.T) {
			authority() // its key is made outside of the bubble
			synctest.Test(t, func(t *testing.T) { containsPanic(t, c.what, c.event, c.denies) })
		})
	}
}

func containsPanic(t *testing.T, what string, event tenancy.Event, denies bool) {
	var logged bytes.Buffer
	events := mesh{tenants: 2, services: 2}.events()
	p := newPublisher(t)
	p.log = slog.New(slog.NewJSONHandler(&logged, nil))
	var armed atomic.Bool
	p.trap = func(at string, attrs []any) {
		whose := []any{nsName(0), workloadOf(0, 0).String()}
		ours := len(attrs) == 0 || slices.ContainsFunc(attrs, func(a any) bool { return slices.Contains(whose, a) })
		if armed.Load() && at == what && ours {
			panic("planted")
		}
	}
	r := startWith(t, p, events)
	a, b := r.connect(0, 0), r.connect(1, 0)
	synctest.Wait()
	before, other := contents(a), contents(b)

	armed.Store(true)
	r.Apply([]tenancy.Event{event})
	synctest.Wait()
	require.Positive(t, p.stats.panics.Load())
	require.Contains(t, logged.String(), "planted")
	require.Contains(t, logged.String(), "contain_test.go", "the log has the stack")
	after := contents(a)
	for child, version := range before {
		if denies && child.Type == Extension {
			// Gone is denied: whoever asks for a name that is not there gets that.
			require.Contains(t, []string{"", Absent(Extension, child.Name).Version()}, after[child], child)
		} else if after[child] != version {
			require.NotEqual(t, "view", what, "%v", child) // other faults leave what does not need the part
		}
	}
	require.Equal(t, other, contents(b), "nobody else notices")

	// Others are served as ever.
	r.Apply([]tenancy.Event{slice(1, 0, false)})
	synctest.Wait()
	require.NotEqual(t, other, contents(b))

	// It is tried again by itself or with the next change, and each try is told.
	if what != "model" {
		told := p.stats.panics.Load()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		tries := p.stats.panics.Load() - told
		require.Greater(t, tries, uint64(5))
		require.Less(t, tries, uint64(100), "ever more rarely")
		require.EqualValues(t, p.stats.panics.Load(), bytes.Count(logged.Bytes(), []byte("panic contained")))
	}
	armed.Store(false)
	if what == "model" { // it has forgotten the event, its source will say it again
		r.Apply([]tenancy.Event{event})
	}
	time.Sleep(2 * time.Minute)
	synctest.Wait()
	fresh := start(t, append(slices.Clone(events), slice(1, 0, false), event))
	like := fresh.connect(0, 0)
	synctest.Wait()
	require.Equal(t, contents(like), contents(a), "as if nothing had been")
}
