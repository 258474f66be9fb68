package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/xds/bootstrap"
)

// drainTime of an [Envoy]: above the longest request of demo and tests.
const drainTime = 2 * time.Second

// maxConnections of an [Envoy], in both directions.
const maxConnections = 10000

// EnvoyConfig says how an [Envoy] is run.
type EnvoyConfig struct {
	// Binary is Envoy's path.
	Binary string
	// Dir is its working directory, where bootstrap, certificate and log go; it
	// is made if need be and belongs to this Envoy alone.
	Dir string
	// Workload is whom its certificate names, Pod the Pod's name.
	Workload identity.Workload
	Pod      string
	// CA issues the certificate and vouches for the server.
	CA *CA
	// XDS are the server's addresses, ServerID is its SPIFFE ID.
	XDS      []netip.AddrPort
	ServerID string
	// SotW asks for the state-of-the-world protocol instead of delta.
	SotW bool
	// At are the addresses for explicit capture; the zero value is transparent
	// capture.
	At Addresses
	// StatsPrefixes are prefixes of metrics to keep beside the usual ones.
	StatsPrefixes []string
	// Args go behind Envoy's command line.
	Args []string
	// Wrap goes before it, such as ip netns exec NAME. Then
	// Dial reaches its admin address; nil is the usual way.
	Wrap []string
	Dial dialFunc
}

// Envoy is a running Envoy, the proxy of one workload.
type Envoy struct {
	config EnvoyConfig
	argv   []string
	proc   *process
}

// StartEnvoy writes certificate and bootstrap and starts Envoy; [Envoy.WaitLive]
// waits until it serves. It runs until Stop, Kill or the end of ctx.
func StartEnvoy(ctx context.Context, config EnvoyConfig) (*Envoy, error) {
	e := &Envoy{config: config}
	dir, err := filepath.Abs(config.Dir)
	if err != nil {
		return nil, fmt.Errorf("start Envoy: %w", err)
	}
	e.config.Dir = dir
	if err := os.MkdirAll(e.certDir(), 0o755); err != nil {
		return nil, fmt.Errorf("start Envoy: %w", err)
	}
	if err := e.Rotate(); err != nil {
		return nil, err
	}
	boot, err := e.config.bootstrap()
	if err != nil {
		return nil, err
	}
	if _, err := bootstrap.Write(dir, boot); err != nil {
		return nil, fmt.Errorf("write the bootstrap of %s: %w", e.name(), err)
	}
	args := bootstrap.Process{Concurrency: 1, DrainTime: drainTime}.Args()
	e.argv = append(append([]string{}, config.Wrap...), config.Binary)
	e.argv = append(append(e.argv, args...), "--log-level", "warning", "--admin-address-path", e.adminFile())
	e.argv = append(e.argv, config.Args...)
	return e, e.Restart(ctx)
}

// bootstrap is what the bootstrap is made from.
func (c *EnvoyConfig) bootstrap() (bootstrap.Config, error) {
	server, err := spiffeid.FromString(c.ServerID)
	if err != nil {
		return bootstrap.Config{}, fmt.Errorf("the server's ID: %w", err)
	}
	bundle, err := filepath.Abs(c.CA.BundleFile(server.TrustDomain().Name()))
	if err != nil {
		return bootstrap.Config{}, fmt.Errorf("find the trust bundle of %s: %w", server.TrustDomain(), err)
	}
	b := bootstrap.Config{
		Workload: c.Workload, Pod: c.Pod, ServerID: server, SotW: c.SotW,
		CertFile: filepath.Join(c.certDir(), CertFile), KeyFile: filepath.Join(c.certDir(), KeyFile), TrustBundle: bundle,
		Explicit: c.At.Bind.IsValid(), Bind: c.At.Bind, App: c.At.App,
		Admin:          netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0),
		AdminDrain:     true,
		MaxConnections: maxConnections,
		StatsPrefixes:  c.StatsPrefixes,
	}
	for _, addr := range c.XDS {
		b.Servers = append(b.Servers, addr.String())
	}
	return b, nil
}

func (c *EnvoyConfig) certDir() string { return filepath.Join(c.Dir, "certificate") }

func (e *Envoy) certDir() string   { return e.config.certDir() }
func (e *Envoy) name() string      { return e.config.Workload.Namespace + "/" + e.config.Pod }
func (e *Envoy) adminFile() string { return filepath.Join(e.config.Dir, "admin-address") }

// Rotate gives the Envoy a new certificate, under its eyes.
func (e *Envoy) Rotate() error {
	return e.config.CA.WriteSVID(e.certDir(), e.config.Workload.String())
}

