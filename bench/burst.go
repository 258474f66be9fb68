package main

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"time"

	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/tenancy"
)

// debounce is a quiet and a max.
type debounce struct{ quiet, max time.Duration }

// debounces are what burst compares; the third is the default.
var debounces = []debounce{
	{time.Millisecond, 10 * time.Millisecond},
	{20 * time.Millisecond, 200 * time.Millisecond},
	{snapshot.DefaultQuiet, snapshot.DefaultMax},
	{500 * time.Millisecond, 5 * time.Second},
	{2 * time.Second, 20 * time.Second},
}

// burstScenario restarts all Pods of a tenant, one after the other, under
// several settings of the debounce.
func burstScenario(ctx context.Context, r *run) error {
	for _, d := range debounces {
		if err := r.restartPods(ctx, d); err != nil {
			return fmt.Errorf("quiet %v, max %v: %w", d.quiet, d.max, err)
		}
	}
	return nil
}

func (r *run) restartPods(ctx context.Context, d debounce) error {
	name := fmt.Sprintf("%d Pods restart, quiet %v, max %v", r.burst.Services*r.burst.Endpoints, d.quiet, d.max)
	r.part = "-" + d.quiet.String()
	defer func() { r.part = "" }()
	p, err := r.serve(ctx, ServerConfig{Shape: r.burst, Quiet: d.quiet, Max: d.max})
	if p != nil {
		defer p.stop()
	}
	if err != nil {
		return err
	}
	if _, err := p.connect(FleetConfig{Members: members(r.burst.Tenants, r.clients)}); err != nil {
		return err
	}
	if err := quiet(ctx, 200*time.Millisecond); err != nil {
		return err
	}
	var before, after FleetReport
	if err := p.fleet.call("Report", struct{}{}, &before); err != nil {
		return err
	}
	var markers []string
	for i := range r.burst.Services * r.burst.Endpoints {
		markers = append(markers, r.burst.restarted(0, i%r.burst.Services, i/r.burst.Services).String())
	}
	track := Tracked{Type: snapshot.Endpoint.URL(), Markers: markers, Count: r.clients}
	if err := p.fleet.call("Track", track, &struct{}{}); err != nil {
		return err
	}
	var began, at []Instant
	used, err := p.server.cpu(func() error {
		if err := p.server.call("Restart", r.burstEvery, &began); err != nil {
			return err
		}
		return p.fleet.call("Tracked", struct{}{}, &at)
	})
	if err != nil {
		return err
	}
	if err := p.fleet.call("Report", struct{}{}, &after); err != nil {
		return err
	}
	var took []float64
	for i := range at {
		took = append(took, milliseconds(at[i].since(began[i])))
	}
	r.add(Figure{Case: name, Name: burstLatency, Unit: "ms", N: len(took), P50: percentile(took, 50), P99: percentile(took, 99)})
	r.add(Figure{Case: name, Name: burstResponses, P50: float64(after.Messages-before.Messages) / float64(r.clients)})
	r.add(Figure{Case: name, Name: burstBytes, Unit: "KB", P50: float64(after.total()-before.total()) / float64(r.clients) / 1024})
	r.add(Figure{Case: name, Name: burstCPU, Unit: "ms", P50: milliseconds(used)})
	return p.clean(name)
}

// restarted is the address that a Pod has after its restart.
func (s shape) restarted(tenant, service, endpoint int) netip.Addr {
	four := s.address(tenant, service, endpoint).As4()
	return netip.AddrFrom4([4]byte{11, four[1], four[2], four[3]})
}

// Restart restarts the Pods of the first tenant, one of each service in turn,
// each after a pause, as rollouts do that go on at the same time. It returns
// when each was.
func (s *Server) Restart(every time.Duration, at *[]Instant) error {
	sh := s.config.Shape
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := range sh.Services * sh.Endpoints {
		service, endpoint := i%sh.Services, i/sh.Services
		ns, name := namespaceOf(0), serviceName(service)
		slice := sh.sliceEvent(0, service, true)
		endpoints := slice.Object.(*tenancy.EndpointSlice).Endpoints
		for e := range endpoint + 1 {
			endpoints[e].Addresses = []netip.Addr{sh.restarted(0, service, e)}
		}
		*at = append(*at, now())
		s.publisher.Apply([]tenancy.Event{
			event(tenancy.KindPod, ns, podName(service, endpoint), &tenancy.Pod{
				ServiceAccount: name, Labels: map[string]string{"app": name}, IPs: []netip.Addr{sh.restarted(0, service, endpoint)},
			}), slice,
		})
		<-tick.C
	}
	return nil
}

// Tracked are texts that come in the responses of a type, each to that many
// clients.
type Tracked struct {
	Type    string
	Markers []string
	Count   int
}

// tracking is what Track began. Guarded by the fleet's mu.
type tracking struct {
	Tracked
	open map[int]map[*client]bool // markers, with those who have them
	at   []Instant
	done chan struct{}
	over bool
}

// Track notes from now on when a text came to the last of the clients.
func (f *Fleet) Track(t Tracked, _ *struct{}) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tracking = &tracking{Tracked: t, open: map[int]map[*client]bool{}, at: make([]Instant, len(t.Markers)), done: make(chan struct{})}
	for i := range t.Markers {
		f.tracking.open[i] = map[*client]bool{}
	}
	return f.failed
}

// Tracked returns when each text was with all clients that it was to come to.
func (f *Fleet) Tracked(_ struct{}, at *[]Instant) error {
	f.mu.Lock()
	t := f.tracking
	f.mu.Unlock()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	select {
	case <-t.done:
	case <-limit.C:
		return fmt.Errorf("after a minute %d of %d texts have not come to all clients", len(t.open), len(t.Markers))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	*at = t.at
	return f.failed
}

// note looks for the texts in a message. The caller holds the fleet's mu.
func (t *tracking) note(c *client, typeURL string, message []byte, at Instant) {
	if t == nil || typeURL != t.Type {
		return
	}
	for i, had := range t.open {
		// A text ends where the field does, or is followed by no digit.
		if had[c] || !containsAddress(message, t.Markers[i]) {
			continue
		}
		had[c] = true
		if len(had) == t.Count {
			t.at[i] = at
			delete(t.open, i)
		}
	}
	if len(t.open) == 0 && !t.over {
		t.over = true
		close(t.done)
	}
}

// containsAddress reports whether an address is in a message, and not merely the
// beginning of a longer one.
func containsAddress(message []byte, address string) bool {
	for rest := message; ; {
		i := bytes.Index(rest, []byte(address))
		if i < 0 {
			return false
		}
		if rest = rest[i+len(address):]; len(rest) == 0 || rest[0] < '0' || rest[0] > '9' {
			return true
		}
	}
}
