package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"
)

// reconnect measures a first connection against the least that it can cost, and
// the return of many clients to a restarted server.
func reconnect(ctx context.Context, r *run) error {
	if err := r.connectAll(ctx); err != nil {
		return err
	}
	if err := r.comeBack(ctx); err != nil {
		return err
	}
	took, err := r.shakeHands(ctx, r.streams, 100)
	if err != nil {
		return err
	}
	r.add(Figure{Case: fmt.Sprintf("%d streams come back", r.streams), Name: "as many bare mTLS handshakes", Unit: "ms", P50: milliseconds(took)})
	return nil
}

// connectAll connects the clients of the small mesh.
func (r *run) connectAll(ctx context.Context) error {
	const rounds = 5
	n := r.small.Tenants * r.clients
	var ours, floor []float64
	var bytes int
	for range rounds {
		p, err := r.serve(ctx, ServerConfig{Shape: r.small})
		if err == nil {
			var report FleetReport
			report, err = p.connect(FleetConfig{Members: members(r.small.Tenants, r.clients)})
			ours = append(ours, milliseconds(report.Took))
			bytes = report.total()
		}
		p.stop()
		if err != nil {
			return err
		}
		took, err := r.shakeHands(ctx, n, bytes/n)
		if err != nil {
			return err
		}
		floor = append(floor, milliseconds(took))
	}
	name := fmt.Sprintf("%d clients connect", n)
	ratio := percentile(ours, 50) / percentile(floor, 50)
	r.add(Figure{Case: name, Name: "all synced", Unit: "ms", N: rounds, P50: percentile(ours, 50), P99: percentile(ours, 99)})
	r.add(Figure{Case: name, Name: "bare mTLS handshakes and the same bytes", Unit: "ms", N: rounds, P50: percentile(floor, 50), P99: percentile(floor, 99)})
	r.add(Figure{Case: name, Name: "ours over bare", Unit: "times", P50: ratio, Target: "<= 2", Miss: ratio > 2})
	return nil
}

// shakeHands connects clients to a server that writes as many bytes to each as
// soon as it is there, and nothing else.
func (r *run) shakeHands(ctx context.Context, n, bytes int) (time.Duration, error) {
	p := &pair{run: r, ctx: ctx}
	defer p.stop()
	var err error
	if p.server, err = start(ctx, "stock"); err != nil {
		return 0, err
	}
	if err := p.server.call("Start", StockConfig{CA: caDir(r.work), Kind: "greet", Body: bytes, Profile: r.profileOf("greet")}, &p.started); err != nil {
		return 0, err
	}
	report, err := p.connect(FleetConfig{Members: r.crowd(r.small, n), Parallel: parallel(n), Raw: bytes, Greeted: true})
	return report.Took, err
}

// crowd is n clients of a mesh, more than one for a Pod if need be.
func (r *run) crowd(s shape, n int) []member {
	var all []member
	for len(all) < n {
		all = append(all, members(s.Tenants, s.Services)...)
	}
	return all[:n]
}

// parallel is how many of n clients connect at once: all, unless the system's
// backlog would not take them.
func parallel(n int) int { return min(n, 256) }

// comeBack restarts a server under its clients.
func (r *run) comeBack(ctx context.Context) error {
	// Its own address: the next server has to have the same.
	address, err := freeAddress()
	if err != nil {
		return err
	}
	s := r.small
	p, err := r.serve(ctx, ServerConfig{Shape: s, Address: address})
	defer p.stop()
	if err != nil {
		return err
	}
	all := r.crowd(s, r.streams)
	first, err := p.connect(FleetConfig{Members: all, Parallel: 64, Persist: true})
	if err != nil {
		return err
	}
	// What is still under way belongs to the first connection.
	if err := quiet(ctx, 500*time.Millisecond); err != nil {
		return err
	}
	if err := p.fleet.call("Forget", struct{}{}, &struct{}{}); err != nil {
		return err
	}
	p.server.kill()
	down := now()
	if err := p.startServer(); err != nil {
		return err
	}
	up := now()
	var report FleetReport
	if err := p.fleet.call("Synced", up, &report); err != nil {
		return err
	}
	used, err := cpuTime(p.server.pid)
	if err != nil {
		return err
	}
	sent, bytes, firstBytes := 0, report.total(), first.total()
	for _, n := range report.Resources {
		sent += n
	}
	name := fmt.Sprintf("%d streams come back", len(all))
	r.add(Figure{Case: name, Name: "resources sent again", Unit: "", P50: float64(sent), Target: "0", Miss: sent > 0})
	r.add(Figure{Case: name, Name: "from the new server's start to all synced", Unit: "ms", P50: milliseconds(report.Took), Target: "<= 3000", Miss: report.Took > 3*time.Second})
	r.add(Figure{Case: name, Name: "from the old one's end to all synced", Unit: "ms", P50: milliseconds(report.Took + up.since(down))})
	r.add(Figure{Case: name, Name: "server CPU since its start", Unit: "ms", P50: milliseconds(used)})
	r.add(Figure{Case: name, Name: "sent per stream", Unit: "bytes", P50: float64(bytes) / float64(len(all))})
	r.add(Figure{Case: name, Name: "sent per stream at the first connection", Unit: "bytes", P50: float64(firstBytes) / float64(len(all))})
	if sent > 0 {
		return fmt.Errorf("%d resources were sent again: %v", sent, report.Resources)
	}
	return nil
}

// freeAddress is one on which nobody listens. Its port is below those from which
// systems take the local ports of outgoing connections: there a client that
// knocks while the server is down would sooner or later reach itself.
func freeAddress() (string, error) {
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(10000))
		if l, err := net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", errors.New("no free port was found between 20000 and 30000")
}
