package main

import (
	"context"
	"fmt"
	"time"

	"bailiwick.dev/bailiwick/snapshot"
)

// path is how changes reach the server.
type path struct {
	name string
	file bool
}

var paths = []path{{"applied", false}, {"file", true}}

// endpointScenario measures changes of an endpoint, one after the other.
func endpointScenario(ctx context.Context, r *run) error {
	for _, how := range paths {
		if err := r.onSmall(ctx, how, (*pair).endpoints); err != nil {
			return fmt.Errorf("%s: %w", how.name, err)
		}
	}
	return nil
}

// serviceScenario measures services that are added with their Pods.
func serviceScenario(ctx context.Context, r *run) error {
	for _, how := range paths {
		if err := r.onSmall(ctx, how, (*pair).services); err != nil {
			return fmt.Errorf("%s: %w", how.name, err)
		}
	}
	return nil
}

// onSmall does something with the small mesh and all its clients.
func (r *run) onSmall(ctx context.Context, how path, do func(*pair, string) error) error {
	config := ServerConfig{Shape: r.small}
	if how.file {
		dir, err := r.meshDir(r.small)
		if err != nil {
			return err
		}
		config.Dir = dir
	}
	return r.served(ctx, how.name, config, do)
}

// served is onSmall of a server.
func (r *run) served(ctx context.Context, name string, config ServerConfig, do func(*pair, string) error) error {
	r.part = "-" + name
	defer func() { r.part = "" }()
	p, err := r.serve(ctx, config)
	if p != nil {
		defer p.stop()
	}
	if err != nil {
		return err
	}
	report, err := p.connect(FleetConfig{Members: members(r.small.Tenants, r.clients), Parallel: 16})
	if err != nil {
		return err
	}
	// What is asked for because of what came is still on its way.
	if err := quiet(ctx, 500*time.Millisecond); err != nil {
		return err
	}
	if err := p.fleet.call("Report", struct{}{}, &report); err != nil {
		return err
	}
	n := report.total()
	perClient := float64(n) / float64(r.small.Tenants*r.clients)
	r.add(Figure{Case: name, Name: "sent to a client that connects", Unit: "KB", P50: perClient / 1024})
	if err := p.server.call("Settle", struct{}{}, &struct{}{}); err != nil {
		return err
	}
	rss, _, err := residentBytes(p.server.pid)
	if err != nil {
		return err
	}
	r.add(Figure{Case: name, Name: "server memory", Unit: "MB", P50: float64(rss) / (1 << 20), Target: "<= 80", Miss: rss > 80<<20})
	if err := do(p, name); err != nil {
		return err
	}
	return p.clean(name)
}

// endpoints changes endpoints of all tenants in turn, each change being one
// tenant's.
func (p *pair) endpoints(name string) error {
	took, used, err := p.changeEndpoints(p.run.changes, p.run.clients)
	if err != nil {
		return err
	}
	target, miss := p.target(took, 1.5, 5)
	p.run.add(Figure{Case: name, Name: "endpoint change", Unit: "ms", N: len(took), P50: percentile(took, 50), P99: percentile(took, 99), Target: target, Miss: miss})
	p.addBare(name, 1.5, 5)
	each := milliseconds(used) / float64(len(took))
	p.run.add(Figure{Case: name, Name: "server CPU per endpoint change", Unit: "ms", P50: each, Target: "<= 0.5", Miss: each > 0.5})
	return nil
}

// target is what a time is measured against that has no source in it.
func (p *pair) target(took []float64, p50, p99 float64) (target string, miss bool) {
	if p.config.Dir != "" || p.kube != nil {
		return "", false
	}
	return fmt.Sprintf("<= %v / %v", p50, p99), percentile(took, 50) > p50 || percentile(took, 99) > p99
}

// addBare reports the bare watch, and what we take beyond it.
func (p *pair) addBare(name string, p50, p99 float64) {
	if p.kube == nil {
		return
	}
	p.run.add(Figure{Case: name, Name: "bare watch has it", Unit: "ms", N: len(p.bare), P50: percentile(p.bare, 50), P99: percentile(p.bare, 99)})
	f := Figure{Case: name, Name: "last client has it after the bare watch", Unit: "ms", N: len(p.over), P50: percentile(p.over, 50), P99: percentile(p.over, 99)}
	f.Target, f.Miss = fmt.Sprintf("<= %v / %v", p50, p99), f.P50 > p50 || f.P99 > p99
	p.run.add(f)
	p.bare, p.over = nil, nil
}

// changeEndpoints makes n changes and returns how long each took, in
// milliseconds, and the server's CPU for all of them.
func (p *pair) changeEndpoints(n, clients int) (took []float64, used time.Duration, err error) {
	s := p.config.Shape
	step := func(i int) error {
		// Each service's endpoint goes and comes back one round later.
		at := i % (s.Tenants * s.Services)
		tenant, service := at%s.Tenants, at/s.Tenants
		on := i/(s.Tenants*s.Services)%2 == 1
		c := Change{What: "endpoint", Tenant: tenant, Service: service, On: on}
		d, err := p.timed(c, snapshot.Endpoint.URL(), clusterName(tenant, service), clients)
		took = append(took, milliseconds(d))
		return err
	}
	// The first ones warm up caches and are not counted.
	for i := range min(20, n) {
		if err := step(i); err != nil {
			return nil, 0, err
		}
	}
	took, p.bare, p.over = nil, nil, nil
	used, err = p.server.cpu(func() error {
		for i := range n {
			if err := step(min(20, n) + i); err != nil {
				return err
			}
		}
		return quiet(p.ctx, 20*time.Millisecond)
	})
	return took, used, err
}

