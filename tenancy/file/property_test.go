package file

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/tenancy"
)

// TestAnyHistoryIsAFreshLoad: however a directory came to hold what it holds,
// the objects, and the errors, are those of a fresh load, as long as nothing in
// it is broken. Passes happen at arbitrary moments between the changes.
func TestAnyHistoryIsAFreshLoad(t *testing.T) {
	base := t.TempDir()
	runs, glanced, walked := 0, 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		noticed := make(map[string]bool)
		dir := filepath.Join(base, fmt.Sprint(runs))
		put(t, dir, "platform/keep.yaml", tenant("acme")+tenant("globex")+namespace("a", "acme"))
		put(t, dir, "tenants/acme/keep.yaml", service("a", "keep", "1"))
		s, err := New(config(dir))
		require.NoError(t, err)
		now := make(map[tenancy.Ref]tenancy.Object)
		pass := func() {
			// As Run does after events: what was written to is read even if its
			// size and time are the same.
			dirty := make(map[string]bool)
			sc := s.store.scan(nil)
			for _, f := range sc.files {
				dirty[f.real] = true
			}
			events, again, ok := s.store.glance(noticed)
			if ok {
				glanced++
			} else {
				walked++
				events, again = s.store.pass(sc, dirty)
			}
			clear(noticed)
			s.store.report()
			require.False(rt, again)
			for _, ev := range events {
				require.False(rt, reflect.DeepEqual(now[ev.Ref], ev.Object), "an event without a difference")
				if ev.Object == nil {
					require.Contains(rt, now, ev.Ref)
					delete(now, ev.Ref)
				} else {
					now[ev.Ref] = ev.Object
				}
			}
		}
		pass()
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			step(rt, t, dir, noticed)
			if rapid.Bool().Draw(rt, "pass") {
				pass()
			}
		}
		pass()
		fresh, err := New(config(dir))
		require.NoError(t, err)
		events, report := fresh.Load()
		want := make(map[tenancy.Ref]tenancy.Object)
		for _, ev := range events {
			want[ev.Ref] = ev.Object
		}
		require.Equal(rt, want, now)
		require.Equal(rt, report, s.store.report())
		for ref := range want {
			p, ok := fresh.Locate(ref)
			q, also := s.Locate(ref)
			require.True(rt, ok && also && p == q)
		}
		require.NoError(t, os.RemoveAll(dir))
	})
	require.Positive(t, glanced)
	require.Positive(t, walked)
}

// What a change costs is the same in a directory of any size.
func TestCostOfAChange(t *testing.T) {
	cost := func(files int) float64 {
		dir := mesh(t)
		for i := range files {
			put(t, dir, fmt.Sprintf("tenants/acme/%04d.yaml", i), service("a", fmt.Sprint("s", i), "1"))
		}
		s, err := New(config(dir))
		require.NoError(t, err)
		s.Load()
		name := filepath.Join(dir, "tenants/acme/0007.yaml")
		text := [2]string{service("a", "s7", "1"), service("a", "s7", "2")}
		runs := 0
		return testing.AllocsPerRun(20, func() {
			runs++
			require.NoError(t, os.WriteFile(name, []byte(text[runs%2]), 0o600))
			events, again, ok := s.store.glance(map[string]bool{name: true})
			require.True(t, ok && !again)
			require.Len(t, events, 1)
			require.Empty(t, s.store.report().Errors)
		})
	}
	small, large := cost(20), cost(1000)
	require.InDelta(t, small, large, small/50)
}

// step changes the directory at one place, and notes the paths that are noticed
// of it: those of the watched folders.
func step(rt *rapid.T, t *testing.T, dir string, noticed map[string]bool) {
	before := tree(t, dir)
	defer func() {
		after := tree(t, dir)
		for p, sum := range before {
			if after[p] != sum {
				noticed[p] = true
			}
		}
		for p := range after {
			if _, was := before[p]; !was {
				noticed[p] = true
			}
		}
	}()
	files := []string{"platform/x.yaml", "platform/sub/y.yaml", "tenants/acme/x.yaml", "tenants/acme/s/y.yml", "tenants/globex/x.yaml", "tenants/globex/s/z.yaml"}
	name := rapid.SampledFrom(files).Draw(rt, "file")
	switch rapid.SampledFrom([]string{"write", "swap", "write", "remove", "rename", "folder"}).Draw(rt, "do") {
	case "write":
		put(t, dir, name, content(rt))
	case "swap":
		put(t, dir, filepath.Dir(name)+"/", "")
		swap(t, dir, name, content(rt))
	case "remove":
		remove(t, dir, name)
	case "rename":
		to := filepath.Join(dir, rapid.SampledFrom(files).Draw(rt, "to"))
		put(t, filepath.Dir(to), "/", "")
		if err := os.Rename(filepath.Join(dir, name), to); err != nil {
			require.ErrorIs(t, err, os.ErrNotExist)
		}
	case "folder":
		remove(t, dir, rapid.SampledFrom([]string{"platform/sub", "tenants/acme/s", "tenants/globex"}).Draw(rt, "folder"))
	}
}

// content is a file of valid objects, one at least: an emptied file would be
// taken for half-written.
func content(rt *rapid.T) string {
	var b strings.Builder
	for range rapid.IntRange(1, 3).Draw(rt, "objects") {
		ns := rapid.SampledFrom([]string{"a", "g"}).Draw(rt, "ns")
		name := rapid.SampledFrom([]string{"s", "t"}).Draw(rt, "name")
		switch rapid.IntRange(0, 3).Draw(rt, "kind") {
		case 0:
			b.WriteString(namespace(ns, rapid.SampledFrom([]string{"acme", "globex"}).Draw(rt, "tenant")))
		case 1:
			b.WriteString(deny(ns, name))
		default:
			b.WriteString(service(ns, name, fmt.Sprint(rapid.IntRange(1, 2).Draw(rt, "port"))))
		}
	}
	return b.String()
}

// tree is all paths of a directory with their content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	require.NoError(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			out[p] = ""
			return err
		}
		raw, err := os.ReadFile(p)
		out[p] = "=" + string(raw)
		return err
	}))
	return out
}
