package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// ServerWorkload is the identity of the server in a mesh of this package; it
// belongs to the first trust domain of the [CA].
const ServerWorkload = "/ns/bailiwick-system/sa/bailiwick"

// ServerConfig says how a [Server] is run.
type ServerConfig struct {
	// Binary is the path of bailiwick: [BuildBailiwick] makes one.
	Binary string
	// Dir is where its certificate and its log go; it is made if need be.
	Dir string
	// ConfigDir is the directory of objects that it serves; empty where Args name
	// another source.
	ConfigDir string
	// CA issues its certificate and gives the trust bundles of all domains.
	CA *CA
	// XDSAddr is where proxies reach the server; 127.0.0.1 if not set.
	XDSAddr netip.Addr
	// Args are further arguments of serve, after those of this package.
	Args []string
}

// Server is the real server, run as a process on ports of 127.0.0.1 that it
// keeps over restarts.
type Server struct {
	// XDS is where proxies connect, Health where /readyz and /metrics are.
	XDS, Health netip.AddrPort
	// Admin is where dumps are.
	Admin netip.AddrPort
	// ID is the server's SPIFFE ID.
	ID string

	config ServerConfig
	argv   []string
	proc   *process
}

// BuildBailiwick builds the program from the module that contains the current
// directory into the folder dir and returns its path. Tests call it once.
func BuildBailiwick(ctx context.Context, dir string) (string, error) {
	if err := noteSources(); err != nil {
		return "", fmt.Errorf("build bailiwick: %w", err)
	}
	out := filepath.Join(dir, "bailiwick")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, "bailiwick.dev/bailiwick/cmd/bailiwick")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build bailiwick: %w\n%s", err, text)
	}
	return out, nil
}

// noteSources looks at every source file of the program, because go test repeats
// the result of a test without running it unless something changed that the test
// looked at, and it knows of no build that the test makes.
func noteSources() error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	for ; ; root = filepath.Dir(root) {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		if root == filepath.Dir(root) {
			return errors.New("no go.mod above the current directory")
		}
	}
	for _, folder := range []string{"cmd", "identity", "snapshot", "tenancy", "xds"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				_, err = os.Stat(path)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// StartServer starts the server; [Server.WaitReady] waits until it serves. It
// runs until Stop, Kill or the end of ctx.
func StartServer(ctx context.Context, config ServerConfig) (*Server, error) {
	s := &Server{config: config}
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if !config.XDSAddr.IsValid() {
		config.XDSAddr = loopback
	}
	var err error
	if s.XDS, err = FreePort(ctx, config.XDSAddr); err != nil {
		return nil, err
	}
	if s.Health, err = FreePort(ctx, loopback); err != nil {
		return nil, err
	}
	if s.Admin, err = FreePort(ctx, loopback); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(config.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	domains := config.CA.TrustDomains()
	s.ID = "spiffe://" + domains[0] + ServerWorkload
	if err := s.Rotate(); err != nil {
		return nil, err
	}
	s.argv = []string{
		config.Binary, "serve",
		"--xds-address", s.XDS.String(), "--health-address", s.Health.String(), "--admin-address", s.Admin.String(),
		"--cert", filepath.Join(config.Dir, CertFile), "--key", filepath.Join(config.Dir, KeyFile),
		"--allow-loopback-endpoints", "--drain", "0s",
	}
	if config.ConfigDir != "" {
		s.argv = append(s.argv, "--config-dir", config.ConfigDir)
	}
	for _, td := range domains {
		s.argv = append(s.argv, "--trust-bundle", td+"="+config.CA.BundleFile(td))
	}
	s.argv = append(s.argv, config.Args...)
	return s, s.Restart(ctx)
}

// Rotate gives the server a new certificate, under its eyes.
func (s *Server) Rotate() error {
	return s.config.CA.WriteSVID(s.config.Dir, s.ID)
}

// Restart stops the server if it runs, and starts it again with the same
// addresses and arguments, until ctx ends.
func (s *Server) Restart(ctx context.Context) error {
	s.Stop()
	proc, err := startProcess(ctx, "bailiwick", s.config.Dir, slices.Clone(s.argv))
	if err != nil {
		return err
	}
	s.proc = proc
	return nil
}

// WaitReady waits until the server says that it serves.
func (s *Server) WaitReady(ctx context.Context) error {
	return s.proc.wait(ctx, "is ready", func(ctx context.Context) error {
		_, err := fetch(ctx, s.Health, "/readyz")
		return err
	})
}

// Metrics are the server's metrics as Prometheus reads them.
func (s *Server) Metrics(ctx context.Context) ([]byte, error) {
	return fetch(ctx, s.Health, "/metrics")
}

// Fetch is what the server's health address has at path.
func (s *Server) Fetch(ctx context.Context, path string) ([]byte, error) {
	return fetch(ctx, s.Health, path)
}

// Dump is what the server's admin address has at path.
func (s *Server) Dump(ctx context.Context, path string) ([]byte, error) {
	return fetch(ctx, s.Admin, path)
}

// Stop asks the server to end and waits until it has.
func (s *Server) Stop() {
	if s.proc != nil {
		s.proc.stop()
	}
}

// Kill ends the server at once, as a crash would.
func (s *Server) Kill() {
	if s.proc != nil {
		s.proc.kill()
	}
}

// LogTail returns the last n lines of the server's log.
func (s *Server) LogTail(n int) string { return s.proc.tail(n) }

// fetch gets a page of an administrative address; any status but 200 is an error.
func fetch(ctx context.Context, addr netip.AddrPort, path string) ([]byte, error) {
	return fetchBy(ctx, nil, addr.String(), path)
}

// dialFunc is that of [http.Transport]; nil is the usual one.
type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

func fetchBy(ctx context.Context, dial dialFunc, addr, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", path, err)
	}
	// A connection each, because none is to be left when the process ends.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s: %.200s", path, resp.Status, body)
	}
	return body, nil
}
