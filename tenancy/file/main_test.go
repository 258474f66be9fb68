package file

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/object"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is a Sink that keeps what the Model would have.
type recorder struct {
	mu      sync.Mutex
	objects map[string]tenancy.Object
	batches [][]tenancy.Event
	report  Report
	reports int
	synced  int
	changed chan struct{} // has an item when something was called
}

func newRecorder() *recorder {
	return &recorder{objects: make(map[string]tenancy.Object), changed: make(chan struct{}, 1)}
}

func refName(ref tenancy.Ref) string {
	return object.KindName(ref.Kind) + " " + strings.TrimPrefix(ref.Key.Namespace+"/"+ref.Key.Name, "/")
}

func (r *recorder) signal() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func (r *recorder) Apply(events []tenancy.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.batches = append(r.batches, events)
	for _, ev := range events {
		if ev.Object == nil {
			delete(r.objects, refName(ev.Ref))
		} else {
			r.objects[refName(ev.Ref)] = ev.Object
		}
	}
	r.signal()
}

func (r *recorder) Report(report Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report = report
	r.reports++
	r.signal()
}

func (r *recorder) Synced() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.synced++
	r.signal()
}

// until waits for a state; the limit is for a broken test only.
func (r *recorder) until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	for {
		r.mu.Lock()
		ok := holds()
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-r.changed:
		case <-limit.C:
			r.mu.Lock()
			defer r.mu.Unlock()
			t.Fatalf("never: %s; objects %v, report %+v, errors %v", what, r.objects, r.report, errorTexts(r.report, ""))
		}
	}
}

// now fails unless the state holds.
func (r *recorder) now(t *testing.T, holds func() bool) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	require.True(t, holds(), "objects %v, report %+v", r.objects, r.report)
}

func (r *recorder) has(names ...string) func() bool {
	return func() bool {
		for _, name := range names {
			if r.objects[name] == nil {
				return false
			}
		}
		return len(r.objects) == len(names)
	}
}

// errorTexts are the errors of a report, without the directory.
func errorTexts(r Report, dir string) []string {
	out := []string{}
	for _, e := range r.Errors {
		out = append(out, strings.TrimPrefix(strings.TrimPrefix(e.Error(), dir), "/"))
	}
	return out
}

// config is for tests: nothing is waited for longer than it has to be.
func config(dir string) Config {
	return Config{Dir: dir, Logger: slog.New(slog.DiscardHandler), Settle: time.Millisecond, Patience: 50 * time.Millisecond}
}

// run starts a Source; it ends with the test.
func run(t *testing.T, dir string) (*recorder, *Source) {
	t.Helper()
	s, err := New(config(dir))
	require.NoError(t, err)
	r := newRecorder()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, r) }() // ended by cancel
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return r, s
}

// load reads dir afresh.
func load(t testing.TB, dir string) (map[string]tenancy.Object, Report) {
	t.Helper()
	s, err := New(config(dir))
	require.NoError(t, err)
	events, report := s.Load()
	objects := make(map[string]tenancy.Object)
	for _, ev := range events {
		require.NotNil(t, ev.Object)
		objects[refName(ev.Ref)] = ev.Object
	}
	return objects, report
}

// put writes a file in place; a name ending in "/" makes a folder.
func put(t testing.TB, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if strings.HasSuffix(name, "/") {
		require.NoError(t, os.MkdirAll(path, 0o755))
		return
	}
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
}

// swap puts a file in place by renaming.
func swap(t testing.TB, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	temp := filepath.Join(filepath.Dir(path), ".swap")
	require.NoError(t, os.WriteFile(temp, []byte(text), 0o644))
	require.NoError(t, os.Rename(temp, path))
}

func remove(t testing.TB, dir, name string) {
	t.Helper()
	require.NoError(t, os.RemoveAll(filepath.Join(dir, name)))
}

func namespace(name, tenant string) string {
	return "apiVersion: v1\nkind: Namespace\nmetadata: {name: " + name + ", labels: {bailiwick.dev/tenant: " + tenant + "}}\n---\n"
}

func service(ns, name, port string) string {
	return "apiVersion: v1\nkind: Service\nmetadata: {name: " + name + ", namespace: " + ns + "}\nspec: {ports: [{port: " + port + "}]}\n---\n"
}

func tenant(name string) string {
	return "apiVersion: bailiwick.dev/v1alpha1\nkind: Tenant\nmetadata: {name: " + name + "}\nspec: {trustDomain: " + name + ".example}\n---\n"
}

func deny(ns, name string) string {
	return "apiVersion: bailiwick.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: " + name + ", namespace: " + ns + "}\nspec: {selector: {}, action: Deny, rules: [{from: [{all: true}]}]}\n---\n"
}

// mesh writes two tenants and their namespaces.
func mesh(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "config")
	put(t, dir, "platform/mesh.yaml", tenant("acme")+tenant("globex")+namespace("a", "acme")+namespace("g", "globex"))
	return dir
}

// meshObjects are what mesh writes, for has.
func meshObjects(more ...string) []string {
	return append([]string{"Tenant acme", "Tenant globex", "Namespace a", "Namespace g"}, more...)
}
