package xds

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/tenancy"
)

func TestUnackedBytesBoundATypeAndTheLatestStateWins(t *testing.T) {
	big := strings.Repeat("x", 1000)
	v := newView("acme").set(res(snapshot.Route, "r", big), res(snapshot.Extension, "rbac-1", "1"), res(snapshot.Secret, "s", "1"))
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, v, func(c *Config) { c.MaxUnacked = 2500 })
		c := w.open(delta)
		var unanswered []frameOf
		unanswered = append(unanswered, c.subscribe(snapshot.Route, "r")...)
		c.subscribe(snapshot.Extension, "rbac-1")
		c.subscribe(snapshot.Secret, "s")
		for _, text := range []string{"a", "b", "c", "d", "e"} {
			v.set(res(snapshot.Route, "r", big+text))
			unanswered = append(unanswered, c.take()...)
		}
		require.Len(t, unanswered, 3, "then the type waits")
		v.set(res(snapshot.Extension, "rbac-1", "2"), res(snapshot.Secret, "s", "2"))
		require.Equal(t, []string{"extension [rbac-1=2] -[]", "secret [s=2] -[]"}, sorted(show(c.take())), "they wait for nobody")
		require.Equal(t, []string{"route [r=" + big + "e] -[]"}, show(c.ack(unanswered[0])))
	})
}

// While assignments wait, what a new cluster needs is owed and not forgotten.
func TestChildrenOfParentsAreOwedWhileTheirTypeWaits(t *testing.T) {
	v := newView("acme").set(svc("a", strings.Repeat("x", 200))...)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, v, func(c *Config) { c.MaxUnacked = 150 })
		c := w.open(delta)
		c.ack(c.subscribe(snapshot.Cluster)...)
		f := c.subscribe(snapshot.Endpoint, "a")
		require.Len(t, f, 1)
		v.set(svc("b", "1")...)
		require.Equal(t, []string{"cluster [b=1] -[]"}, show(c.take()))
		require.Equal(t, []string{"endpoint [b=1] -[]"}, show(c.ack(f[0])))
	})
}

func TestASlowReaderHoldsOneResponseAndTheLatestStateWins(t *testing.T) {
	v := newView("acme").set(res(snapshot.Route, "r", "0"))
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, v)
		c := w.prepare(delta)
		c.gate = make(chan struct{})
		w.start(c, shop)
		c.subscribe(snapshot.Route, "r") // blocks in its write
		for _, text := range []string{"1", "2", "3", "4"} {
			v.set(res(snapshot.Route, "r", text))
			require.Empty(t, c.take())
		}
		require.Equal(t, uint64(1), w.srv.Counts().Encodes[snapshot.Route])
		close(c.gate)
		require.Equal(t, []string{"route [r=0] -[]", "route [r=4] -[]"}, show(c.take()))
	})
}

func TestFinalBindingIsServedThenTheStreamEnds(t *testing.T) {
	v := shopView()
	empty := newView("")
	empty.Final = true
	open := func(t *testing.T, w *world) (*client, []frameOf) {
		c := w.open(delta)
		c.ack(c.subscribe(snapshot.Cluster)...)
		c.ack(c.subscribe(snapshot.Listener)...)
		c.ack(c.subscribe(snapshot.Extension, "rbac-http-80")...)
		w.store.bind(empty.Binding)
		last := c.take()
		require.Equal(t, []string{"extension [rbac-http-80=deny] -[]", "listener [] -[l]", "cluster [] -[a b]"}, show(last))
		require.Empty(t, c.done)
		return c, last
	}
	t.Run("after the ACK", func(t *testing.T) {
		bubble(t, v, func(t *testing.T, w *world) {
			c, last := open(t, w)
			for _, f := range last {
				require.Empty(t, c.done)
				c.ack(f)
			}
			require.ErrorIs(t, <-c.done, errFinal)
		})
	})
	t.Run("after five seconds", func(t *testing.T) {
		bubble(t, v, func(t *testing.T, w *world) {
			c, _ := open(t, w)
			time.Sleep(finalGrace - time.Millisecond)
			synctest.Wait()
			require.Empty(t, c.done)
			time.Sleep(time.Millisecond)
			synctest.Wait()
			require.ErrorIs(t, <-c.done, errFinal)
		})
	})
}

