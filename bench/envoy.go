package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/xds/bootstrap"
)

// process is a program that is not this one.
type process struct {
	cmd *exec.Cmd
	log string
}

func launch(ctx context.Context, dir, name string, argv ...string) (*process, error) {
	p := &process{cmd: exec.CommandContext(ctx, argv[0], argv[1:]...), log: filepath.Join(dir, name+".log")}
	out, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer func() { _ = out.Close() }()
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, out, out
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended
	kill := time.AfterFunc(5*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	_ = p.cmd.Wait()
}

// await asks until there is no error, for at most half a minute.
func (p *process) await(ctx context.Context, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			log, _ := os.ReadFile(p.log)
			return fmt.Errorf("%w; the end of its log: %s", err, log[max(0, len(log)-2000):])
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func get(url string) ([]byte, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return body, err
}

// writeSVID puts an identity of the run's authority into dir, with the bundle.
func (r *run) writeSVID(dir, id string) error {
	cert, key, err := r.authority.Issue(id, identity.IssueOptions{})
	if err != nil {
		return err
	}
	return errors.Join(
		os.MkdirAll(dir, 0o700),
		os.WriteFile(filepath.Join(dir, "cert.pem"), cert, 0o600),
		os.WriteFile(filepath.Join(dir, "key.pem"), key, 0o600),
		os.WriteFile(filepath.Join(dir, "bundle.pem"), r.authority.Bundle(), 0o600),
	)
}

// envoy is a running Envoy.
type envoy struct {
	*process
	admin string
	ready time.Duration // from its start
}

// beside moves a Pod's loopback address to where its application listens (100
// more) or its proxy takes outbound connections (200 more).
func beside(pod netip.Addr, by byte) netip.Addr {
	four := pod.As4()
	four[1] += by
	return netip.AddrFrom4(four)
}

// startEnvoy runs the proxy of the first Pod of a service until it is LIVE.
func (r *run) startEnvoy(ctx context.Context, s shape, m member, server string) (*envoy, error) {
	dir, err := os.MkdirTemp(r.work, "envoy-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for Envoy: %w", err)
	}
	w := workloadOf(m.Tenant, m.Service)
	if err := r.writeSVID(filepath.Join(dir, "certificate"), w.String()); err != nil {
		return nil, fmt.Errorf("write Envoy's certificate: %w", err)
	}
	id, err := spiffeid.FromString("spiffe://" + trustDomain + serverPath)
	if err != nil {
		return nil, err
	}
	pod := s.address(m.Tenant, m.Service, 0)
	file := func(name string) string { return filepath.Join(dir, "certificate", name) }
	if _, err := bootstrap.Write(dir, bootstrap.Config{
		Workload: w, Pod: podName(m.Service, 0), Servers: []string{server}, ServerID: id,
		CertFile: file("cert.pem"), KeyFile: file("key.pem"), TrustBundle: file("bundle.pem"),
		Explicit: true, Bind: beside(pod, 200), App: beside(pod, 100),
		Admin: netip.MustParseAddrPort("127.0.0.1:0"), MaxConnections: 1000,
	}); err != nil {
		return nil, err
	}
	return r.runEnvoy(ctx, dir, bootstrap.Process{Concurrency: 1, DrainTime: 2 * time.Second}.Args()...)
}

// startEmptyEnvoy runs one that has an admin address and nothing else.
func (r *run) startEmptyEnvoy(ctx context.Context) (*envoy, error) {
	dir, err := os.MkdirTemp(r.work, "envoy-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for Envoy: %w", err)
	}
	return r.runEnvoy(ctx, dir, "--concurrency", "1", "--use-dynamic-base-id", "--config-yaml",
		"admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}")
}

// runEnvoy runs an Envoy in dir until it is LIVE.
func (r *run) runEnvoy(ctx context.Context, dir string, args ...string) (*envoy, error) {
	binary, err := filepath.Abs(r.envoy)
	if err != nil {
		return nil, fmt.Errorf("find Envoy: %w", err)
	}
	argv := append([]string{binary}, args...)
	admin := filepath.Join(dir, "admin")
	began := now()
	p, err := launch(ctx, dir, "envoy", append(argv, "--log-level", "warning", "--admin-address-path", admin)...)
	if err != nil {
		return nil, err
	}
	e := &envoy{process: p}
	err = p.await(ctx, func() error {
		raw, err := os.ReadFile(admin)
		if err != nil {
			return err
		}
		e.admin = strings.TrimSpace(string(raw))
		_, err = get("http://" + e.admin + "/ready")
		return err
	})
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("wait until Envoy is LIVE: %w", err)
	}
	e.ready = now().since(began)
	return e, nil
}

// allocated is what Envoy's allocator has handed out, in bytes.
func (e *envoy) allocated() (int64, error) {
	raw, err := get("http://" + e.admin + "/memory")
	if err != nil {
		return 0, fmt.Errorf("ask Envoy for its memory: %w", err)
	}
	var memory struct {
		Allocated string `json:"allocated"`
	}
	if err := json.Unmarshal(raw, &memory); err != nil {
		return 0, fmt.Errorf("read Envoy's memory: %w", err)
	}
	return strconv.ParseInt(memory.Allocated, 10, 64)
}

// stalls are how long, in milliseconds, the main thread was busy with the largest
// update of clusters and of listeners: it does nothing else meanwhile.
func (e *envoy) stalls(ctx context.Context) (map[string]float64, error) {
	out := map[string]float64{}
	// Envoy sums histograms up every few seconds only.
	err := e.await(ctx, func() error {
		raw, err := get("http://" + e.admin + "/stats?filter=update_duration")
		if err != nil {
			return fmt.Errorf("ask Envoy for its updates: %w", err)
		}
		for line := range strings.Lines(string(raw)) {
			name, values, ok := strings.Cut(line, ": ")
			_, last, has := strings.Cut(values, "P100(")
			of := strings.TrimSuffix(name, ".update_duration")
			if !ok || !has || (of != "cluster_manager.cds" && of != "listener_manager.lds") {
				continue
			}
			interval, total, _ := strings.Cut(strings.TrimRight(last, ")\n"), ",")
			if v, err := strconv.ParseFloat(total, 64); err == nil && !math.IsNaN(v) {
				out[of] = v
			} else if v, err := strconv.ParseFloat(interval, 64); err == nil && !math.IsNaN(v) {
				out[of] = v
			}
		}
		if len(out) < 2 {
			return fmt.Errorf("Envoy tells the duration of %d kinds of updates", len(out))
		}
		return nil
	})
	return out, err
}
