package snapshot

import (
	"fmt"
	"testing"

	"bailiwick.dev/bailiwick/tenancy"
)

// What it costs from an endpoint's event to the wake-up of the streams that see
// it, at mesh sizes that differ by two orders of magnitude. Each of ten tenants
// has one stream.
func BenchmarkEndpointChange(b *testing.B) {
	for _, tenants := range []int{10, 1000} {
		b.Run(fmt.Sprintf("services=%d", tenants*10), func(b *testing.B) {
			p := newPublisher(b)
			for _, ev := range (mesh{tenants: tenants, services: 10}).events() {
				p.model.Apply(ev)
			}
			p.absorb(batch{synced: true}, at(0))
			var seen *Attachment
			for i := range 10 {
				a := p.Attach(Proxy{Workload: workloadOf(i, 0), Pod: serviceName(0)})
				if i == 0 {
					seen = a
				}
			}
			p.absorb(p.in.take(), at(0))
			ready, now := false, 1
			b.ReportAllocs()
			for b.Loop() {
				ev := slice(0, 1, ready)
				ready, now = !ready, now+1
				p.absorb(batch{events: []tenancy.Event{ev}}, at(now))
				p.flush(at(now))
				if !drain(seen) {
					b.Fatal("nobody was told")
				}
			}
		})
	}
}

// What the first build of a view costs, by the services that it sees.
func BenchmarkFirstBuildOfAView(b *testing.B) {
	for _, services := range []int{10, 100} {
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) {
			events := mesh{tenants: 1, services: services}.events()
			b.ReportAllocs()
			for b.Loop() {
				p := newPublisher(b)
				p.absorb(batch{events: events, synced: true}, at(0))
				a := p.Attach(Proxy{Workload: workloadOf(0, 0), Pod: serviceName(0)})
				p.absorb(p.in.take(), at(0))
				if a.Binding() == nil {
					b.Fatal("not bound")
				}
			}
		})
	}
}
