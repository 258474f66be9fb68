package xds

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/snapshot"
)

func TestMetricsAreLintedAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewPedanticRegistry()
		w := newWorld(t, shopView(), func(c *Config) { c.Registerer = reg })
		for range 3 {
			c := w.open(delta)
			c.ack(c.subscribe(snapshot.Cluster)...)
			c.nack(c.subscribe(snapshot.Route, "http-80")[0])
			c.request(&request{url: "unknown"})
		}
		problems, err := testutil.GatherAndLint(reg)
		require.NoError(t, err)
		require.Empty(t, problems)
		families, err := reg.Gather()
		require.NoError(t, err)
		for _, f := range families {
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					require.Contains(t, []string{"tenant", "type", "result"}, l.GetName())
				}
			}
			require.LessOrEqual(t, len(f.GetMetric()), 2*int(snapshot.NumTypes), f.GetName())
		}
		n, err := testutil.GatherAndCount(reg, "bailiwick_xds_streams")
		require.NoError(t, err)
		require.Equal(t, 1, n)
	})
}

func TestTwoServersCannotShareARegistry(t *testing.T) {
	reg := prometheus.NewRegistry()
	_, err := NewServer(Config{Store: &fakeStore{}, Registerer: reg})
	require.NoError(t, err)
	_, err = NewServer(Config{Store: &fakeStore{}, Registerer: reg})
	require.ErrorContains(t, err, "register the metrics")
	_, err = NewServer(Config{})
	require.Error(t, err)
}

// Changes of the store are timed from the arrival of their event; what a client
// asked for is not.
func TestTimeFromEventToSentAndToAck(t *testing.T) {
	v := shopView()
	bubble(t, v, func(t *testing.T, w *world) {
		count := func(l *latency, typ snapshot.Type) (uint64, float64) {
			var m dto.Metric
			require.NoError(t, l.types[typ].(prometheus.Metric).Write(&m))
			return m.GetHistogram().GetSampleCount(), m.GetHistogram().GetSampleSum()
		}
		c := w.open(delta)
		c.ack(c.subscribe(snapshot.Endpoint, "a", "b")...)
		n, _ := count(w.srv.metrics.eventSent, snapshot.Endpoint)
		require.Zero(t, n)
		arrived := time.Now().Add(-20 * time.Millisecond)
		snapshot.PublishSince(arrived, snapshot.Update{Layer: v.View, Set: []*snapshot.Resource{res(snapshot.Endpoint, "a", "2")}})
		got := c.take()
		require.Len(t, got, 1)
		n, sum := count(w.srv.metrics.eventSent, snapshot.Endpoint)
		require.Equal(t, uint64(1), n)
		require.InDelta(t, 0.02, sum, 1e-9)
		time.Sleep(time.Second)
		c.ack(got...)
		n, sum = count(w.srv.metrics.eventAcked, snapshot.Endpoint)
		require.Equal(t, uint64(1), n)
		require.InDelta(t, 1.02, sum, 1e-9)
		n, _ = count(w.srv.metrics.eventAcked, snapshot.Cluster)
		require.Zero(t, n)
	})
}