// services adds a service to a tenant, takes it away, and goes on with the next.
func (p *pair) services(name string) error {
	var took []float64
	var used time.Duration
	s := p.config.Shape
	for i := range p.run.changes {
		tenant, service := i%s.Tenants, s.Services+i/s.Tenants%extraServices
		// The last Pod's address is there when all of it is.
		marker := s.address(tenant, service, s.Endpoints-1).String()
		cpu, err := p.server.cpu(func() error {
			if p.kube != nil {
				if err := p.kube.addPods(p.ctx, tenant, service); err != nil {
					return err
				}
			}
			d, err := p.timed(Change{What: "add", Tenant: tenant, Service: service}, snapshot.Endpoint.URL(), marker, p.run.clients)
			took = append(took, milliseconds(d))
			return errorsOr(err, func() error { return quiet(p.ctx, 5*time.Millisecond) })
		})
		if err != nil {
			return err
		}
		used += cpu
		removed := clusterName(tenant, service)
		if _, err := p.timed(Change{What: "remove", Tenant: tenant, Service: service}, snapshot.Cluster.URL(), removed, p.run.clients); err != nil {
			return err
		}
	}
	target, miss := p.target(took, 3, 10)
	p.run.add(Figure{Case: name, Name: "service added", Unit: "ms", N: len(took), P50: percentile(took, 50), P99: percentile(took, 99), Target: target, Miss: miss})
	p.addBare(name, 3, 10)
	each := milliseconds(used) / float64(len(took))
	p.run.add(Figure{Case: name, Name: "server CPU per service added", Unit: "ms", P50: each, Target: "<= 1.5", Miss: each > 1.5})
	return nil
}

// errorsOr goes on unless there was an error.
func errorsOr(err error, next func() error) error {
	if err != nil {
		return err
	}
	return next()
}

// sourceScenario measures both kinds of change over a real API server, beside a
// bare watch of it.
func sourceScenario(ctx context.Context, r *run) error {
	if !r.kubernetes {
		r.log("  left out: no kube-apiserver (make kubernetes)")
		return nil
	}
	c, err := r.startCluster(ctx, r.small)
	if err != nil {
		return err
	}
	defer c.Stop()
	return r.served(ctx, "kubernetes", ServerConfig{Shape: r.small, Kubeconfig: c.kubeconfig}, func(p *pair, name string) error {
		p.kube = c
		r.add(Figure{Case: name, Name: fmt.Sprintf("held by source and model, per object of %d", p.started.Objects), Unit: "bytes", P50: float64(p.started.Held) / float64(p.started.Objects)})
		return errorsOr(p.endpoints(name), func() error { return p.services(name) })
	})
}

// noisy measures a quiet tenant alone and beside a flood.
func noisy(ctx context.Context, r *run) error {
	p, err := r.serve(ctx, ServerConfig{Shape: r.small})
	if p != nil {
		defer p.stop()
	}
	if err != nil {
		return err
	}
	if _, err := p.connect(FleetConfig{Members: members(r.small.Tenants, r.clients), Parallel: 16}); err != nil {
		return err
	}
	const loud, still = 0, 1
	var alone, beside []float64
	// In turns, so that what else goes on on this machine hits both alike.
	for len(alone) < r.floodChanges {
		some, err := p.still(still, min(30, r.floodChanges-len(alone)))
		if err != nil {
			return err
		}
		alone = append(alone, some...)
		if err := p.server.call("Flood", Flooding{Tenant: loud, PerSecond: 500}, &struct{}{}); err != nil {
			return err
		}
		some, err = p.still(still, len(some))
		if err != nil {
			return err
		}
		beside = append(beside, some...)
		if err := p.server.call("Calm", struct{}{}, &struct{}{}); err != nil {
			return err
		}
	}
	for _, c := range []struct {
		name string
		took []float64
	}{{"alone", alone}, {"beside a flood", beside}} {
		r.add(Figure{Case: c.name, Name: "endpoint change of the quiet tenant", Unit: "ms", N: len(c.took), P50: percentile(c.took, 50), P99: percentile(c.took, 99)})
	}
	ratio := percentile(beside, 99) / percentile(alone, 99)
	r.add(Figure{Case: "500 changes a second", Name: "p99 beside the flood over alone", Unit: "times", P50: ratio, Target: "< 1.2", Miss: ratio >= 1.2})
	return p.clean("beside a flood")
}

// still changes one tenant's endpoints at a pace that its window lets through.
func (p *pair) still(tenant, n int) ([]float64, error) {
	var took []float64
	for i := range n {
		service := i / 2 % p.config.Shape.Services
		d, err := p.timed(Change{What: "endpoint", Tenant: tenant, Service: service, On: i%2 == 1}, snapshot.Endpoint.URL(), clusterName(tenant, service), p.run.clients)
		if err != nil {
			return nil, err
		}
		took = append(took, milliseconds(d))
		if err := quiet(p.ctx, pace); err != nil {
			return nil, err
		}
	}
	return took, nil
}

// pace is above the time in which a tenant gets one immediate build back.
const pace = snapshot.DefaultQuiet + 5*time.Millisecond
