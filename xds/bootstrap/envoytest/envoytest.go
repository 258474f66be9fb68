// Package envoytest finds and runs the real Envoy for tests.
package envoytest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// version is the release that tests run against; the file is fetched by the
// Makefile.
const version = "1.40.0"

// Binary returns the path of Envoy: that of the environment variable ENVOY, else
// .cache/envoy/<version>/envoy below the repository's root. Without one the test
// is skipped, and fails where the environment variable CI is "true".
func Binary(t testing.TB) string {
	t.Helper()
	path := os.Getenv("ENVOY")
	if path == "" {
		path = filepath.Join(root(t), ".cache", "envoy", version, "envoy")
	}
	found, err := exec.LookPath(path)
	if err == nil {
		return found
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("no Envoy at %s: %v", path, err)
	}
	t.Skipf("SKIPPED, nothing was tried on a real Envoy: none at %s: %v (make fetches it; ENVOY=/path uses another)", path, err)
	return ""
}

// root is the nearest directory upwards that has a go.mod.
func root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	require.NoError(t, err)
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		require.NotEqual(t, dir, parent, "no go.mod above the working directory")
		dir = parent
	}
}

// Validate has Envoy check a bootstrap, with dir as its working directory, and
// returns what it wrote. It fails the test if Envoy refuses.
func Validate(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), Binary(t), append([]string{"--mode", "validate"}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// Process is a running Envoy. It ends with the test.
type Process struct {
	t     testing.TB
	admin string
	log   *lockedBuffer
}

// Start runs Envoy in dir and waits until its admin interface listens. If the
// test fails, Envoy's log is part of its output.
func Start(t testing.TB, dir string, args ...string) *Process {
	t.Helper()
	adminFile := filepath.Join(t.TempDir(), "admin")
	p := &Process{t: t, log: &lockedBuffer{}}
	// Not t.Context(): that ends before the clean-up could end Envoy in order.
	cmd := exec.CommandContext(context.Background(), Binary(t), append(args, "--admin-address-path", adminFile)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, p.log, p.log
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() { // ends with the process, which the clean-up ends
		defer close(ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		if t.Failed() {
			t.Logf("Envoy's log:\n%s", p.log.String())
		}
	})
	require.Eventually(t, func() bool {
		raw, err := os.ReadFile(adminFile)
		p.admin = strings.TrimSpace(string(raw))
		return err == nil && p.admin != ""
	}, 30*time.Second, 10*time.Millisecond, "Envoy did not start")
	return p
}

// Get asks the admin interface.
func (p *Process) Get(path string) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.admin+path, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	req.Close = true // no idle connection may outlive the test
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw), errors.Join(err, resp.Body.Close())
}

// Log is what Envoy wrote so far.
func (p *Process) Log() string { return p.log.String() }

// lockedBuffer is written by the process and read by the test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
