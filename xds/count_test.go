package xds

import (
	"fmt"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/snapshot"
)

// answers reads the counter of answered responses.
func answers(w *world, tenant string, t snapshot.Type, result string) float64 {
	var m dto.Metric
	if err := w.srv.metrics.answers.WithLabelValues(tenant, t.String(), result).Write(&m); err != nil {
		panic(err)
	}
	return m.GetCounter().GetValue()
}

func TestAThousandStreamsOfOneViewShareOneEncode(t *testing.T) {
	const n = 1000
	for _, mode := range []protocol{delta, state} {
		v := shopView()
		bubble(t, v, func(t *testing.T, w *world) {
			var cs []*client
			for range n {
				c := w.open(mode)
				c.request(&request{url: snapshot.Cluster.URL()})
				c.request(&request{url: snapshot.Endpoint.URL(), subscribe: []string{"a", "b"}, names: []string{"a", "b"}})
				cs = append(cs, c)
			}
			start := w.srv.Counts()
			require.Equal(t, uint64(1), start.Encodes[snapshot.Cluster])
			require.Equal(t, uint64(n), start.Sends[snapshot.Cluster])

			v.set(res(snapshot.Endpoint, "a", "2"))
			for _, c := range cs {
				require.Equal(t, []string{"endpoint [a=2] -[]"}, show(c.take()))
			}
			end := w.srv.Counts()
			require.Equal(t, uint64(1), end.Encodes[snapshot.Endpoint]-start.Encodes[snapshot.Endpoint])
			require.Equal(t, uint64(n), end.Sends[snapshot.Endpoint]-start.Sends[snapshot.Endpoint])
			// What a connection to the store costs at its opening aside, one
			// publication wakes each stream once.
			require.Equal(t, uint64(n), end.Wakes-start.Wakes)
			require.Less(t, end.Bytes[snapshot.Endpoint]-start.Bytes[snapshot.Endpoint], uint64(n*300))
		})
	}
}

func TestAChangeElsewhereWakesNobody(t *testing.T) {
	mine, other := shopView(), shopView()
	bubble(t, mine, func(t *testing.T, w *world) {
		c := w.open(delta)
		c.subscribe(snapshot.Cluster)
		start := w.srv.Counts()
		other.set(svc("a", "9")...)
		require.Empty(t, c.take())
		require.Equal(t, start, w.srv.Counts())
	})
}

// What a reconnect costs must follow from what differs.
func TestReconnectsWithEqualVersionsShareTheirAnswer(t *testing.T) {
	v := newView("acme")
	var all []*snapshot.Resource
	for i := range 50 {
		all = append(all, res(snapshot.Cluster, fmt.Sprint("c", i), "1"))
	}
	v.set(all...)
	v.set(res(snapshot.Cluster, "c7", "2"))
	bubble(t, v, func(t *testing.T, w *world) {
		for range 100 {
			require.Equal(t, []string{"cluster [c7=2] -[]"}, show(w.open(delta).back(snapshot.Cluster, nil, all...)))
		}
		require.Equal(t, uint64(1), w.srv.Counts().Encodes[snapshot.Cluster])
	})
}
