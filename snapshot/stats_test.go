package snapshot

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy"
)

func TestMetricsAreLintedAndTellTheWindows(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	p := newPublisher(t)
	var err error
	p.stats, err = newStats(reg)
	require.NoError(t, err)
	p.quiet, p.max = DefaultQuiet, DefaultMax
	m := mesh{tenants: 2, services: 2}
	p.absorb(batch{events: m.events(), synced: true, since: at(0)}, at(0))
	p.Attach(Proxy{Workload: workloadOf(0, 0), Pod: serviceName(0)})
	p.absorb(p.in.take(), at(0))
	for i := range 20 {
		p.absorb(batch{events: []tenancy.Event{slice(0, 1, i%2 == 1)}, since: at(i)}, at(i))
		p.flush(at(i))
	}
	p.flush(at(500))
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
	families, err := reg.Gather()
	require.NoError(t, err)
	found := map[string]float64{}
	for _, f := range families {
		for _, metric := range f.GetMetric() {
			key := f.GetName()
			for _, l := range metric.GetLabel() {
				key += " " + l.GetValue()
			}
			found[key] = metric.GetGauge().GetValue() + float64(metric.GetHistogram().GetSampleCount())
		}
	}
	require.Equal(t, DefaultQuiet.Seconds(), found["bailiwick_snapshot_window_seconds quiet "+tenantName(0)])
	require.Equal(t, DefaultMax.Seconds(), found["bailiwick_snapshot_window_seconds max "+tenantName(0)])
	require.NotContains(t, found, "bailiwick_snapshot_window_seconds max "+tenantName(1))
	require.Equal(t, float64(immediateBuilds), found["bailiwick_snapshot_window_wait_seconds immediate"])
	require.Equal(t, 1.0, found["bailiwick_snapshot_window_wait_seconds gathered"])
}
