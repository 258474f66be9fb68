package snapshot

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy"
)

// Built on several cores, views hold what they hold when they are built one
// service after the other, and no more is built for them.
func TestBuiltAheadIsTheSame(t *testing.T) {
	if runtime.GOMAXPROCS(0) < 2 {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	}
	m := mesh{tenants: 10, services: 20}
	type result struct {
		layers [2][]map[Child]string
		builds [NumTypes]uint64
	}
	build := func(inOrder bool) (r result, ahead uint64) {
		p := newPublisher(t)
		if inOrder {
			p.trap = func(string, []any) {}
		}
		events := append(m.events(),
			put(tenancy.KindServiceGrant, nsName(0), "offer", &tenancy.ServiceGrant{
				From: []tenancy.GrantFrom{{Tenant: tenantName(1), All: true}},
				To:   []tenancy.GrantTo{{Service: serviceName(0), Ports: tenancy.PortSet{All: true}}},
			}),
			put(tenancy.KindServiceRequest, nsName(1), "take", &tenancy.ServiceRequest{
				Namespace: nsName(0), Service: serviceName(0), Ports: tenancy.PortSet{All: true},
			}))
		p.absorb(batch{events: events, synced: true}, at(0))
		var watch []*Attachment
		for i := range m.tenants {
			watch = append(watch, p.Attach(Proxy{Workload: workloadOf(i, 0), Pod: serviceName(0)}))
		}
		p.absorb(p.in.take(), at(0))
		look := func(n int) {
			for _, a := range watch {
				r.layers[n] = append(r.layers[n], contents(a))
			}
		}
		look(0)
		first := p.stats.ahead.Load()
		var burst []tenancy.Event
		for i := range m.tenants {
			for s := range m.services {
				burst = append(burst, slice(i, s, false), service(i, s, uint16(81+s%2)))
			}
		}
		p.absorb(batch{events: burst}, at(1000))
		p.flush(at(1000))
		look(1)
		if !inOrder {
			require.Equal(t, uint64(m.tenants*m.services), first)
			require.Equal(t, 2*first, p.stats.ahead.Load())
		}
		for typ := range NumTypes {
			r.builds[typ] = p.stats.Builds(typ)
		}
		return r, p.stats.ahead.Load()
	}
	want, none := build(true)
	require.Zero(t, none)
	got, _ := build(false)
	require.NotEqual(t, want.layers[0], want.layers[1])
	require.Equal(t, want, got)
}
