package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// loopbackNetwork is where the Pods of real Envoys are: 127.45.0.0/16 and, for
// applications and outbound listeners, 100 and 200 more.
const loopbackNetwork = 45

// sizeScenario compares what clients get in a mesh of many tenants with what
// they get where all services are one tenant's.
func sizeScenario(ctx context.Context, r *run) error {
	if err := r.emptyEnvoy(ctx); err != nil {
		return err
	}
	for _, services := range r.unscoped {
		if err := r.sizesOf(ctx, services); err != nil {
			return err
		}
	}
	return nil
}

// emptyEnvoy measures what an Envoy has without any configuration: what is above it
// is the configuration's.
func (r *run) emptyEnvoy(ctx context.Context) error {
	if r.envoy == "" {
		return nil
	}
	e, err := r.startEmptyEnvoy(ctx)
	if err != nil {
		return err
	}
	defer e.stop()
	used, err := e.allocated()
	if err != nil {
		return err
	}
	if r.emptyRSS, _, err = residentBytes(e.cmd.Process.Pid); err != nil {
		return err
	}
	r.add(Figure{Case: "an Envoy without configuration", Name: "Envoy's memory, allocated", Unit: "MB", P50: float64(used) / (1 << 20)})
	r.add(Figure{Case: "an Envoy without configuration", Name: "Envoy's memory, resident", Unit: "MB", P50: float64(r.emptyRSS) / (1 << 20)})
	return nil
}

func (r *run) sizesOf(ctx context.Context, services int) error {
	tenants := max(1, services/r.small.Services)
	scoped := shape{Tenants: tenants, Services: services / tenants, Endpoints: r.small.Endpoints, Network: loopbackNetwork}
	unscoped := scoped
	unscoped.Tenants, unscoped.Services = 1, services
	var totals, memory [2]float64
	for i, s := range []shape{scoped, unscoped} {
		name := fmt.Sprintf("%d of %d services", s.Services, services)
		var err error
		if totals[i], memory[i], err = r.sizeOf(ctx, s, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	name := fmt.Sprintf("%d services, unscoped ", services)
	r.add(Figure{Case: name + "over scoped", Name: "configuration", Unit: "times", P50: totals[1] / totals[0]})
	if memory[0] > 0 {
		r.add(Figure{Case: name + "minus scoped", Name: "Envoy's memory that scoping saves", Unit: "MB", P50: memory[1] - memory[0]})
	}
	return nil
}

// sizeOf returns a client's configuration in KB and Envoy's memory in MB.
func (r *run) sizeOf(ctx context.Context, s shape, name string) (total, memory float64, err error) {
	p, err := r.serve(ctx, ServerConfig{Shape: s})
	if p != nil {
		defer p.stop()
	}
	if err != nil {
		return 0, 0, err
	}
	report, err := p.connect(FleetConfig{Members: members(1, 1), Distinct: true})
	if err != nil {
		return 0, 0, err
	}
	// What is asked for because of what came is still on its way.
	if err := quiet(ctx, 500*time.Millisecond); err != nil {
		return 0, 0, err
	}
	if err := p.fleet.call("Report", struct{}{}, &report); err != nil {
		return 0, 0, err
	}
	for _, t := range slices.Sorted(maps.Keys(report.Bytes)) {
		r.add(Figure{Case: name, Name: fmt.Sprintf("%s, %d sent", t, report.Resources[t]), Unit: "KB", P50: float64(report.Bytes[t]) / 1024})
	}
	total = float64(report.Once) / 1024
	r.add(Figure{Case: name, Name: "configuration, each resource once", Unit: "KB", P50: total})
	sent := float64(report.total()) / 1024
	f := Figure{Case: name, Name: "sent to a client that connects", Unit: "KB", P50: sent}
	if s.Tenants > 1 {
		f.Target, f.Miss = "<= 20", sent > 20
	}
	r.add(f)
	if err := p.clean(name); err != nil {
		return 0, 0, err
	}
	if r.envoy == "" {
		r.log("  no Envoy: its memory is left out")
		return total, 0, nil
	}
	memory, err = r.envoyNeeds(ctx, s, name, p.started.Address)
	return total, memory, err
}

// envoyNeeds runs a real Envoy with that configuration and returns its memory in
// MB.
func (r *run) envoyNeeds(ctx context.Context, s shape, name, server string) (memory float64, err error) {
	e, err := r.startEnvoy(ctx, s, member{}, server)
	if err != nil {
		return 0, err
	}
	defer e.stop()
	used, err := e.allocated()
	if err != nil {
		return 0, err
	}
	rss, _, err := residentBytes(e.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	cpu, err := cpuTime(e.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	memory = float64(used) / (1 << 20)
	r.add(Figure{Case: name, Name: "Envoy's memory, allocated", Unit: "MB", P50: memory})
	r.add(Figure{Case: name, Name: "Envoy's memory, resident", Unit: "MB", P50: float64(rss) / (1 << 20)})
	r.add(Figure{Case: name, Name: "Envoy's memory, resident above the one without configuration", Unit: "MB", P50: float64(rss-r.emptyRSS) / (1 << 20)})
	r.add(Figure{Case: name, Name: "Envoy's start until LIVE", Unit: "ms", P50: milliseconds(e.ready)})
	r.add(Figure{Case: name, Name: "Envoy's CPU until LIVE", Unit: "ms", P50: milliseconds(cpu)})
	stalls, err := e.stalls(ctx)
	if err != nil {
		return 0, err
	}
	for _, of := range slices.Sorted(maps.Keys(stalls)) {
		r.add(Figure{Case: name, Name: "Envoy's main thread busy with " + of, Unit: "ms", P50: stalls[of]})
	}
	return memory, nil
}
