package canary

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Poison is one nasty form of a document.
type Poison struct {
	Document
	// Shape is what is wrong with it.
	Shape string
	// JSON tells that Text is JSON, which YAML is not always.
	JSON bool
}

// What the shapes have that have too much: more than any bound of an API server,
// and little enough to be read in no time.
const (
	manyEntries = 1100
	manyLabels  = 1000
)

// shape changes the tree of an object; nil where Text is changed.
type shape struct {
	name string
	tree func(o map[string]any)
	text func(text string) string
}

// replaceLeaves puts something else in the place of every value that is no object and
// no list, but for what says which object it is.
func replaceLeaves(o map[string]any, by func(v any) any) {
	var walk func(v any) any
	walk = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			for k, e := range v {
				v[k] = walk(e)
			}
			return v
		case []any:
			for i, e := range v {
				v[i] = walk(e)
			}
			return v
		}
		return by(v)
	}
	for k, v := range o {
		if k != "apiVersion" && k != "kind" && k != "metadata" {
			o[k] = walk(v)
		}
	}
	if meta := o["metadata"].(map[string]any); len(o) == 3 { // a Namespace has nothing else
		meta["labels"] = walk(meta["labels"])
	}
}

// replaceLists is the same for lists.
func replaceLists(o map[string]any, by func(list []any) any) {
	var walk func(v any) any
	walk = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			for k, e := range v {
				v[k] = walk(e)
			}
		case []any:
			return by(v)
		}
		return v
	}
	walk(o)
}

func texts(by string) func(o map[string]any) {
	return func(o map[string]any) {
		replaceLeaves(o, func(v any) any {
			if _, ok := v.(string); ok {
				return by
			}
			return v
		})
	}
}

func numbers(by any) func(o map[string]any) {
	return func(o map[string]any) {
		replaceLeaves(o, func(v any) any {
			if _, ok := v.(string); ok && len(o) > 3 {
				return v
			}
			return by
		})
	}
}

func named(by any) func(o map[string]any) {
	return func(o map[string]any) { o["metadata"].(map[string]any)["name"] = by }
}

// body puts something in the place of all that an object says.
func body(by any) func(o map[string]any) {
	return func(o map[string]any) {
		for k := range o {
			if k != "apiVersion" && k != "kind" && k != "metadata" {
				o[k] = by
			}
		}
		o["metadata"].(map[string]any)["labels"] = by
	}
}

func shapes() []shape {
	raw := func(s string) any { return json.RawMessage(s) }
	laughs := `"a0":"x"`
	for i := range 9 {
		laughs += fmt.Sprintf(",\n\"b%d\": &b%d [%s]", i, i, strings.TrimSuffix(strings.Repeat(map[bool]string{true: "x,", false: fmt.Sprintf("*b%d,", i-1)}[i == 0], 9), ","))
	}
	into := func(field string) func(string) string { // of the object, at its end
		return func(text string) string { return strings.TrimSuffix(strings.TrimSpace(text), "}") + "," + field + "}" }
	}
	return []shape{
		{name: "NUL", tree: texts("a\x00b")},
		{name: "right to left", tree: texts("a\u202egnp.b")},
		{name: "homoglyph", tree: texts("асme")},
		{name: "control characters", tree: texts("a\n\x1b[2Jlevel=INFO")},
		{name: "empty strings", tree: texts("")},
		{name: "huge strings", tree: texts(strings.Repeat("a", 20_000))},
		{name: "regular expression", tree: texts("^(" + strings.Repeat("(a+)+|", 500) + "b)$")},
		{name: "traversal", tree: texts("../../../etc/passwd")},
		{name: "negative", tree: numbers(-1)},
		{name: "overflow", tree: numbers(raw("9223372036854775808"))},
		{name: "exponent", tree: numbers(raw("1e400"))},
		{name: "fraction", tree: numbers(0.5)},
		{name: "booleans", tree: func(o map[string]any) { replaceLeaves(o, func(any) any { return true }) }},
		{name: "objects", tree: func(o map[string]any) { replaceLeaves(o, func(any) any { return map[string]any{"a": "b"} }) }},
		{name: "nulls", tree: func(o map[string]any) { replaceLeaves(o, func(any) any { return nil }) }},
		{name: "empty lists", tree: func(o map[string]any) { replaceLists(o, func([]any) any { return []any{} }) }},
		{name: "many entries", tree: func(o map[string]any) {
			replaceLists(o, func(list []any) any { return slices.Repeat(list, 1+manyEntries/len(list)) })
			meta := o["metadata"].(map[string]any)
			labels := map[string]any{}
			for i := range manyLabels {
				labels[fmt.Sprintf("l%d!", i)] = "x"
			}
			meta["labels"] = labels
		}},
		{name: "name with a slash", tree: named("a/b")},
		{name: "name of another script", tree: named("асme")},
		{name: "long name", tree: named(strings.Repeat("n", 300))},
		{name: "number for a name", tree: named(7)},
		{name: "text for a body", tree: body("text")},
		{name: "list for a body", tree: body([]any{"a"})},
		{name: "null for a body", tree: body(nil)},
		{name: "deep", tree: body(raw(strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000)))},
		{name: "invalid UTF-8", text: func(text string) string {
			return strings.Replace(text, `"labels":{`, "\"labels\":{\"a\":\"\xff\xfe\",", 1)
		}},
		{name: "lone surrogate", text: func(text string) string { return strings.Replace(text, `"labels":{`, `"labels":{"a":"\ud800",`, 1) }},
		{name: "unknown field", text: into(`"bogus":"bogus"`)},
		{name: "field twice", text: into(`"metadata":{"name":"twice"}`)},
		{name: "billion laughs", text: into(laughs)},
		{name: "alias of itself", text: into(`"a": &a [*a]`)},
		{name: "half", text: func(text string) string { return text[:len(text)/2] }},
	}
}

// Poisons are the nasty forms of one document of each kind that there is among
// some: of the last, because that one refers to the most. Each has a name of its
// own, where its shape leaves it one.
func Poisons(documents []Document) []Poison {
	kinds := map[string]Document{}
	var order []string
	for _, d := range documents {
		if _, again := kinds[d.Kind]; !again {
			order = append(order, d.Kind)
		}
		kinds[d.Kind] = d
	}
	var out []Poison
	for _, kind := range order {
		for i, s := range shapes() {
			d := kinds[kind]
			d.Name = fmt.Sprintf("poison-%d", i)
			d.Path = strings.TrimSuffix(d.Path, ".yaml") + fmt.Sprintf("-poison-%02d.yaml", i)
			o := map[string]any{}
			if err := yaml.Unmarshal([]byte(d.Text), &o); err != nil {
				panic(err) // the documents are ours
			}
			delete(o["metadata"].(map[string]any), "uid")
			o["metadata"].(map[string]any)["name"] = d.Name
			if s.tree != nil {
				s.tree(o)
			}
			raw, err := json.Marshal(o)
			if err != nil {
				panic(err)
			}
			d.Text = string(raw)
			if s.text != nil {
				d.Text = s.text(d.Text)
			}
			out = append(out, Poison{Document: d, Shape: s.name, JSON: json.Valid([]byte(d.Text))})
		}
	}
	return out
}
