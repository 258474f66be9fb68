package object

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxDepth of a document. Kubernetes' own kinds stay below 20.
const maxDepth = 64

// tree is a document as written, whether YAML or JSON: the one form that the
// typed objects are filled from. Exactly one of the three is used: items and
// fields are non-nil for a list and a mapping, else scalar is nil (null), a
// string, bool, int64, uint64 or float64.
type tree struct {
	line   int
	scalar any
	items  []*tree
	fields []treeField
}

type treeField struct {
	name  string
	line  int
	value *tree
}

// get returns the field of that name, or nil.
func (t *tree) get(name string) *tree {
	for _, f := range t.fields {
		if f.name == name {
			return f.value
		}
	}
	return nil
}

// text returns the string that t is, or "".
func (t *tree) text() string {
	if t == nil {
		return ""
	}
	s, _ := t.scalar.(string)
	return s
}

// field is get for a tree that may be missing.
func (t *tree) field(name string) *tree {
	if t == nil {
		return nil
	}
	return t.get(name)
}

// lineOf is the line of the field at path, or of the innermost that holds it.
func (t *tree) lineOf(path string) int {
	line := t.line
	var at *field.Path
	for {
		next, here := (*tree)(nil), at
		for _, f := range t.fields {
			if here = child(at, f.name); within(path, here.String()) {
				next, line = f.value, f.line
				break
			}
		}
		if t.items != nil && at != nil {
			number, _, _ := strings.Cut(strings.TrimPrefix(path[len(at.String()):], "["), "]")
			if i, err := strconv.Atoi(number); err == nil && i >= 0 && i < len(t.items) {
				here, next, line = at.Index(i), t.items[i], t.items[i].line
			}
		}
		if next == nil {
			return line
		}
		t, at = next, here
	}
}

// isNull reports whether t is an explicit null.
func (t *tree) isNull() bool { return t.scalar == nil && t.items == nil && t.fields == nil }

// shape names what t is, for messages.
func (t *tree) shape() string {
	switch {
	case t.items != nil:
		return "a list"
	case t.fields != nil:
		return "a mapping"
	}
	switch t.scalar.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case bool:
		return "a boolean"
	}
	return "a number"
}

// plain returns t as encoding/json knows values.
func (t *tree) plain() any {
	switch {
	case t.items != nil:
		out := make([]any, len(t.items))
		for i, item := range t.items {
			out[i] = item.plain()
		}
		return out
	case t.fields != nil:
		out := make(map[string]any, len(t.fields))
		for _, f := range t.fields {
			out[f.name] = f.value.plain()
		}
		return out
	}
	return t.scalar
}

// grower makes trees, within a budget of bytes and depth, and notes fields
// that are given twice. Its errors make the whole document unreadable.
type grower struct {
	budget   int
	open     map[*yaml.Node]bool // anchors being expanded
	twice    []twice
	baseLine int // lines before the document
}

type twice struct {
	path *field.Path
	line int
}

var (
	errTooDeep = fmt.Errorf("nested deeper than %d levels", maxDepth)
	errTooBig  = errors.New("larger than allowed after its aliases are expanded")
)

// spend takes a node with n bytes of text from the budget.
func (g *grower) spend(n, depth int) error {
	if depth > maxDepth {
		return errTooDeep
	}
	if g.budget -= n + 1; g.budget < 0 {
		return errTooBig
	}
	return nil
}

// collect makes a mapping of fields and drops those given twice.
func (g *grower) collect(path *field.Path, line int, fields []treeField) *tree {
	times := make(map[string]int, len(fields))
	for _, f := range fields {
		times[f.name]++
	}
	out := make([]treeField, 0, len(fields))
	seen := make(map[string]int)
	for _, f := range fields {
		if times[f.name] == 1 {
			out = append(out, f)
		} else if seen[f.name]++; seen[f.name] == 2 {
			g.twice = append(g.twice, twice{child(path, f.name), f.line})
		}
	}
	return &tree{line: line, fields: out}
}

// child is the path of a field; keys that are no plain name are bracketed.
func child(path *field.Path, name string) *field.Path {
	if strings.ContainsAny(name, "./[] \"\n") || name == "" {
		if path == nil {
			return field.NewPath(quote(name))
		}
		return path.Key(name)
	}
	if path == nil {
		return field.NewPath(name)
	}
	return path.Child(name)
}

func index(path *field.Path, i int) *field.Path {
	if path == nil {
		return field.NewPath("[" + strconv.Itoa(i) + "]")
	}
	return path.Index(i)
}

// placed is an error with the line it is about.
type placed struct {
	line int
	err  error
}

func (p placed) Error() string { return p.err.Error() }

// lineError gives err a line, unless it has one.
func lineError(line int, err error) error {
	var has placed
	if errors.As(err, &has) {
		return err
	}
	return placed{line, err}
}
