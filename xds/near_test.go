package xds

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/snapshot"
)

func endpoints(v view, rs ...*snapshot.Resource) {
	snapshot.Publish(snapshot.Update{Layer: v.Near, Set: rs})
}

// TestNearStandsBeforeTheRest: a stream is told what is near it, and nothing of
// changes that do not change that.
func TestNearStandsBeforeTheRest(t *testing.T) {
	for _, mode := range []protocol{delta, state} {
		v := shopView()
		bubble(t, v, func(t *testing.T, w *world) {
			zone := v.near()
			endpoints(zone, res(snapshot.Endpoint, "a", "near"))
			c := w.open(mode)
			c.request(&request{url: snapshot.Cluster.URL()})
			c.request(&request{url: snapshot.Endpoint.URL(), subscribe: []string{"a", "b"}, names: []string{"a", "b"}})
			c.take()
			says := func(why string, want ...string) {
				t.Helper()
				require.ElementsMatch(t, want, show(c.take()), why)
			}
			w.store.bind(zone.Binding)
			says("the place is known", "endpoint [a=near] -[]")
			v.set(res(snapshot.Endpoint, "a", "2"))
			says("what is behind it changes")
			v.set(res(snapshot.Endpoint, "b", "2"))
			says("what nothing stands before changes", "endpoint [b=2] -[]")
			endpoints(zone, res(snapshot.Endpoint, "a", "nearer"))
			says("what is near changes", "endpoint [a=nearer] -[]")
			snapshot.Publish(snapshot.Update{Layer: zone.Near, Remove: []snapshot.Child{child(snapshot.Endpoint, "a")}})
			says("nothing is near any more", "endpoint [a=2] -[]")
			endpoints(zone, res(snapshot.Endpoint, "a", "2"))
			w.store.bind(v.Binding)
			c.take()
			v.set(res(snapshot.Endpoint, "a", "3"))
			says("it is bound to the rest alone", "endpoint [a=3] -[]")
			endpoints(zone, res(snapshot.Endpoint, "a", "3"))
			w.store.bind(zone.Binding)
			says("near is the same")
			other := v.near()
			endpoints(other, res(snapshot.Endpoint, "a", "other"))
			w.store.bind(other.Binding)
			says("another place", "endpoint [a=other] -[]")
			endpoints(other, res(snapshot.Endpoint, "c", "near"))
			says("nobody has asked for it")
		})
	}
}

// TestPlacesShareWhatIsTheSame: what is the same for streams at two places of one
// view is encoded once, and so it is where nothing is near at all.
func TestPlacesShareWhatIsTheSame(t *testing.T) {
	v := shopView()
	bubble(t, v, func(t *testing.T, w *world) {
		places := []view{v, v.near(), v.near()}
		encodes := func(typ snapshot.Type) uint64 {
			synctest.Wait()
			return w.srv.Counts().Encodes[typ]
		}
		var cs []*client
		for _, p := range places {
			w.store.bind(p.Binding)
			for range 10 {
				c := w.open(delta)
				c.request(&request{url: snapshot.Cluster.URL()})
				c.request(&request{url: snapshot.Endpoint.URL(), subscribe: []string{"a", "b"}})
				cs = append(cs, c)
			}
			w.store.mu.Lock()
			clear(w.store.open) // who is there stays where it is
			w.store.mu.Unlock()
		}
		require.Equal(t, uint64(1), encodes(snapshot.Cluster))
		require.Equal(t, uint64(1), encodes(snapshot.Endpoint))

		v.set(res(snapshot.Endpoint, "b", "2"))
		require.Equal(t, uint64(2), encodes(snapshot.Endpoint))
		// As soon as the places differ there is a body for each.
		for i, p := range places[1:] {
			endpoints(p, res(snapshot.Endpoint, "a", string(rune('x'+i))))
			require.Equal(t, uint64(3+i), encodes(snapshot.Endpoint))
		}
		v.set(res(snapshot.Endpoint, "a", "2"))
		require.Equal(t, uint64(5), encodes(snapshot.Endpoint), "only who has nothing near is told")
		v.set(res(snapshot.Cluster, "new", "1"))
		require.Equal(t, uint64(2), encodes(snapshot.Cluster))
		for _, c := range cs {
			require.NotEmpty(t, c.take())
		}
	})
}
