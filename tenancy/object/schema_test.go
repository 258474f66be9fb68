package object

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// mutation is one way to break a document against its schema.
type mutation struct {
	what string
	path *field.Path
	do   func(parent any, key string, index int)
}

// schemaWalk finds, along a valid document, every bound that the CRD's schema
// sets, and a way to break each.
type schemaWalk struct {
	out     []mutation
	visited map[string]bool
}

// set returns a mutation that puts a value in the place of the one at path.
func (w *schemaWalk) set(path *field.Path, what string, value any) {
	w.out = append(w.out, mutation{what, path, func(parent any, key string, index int) {
		switch p := parent.(type) {
		case map[string]any:
			p[key] = value
		case []any:
			p[index] = value
		}
	}})
}

func (w *schemaWalk) walk(path *field.Path, schema map[string]any, value any) {
	w.visited[schemaPath(path)] = true
	number := func(key string) (int, bool) { n, ok := schema[key].(float64); return int(n), ok }
	if n, ok := number("maxLength"); ok {
		w.set(path, "maxLength", strings.Repeat("a", n+1))
	}
	if _, ok := number("minLength"); ok {
		w.set(path, "minLength", "")
	}
	if _, ok := schema["pattern"]; ok {
		w.set(path, "pattern", "\x01 no")
	}
	if _, ok := schema["enum"]; ok {
		w.set(path, "enum", "Bogus")
	}
	if n, ok := number("minimum"); ok {
		w.set(path, "minimum", n-1)
	}
	if n, ok := number("maximum"); ok {
		w.set(path, "maximum", n+1)
	}
	w.set(path, "null", nil)
	switch v := value.(type) {
	case []any:
		w.set(path, "type", "text")
		items := schema["items"].(map[string]any)
		if n, ok := number("maxItems"); ok {
			w.set(path, "maxItems", several(v[0], n+1))
		}
		if _, ok := number("minItems"); ok {
			w.set(path, "minItems", []any{})
		}
		if schema["x-kubernetes-list-type"] == "set" {
			w.set(path, "set", []any{v[0], v[0]})
		}
		for i, item := range v {
			w.walk(path.Index(i), items, item)
		}
	case map[string]any:
		w.set(path, "type", "text")
		w.object(path, schema, v)
	default:
		w.set(path, "type", map[string]any{"a": "b"})
	}
}

// several are n valid items like one, different where they have to be.
func several(one any, n int) []any {
	out := make([]any, n)
	for i := range out {
		switch v := one.(type) {
		case string:
			out[i] = fmt.Sprintf("a%d", i)
			if strings.ToUpper(v) == v {
				out[i] = strings.Repeat("A", i+1)
			}
		case float64:
			out[i] = i + 1
		default:
			out[i] = v
		}
	}
	return out
}

func (w *schemaWalk) object(path *field.Path, schema, value map[string]any) {
	if n, ok := schema["maxProperties"].(float64); ok {
		many := map[string]any{}
		for i := range int(n) + 1 {
			many[fmt.Sprintf("k%d", i)] = "v"
		}
		w.set(path, "maxProperties", many)
	}
	if additional, ok := schema["additionalProperties"].(map[string]any); ok {
		for k, v := range value {
			w.walk(child(path, k), additional, v)
		}
		return
	}
	w.set(path.Child("bogus"), "unknown", "x")
	properties := schema["properties"].(map[string]any)
	for _, name := range requiredOf(schema) {
		w.out = append(w.out, mutation{"required", path.Child(name), func(parent any, key string, _ int) { delete(parent.(map[string]any), key) }})
	}
	for k, v := range value {
		w.walk(path.Child(k), properties[k].(map[string]any), v)
	}
}

func requiredOf(schema map[string]any) []string {
	var out []string
	list, _ := schema["required"].([]any)
	for _, name := range list {
		out = append(out, name.(string))
	}
	return out
}

