package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// pair is a server and its clients, each a process.
type pair struct {
	run     *run
	ctx     context.Context
	server  *child
	fleet   *child
	started Started
	config  ServerConfig
	// kube is set where changes are written to an API server; bare and over are
	// when its bare watch had them, and how much later the last client did.
	kube       *cluster
	bare, over []float64
}

// serve starts our server.
func (r *run) serve(ctx context.Context, config ServerConfig) (*pair, error) {
	p := &pair{run: r, ctx: ctx, config: config}
	p.config.CA = caDir(r.work)
	if p.config.Address == "" {
		p.config.Address = "127.0.0.1:0"
	}
	p.config.Profile = r.profileOf("server")
	return p, p.startServer()
}

func (p *pair) startServer() error {
	var err error
	if p.server, err = start(p.ctx, "server"); err != nil {
		return err
	}
	return p.server.call("Start", p.config, &p.started)
}

// connect starts the clients and waits until they are synced.
func (p *pair) connect(config FleetConfig) (FleetReport, error) {
	if err := p.prepare(config); err != nil {
		return FleetReport{}, err
	}
	var report FleetReport
	err := p.fleet.call("Dial", struct{}{}, &report)
	return report, err
}

func (p *pair) prepare(config FleetConfig) error {
	config.CA, config.Address, config.Profile = caDir(p.run.work), p.started.Address, p.run.profileOf("clients")
	var err error
	if p.fleet, err = start(p.ctx, "clients"); err != nil {
		return err
	}
	return p.fleet.call("Prepare", config, &struct{}{})
}

func (p *pair) stop() {
	for _, c := range []*child{p.fleet, p.server} {
		if c != nil {
			c.stop()
		}
	}
}

// quiet waits until the servers' last work for a push, such as reading ACKs, is
// over, so that it is counted.
func quiet(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// timed makes a change and returns how long it took until n clients of the
// tenant had a response of that type with the marker in it.
func (p *pair) timed(c Change, typeURL, marker string, n int) (time.Duration, error) {
	err := p.fleet.call("Expect", Expected{Tenant: c.Tenant, Type: typeURL, Marker: marker, Count: n}, &struct{}{})
	if err != nil {
		return 0, err
	}
	began, version := now(), ""
	switch {
	case p.kube != nil:
		version, err = p.kube.change(p.ctx, c)
	case p.config.Dir != "":
		err = p.config.Shape.writeChange(p.config.Dir, c)
	default:
		err = p.server.call("Apply", c, &began)
	}
	if err != nil {
		return 0, err
	}
	var at []Instant
	if err := p.fleet.call("Await", c.Tenant, &at); err != nil {
		return 0, err
	}
	last := began
	for _, a := range at {
		last = max(last, a)
	}
	if version != "" {
		had, err := p.kube.had(p.ctx, namespaceOf(c.Tenant), version)
		if err != nil {
			return 0, fmt.Errorf("wait for the bare watch: %w", err)
		}
		p.bare = append(p.bare, milliseconds(had.since(began)))
		p.over = append(p.over, milliseconds(last.since(had)))
	}
	return last.since(began), nil
}

// clean fails if a client has been sent what it may not know.
func (p *pair) clean(name string) error {
	var report FleetReport
	if err := p.fleet.call("Report", struct{}{}, &report); err != nil {
		return err
	}
	p.run.add(Figure{Case: name, Name: "sent out of scope", Unit: "bytes", P50: float64(report.ForeignBytes), Target: "0", Miss: report.ForeignBytes > 0})
	if report.Foreign > 0 {
		return fmt.Errorf("%d messages, %d bytes, name what their receivers may not know", report.Foreign, report.ForeignBytes)
	}
	return nil
}

// meshDir writes a mesh as files and returns the folder.
func (r *run) meshDir(s shape) (string, error) {
	dir, err := os.MkdirTemp(r.work, "mesh-")
	if err != nil {
		return "", fmt.Errorf("make a folder for objects: %w", err)
	}
	return dir, s.writeMesh(dir)
}

func removeObject(path string) error {
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove %s: %w", filepath.Base(path), err)
	}
	return nil
}
