package snapshot

import (
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy"
)

// From an endpoint's event to the wake-up of whoever sees it, as much is
// allocated in a large mesh as in a small one.
func TestAllocationsOfAnEventDoNotGrowWithTheMesh(t *testing.T) {
	const services = 5
	cost := func(tenants int) float64 {
		p := newPublisher(t)
		p.absorb(batch{events: mesh{tenants: tenants, services: services}.events(), synced: true}, at(0))
		var watch []*Attachment
		for i := range tenants {
			watch = append(watch, p.Attach(Proxy{Workload: workloadOf(i, 0), Pod: serviceName(0)}))
		}
		p.absorb(p.in.take(), at(0))
		for _, a := range watch {
			require.True(t, drain(a))
		}
		n := 0
		return testing.AllocsPerRun(50, func() {
			n++
			now := at(1000 * n)
			p.absorb(batch{events: []tenancy.Event{slice(0, 1, n%2 == 0)}, since: now}, now)
			p.flush(now)
			require.True(t, drain(watch[0]))
			require.False(t, drain(watch[1]))
		})
	}
	small, large := cost(3), cost(100)
	require.InEpsilon(t, small, large, 0.03)
}
