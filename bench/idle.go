package main

import (
	"context"
	"fmt"
	"time"
)

// idle measures memory: of connections that say nothing, of streams that are synced,
// and of streams of a server that is gRPC and nothing above it.
func idle(ctx context.Context, r *run) error {
	if err := r.memoryPer(ctx, "mTLS connection without a stream", "ours", FleetConfig{Hold: true}, 0); err != nil {
		return err
	}
	if err := r.memoryPer(ctx, "stream of bare gRPC", "bare", FleetConfig{One: true}, 0); err != nil {
		return err
	}
	return r.memoryPer(ctx, "synced stream", "ours", FleetConfig{}, 45)
}

func (r *run) memoryPer(ctx context.Context, name, kind string, config FleetConfig, target float64) error {
	// One service per tenant, so that what is served weighs little.
	s := shape{Tenants: r.small.Tenants, Services: 1, Endpoints: 1}
	p := &pair{run: r, ctx: ctx, config: ServerConfig{CA: caDir(r.work), Address: "127.0.0.1:0", Shape: s, Profile: r.profileOf("server")}}
	defer p.stop()
	var err error
	if kind == "ours" {
		if err = p.startServer(); err == nil {
			// All views are built before the first reading.
			err = p.server.call("BuildAll", struct{}{}, new(time.Duration))
		}
	} else if p.server, err = start(ctx, "stock"); err == nil {
		err = p.server.call("Start", StockConfig{CA: caDir(r.work), Kind: kind, Body: 1 << 10}, &p.started)
	}
	if err != nil {
		return err
	}
	before, err := p.settled()
	if err != nil {
		return err
	}
	for len(config.Members) < r.streams {
		config.Members = append(config.Members, members(s.Tenants, 1)...)
	}
	config.Members = config.Members[:r.streams]
	config.Parallel = 64
	if _, err := p.connect(config); err != nil {
		return err
	}
	if err := quiet(ctx, 500*time.Millisecond); err != nil {
		return err
	}
	after, err := p.settled()
	if err != nil {
		return err
	}
	each := float64(after-before) / float64(r.streams) / 1024
	f := Figure{Case: fmt.Sprintf("%d streams", r.streams), Name: "memory per " + name, Unit: "KB", P50: each}
	if target > 0 {
		f.Target, f.Miss = fmt.Sprintf("<= %v", target), each > target
	}
	r.add(f)
	return nil
}

// settled is the server's memory after a collection.
func (p *pair) settled() (int64, error) {
	if err := p.server.call("Settle", struct{}{}, &struct{}{}); err != nil {
		return 0, err
	}
	rss, _, err := residentBytes(p.server.pid)
	return rss, err
}
