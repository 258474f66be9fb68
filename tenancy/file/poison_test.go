package file

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/canary"
	"bailiwick.dev/bailiwick/tenancy/object"
)

// Every kind in every nasty form: whatever cannot be honoured is reported by its
// file, in one line that can be printed, and changes nothing beside it.
func TestPoisonOfEveryKind(t *testing.T) {
	var documents []canary.Document
	one := canary.Tenant{Name: "kanarya", Peer: "kanaryb", Stranger: "kanaryc", Network: "10.40.1", Number: 1}
	documents = append(documents, one.Documents()...)
	poisons := canary.Poisons(documents)
	load := func(with ...canary.Document) (map[tenancy.Ref]tenancy.Object, map[string][]*object.Error) {
		dir := t.TempDir()
		for _, d := range append(with, documents...) {
			path := filepath.Join(dir, d.Path)
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
			require.NoError(t, os.WriteFile(path, []byte(d.Text), 0o600))
		}
		src, err := New(Config{Dir: dir, Logger: slog.New(slog.DiscardHandler), Options: object.Options{
			Panicked: func(value any, stack []byte) { t.Errorf("%v\n%s", value, stack) },
		}})
		require.NoError(t, err)
		events, report := src.Load()
		objects, errors := map[tenancy.Ref]tenancy.Object{}, map[string][]*object.Error{}
		for _, ev := range events {
			objects[ev.Ref] = ev.Object
		}
		for _, e := range report.Errors {
			rel, err := filepath.Rel(dir, e.File)
			require.NoError(t, err)
			errors[rel] = append(errors[rel], e)
		}
		return objects, errors
	}
	before, errors := load()
	require.Empty(t, errors)
	var all []canary.Document
	for _, p := range poisons {
		all = append(all, p.Document)
	}
	after, errors := load(all...)
	for ref, o := range before {
		require.Equal(t, o, after[ref], "%v", ref)
	}
	reported, kinds := map[string]int{}, map[string]bool{}
	for _, p := range poisons {
		kinds[p.Kind] = true
		told := errors[p.Path]
		if len(told) > 0 {
			reported[p.Kind]++
		}
		for _, e := range told {
			text := e.Error()
			require.True(t, utf8.ValidString(text), "%s %s: %q", p.Kind, p.Shape, text)
			require.Less(t, len(text), 2000, "%s %s", p.Kind, p.Shape)
			require.False(t, strings.ContainsAny(text, "\x00\n\x1b\u202e"), "%s %s: %q", p.Kind, p.Shape, text)
		}
		delete(errors, p.Path)
	}
	require.Empty(t, errors, "nothing else is at fault")
	for kind := range kinds {
		require.GreaterOrEqual(t, reported[kind], 20, "%s", kind)
	}
}