// Restart stops the Envoy if it runs, and starts it again, until ctx ends.
func (e *Envoy) Restart(ctx context.Context) error {
	e.Stop()
	if err := os.Remove(e.adminFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("start Envoy: %w", err)
	}
	proc, err := startProcess(ctx, "envoy", e.config.Dir, e.argv)
	if err != nil {
		return fmt.Errorf("%s: %w", e.name(), err)
	}
	e.proc = proc
	return nil
}

// WaitLive waits until the Envoy says that it is LIVE: it has its configuration,
// or the server has let it wait too long.
func (e *Envoy) WaitLive(ctx context.Context) error {
	err := e.proc.wait(ctx, "is LIVE", func(ctx context.Context) error {
		_, err := e.Admin(ctx, "/ready")
		return err
	})
	if err != nil {
		return fmt.Errorf("Envoy of %s: %w", e.name(), err)
	}
	return nil
}

// Admin is what the admin address has at path.
func (e *Envoy) Admin(ctx context.Context, path string) ([]byte, error) {
	addr, err := e.AdminAddress()
	if err != nil {
		return nil, err
	}
	return fetchBy(ctx, e.config.Dial, addr, path)
}

// AdminAddress is where the admin interface listens.
func (e *Envoy) AdminAddress() (string, error) {
	addr, err := os.ReadFile(e.adminFile())
	if err != nil {
		return "", fmt.Errorf("find the admin address of %s: %w", e.name(), err)
	}
	if len(addr) == 0 {
		return "", fmt.Errorf("find the admin address of %s: it is not written yet", e.name())
	}
	return strings.TrimSpace(string(addr)), nil
}

// ConfigDump is what the Envoy holds, endpoints included.
func (e *Envoy) ConfigDump(ctx context.Context) (*Dump, error) {
	raw, err := e.Admin(ctx, "/config_dump?include_eds")
	if err != nil {
		return nil, err
	}
	return ParseDump(raw)
}

// Version is the Envoy's release, such as 1.40.0.
func (e *Envoy) Version(ctx context.Context) (string, error) {
	raw, err := e.Admin(ctx, "/server_info")
	if err != nil {
		return "", err
	}
	// The version is commit/release/state/kind/library.
	var info struct {
		Version string `json:"version"`
	}
	if err := json.Unmarshal(raw, &info); err != nil {
		return "", fmt.Errorf("read the version of Envoy: %w", err)
	}
	parts := strings.Split(info.Version, "/")
	if len(parts) < 2 {
		return "", fmt.Errorf("read the version of Envoy: it calls itself %q", info.Version)
	}
	return parts[1], nil
}

// Stats are the Envoy's counters and gauges that its bootstrap keeps.
func (e *Envoy) Stats(ctx context.Context) (map[string]uint64, error) {
	raw, err := e.Admin(ctx, "/stats")
	if err != nil {
		return nil, err
	}
	return ParseStats(string(raw)), nil
}

// byExtension is where Envoy counts what an RBAC filter that came by ECDS decides
// before 1.40.
var byExtension = regexp.MustCompile(`^extension_config_discovery\.http_filter\.rbac-http-(\d+)(-plain)?\.rbac\.`)

// ParseStats reads the admin address's /stats. Counters of RBAC have the names that
// they have since Envoy 1.40: http.inbound_PORT.rbac.denied.
func ParseStats(text string) map[string]uint64 {
	stats := map[string]uint64{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		// What is no number is a text or a histogram.
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			continue
		}
		if at := byExtension.FindStringSubmatchIndex(name); at != nil {
			chain := "http.inbound_" + name[at[2]:at[3]]
			if at[4] >= 0 {
				chain += "_plain"
			}
			name = chain + ".rbac." + name[at[1]:]
		}
		stats[name] += n
	}
	return stats
}

// Stop asks the Envoy to end and waits until it has.
func (e *Envoy) Stop() {
	if e.proc != nil {
		e.proc.stop()
	}
}

// Kill ends the Envoy at once, as a crash would.
func (e *Envoy) Kill() {
	if e.proc != nil {
		e.proc.kill()
	}
}

// Pause stops the Envoy where it is, with its connections open, until Resume.
func (e *Envoy) Pause() error { return e.proc.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets it go on.
func (e *Envoy) Resume() error { return e.proc.cmd.Process.Signal(syscall.SIGCONT) }

// Running reports whether the process has not ended.
func (e *Envoy) Running() bool { return e.proc.running() }

// LogTail returns the last n lines of the Envoy's log.
func (e *Envoy) LogTail(n int) string { return e.proc.tail(n) }
