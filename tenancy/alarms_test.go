package tenancy_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	. "bailiwick.dev/bailiwick/tenancy"
)

// lease is what an object that ends has come to, worked out one by one.
type lease struct {
	at         time.Time
	soon, over bool
}

func (l *lease) look(now, clock time.Time) {
	l.soon = l.soon || !now.Before(l.at.Add(-ExpirySoon))
	l.over = l.over || !clock.Before(l.at)
}

func (l *lease) reason() []string {
	switch {
	case l.over:
		return []string{ReasonExpired}
	case l.soon:
		return []string{ReasonExpiringSoon}
	default:
		return nil
	}
}

// Whatever ends are set, moved and taken back while the clock runs and the source
// comes and goes: each object has come to what looking at every one of them says,
// and the Model wants to be woken at the earliest of what is to come.
func TestEndsComeInAnyOrder(t *testing.T) {
	const grace = 3 * time.Hour
	rapid.Check(t, func(rt *rapid.T) {
		w := newTown(t, Config{ExpiryGrace: grace})
		now := time.Unix(1_000_000_000, 0)
		w.Tick(now)
		leases, stale := map[string]*lease{}, false
		clock := func() time.Time {
			if stale {
				return now.Add(-grace)
			}
			return now
		}
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			name := fmt.Sprint("p", rapid.IntRange(0, 5).Draw(rt, "policy"))
			switch rapid.SampledFrom([]string{"set", "set", "unset", "forever", "tick", "tick", "wake", "stale"}).Draw(rt, "what") {
			case "set":
				// Around now, or around where it is reported now.
				at := now.Add(time.Duration(rapid.IntRange(-4, 8).Draw(rt, "hours")) * time.Hour)
				if rapid.Bool().Draw(rt, "far") {
					at = at.Add(ExpirySoon)
				}
				if leases[name] != nil && leases[name].at.Equal(at) {
					continue // the same again is no event
				}
				w.set(KindAccessPolicy, "acme-shop", name, &AccessPolicy{Meta: Meta{Expires: at.Unix()}, Rules: []AccessRule{allRule()}})
				leases[name] = &lease{at: at}
				leases[name].look(now, clock())
			case "unset":
				w.set(KindAccessPolicy, "acme-shop", name, nil)
				delete(leases, name)
			case "forever":
				w.set(KindAccessPolicy, "acme-shop", name, &AccessPolicy{Action: Audit, Rules: []AccessRule{allRule()}})
				delete(leases, name)
			case "tick":
				now = now.Add(time.Duration(rapid.IntRange(0, 5).Draw(rt, "hours")) * time.Hour)
			case "wake":
				if next := w.NextExpiry(); next.After(now) {
					now = next
				}
			case "stale":
				stale = !stale
				w.SetStale(stale)
			}
			w.Tick(now)
			first := time.Time{}
			wait := func(at time.Time) {
				if first.IsZero() || at.Before(first) {
					first = at
				}
			}
			in := false
			for name, l := range leases {
				l.look(now, clock())
				require.Equal(rt, l.reason(), w.reasons(KindAccessPolicy, "acme-shop", name), name)
				in = in || !l.over
				if !l.soon {
					wait(l.at.Add(-ExpirySoon))
				}
				if !l.over {
					wait(l.at.Add(now.Sub(clock())))
				}
			}
			require.True(rt, first.Equal(w.NextExpiry()), "%s, not %s", w.NextExpiry(), first)
			require.Equal(rt, in, w.decide(workload("acme-web", "app"), "acme-shop").Allowed)
		}
	})
}

// What a tick costs follows what is due then: not how much is to end later, nor
// how many names wait.
func TestATickCostsWhatIsDue(t *testing.T) {
	start := time.Unix(1_000_000_000, 0)
	cost := func(more int) int {
		w := newTown(t, Config{SVIDMaxTTL: time.Hour})
		w.Tick(start)
		end := func(kind int, name string, at time.Time) {
			w.set(KindAccessPolicy, townNamespaces[kind%2], name, &AccessPolicy{Action: Audit, Meta: Meta{Expires: at.Unix()}, Rules: []AccessRule{allRule()}})
		}
		end(0, "first", start.Add(time.Minute))
		for i := range more {
			end(i, fmt.Sprint("later", i), start.Add(time.Duration(i+2)*time.Minute))
			w.set(KindNamespace, "", fmt.Sprint("acme-more", i), &Namespace{Tenant: "acme"})
			w.set(KindNamespace, "", fmt.Sprint("acme-more", i), nil)
		}
		before := w.Steps()
		w.Tick(start.Add(time.Minute))
		require.Equal(t, []string{ReasonExpired}, w.reasons(KindAccessPolicy, "acme-shop", "first"))
		require.Equal(t, more > 0, !w.NextExpiry().IsZero())
		return w.Steps() - before
	}
	require.Positive(t, cost(0))
	require.Equal(t, cost(0), cost(300))
}
