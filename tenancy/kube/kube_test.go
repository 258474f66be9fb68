package kube

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/file"
	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
	"bailiwick.dev/bailiwick/tenancy/object"
)

var shared kubetest.Shared

func TestMain(m *testing.M) {
	code := m.Run()
	shared.Stop()
	if err := goleak.Find(); err != nil && code == 0 {
		_, _ = os.Stderr.WriteString(err.Error())
		code = 1
	}
	os.Exit(code)
}

// recorder is a Sink that knows what is applied.
type recorder struct {
	mu      sync.Mutex
	objects map[tenancy.Ref]tenancy.Object
	// removed counts deletions, batches calls of Apply before Synced.
	removed, batches int
	synced           bool
	// doubtful are the objects whose removal was not said to be meant.
	doubtful map[tenancy.Ref]bool
	report   Report
	changed  chan struct{}
}

func newRecorder() *recorder {
	return &recorder{objects: map[tenancy.Ref]tenancy.Object{}, doubtful: map[tenancy.Ref]bool{}, changed: make(chan struct{}, 1)}
}

func (r *recorder) note(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func (r *recorder) Apply(events []tenancy.Event) {
	r.note(func() {
		if !r.synced {
			r.batches++
		}
		for _, ev := range events {
			if r.doubtful[ev.Ref] = ev.Doubtful; ev.Object == nil {
				delete(r.objects, ev.Ref)
				r.removed++
			} else {
				r.objects[ev.Ref] = ev.Object
			}
		}
	})
}

func (r *recorder) Report(report Report) { r.note(func() { r.report = report }) }
func (r *recorder) Synced()              { r.note(func() { r.synced = true }) }

// wait returns when the condition holds.
func (r *recorder) wait(t *testing.T, what string, holds func() bool) {
	t.Helper()
	limit := time.After(3 * time.Minute)
	for {
		r.mu.Lock()
		ok := holds()
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-r.changed:
		case <-limit:
			r.mu.Lock()
			defer r.mu.Unlock()
			require.FailNow(t, "waited in vain until "+what, "report: %+v", r.report)
		}
	}
}

// lockedBuffer is a log.
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

// follow runs a source until the test ends or stop is called.
func follow(t *testing.T, config *rest.Config, change func(*Config)) (r *recorder, log *lockedBuffer, stop func()) {
	t.Helper()
	log = &lockedBuffer{}
	c := Config{
		REST: config, Options: object.Options{AllowLoopback: true}, Logger: slog.New(slog.NewTextHandler(log, nil)),
		Tolerance: 200 * time.Millisecond, Retry: 500 * time.Millisecond,
	}
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	require.NoError(t, err)
	r = newRecorder()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { // ends with ctx
		defer close(ended)
		_ = s.Run(ctx, r)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-ended
	})
	t.Cleanup(stop)
	return r, log, stop
}

// cluster is the shared API server with our CRDs.
func cluster(t *testing.T) *kubetest.Cluster {
	t.Helper()
	c := shared.Get(t)
	require.NoError(t, c.StartEtcd(t.Context()))
	require.NoError(t, c.StartAPIServer(t.Context()))
	require.NoError(t, c.InstallCRDs(t.Context()))
	return c
}

// demo are the objects of the demo at addresses that an API server takes.
func demo(t *testing.T) (dir string, objects []*unstructured.Unstructured) {
	t.Helper()
	root, err := kubetest.Root()
	require.NoError(t, err)
	from, dir := filepath.Join(root, "deploy", "demo"), t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(from)))
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, []byte(strings.ReplaceAll(string(raw), "127.", "10.")), 0o600)
	}))
	objects, err = kubetest.Objects(dir)
	require.NoError(t, err)
	kubetest.Complete(objects)
	// Namespaces have to be there before what is in them.
	slices.SortStableFunc(objects, func(a, b *unstructured.Unstructured) int {
		return order(a) - order(b)
	})
	return dir, objects
}

func order(u *unstructured.Unstructured) int {
	if u.GetNamespace() == "" {
		return 0
	}
	return 1
}

// ours leaves out what every API server has of itself, and what only it knows of
// an object.
func ours(in map[tenancy.Ref]tenancy.Object) map[tenancy.Ref]tenancy.Object {
	out := maps.Clone(in)
	for ref, obj := range out {
		ns := ref.Key.Namespace
		if ref.Kind == tenancy.KindNamespace {
			ns = ref.Key.Name
		}
		// Holdings are in the statuses that an API server keeps.
		if ns == "default" || strings.HasPrefix(ns, "kube-") || ref.Kind == tenancy.KindHoldings {
			delete(out, ref)
			continue
		}
		out[ref] = withoutMeta(obj)
	}
	return out
}

// TestSameAsFiles: the same objects make the same events, whichever way they come.
func TestSameAsFiles(t *testing.T) {
	c := cluster(t)
	dir, objects := demo(t)
	require.NoError(t, c.Apply(t.Context(), kubetest.Admin, objects...))
	files, err := file.New(file.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	events, report := files.Load()
	require.Empty(t, report.Errors)
	want := map[tenancy.Ref]tenancy.Object{}
	for _, ev := range events {
		want[ev.Ref] = ev.Object
	}
	r, _, _ := follow(t, c.REST(kubetest.Admin), nil)
	r.wait(t, "it is synced", func() bool { return r.synced })
	r.mu.Lock()
	require.Equal(t, ours(want), ours(r.objects))
	require.Equal(t, 1, r.batches, "all there is comes at once")
	require.True(t, r.report.Ready)
	require.Empty(t, r.report.Stale)
	r.mu.Unlock()

	require.NoError(t, c.Delete(t.Context(), kubetest.Admin, objects...))
	r.wait(t, "all is gone but namespaces, which end later", func() bool {
		for ref := range ours(r.objects) {
			if ref.Kind != tenancy.KindNamespace {
				return false
			}
		}
		return true
	})
}
