package main

import (
	"context"
	"fmt"
	"time"
)

// pushes is how often a body is pushed: often enough for a steady mean, not so
// often that the slowest server takes minutes.
func pushes(body int, kind string) int {
	switch {
	case body >= 1<<20 && kind == "snapshot":
		return 1
	case body >= 1<<20:
		return 5
	case body >= 50<<10:
		return 10
	}
	return 30
}

// contender is one way of sending a body to many streams.
type contender struct {
	name, kind string
	sotw       bool
	answered   bool // raw: the clients answer
}

var contenders = []contender{
	{name: "raw TLS writes (floor)", kind: "raw"},
	{name: "raw TLS writes, answered", kind: "raw", answered: true},
	{name: "bare gRPC", kind: "bare"},
	{name: "ours, delta", kind: "ours"},
	{name: "ours, state of the world", kind: "ours", sotw: true},
	{name: "stock LinearCache, state of the world", kind: "linear", sotw: true},
	{name: "stock SnapshotCache, delta", kind: "snapshot"},
	{name: "stock SnapshotCache, state of the world", kind: "snapshot", sotw: true},
}

// fanout measures the CPU and the time of a push.
func fanout(ctx context.Context, r *run) error {
	targets := map[int][2]float64{1 << 10: {1.6, 2.5}, 50 << 10: {1.3, 15}, 1 << 20: {1.15, 15}}
	for _, body := range r.fanout {
		cpu := map[string]time.Duration{}
		for _, c := range contenders {
			used, err := r.push(ctx, c, body)
			if err != nil {
				return fmt.Errorf("%s with %d bytes: %w", c.name, body, err)
			}
			cpu[c.name] = used
		}
		ratio := func(name, of, to string, target float64, atMost bool) {
			v := float64(cpu[of]) / float64(cpu[to])
			f := Figure{Case: sizeName(body), Name: name, Unit: "times the CPU", P50: v}
			switch {
			case target == 0:
			case atMost:
				f.Target, f.Miss = fmt.Sprintf("<= %v", target), v > target
			default:
				f.Target, f.Miss = fmt.Sprintf(">= %v", target), v < target
			}
			r.add(f)
		}
		t := targets[body]
		ratio("ours over the floor", "ours, delta", "raw TLS writes (floor)", t[0], true)
		ratio("ours over the floor with answers", "ours, delta", "raw TLS writes, answered", 0, true)
		ratio("ours over bare gRPC", "ours, delta", "bare gRPC", 0, true)
		ratio("bare gRPC over the floor", "bare gRPC", "raw TLS writes (floor)", 0, true)
		ratio("SnapshotCache over ours (state of the world)", "stock SnapshotCache, state of the world", "ours, state of the world", t[1], false)
		ratio("SnapshotCache over ours (delta)", "stock SnapshotCache, delta", "ours, delta", 0, false)
		ratio("LinearCache over ours (state of the world)", "stock LinearCache, state of the world", "ours, state of the world", 0, false)
	}
	return nil
}

func sizeName(n int) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%d MB", n>>20)
	}
	return fmt.Sprintf("%d KB", n>>10)
}

// push runs one contender and returns its CPU time per push.
func (r *run) push(ctx context.Context, c contender, body int) (time.Duration, error) {
	size, err := pushedBytes(body)
	if err != nil {
		return 0, err
	}
	r.part = fmt.Sprintf("-%d-%t", body, c.sotw)
	defer func() { r.part = "" }()
	p := &pair{run: r, ctx: ctx}
	defer p.stop()
	config := FleetConfig{Members: members(r.fanoutStreams, 1), Parallel: 16, One: true, SotW: c.sotw}
	if c.kind == "ours" {
		p.config = ServerConfig{CA: caDir(r.work), Address: "127.0.0.1:0", Body: body, Profile: r.profileOf("server")}
		err = p.startServer()
	} else {
		stock := StockConfig{CA: caDir(r.work), Kind: c.kind, Body: body, Profile: r.profileOf(c.kind)}
		if c.kind == "raw" {
			stock.Body, config.Raw, config.Answer = size, framed(size), c.answered
		}
		if p.server, err = start(ctx, "stock"); err == nil {
			err = p.server.call("Start", stock, &p.started)
		}
	}
	if err != nil {
		return 0, err
	}
	if _, err := p.connect(config); err != nil {
		return 0, err
	}
	return p.pushAll(c, body, r.pushes(body, c.kind))
}

// pushedBytes is how long our delta response with a body is, about.
func pushedBytes(body int) (int, error) {
	o, err := newOneStore(body)
	if err != nil {
		return 0, err
	}
	res, err := o.next()
	if err != nil {
		return 0, err
	}
	return len(res.DeltaFrame()) + 64, nil
}

func (p *pair) pushAll(c contender, body, n int) (time.Duration, error) {
	var last, each []time.Duration
	once := func() error {
		count := p.run.fanoutStreams
		if err := p.fleet.call("Expect", Expected{Tenant: everybody, Count: count}, &struct{}{}); err != nil {
			return err
		}
		var began Instant
		if err := p.server.call("Push", struct{}{}, &began); err != nil {
			return err
		}
		var at []Instant
		if err := p.fleet.call("Await", everybody, &at); err != nil {
			return err
		}
		slowest := began
		for _, a := range at {
			each = append(each, a.since(began))
			slowest = max(slowest, a)
		}
		last = append(last, slowest.since(began))
		return nil
	}
	if err := quiet(p.ctx, 200*time.Millisecond); err != nil {
		return 0, err
	}
	used, err := p.server.cpu(func() error {
		for range n {
			if err := once(); err != nil {
				return err
			}
		}
		return quiet(p.ctx, 100*time.Millisecond)
	})
	if err != nil {
		return 0, err
	}
	used /= time.Duration(n)
	_, peak, err := residentBytes(p.server.pid)
	if err != nil {
		return 0, err
	}
	name := sizeName(body) + ", " + c.name
	p.run.add(Figure{Case: name, Name: "server CPU per push", Unit: "ms", P50: milliseconds(used)})
	wall := inMilliseconds(last)
	p.run.add(Figure{Case: name, Name: "last client has it", Unit: "ms", N: n, P50: percentile(wall, 50), P99: percentile(wall, 99)})
	single := inMilliseconds(each)
	p.run.add(Figure{Case: name, Name: "a client has it", Unit: "ms", N: len(single), P50: percentile(single, 50), P99: percentile(single, 99)})
	p.run.add(Figure{Case: name, Name: "most memory", Unit: "MB", P50: float64(peak) / (1 << 20)})
	return used, nil
}
