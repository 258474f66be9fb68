package main

import (
	"context"
	"fmt"
	"runtime"
	"time"
)

// scaleScenario measures the first load of a large mesh, and what a change costs
// there against the small one.
func scaleScenario(ctx context.Context, r *run) error {
	small, err := r.costOfChange(ctx, r.small, r.small.Tenants*r.clients)
	if err != nil {
		return fmt.Errorf("small mesh: %w", err)
	}
	large, err := r.costOfChange(ctx, r.large, r.streams)
	if err != nil {
		return fmt.Errorf("large mesh: %w", err)
	}
	ratio := large.perChange / small.perChange
	r.add(Figure{Case: "large over small", Name: "server CPU per endpoint change", Unit: "times", P50: ratio, Target: "<= 1.3", Miss: ratio > 1.3})
	return nil
}

type cost struct{ perChange float64 }

func (r *run) costOfChange(ctx context.Context, s shape, streams int) (cost, error) {
	r.part = fmt.Sprintf("-%d", s.Tenants)
	defer func() { r.part = "" }()
	name := fmt.Sprintf("%d tenants x %d services, %d streams", s.Tenants, s.Services, streams)
	p, err := r.serve(ctx, ServerConfig{Shape: s})
	if p != nil {
		defer p.stop()
	}
	if err != nil {
		return cost{}, err
	}
	large := s == r.large
	r.addLoad(p, name, large)
	var views time.Duration
	used, err := p.server.cpu(func() error { return p.server.call("BuildAll", struct{}{}, &views) })
	if err != nil {
		return cost{}, err
	}
	f := Figure{Case: name, Name: "first build of every tenant's view", Unit: "s", P50: views.Seconds()}
	total := views + p.started.Load
	if large {
		f.Name += "; with the load"
		f.P50, f.Target, f.Miss = total.Seconds(), "<= 20", total > 20*time.Second
	}
	r.add(f)
	r.add(Figure{Case: name, Name: fmt.Sprintf("cores busy while views were built, of %d", runtime.NumCPU()), Unit: "cores", P50: used.Seconds() / views.Seconds()})
	rss, err := p.settled()
	if err != nil {
		return cost{}, err
	}
	_, peak, err := residentBytes(p.server.pid)
	if err != nil {
		return cost{}, err
	}
	r.add(Figure{Case: name, Name: "server memory", Unit: "MB", P50: float64(rss) / (1 << 20)})
	most := Figure{Case: name, Name: "server memory, most", Unit: "MB", P50: float64(peak) / (1 << 20)}
	if large {
		most.Target, most.Miss = "<= 2048", peak > 2<<30
	}
	r.add(most)
	clients := streams / s.Tenants
	if _, err := p.connect(FleetConfig{Members: members(s.Tenants, clients), Parallel: 64}); err != nil {
		return cost{}, err
	}
	c, err := p.changesFromFresh(name, clients)
	if err != nil {
		return cost{}, err
	}
	return c, p.clean(name)
}

// changesFromFresh changes endpoints and reports what that cost.
func (p *pair) changesFromFresh(name string, clients int) (cost, error) {
	// Both sizes begin with a fresh heap: the collection that follows a first
	// load is not a change's matter. What a change adds to the next one is its
	// allocations, whatever the heap's size.
	if _, err := p.settled(); err != nil {
		return cost{}, err
	}
	var before, after Served
	if err := p.server.call("Counts", struct{}{}, &before); err != nil {
		return cost{}, err
	}
	took, changing, err := p.changeEndpoints(p.run.largestChanges, clients)
	if err != nil {
		return cost{}, err
	}
	c := cost{perChange: milliseconds(changing) / float64(len(took))}
	p.run.add(Figure{Case: name, Name: "endpoint change", Unit: "ms", N: len(took), P50: percentile(took, 50), P99: percentile(took, 99)})
	p.run.add(Figure{Case: name, Name: "server CPU per endpoint change", Unit: "ms", P50: c.perChange})
	if err := p.server.call("Counts", struct{}{}, &after); err != nil {
		return cost{}, err
	}
	per := func(v float64) float64 { return v / float64(len(took)) }
	p.run.add(Figure{Case: name, Name: "allocated per endpoint change", Unit: "KB", P50: per(float64(after.Allocated-before.Allocated) / 1024)})
	p.run.add(Figure{Case: name, Name: "CPU of collections per endpoint change", Unit: "ms", P50: per(milliseconds(after.Collecting - before.Collecting))})
	p.run.add(Figure{Case: name, Name: "resources built per endpoint change", Unit: "", P50: per(float64(after.Builds - before.Builds))})
	p.run.add(Figure{Case: name, Name: "streams woken per endpoint change", Unit: "", P50: per(float64(after.Wakes - before.Wakes))})
	return c, nil
}

func (r *run) addLoad(p *pair, name string, large bool) {
	what := fmt.Sprintf("first load of %d objects", p.started.Objects)
	if !large {
		r.add(Figure{Case: name, Name: what, Unit: "ms", P50: milliseconds(p.started.Load)})
		return
	}
	r.add(Figure{Case: name, Name: what, Unit: "s", P50: p.started.Load.Seconds()})
}
