package snapshot

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What is added up without a server is what views hold: the sizes of both agree.
func TestSizesAreThoseOfViews(t *testing.T) {
	m := mesh{tenants: 3, services: 4}
	p := newPublisher(t)
	p.absorb(batch{events: m.events(), synced: true}, at(0))
	views, err := p.builder.Sizes(p.model)
	require.NoError(t, err)
	require.Len(t, views, m.tenants)
	for i := range m.tenants {
		p.Attach(Proxy{Workload: workloadOf(i, 0), Pod: serviceName(0)})
	}
	p.absorb(p.in.take(), at(0))
	open := p.dump().Sizes()
	require.Len(t, open, m.tenants)
	for i, v := range views {
		require.Equal(t, tenantName(i), v.Tenant)
		require.Equal(t, m.services, v.Scoped.Clusters)
		require.Equal(t, m.tenants*m.services, v.Unscoped.Clusters)
		require.Equal(t, m.tenants*v.Scoped.Bytes, v.Unscoped.Bytes)
		require.Equal(t, v.Scoped.Clusters, open[i].Scoped.Clusters)
		require.Equal(t, v.Unscoped.Clusters, open[i].Unscoped.Clusters)
		require.InEpsilon(t, v.Scoped.Bytes, open[i].Scoped.Bytes, 0.2, "a view's routes have a head, too")
		require.InEpsilon(t, v.Unscoped.Bytes, open[i].Unscoped.Bytes, 0.2)
	}
}
