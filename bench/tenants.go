package main

import (
	"context"
	"fmt"

	"bailiwick.dev/bailiwick/snapshot"
)

// tenantsScenario measures a change while the number of tenants grows and each
// of them stays as it is.
func tenantsScenario(ctx context.Context, r *run) error {
	for _, n := range r.tenants {
		if err := r.withTenants(ctx, n); err != nil {
			return fmt.Errorf("%d tenants: %w", n, err)
		}
	}
	return nil
}

func (r *run) withTenants(ctx context.Context, n int) error {
	name := fmt.Sprintf("%d tenants", n)
	r.part = fmt.Sprintf("-%d", n)
	defer func() { r.part = "" }()
	s := shape{Tenants: n, Services: r.small.Services, Endpoints: r.small.Endpoints}
	p, err := r.serve(ctx, ServerConfig{Shape: s})
	if p != nil {
		defer p.stop()
	}
	if err != nil {
		return err
	}
	report, err := p.connect(FleetConfig{Members: members(n, 1), Parallel: 16})
	if err != nil {
		return err
	}
	r.add(Figure{Case: name, Name: "sent to a client that connects", Unit: "KB", P50: float64(report.total()) / float64(n) / 1024})
	rss, err := p.settled()
	if err != nil {
		return err
	}
	r.add(Figure{Case: name, Name: "server memory", Unit: "MB", P50: float64(rss) / (1 << 20)})
	if _, err := p.changesFromFresh(name, 1); err != nil {
		return err
	}
	return p.clean(name)
}

// routesScenario measures a service added while its tenant's services grow: the
// RouteConfiguration of a port is sent whole.
func routesScenario(ctx context.Context, r *run) error {
	for _, n := range r.routes {
		if err := r.withServices(ctx, n); err != nil {
			return fmt.Errorf("%d services: %w", n, err)
		}
	}
	return nil
}

func (r *run) withServices(ctx context.Context, n int) error {
	name := fmt.Sprintf("%d services of a tenant", n)
	r.part = fmt.Sprintf("-%d", n)
	defer func() { r.part = "" }()
	s := shape{Tenants: 1, Services: n, Endpoints: 1}
	p, err := r.serve(ctx, ServerConfig{Shape: s})
	if p != nil {
		defer p.stop()
	}
	if err != nil {
		return err
	}
	if _, err := p.connect(FleetConfig{Members: members(1, 1)}); err != nil {
		return err
	}
	var before, after FleetReport
	route, all := snapshot.Route.String(), 0
	var added, removed []float64
	var used float64
	for i := range r.routeChanges {
		service := n + i%extraServices
		if err := p.fleet.call("Report", struct{}{}, &before); err != nil {
			return err
		}
		cpu, err := p.server.cpu(func() error {
			d, err := p.timed(Change{What: "add", Service: service}, snapshot.Route.URL(), serviceName(service)+"."+namespaceOf(0), 1)
			added = append(added, milliseconds(d))
			return errorsOr(err, func() error { return quiet(ctx, pace) })
		})
		if err != nil {
			return err
		}
		used += milliseconds(cpu)
		if err := p.fleet.call("Report", struct{}{}, &after); err != nil {
			return err
		}
		all += after.Bytes[route] - before.Bytes[route]
		d, err := p.timed(Change{What: "remove", Service: service}, snapshot.Cluster.URL(), clusterName(0, service), 1)
		if err != nil {
			return err
		}
		removed = append(removed, milliseconds(d))
		if err := quiet(ctx, pace); err != nil {
			return err
		}
	}
	each := float64(r.routeChanges)
	r.add(Figure{Case: name, Name: "routes sent per service added", Unit: "KB", P50: float64(all) / each / 1024})
	r.add(Figure{Case: name, Name: "server CPU per service added", Unit: "ms", P50: used / each})
	r.add(Figure{Case: name, Name: "service added until its routes are there", Unit: "ms", N: len(added), P50: percentile(added, 50), P99: percentile(added, 99)})
	r.add(Figure{Case: name, Name: "service removed", Unit: "ms", N: len(removed), P50: percentile(removed, 50), P99: percentile(removed, 99)})
	return nil
}
