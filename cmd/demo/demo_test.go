package main

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/xds/bootstrap/envoytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// elsewhere is the demo's directory on other addresses, so that a demo may run
// on this machine meanwhile.
func elsewhere(t *testing.T) string {
	t.Helper()
	d := demoDirectory(t)
	err := filepath.WalkDir(d.root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		moved := strings.NewReplacer("127.10.", "127.51.", "127.20.", "127.52.", "127.30.", "127.53.").Replace(string(raw))
		return os.WriteFile(path, []byte(moved), 0o644)
	})
	require.NoError(t, err)
	return d.root
}

// words collects what the demo prints, and tells when it has printed a word.
type words struct {
	mu   sync.Mutex
	text bytes.Buffer
	want string
	seen chan struct{}
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(p)
	if w.seen != nil && strings.Contains(w.text.String(), w.want) {
		close(w.seen)
		w.seen = nil
	}
	return len(p), nil
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// program is the server's, built once for a test.
func program(t *testing.T) string {
	t.Helper()
	path, err := mesh.BuildBailiwick(t.Context(), t.TempDir())
	require.NoError(t, err)
	t.Setenv("TMPDIR", t.TempDir())
	return path
}

func TestDemoWithoutEnvoy(t *testing.T) {
	out := &words{}
	code := run(t.Context(), []string{"--once", "--dir", elsewhere(t), "--bailiwick", program(t), "--envoy", "/nowhere/envoy"}, out, out)
	require.Zero(t, code, out.String())
	require.Contains(t, out.String(), "Without Envoy: there is no Envoy at /nowhere/envoy.")
	require.Contains(t, out.String(), "globex-shop/orders: sees logs.platform:8080")
	require.Contains(t, out.String(), "acme-shop/orders: no longer sees logs.platform:8080")
	require.Contains(t, out.String(), "OK: every result was as the policies say.")
	requireTidy(t)
}

func TestDemo(t *testing.T) {
	envoy, bailiwick := envoytest.Binary(t), program(t)

	t.Run("once", func(t *testing.T) {
		out := &words{}
		code := run(t.Context(), []string{"--once", "--dir", elsewhere(t), "--bailiwick", bailiwick, "--envoy", envoy}, out, out)
		require.Zero(t, code, out.String())
		require.Contains(t, out.String(), "globex-shop/orders -> logs.platform:8080: 200, was -")
		require.Contains(t, out.String(), "acme-web/web -> orders.acme-shop:8080: 403, was 200")
		require.Contains(t, out.String(), "OK: every result was as the policies say.")
		for line := range strings.Lines(out.String()) {
			require.LessOrEqual(t, len([]rune(line)), 101, "a line too wide for a terminal: %s", line)
		}
		require.NotContains(t, out.String(), "\x1b")
		requireTidy(t)
	})

	t.Run("until Ctrl-C", func(t *testing.T) {
		out := &words{want: "Ctrl-C ends the demo", seen: make(chan struct{})}
		seen := out.seen
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		code := make(chan int, 1)
		go func() { // ends with ctx
			code <- run(ctx, []string{"--dir", elsewhere(t), "--bailiwick", bailiwick, "--envoy", envoy}, out, out)
		}()
		select {
		case <-seen:
		case <-ctx.Done():
		}
		cancel()
		require.Zero(t, <-code, out.String())
		requireTidy(t)
	})

	t.Run("a server that does not start", func(t *testing.T) {
		out := &words{}
		code := run(t.Context(), []string{"--once", "--dir", elsewhere(t), "--bailiwick", "/bin/false", "--envoy", envoy}, out, out)
		require.Equal(t, 1, code)
		require.Contains(t, out.String(), "bailiwick ended while waiting until it is ready")
		requireTidy(t)
	})
}

// requireTidy fails if the demo left its working directory.
func requireTidy(t *testing.T) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), "bailiwick-demo-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// What differs is counted and marked, or the demo could not fail.
func TestAWrongCellIsMarkedAndCounted(t *testing.T) {
	w := demoWorld(t, demoDirectory(t))
	rows := make([][]cell, len(w.actors))
	for i, from := range w.actors {
		for _, to := range w.callable() {
			want := w.expect(from, to)
			rows[i] = append(rows[i], cell{from: from, to: to, want: want, got: want})
		}
	}
	out := &words{}
	require.Zero(t, showMatrix(newPrinter(out), w, rows))
	require.NotContains(t, out.String(), "200!")
	rows[1][0].got = allowed
	require.Equal(t, 1, showMatrix(newPrinter(out), w, rows))
	require.Contains(t, out.String(), "200!")
	require.Contains(t, out.String(), "! acme-web/orders -> orders.acme-shop:8080: 200, by the policies 403")

	seen := map[string][]string{}
	for _, a := range w.actors {
		seen[a.name()] = w.visible(a)
	}
	require.Zero(t, showSights(newPrinter(out), w, seen))
	seen["acme-web/web"] = append(seen["acme-web/web"], "orders.globex-web:8080")
	require.Equal(t, 1, showSights(newPrinter(out), w, seen))
}
