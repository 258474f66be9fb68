package object

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// parseYAML parses one YAML document; nil without an error is an empty one.
func parseYAML(data []byte) (n *yaml.Node, err error) {
	// The parser is not ours, the bytes may be a tenant's: whatever it does not
	// stand is an unreadable document and no more.
	defer func() {
		if r := recover(); r != nil {
			n, err = nil, errors.New("the YAML parser failed on this document")
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(data))
	n = &yaml.Node{}
	if err := dec.Decode(n); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, err
	}
	var rest yaml.Node
	if err := dec.Decode(&rest); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("more than one document: separate them by a line of three dashes")
		}
		return nil, err
	}
	return n, nil
}

// fromYAML turns a parsed node into a tree.
func (g *grower) fromYAML(path *field.Path, n *yaml.Node, depth int) (*tree, error) {
	line := n.Line + g.baseLine
	if err := g.spend(len(n.Value), depth); err != nil {
		return nil, lineError(line, err)
	}
	switch n.Kind {
	case yaml.DocumentNode:
		return g.fromYAML(path, n.Content[0], depth)
	case yaml.AliasNode:
		if g.open[n.Alias] {
			return nil, lineError(line, fmt.Errorf("alias *%s contains itself", n.Value))
		}
		g.open[n.Alias] = true
		defer delete(g.open, n.Alias)
		return g.fromYAML(path, n.Alias, depth+1)
	case yaml.SequenceNode:
		t := &tree{line: line, items: make([]*tree, 0, len(n.Content))}
		for i, c := range n.Content {
			item, err := g.fromYAML(index(path, i), c, depth+1)
			if err != nil {
				return nil, err
			}
			t.items = append(t.items, item)
		}
		return t, nil
	case yaml.MappingNode:
		return g.yamlMapping(path, n, depth)
	case yaml.ScalarNode:
		v, err := yamlScalar(n)
		if err != nil {
			return nil, lineError(line, err)
		}
		return &tree{line: line, scalar: v}, nil
	}
	return nil, lineError(line, errors.New("not a YAML value"))
}

func (g *grower) yamlMapping(path *field.Path, n *yaml.Node, depth int) (*tree, error) {
	var fields, merged []treeField
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		line := n.Content[i].Line + g.baseLine
		if k.Kind != yaml.ScalarNode {
			return nil, lineError(line, errors.New("a key has to be a string"))
		}
		if k.ShortTag() == "!!merge" {
			value, err := g.fromYAML(path, v, depth+1)
			if err != nil {
				return nil, err
			}
			from, err := mergeFields(value)
			if err != nil {
				return nil, lineError(line, err)
			}
			merged = append(merged, from...)
			continue
		}
		name, err := yamlKey(k)
		if err != nil {
			return nil, lineError(line, err)
		}
		if err := g.spend(len(name), depth); err != nil {
			return nil, lineError(line, err)
		}
		value, err := g.fromYAML(child(path, name), v, depth+1)
		if err != nil {
			return nil, err
		}
		fields = append(fields, treeField{name, line, value})
	}
	has := make(map[string]bool, len(fields))
	for _, f := range fields {
		has[f.name] = true
	}
	for _, f := range merged { // what is written out wins, then the first merge
		if !has[f.name] {
			has[f.name] = true
			fields = append(fields, f)
		}
	}
	return g.collect(path, n.Line+g.baseLine, fields), nil
}

// mergeFields returns what "<<: value" adds.
func mergeFields(value *tree) ([]treeField, error) {
	switch {
	case value.fields != nil:
		return value.fields, nil
	case value.items != nil:
		var out []treeField
		for _, item := range value.items {
			if item.fields == nil {
				return nil, errors.New("a merge key (<<) takes mappings only")
			}
			out = append(out, item.fields...)
		}
		return out, nil
	}
	return nil, errors.New("a merge key (<<) takes mappings only")
}

// yamlKey returns the text of a key. Numbers may be keys, as kubectl has it.
func yamlKey(k *yaml.Node) (string, error) {
	v, err := yamlScalar(k)
	if err != nil {
		return "", err
	}
	switch v := v.(type) {
	case string:
		return v, nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	}
	return "", fmt.Errorf("key %s is no string: quote it", quote(k.Value))
}

// yamlScalar resolves a scalar as kubectl's reader does: YAML 1.1 booleans.
func yamlScalar(n *yaml.Node) (any, error) {
	if !utf8.ValidString(n.Value) {
		return nil, errors.New("invalid UTF-8")
	}
	switch tag := n.ShortTag(); tag {
	case "!!null":
		return nil, nil
	case "!!str":
		const plainStyle = 0
		if n.Style == plainStyle {
			if b, ok := oldBool(n.Value); ok {
				return b, nil
			}
		}
		return n.Value, nil
	case "!!timestamp":
		return n.Value, nil
	case "!!bool":
		var b bool
		if err := n.Decode(&b); err != nil {
			return nil, fmt.Errorf("%s is no boolean", quote(n.Value))
		}
		return b, nil
	case "!!int":
		var i int64
		if err := n.Decode(&i); err == nil {
			return i, nil
		}
		var u uint64
		if err := n.Decode(&u); err == nil {
			return u, nil
		}
		return nil, fmt.Errorf("%s is no 64-bit number", quote(n.Value))
	case "!!float":
		var f float64
		if err := n.Decode(&f); err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			return nil, fmt.Errorf("%s is no finite number", quote(n.Value))
		}
		return f, nil
	case "!!binary":
		b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.Value), ""))
		if err != nil || !utf8.Valid(b) {
			return nil, errors.New("!!binary has to be base64 of valid UTF-8")
		}
		return string(b), nil
	default:
		return nil, fmt.Errorf("unknown YAML tag %s", quote(tag))
	}
}

// oldBool knows the booleans that only YAML 1.1 has.
func oldBool(s string) (value, ok bool) {
	switch s {
	case "y", "Y", "yes", "Yes", "YES", "on", "On", "ON":
		return true, true
	case "n", "N", "no", "No", "NO", "off", "Off", "OFF":
		return false, true
	}
	return false, false
}
