package object

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// jsonReader reads trees from JSON and keeps count of lines.
type jsonReader struct {
	*grower
	dec     *json.Decoder
	data    []byte
	counted int64 // bytes whose lines are counted
	lines   int
}

// line is where the token that was read last ends.
func (g *jsonReader) line() int {
	at := g.dec.InputOffset()
	g.lines += bytes.Count(g.data[g.counted:at], []byte("\n"))
	g.counted = at
	return g.baseLine + g.lines + 1
}

// value reads one value.
func (g *jsonReader) value(path *field.Path, depth int) (*tree, error) {
	token, err := g.dec.Token()
	line := g.line()
	if err != nil {
		return nil, lineError(line, err)
	}
	text, _ := token.(string)
	if err := g.spend(len(text), depth); err != nil {
		return nil, lineError(line, err)
	}
	switch v := token.(type) {
	case nil, string, bool:
		return &tree{line: line, scalar: v}, nil
	case json.Number:
		n, err := jsonNumber(v)
		if err != nil {
			return nil, lineError(line, err)
		}
		return &tree{line: line, scalar: n}, nil
	case json.Delim:
		if v == '[' {
			return g.list(path, depth, line)
		}
		return g.mapping(path, depth, line)
	}
	return nil, lineError(line, errors.New("not a JSON value"))
}

func (g *jsonReader) list(path *field.Path, depth, line int) (*tree, error) {
	t := &tree{line: line, items: []*tree{}}
	for g.dec.More() {
		item, err := g.value(index(path, len(t.items)), depth+1)
		if err != nil {
			return nil, err
		}
		t.items = append(t.items, item)
	}
	_, err := g.dec.Token()
	return t, err
}

func (g *jsonReader) mapping(path *field.Path, depth, line int) (*tree, error) {
	var fields []treeField
	for g.dec.More() {
		token, err := g.dec.Token()
		if err != nil {
			return nil, err
		}
		name, _ := token.(string)
		if err := g.spend(len(name), depth); err != nil {
			return nil, lineError(line, err)
		}
		value, err := g.value(child(path, name), depth+1)
		if err != nil {
			return nil, err
		}
		fields = append(fields, treeField{name, value.line, value})
	}
	if _, err := g.dec.Token(); err != nil {
		return nil, err
	}
	return g.collect(path, line, fields), nil
}

func jsonNumber(n json.Number) (any, error) {
	if i, err := strconv.ParseInt(string(n), 10, 64); err == nil {
		return i, nil
	}
	if u, err := strconv.ParseUint(string(n), 10, 64); err == nil {
		return u, nil
	}
	f, err := n.Float64()
	if err != nil {
		return nil, fmt.Errorf("%s is no 64-bit number", quote(string(n)))
	}
	return f, nil
}
