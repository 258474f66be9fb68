package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"bailiwick.dev/bailiwick/identity"
)

// policyScenario takes a policy away and calls until a real Envoy refuses.
func policyScenario(ctx context.Context, r *run) error {
	if r.envoy == "" {
		r.log("  left out: no Envoy")
		return nil
	}
	s := shape{Tenants: 1, Services: 2, Endpoints: 1, Network: loopbackNetwork}
	app, err := answer(netip.AddrPortFrom(beside(s.address(0, 0, 0), 100), podPort))
	if err != nil {
		return err
	}
	defer func() { _ = app.Close() }()
	if err := r.policyApplied(ctx, s); err != nil {
		return fmt.Errorf("applied: %w", err)
	}
	if r.bailiwick == "" {
		r.log("  by file left out: no bailiwick")
		return nil
	}
	if err := r.policyByFile(ctx, s); err != nil {
		return fmt.Errorf("by file: %w", err)
	}
	return nil
}

// answer runs the application behind the Envoy.
func answer(at netip.AddrPort) (*http.Server, error) {
	listener, err := net.Listen("tcp", at.String())
	if err != nil {
		return nil, fmt.Errorf("start the application: %w", err)
	}
	app := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok")
	}), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = app.Serve(listener) }() // ends when it is closed
	return app, nil
}

// policyApplied hands the change to the publisher, without any source.
func (r *run) policyApplied(ctx context.Context, s shape) error {
	p, err := r.serve(ctx, ServerConfig{Shape: s})
	if p != nil {
		defer p.stop()
	}
	if err != nil {
		return err
	}
	return r.revocations(ctx, s, p.started.Address, "applied", "<= 5 / 20", func(there bool) (Instant, error) {
		var at Instant
		err := p.server.call("Apply", Change{What: "policy", On: there}, &at)
		return at, err
	})
}

// policyByFile removes the file that the real program watches.
func (r *run) policyByFile(ctx context.Context, s shape) error {
	dir, err := r.meshDir(s)
	if err != nil {
		return err
	}
	own := filepath.Join(r.work, "server")
	if err := r.writeSVID(own, "spiffe://"+trustDomain+serverPath); err != nil {
		return err
	}
	xds, err := freeAddress()
	if err != nil {
		return err
	}
	health, err := freeAddress()
	if err != nil {
		return err
	}
	binary, err := filepath.Abs(r.bailiwick)
	if err != nil {
		return fmt.Errorf("find bailiwick: %w", err)
	}
	if _, err := os.Stat(binary); err != nil {
		return fmt.Errorf("find bailiwick (make build): %w", err)
	}
	server, err := launch(ctx, own, "bailiwick", binary, "serve", "--config-dir", dir,
		"--xds-address", xds, "--health-address", health, "--allow-loopback-endpoints", "--drain", "0s",
		"--cert", filepath.Join(own, "cert.pem"), "--key", filepath.Join(own, "key.pem"),
		"--trust-bundle", trustDomain+"="+filepath.Join(own, "bundle.pem"))
	if err != nil {
		return err
	}
	defer server.stop()
	if err := server.await(ctx, func() error { _, err := get("http://" + health + "/readyz"); return err }); err != nil {
		return fmt.Errorf("wait until bailiwick is ready: %w", err)
	}
	return r.revocations(ctx, s, xds, "a file is removed", "<= 5 / 20", func(there bool) (Instant, error) {
		at := now()
		return at, writePolicy(dir, 0, there)
	})
}

// revocations measures how long a policy that was taken away still lets calls
// through.
func (r *run) revocations(ctx context.Context, s shape, server, name, target string, change func(there bool) (Instant, error)) error {
	e, err := r.startEnvoy(ctx, s, member{}, server)
	if err != nil {
		return err
	}
	defer e.stop()
	source, err := issue(r.authority, workloadOf(0, 1).String())
	if err != nil {
		return err
	}
	c := caller{url: fmt.Sprintf("https://%s/", netip.AddrPortFrom(s.address(0, 0, 0), podPort)), client: &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: identity.ClientTLS(source, source, workloadOf(0, 0).ID()), ForceAttemptHTTP2: true},
	}}
	defer c.client.CloseIdleConnections()
	if err := e.await(ctx, func() error { _, err := c.until(http.StatusOK); return err }); err != nil {
		return fmt.Errorf("call through Envoy: %w", err)
	}
	var took, calls []float64
	for range r.policies {
		at, err := change(false)
		if err != nil {
			return err
		}
		refused, err := c.until(http.StatusForbidden)
		if err != nil {
			return err
		}
		took = append(took, milliseconds(refused.since(at)))
		calls = append(calls, milliseconds(c.last))
		if _, err := change(true); err != nil {
			return err
		}
		if _, err := c.until(http.StatusOK); err != nil {
			return err
		}
		if err := quiet(ctx, 15*time.Millisecond); err != nil {
			return err
		}
	}
	p50, p99 := percentile(took, 50), percentile(took, 99)
	r.add(Figure{Case: name, Name: "policy removed to first 403", Unit: "ms", N: len(took), P50: p50, P99: p99, Target: target, Miss: p50 > 5 || p99 > 20})
	r.add(Figure{Case: name, Name: "the call that was refused", Unit: "ms", N: len(calls), P50: percentile(calls, 50), P99: percentile(calls, 99)})
	return nil
}

// caller calls the Envoy's inbound listener as another workload's proxy would,
// over one connection.
type caller struct {
	url    string
	client *http.Client
	last   time.Duration // of the last call
}

// until calls, one call after the other, until one is answered with that status,
// and returns when the answer came.
func (c *caller) until(status int) (Instant, error) {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		began := now()
		resp, err := c.client.Get(c.url)
		if err != nil {
			return 0, fmt.Errorf("call: %w", err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			return 0, fmt.Errorf("call: %w", err)
		}
		at := now()
		c.last = at.since(began)
		if resp.StatusCode == status {
			return at, nil
		}
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusForbidden {
			return 0, fmt.Errorf("call: answered with %s", resp.Status)
		}
	}
	return 0, fmt.Errorf("after 10 s no call is answered with %d", status)
}
