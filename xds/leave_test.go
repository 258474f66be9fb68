package xds

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"bailiwick.dev/bailiwick/snapshot"
)

// A server that stops spreads the ends of its streams, and serves each of them
// until its end: what is revoked meanwhile arrives.
func TestStreamsAreServedWhileTheServerDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const drain = 10 * time.Second
		v := newView("acme").set(res(snapshot.Endpoint, "s", "1"))
		w := newWorld(t, v, func(c *Config) { c.Drain = drain })
		var clients []*client
		for range 10 { // as many as an identity may have
			c := w.open(delta)
			c.ack(c.subscribe(snapshot.Endpoint, "s")...)
			clients = append(clients, c)
		}
		began := time.Now()
		w.srv.stop()
		v.set(res(snapshot.Endpoint, "s", "2"))
		for _, c := range clients {
			require.Len(t, c.take(), 1, "still served")
		}
		for _, c := range clients {
			err := <-c.done
			require.Equal(t, codes.Unavailable, status.Code(err))
		}
		require.Empty(t, w.srv.Streams())
		require.Less(t, time.Since(began), drain)
		require.Greater(t, time.Since(began), drain/10, "not all at once")
	})
}

// Streams that came together leave at different times, near their age.
func TestStreamsLeaveAtTheirAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shopView(), func(c *Config) { c.MaxStreamAge = time.Hour })
		began := time.Now()
		ends := make(chan time.Duration, 8)
		for range cap(ends) {
			c := w.open(delta)
			c.subscribe(snapshot.Cluster)
			go func() { // ends with the stream
				require.ErrorIs(t, <-c.done, errAged)
				ends <- time.Since(began)
			}()
		}
		distinct := map[time.Duration]bool{}
		for range cap(ends) {
			at := <-ends
			require.InDelta(t, time.Hour.Seconds(), at.Seconds(), time.Hour.Seconds()*ageJitter)
			distinct[at] = true
		}
		require.Len(t, distinct, cap(ends))
	})
}

func TestAServerTakesSoManyStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shopView(), func(c *Config) { c.MaxStreams = 2 })
		one, two := w.open(delta), w.open(state)
		one.subscribe(snapshot.Cluster)
		two.want(snapshot.Cluster, nil)
		three := w.open(delta)
		require.Equal(t, codes.ResourceExhausted, status.Code(<-three.done))
		close(one.in)
		require.NoError(t, <-one.done)
		four := w.open(delta)
		require.NotEmpty(t, four.subscribe(snapshot.Cluster), "there is a place again")
	})
}
