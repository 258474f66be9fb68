package xds

import (
	"testing"

	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
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