// schemaPath is a path without indexes.
func schemaPath(path *field.Path) string {
	var b strings.Builder
	skip := false
	for _, r := range path.String() {
		skip = skip && r != ']' || r == '['
		if !skip && r != ']' {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// allPaths lists the paths of a schema.
func allPaths(prefix string, schema map[string]any) []string {
	out := []string{prefix}
	if items, ok := schema["items"].(map[string]any); ok {
		out = append(out, allPaths(prefix, items)...)
	}
	properties, _ := schema["properties"].(map[string]any)
	for name, inner := range properties {
		out = append(out, allPaths(prefix+"."+name, inner.(map[string]any))...)
	}
	return out
}

// apply returns the document with the mutation done to a copy of it.
func (m mutation) apply(t *testing.T, doc map[string]any) []byte {
	t.Helper()
	raw, err := json.Marshal(doc)
	require.NoError(t, err)
	var at any
	require.NoError(t, json.Unmarshal(raw, &at))
	root := at
	// A key in brackets may hold dots.
	inside := false
	steps := strings.FieldsFunc(m.path.String(), func(r rune) bool {
		inside = inside && r != ']' || r == '['
		return r == '[' || r == ']' || r == '.' && !inside
	})
	for _, step := range steps[:len(steps)-1] {
		switch p := at.(type) {
		case map[string]any:
			at = p[step]
		case []any:
			at = p[atoi(t, step)]
		}
	}
	last, index := steps[len(steps)-1], 0
	if _, ok := at.([]any); ok {
		index = atoi(t, last)
	}
	m.do(at, last, index)
	raw, err = json.Marshal(root)
	require.NoError(t, err)
	return raw
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	var n int
	_, err := fmt.Sscan(s, &n)
	require.NoError(t, err)
	return n
}

// TestSchemaAgrees holds the CRDs and Decode together: whatever the API server
// refuses of a spec by its schema, Decode refuses at the same field.
func TestSchemaAgrees(t *testing.T) {
	for file, docs := range map[string][]string{
		"tenants":               {"tenant"},
		"servicegrants":         {"grant"},
		"servicerequests":       {"request"},
		"clusterservicegrants":  {"cluster grant", "cluster grant for all"},
		"accesspolicies":        {"policy", "denying policy"},
		"clusteraccesspolicies": {"cluster policy"},
		"peertls":               {"peer TLS"},
	} {
		t.Run(file, func(t *testing.T) {
			schema := specSchema(t, file)
			visited := make(map[string]bool)
			for _, name := range docs {
				var doc map[string]any
				require.NoError(t, yaml.Unmarshal([]byte(valid()[name].doc), &doc))
				w := &schemaWalk{visited: visited}
				w.walk(field.NewPath("spec"), schema, doc["spec"])
				require.Greater(t, len(w.out), 10)
				for _, m := range w.out {
					raw := m.apply(t, doc)
					got := DecodeAll("f.json", raw, Options{})
					require.True(t, mentions(got, m.path.String()), "%s of %s: no error there, but %q\n%s", m.what, m.path, texts(got), raw)
					if o := got.Entries[0].Object; o != nil {
						require.Equal(t, closed(o), o, "%s of %s: not closed", m.what, m.path)
					}
				}
			}
			for _, path := range allPaths("spec", schema) {
				if path != "spec.to.all" { // all and ports exclude each other
					require.True(t, visited[path], "no valid document of the test has %s", path)
				}
			}
		})
	}
}

func specSchema(t *testing.T, file string) map[string]any {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "deploy", "crds", "bailiwick.dev_"+file+".yaml"))
	require.NoError(t, err)
	var crd struct {
		Spec struct {
			Versions []struct {
				Schema struct {
					OpenAPIV3Schema struct {
						Properties map[string]map[string]any
					} `json:"openAPIV3Schema"`
				}
			}
		}
	}
	require.NoError(t, yaml.Unmarshal(raw, &crd))
	return crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
}

// mentions reports whether an error is about the field at path, what holds it,
// or a part of it.
func mentions(d Decoded, path string) bool {
	for _, e := range d.Errors() {
		if e.Field != "" && e.Field != "spec" && (within(path, e.Field) || within(e.Field, path)) || path == "spec" && within(e.Field, path) {
			return true
		}
		if e.Field == "spec" && strings.Count(path, ".") == 1 {
			return true // exactly one of two fields of spec
		}
	}
	return false
}

// TestEveryStringAndListIsBounded: no schema leaves room for a flood.
func TestEveryStringAndListIsBounded(t *testing.T) {
	var check func(path string, schema map[string]any)
	check = func(path string, schema map[string]any) {
		switch schema["type"] {
		case "string":
			_, enum := schema["enum"]
			_, bounded := schema["maxLength"]
			require.True(t, enum || bounded, path)
		case "array":
			require.Contains(t, schema, "maxItems", path)
			require.Contains(t, schema, "x-kubernetes-list-type", path)
			check(path+"[]", schema["items"].(map[string]any))
		case "integer":
			require.Contains(t, schema, "maximum", path)
			require.Contains(t, schema, "minimum", path)
		case "object":
			if additional, ok := schema["additionalProperties"].(map[string]any); ok {
				require.Contains(t, schema, "maxProperties", path)
				check(path+"{}", additional)
			}
			properties, _ := schema["properties"].(map[string]any)
			for name, inner := range properties {
				check(path+"."+name, inner.(map[string]any))
			}
		}
	}
	for _, file := range []string{"tenants", "servicegrants", "servicerequests", "clusterservicegrants", "accesspolicies", "clusteraccesspolicies", "peertls"} {
		check(file, specSchema(t, file))
	}
}
