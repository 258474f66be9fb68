package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/identity"
)

// probePath is what all requests of the demo ask for.
const probePath = "/"

// probeTimeout bounds one request.
const probeTimeout = 5 * time.Second

// prober sends requests as the actors, each through its own Envoy. Its
// connections stay open between requests, as an application's would.
type prober struct {
	ca      *mesh.CA
	clients map[string]*http.Client
}

func newProber(w *world, ca *mesh.CA) *prober {
	p := &prober{ca: ca, clients: map[string]*http.Client{}}
	for _, a := range w.actors {
		p.clients[a.name()] = mesh.Through(a.at.Bind)
	}
	return p
}

func (p *prober) close() {
	for _, c := range p.clients {
		c.CloseIdleConnections()
	}
}

// cell is one pair of the matrix. Everything that the model says about it is
// worked out before the calls begin: the model is for one goroutine.
type cell struct {
	from actor
	to   target
	// behind are the Pods that may answer for the target.
	behind []backend
	// want is the model's word, got what happened.
	want, got verdict
}

// cell is a pair of which nothing has happened yet.
func (w *world) cell(from actor, to target) cell {
	return cell{from: from, to: to, behind: w.backends(to), want: w.expect(from, to)}
}

// call sends one request from the cell's actor to its target and says what
// became of it. A 200 counts only if it came from a Pod behind the target, and
// if the application was told who called.
func (p *prober) call(ctx context.Context, c cell) verdict {
	status, answer, err := get(ctx, p.clients[c.from.name()], "http://"+c.to.host()+probePath)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return invisible // no visible service has this port
	case err != nil:
		return "error"
	case status == http.StatusBadGateway:
		return invisible // what the proxy answers for a host it does not know
	case status == http.StatusOK:
		return c.check(answer)
	}
	return verdict(strconv.Itoa(status))
}

func (c cell) check(answer mesh.Answer) verdict {
	if answer.Peer != c.from.workload.String() {
		return "peer?"
	}
	for _, b := range c.behind {
		if b.actor.name() == answer.Workload {
			return allowed
		}
	}
	return "who?"
}

// direct calls the inbound port of a Pod behind the cell's target with the
// actor's own certificate, past its Envoy, as code that ignores the mesh could.
func (p *prober) direct(ctx context.Context, c cell) (verdict, error) {
	if len(c.behind) == 0 {
		return nobody, nil
	}
	cert, err := p.ca.Certificate(c.from.workload.String(), identity.IssueOptions{})
	if err != nil {
		return "", err
	}
	b := c.behind[0]
	client := mesh.Direct(netip.AddrPortFrom(b.actor.at.Pod, b.port), cert, p.ca.Roots(b.actor.workload.TrustDomain), nil)
	defer client.CloseIdleConnections()
	status, answer, err := get(ctx, client, "https://"+c.to.host()+probePath)
	switch {
	case err != nil && ctx.Err() != nil:
		return "", ctx.Err()
	case errors.Is(err, syscall.ECONNREFUSED):
		return "closed", nil // nobody is there who could have refused
	case err != nil:
		return refused, nil // the handshake was refused, or the connection cut
	case status == http.StatusOK:
		return c.check(answer), nil
	}
	return verdict(strconv.Itoa(status)), nil
}

// get returns the status, and the application's answer if there is one.
func get(ctx context.Context, client *http.Client, url string) (int, mesh.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var answer mesh.Answer
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, answer, fmt.Errorf("make a request: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, answer, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusOK {
		err = json.NewDecoder(resp.Body).Decode(&answer)
	}
	return resp.StatusCode, answer, err
}

// matrix calls every target from every actor.
func (p *prober) matrix(ctx context.Context, w *world) ([][]cell, error) {
	rows := make([][]cell, len(w.actors))
	for i, from := range w.actors {
		for _, to := range w.callable() {
			rows[i] = append(rows[i], w.cell(from, to))
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for _, row := range rows {
		group.Go(func() error {
			for j := range row {
				row[j].got = p.call(ctx, row[j])
			}
			return ctx.Err()
		})
	}
	return rows, group.Wait()
}

// settled is matrix, again and again until no cell differs or ctx ends: a change
// reaches different proxies at different moments.
func (p *prober) settled(ctx context.Context, w *world) ([][]cell, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		rows, err := p.matrix(context.WithoutCancel(ctx), w)
		if err != nil || differing(rows) == 0 {
			return rows, err
		}
		select {
		case <-ctx.Done():
			return rows, nil
		case <-tick.C:
		}
	}
}

func differing(rows [][]cell) int {
	n := 0
	for _, row := range rows {
		for _, c := range row {
			if c.got != c.want {
				n++
			}
		}
	}
	return n
}
