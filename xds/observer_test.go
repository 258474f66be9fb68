package xds

import (
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/snapshot"
)

// What a stream has not answered shows at once, and for as long as it does not.
func TestStatusShowsWhatIsUnanswered(t *testing.T) {
	v := newView("acme").set(res(snapshot.Endpoint, "s", "1"))
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.open(delta)
		status := func() StreamStatus { return w.srv.Streams()[0] }
		f := c.subscribe(snapshot.Endpoint, "s")
		open := status().Types[snapshot.Endpoint]
		require.Equal(t, uint64(1), open.Sent)
		require.Len(t, open.Unanswered, 1)
		require.Equal(t, "s", open.Unanswered[0].Resources[0].Name())
		require.False(t, status().Behind, "all there is was sent")

		c.ack(f...)
		require.Empty(t, status().Types[snapshot.Endpoint].Unanswered)
		require.Equal(t, uint64(1), status().Types[snapshot.Endpoint].Acked)

		v.set(res(snapshot.Endpoint, "s", "2"))
		c.nack(c.take()[0])
		after := status()
		require.Empty(t, after.Types[snapshot.Endpoint].Unanswered)
		require.Equal(t, uint64(1), after.Types[snapshot.Endpoint].Nacked)
		require.Equal(t, "s", after.Refused[0].Resource)
	})
}

// A client that does not read shows as one that has not answered, and what
// comes after that as something that it has not been given.
func TestStatusShowsAClientThatDoesNotRead(t *testing.T) {
	v := newView("acme").set(res(snapshot.Endpoint, "s", "1"))
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.prepare(delta)
		c.gate = make(chan struct{})
		w.start(c, shop)
		c.subscribe(snapshot.Endpoint, "s")
		require.Len(t, w.srv.Streams()[0].Types[snapshot.Endpoint].Unanswered, 1)
		v.set(res(snapshot.Endpoint, "s", "2"))
		require.True(t, w.srv.Streams()[0].Behind)
		close(c.gate)
		c.take()
		require.False(t, w.srv.Streams()[0].Behind)
	})
}