// What all streams have got need not be remembered.
func TestStoreForgetsWhatAllStreamsHave(t *testing.T) {
	v := newView("acme").set(res(snapshot.Route, "r", "1"))
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.open(delta)
		c.subscribe(snapshot.Route, "r")
		for i := range 300 {
			v.set(res(snapshot.Route, "r", strings.Repeat("x", i)))
			require.Len(t, c.ack(c.take()...), 0)
		}
		require.False(t, v.View.Since(snapshot.Route, 2, func(string, *snapshot.Resource) {}))
		v.set(res(snapshot.Route, "r", "end"))
		require.Equal(t, []string{"route [r=end] -[]"}, show(c.take()))
	})
}

func TestStreamThatIsTooFarBehindIsClosed(t *testing.T) {
	v := newView("acme").set(res(snapshot.Route, "r", "1"))
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, v)
		c := w.prepare(delta)
		c.gate = make(chan struct{}, 1)
		w.start(c, shop)
		c.gate <- struct{}{}
		c.subscribe(snapshot.Cluster, "x")
		// It does not read while far more goes than is remembered.
		c.subscribe(snapshot.Route, "*")
		var set []*snapshot.Resource
		var remove []snapshot.Child
		for i := range 5000 {
			name := "r" + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + time.Duration(i).String()
			set = append(set, res(snapshot.Route, name, "1"))
			remove = append(remove, child(snapshot.Route, name))
		}
		v.set(set...)
		v.remove(remove...)
		close(c.gate)
		c.take()
		require.Equal(t, codes.Unavailable, status.Code(<-c.done))
	})
}

// limitTest runs f against a server with limits for tenant acme.
func limitTest(t *testing.T, name string, l tenancy.Limits, f func(t *testing.T, w *world)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f(t, newWorld(t, shopView(), func(c *Config) {
				c.Limits = func(tenant string) tenancy.Limits {
					if tenant == "acme" {
						return tenancy.DefaultLimits().Override(l)
					}
					return tenancy.DefaultLimits()
				}
			}))
		})
	})
}

// exhausted requires that the limit ended a stream, and that it was counted.
func exhausted(t *testing.T, w *world, c *client, limit string) {
	t.Helper()
	synctest.Wait()
	require.Equal(t, codes.ResourceExhausted, status.Code(<-c.done))
	require.EqualValues(t, 1, testutil.ToFloat64(w.srv.metrics.limited.WithLabelValues("acme", limit)))
	require.Equal(t, 1, testutil.CollectAndCount(w.srv.metrics.limited))
}

