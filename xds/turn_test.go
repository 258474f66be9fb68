package xds

import (
	"bytes"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/snapshot"
)

// More clients than the crew has goroutines do not read, and others are served,
// whether or not those say that they have read everything.
func TestClientsThatDoNotReadHoldUpNobody(t *testing.T) {
	for _, lies := range []bool{false, true} {
		v := newView("acme").set(res(snapshot.Route, "r", "0"), res(snapshot.Route, "s", "0"))
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, v)
			w.srv.crew.most, w.srv.crew.free = 2, 1
			for range 5 {
				c := w.open(delta)
				first := c.subscribe(snapshot.Route, "r")
				require.Len(t, first, 1)
				if lies {
					c.ack(first...)
				}
				c.gate = make(chan struct{}) // it reads nothing from now on
			}
			other := w.open(delta)
			other.ack(other.subscribe(snapshot.Route, "s")...)
			v.set(res(snapshot.Route, "r", "1"), res(snapshot.Route, "s", "1"))
			require.Equal(t, []string{"route [s=1] -[]"}, show(other.take()))
		})
	}
}

// A stream with nothing to do is the goroutine that waits for its requests.
func TestASilentStreamIsOneGoroutine(t *testing.T) {
	const streams = 10
	bubble(t, shopView(), func(t *testing.T, w *world) {
		for range streams {
			c := w.open(delta)
			c.ack(c.subscribe(snapshot.Cluster)...)
			c.take()
		}
		all := make([]byte, 4<<20)
		all = all[:runtime.Stack(all, true)]
		ours := 0
		for g := range bytes.SplitSeq(all, []byte("\n\n")) {
			if bytes.Contains(g, []byte("xds.(*stream).")) || bytes.Contains(g, []byte("xds.(*crew).")) {
				ours++
			}
		}
		require.Equal(t, streams, ours)
	})
}

// Whatever ends a stream while its goroutine waits for a request, a turn or nobody
// ends it once, and with what ended it.
func TestAStreamEndsWithWhatEndedIt(t *testing.T) {
	for _, mode := range []protocol{delta, state} {
		bubble(t, shopView(), func(t *testing.T, w *world) {
			c := w.open(mode)
			c.request(&request{url: snapshot.Cluster.URL()})
			w.srv.stop()
			require.ErrorContains(t, <-c.done, "shutting down")
			require.Empty(t, w.srv.Streams())
			late := w.open(mode)
			require.ErrorContains(t, <-late.done, "shutting down")
		})
	}
}
