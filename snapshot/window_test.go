package snapshot

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func at(ms int) time.Time { return time.UnixMilli(int64(ms)) }

func TestWindowHasEightImmediateBuilds(t *testing.T) {
	w := newWindow(100*time.Millisecond, time.Second, at(0))
	for i := range immediateBuilds {
		w.touch(at(1))
		due, ok := w.due()
		require.True(t, ok)
		require.Equal(t, at(1), due, "build %d is immediate", i)
		w.built(true)
	}
	w.touch(at(2))
	due, _ := w.due()
	require.Equal(t, at(102), due, "the ninth waits for quiet")
	w.touch(at(90))
	due, _ = w.due()
	require.Equal(t, at(190), due, "each change starts quiet anew")
}

func TestWindowEndsAtMax(t *testing.T) {
	w := newWindow(100*time.Millisecond, time.Second, at(0))
	w.tokens = 0
	for ms := 0; ms < 2000; ms += 50 {
		if due, ok := w.due(); ok {
			require.False(t, due.After(at(1000)))
		}
		w.touch(at(ms))
	}
	due, _ := w.due()
	require.Equal(t, at(1000), due)
}

func TestEqualOutputSpendsNoImmediateBuild(t *testing.T) {
	w := newWindow(100*time.Millisecond, time.Second, at(0))
	for range 100 {
		w.touch(at(1))
		w.built(false)
	}
	require.Equal(t, immediateBuilds, w.tokens)
}

func TestOneBuildComesBackPerQuiet(t *testing.T) {
	w := newWindow(100*time.Millisecond, time.Second, at(0))
	for range immediateBuilds {
		w.touch(at(0))
		w.built(true)
	}
	w.touch(at(250))
	require.Equal(t, 2, w.tokens)
	due, _ := w.due()
	require.Equal(t, at(250), due)
}

// A change is never due before it happened, nor later than max after the first
// of its burst; and over any time no more than 8 + time/quiet builds are immediate.
func TestWindowBounds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		quiet := rapid.IntRange(1, 200).Draw(rt, "quiet")
		limit := quiet + rapid.IntRange(0, 2000).Draw(rt, "max")
		w := newWindow(time.Duration(quiet)*time.Millisecond, time.Duration(limit)*time.Millisecond, at(0))
		now, first, immediate := 0, -1, 0
		for range rapid.IntRange(1, 300).Draw(rt, "steps") {
			now += rapid.IntRange(0, 150).Draw(rt, "gap")
			if due, ok := w.due(); ok && !due.After(at(now)) {
				if !w.gathering {
					immediate++
				}
				w.built(true)
				first = -1
			}
			w.touch(at(now))
			if first < 0 {
				first = now
			}
			due, ok := w.due()
			require.True(rt, ok)
			require.False(rt, due.Before(at(first)))
			require.False(rt, due.After(at(first+limit)))
		}
		require.LessOrEqual(rt, immediate, immediateBuilds+now/quiet+1)
	})
}