func TestLimits(t *testing.T) {
	limitTest(t, "streams of a tenant", tenancy.Limits{Streams: 2}, func(t *testing.T, w *world) {
		first := w.open(delta)
		first.subscribe(snapshot.Cluster)
		w.open(delta).subscribe(snapshot.Cluster)
		third := w.open(delta)
		third.subscribe(snapshot.Cluster)
		exhausted(t, w, third, "streams")
		first.stop()
		synctest.Wait()
		require.NotEmpty(t, w.open(delta).subscribe(snapshot.Cluster), "there is room again")
	})
	limitTest(t, "streams of an identity", tenancy.Limits{StreamsPerID: 1}, func(t *testing.T, w *world) {
		w.open(delta).subscribe(snapshot.Cluster)
		second := w.open(delta)
		second.subscribe(snapshot.Cluster)
		exhausted(t, w, second, "streamsPerID")
		other := w.prepare(delta)
		w.start(other, identity.Workload{TrustDomain: "acme.example", Namespace: "acme-shop", ServiceAccount: "api"})
		require.NotEmpty(t, other.subscribe(snapshot.Cluster))
	})
	limitTest(t, "names", tenancy.Limits{SubscribedNames: 2}, func(t *testing.T, w *world) {
		c := w.open(delta)
		c.subscribe(snapshot.Endpoint, "a", "b")
		c.subscribe(snapshot.Endpoint, "c")
		exhausted(t, w, c, "subscribedNames")
	})
	limitTest(t, "request bytes", tenancy.Limits{RequestBytes: 100}, func(t *testing.T, w *world) {
		c := w.open(delta)
		c.subscribe(snapshot.Endpoint, "a")
		c.request(&request{url: snapshot.Endpoint.URL(), size: 101})
		exhausted(t, w, c, "requestBytes")
	})
	limitTest(t, "requests per second", tenancy.Limits{RequestsPerSecond: 2}, func(t *testing.T, w *world) {
		c := w.open(delta)
		c.subscribe(snapshot.Endpoint, "a")
		for range 2 * burstSeconds {
			c.subscribe(snapshot.Endpoint, "a")
		}
		time.Sleep(500 * time.Millisecond)
		require.NotEmpty(t, c.subscribe(snapshot.Endpoint, "a"), "half a second is worth one")
		c.subscribe(snapshot.Endpoint, "a")
		exhausted(t, w, c, "requestsPerSecond")
	})
}

func TestStateOfAStreamIsFreedAtItsEnd(t *testing.T) {
	bubble(t, shopView(), func(t *testing.T, w *world) {
		c := w.open(delta)
		c.subscribe(snapshot.Cluster)
		require.Len(t, w.srv.Streams(), 1)
		require.Equal(t, "acme", w.srv.Streams()[0].Tenant)
		require.Equal(t, "web-1", w.srv.Streams()[0].Pod)
		close(c.in)
		require.NoError(t, <-c.done, "closed in order")
		require.Empty(t, w.srv.Streams())
		require.Empty(t, w.srv.gate.streams())
		require.Empty(t, w.srv.gate.ids)
		require.Empty(t, w.srv.gate.waiting)
		require.Empty(t, w.store.proxies())
	})
}

func TestStreamsEndWhenTheServerStops(t *testing.T) {
	bubble(t, shopView(), func(t *testing.T, w *world) {
		c := w.open(delta)
		c.subscribe(snapshot.Cluster)
		w.srv.stop()
		require.Equal(t, codes.Unavailable, status.Code(<-c.done))
	})
}

type recorder struct{ events []string }

func (r *recorder) Sent(x Report) {
	r.events = append(r.events, "sent "+x.Tenant+"/"+x.Pod+" "+x.Type.String())
}
func (r *recorder) Acked(x Report) { r.events = append(r.events, "acked "+x.Type.String()) }
func (r *recorder) Nacked(x Report, detail string) {
	line := "nacked " + x.Type.String() + ": " + detail
	for _, o := range x.Origins {
		line += " " + o.Key.Name
	}
	r.events = append(r.events, line)
}

func TestObserverIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{}
		w := newWorld(t, newView("acme").set(res(snapshot.Endpoint, "s", "1"), res(snapshot.Endpoint, "q", "1")), func(c *Config) { c.Observer = rec })
		c := w.open(delta)
		f := c.subscribe(snapshot.Endpoint, "s", "q")
		c.ack(c.nack(f[0])[0])
		f = c.subscribe(snapshot.Endpoint, "s")
		c.nack(f[0])
		require.Equal(t, []string{
			"sent acme/web-1 endpoint", "nacked endpoint: bad", "sent acme/web-1 endpoint", "sent acme/web-1 endpoint",
			"acked endpoint", "sent acme/web-1 endpoint", "acked endpoint", "nacked endpoint: bad s",
		}, rec.events)
	})
}
