package object

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

// FuzzDecode: whatever the bytes, Decode returns; an entry with an object is
// identified, its errors are one line each; and what a document says, written
// again as JSON or YAML, decodes to the same.
func FuzzDecode(f *testing.F) {
	for _, c := range valid() {
		f.Add([]byte(c.doc), false)
	}
	demo, err := filepath.Glob("../../deploy/demo/*/*.yaml")
	require.NoError(f, err)
	for _, path := range demo {
		raw, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(raw, false)
	}
	f.Add([]byte("a: &a [*a]\n<<: {b: c}\n"), false)
	f.Add([]byte(`{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a","name":"b"}}]}`), true)
	f.Fuzz(func(t *testing.T, data []byte, isJSON bool) {
		name := "f.yaml"
		if isJSON {
			name = "f.json"
		}
		docs, err := Split(name, data)
		if err != nil {
			return
		}
		for _, doc := range docs {
			checkDocument(t, doc)
		}
	})
}

func checkDocument(t *testing.T, doc Document) {
	t.Helper()
	opts := Options{AllowLoopback: true}
	got := Decode(doc, opts)
	require.Equal(t, got, Decode(doc, opts))
	for _, e := range got.Entries {
		require.True(t, e.Object == nil || e.Identified)
		require.True(t, e.Object != nil || len(e.Errors) > 0, "neither object nor error")
		for _, err := range e.Errors {
			require.NotContains(t, err.Error(), "\n")
			require.True(t, utf8.ValidString(err.Error()))
		}
	}
	if len(got.Errors()) > 0 {
		return
	}
	root, _, err := parse(doc)
	require.NoError(t, err)
	if root == nil {
		return
	}
	raw, err := json.Marshal(root.plain())
	require.NoError(t, err)
	again := Decode(Document{File: "f.json", Index: 1, Line: 1, JSON: true, Data: raw}, opts)
	sameEvents(t, got, again, raw)
	raw, err = yaml.JSONToYAML(raw)
	require.NoError(t, err)
	again = Decode(Document{File: "f.yaml", Index: 1, Line: 1, Data: raw}, opts)
	sameEvents(t, got, again, raw)
}

func sameEvents(t *testing.T, want, got Decoded, raw []byte) {
	t.Helper()
	require.Empty(t, texts(got), "%s", raw)
	require.True(t, reflect.DeepEqual(want.Events(""), got.Events("")), "%s", raw)
}
