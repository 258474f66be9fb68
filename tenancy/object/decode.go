package object

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"bailiwick.dev/bailiwick/tenancy"
)

// MaxDocument is how large one document may be, in bytes, aliases expanded:
// twice what the API server stores of an object.
const MaxDocument = 3 << 20

// Options of a source.
type Options struct {
	// Source goes into the keys of all objects; see [tenancy.Key].
	Source string
	// AllowLoopback accepts loopback addresses of endpoints, Pods and services:
	// for demos and tests that run many proxies on one machine. Everywhere else
	// such an address would lead a proxy to its own host.
	AllowLoopback bool
	// Panicked is told of a panic that was contained to one object or document,
	// with its stack; nil for nobody. It may be called by any goroutine.
	Panicked func(value any, stack []byte)
	// trap is where a test plants a panic.
	trap func(obj any)
}

// Entry is one object of a document.
type Entry struct {
	// Kind is zero, and Namespace and Name are empty, where they could not be
	// read. KindName is as written, known or not.
	Kind      tenancy.Kind
	KindName  string
	Namespace string
	Name      string
	// Identified tells that kind, namespace and name are all that they have to
	// be, so that Ref is the object's.
	Identified bool
	// Document counts from 1; Line is where the object begins.
	Document, Line int
	// Object is what to apply; nil if nothing can be, so that the last good one
	// stays. Only identified entries have one.
	Object tenancy.Object
	// Errors of the object. What gives access has both: see the package's
	// invariants.
	Errors []*Error
}

// Ref is the object's reference in the Model, if it is identified.
func (e *Entry) Ref(source string) tenancy.Ref {
	return tenancy.Ref{Kind: e.Kind, Key: tenancy.Key{Source: source, Namespace: e.Namespace, Name: e.Name}}
}

// MayBe reports whether e may have been meant as the object ref, going by what
// of its identity is readable.
func (e *Entry) MayBe(ref tenancy.Ref) bool {
	return (e.Kind == 0 || e.Kind == ref.Kind) &&
		(e.Namespace == "" || ref.Key.Namespace == "" || e.Namespace == ref.Key.Namespace) &&
		(e.Name == "" || e.Name == ref.Key.Name)
}

// Decoded is what a file holds.
type Decoded struct {
	// Entries in the order of the file.
	Entries []*Entry
	// Unreadable is set if a document of the file could not be parsed at all:
	// then Entries says nothing about what the file was meant to hold.
	Unreadable *Error
}

// Errors are all errors, in the order of the file.
func (d Decoded) Errors() []*Error {
	var out []*Error
	for _, e := range d.Entries {
		out = append(out, e.Errors...)
	}
	if d.Unreadable != nil {
		out = append(out, d.Unreadable)
	}
	return out
}

// Events are those of all entries that have an object, in the order of the file.
func (d Decoded) Events(source string) []tenancy.Event {
	var out []tenancy.Event
	for _, e := range d.Entries {
		if e.Object != nil {
			out = append(out, tenancy.Event{Ref: e.Ref(source), Object: e.Object})
		}
	}
	return out
}

// DecodeAll decodes all documents of a file. A name ending in .json means
// JSON, one value after the other; all else is YAML.
func DecodeAll(file string, data []byte, opts Options) Decoded {
	docs, err := Split(file, data)
	if err != nil {
		return Decoded{Unreadable: &Error{File: file, Message: err.Error()}}
	}
	var out Decoded
	for _, doc := range docs {
		one := Decode(doc, opts)
		out.Entries = append(out.Entries, one.Entries...)
		if one.Unreadable != nil && out.Unreadable == nil {
			out.Unreadable = one.Unreadable
		}
	}
	return out
}

// Decode decodes one document: nothing (an empty document), one object or the
// objects of a v1 List.
func Decode(doc Document, opts Options) (out Decoded) {
	defer opts.contain(func() {
		out = Decoded{Unreadable: &Error{File: doc.File, Document: doc.Index, Line: doc.Line, Message: "cannot be read: the decoder failed on this document"}}
	})
	root, g, err := parse(doc)
	if err != nil {
		e := &Error{File: doc.File, Document: doc.Index, Message: "cannot be parsed: " + err.Error()}
		var at placed
		if errors.As(err, &at) {
			e.Line = at.line
		}
		return Decoded{Unreadable: e}
	}
	if root == nil {
		return Decoded{}
	}
	d := &decoder{doc: doc, opts: opts, twice: g.twice, fields: make(map[reflect.Type]map[string][]int)}
	return Decoded{Entries: d.root(root)}
}

// parse turns a document into a tree; nil without an error is an empty one.
func parse(doc Document) (*tree, *grower, error) {
	g := &grower{budget: MaxDocument, baseLine: doc.Line - 1, open: make(map[*yaml.Node]bool)}
	switch {
	case len(doc.Data) > MaxDocument:
		return nil, g, errors.New("longer than " + strconv.Itoa(MaxDocument) + " bytes")
	case !utf8.Valid(doc.Data):
		return nil, g, errors.New("invalid UTF-8")
	case doc.JSON:
		root, err := parseJSON(g, doc.Data)
		return root, g, err
	}
	n, err := parseYAML(doc.Data)
	if err != nil {
		return nil, g, yamlError(doc.Line, err)
	}
	if n == nil {
		return nil, g, nil
	}
	root, err := g.fromYAML(nil, n, 0)
	if err != nil {
		return nil, g, err
	}
	if root.isNull() {
		return nil, g, nil
	}
	return root, g, nil
}

// parseJSON parses a document that holds exactly one JSON value.
func parseJSON(g *grower, data []byte) (*tree, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	r := &jsonReader{grower: g, dec: dec, data: data}
	root, err := r.value(nil, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, lineError(r.line(), errors.New("text after the JSON value"))
	}
	return root, nil
}

// yamlError gives a parser's error the line in the file.
func yamlError(docLine int, err error) error {
	m := regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)`).FindStringSubmatch(err.Error())
	if m == nil {
		return placed{docLine, err}
	}
	n, _ := strconv.Atoi(m[1])
	return placed{docLine + n - 1, errors.New(m[2])}
}

// decoder decodes the objects of one document.
type decoder struct {
	doc    Document
	opts   Options
	twice  []twice
	fields map[reflect.Type]map[string][]int
}

// root decodes the document's object, or those of the List that it is.
func (d *decoder) root(t *tree) []*Entry {
	if t.get("kind").text() != "List" || t.get("apiVersion").text() != "v1" {
		return []*Entry{d.object(nil, t)}
	}
	list := &Entry{KindName: "List", Document: d.doc.Index, Line: t.line}
	p := &problems{}
	var out []*Entry
	for _, f := range t.fields {
		at := field.NewPath(f.name)
		switch f.name {
		case "kind", "apiVersion", "metadata":
		case "items":
			if f.value.items == nil && !f.value.isNull() {
				p.add(at, "expected a list, got %s", f.value.shape())
			}
			for i, item := range f.value.items {
				out = append(out, d.object(at.Index(i), item))
			}
		default:
			p.add(child(nil, f.name), "unknown field")
		}
	}
	for _, twice := range d.twice {
		if s := twice.path.String(); !within(s, "items") || s == "items" {
			p.add(twice.path, "given twice")
		}
	}
	if len(p.list) == 0 {
		return out
	}
	// What the list was meant to hold is not known: the entry may be anything.
	d.report(list, nil, t, p)
	return append(out, list)
}

// object decodes one object, at path within the document.
func (d *decoder) object(path *field.Path, t *tree) *Entry {
	e := &Entry{KindName: t.get("kind").text(), Document: d.doc.Index, Line: t.line}
	p := &problems{}
	d.reportTwice(p, path)
	if t.fields == nil {
		p.add(nil, "expected an object, got %s", t.shape())
		d.report(e, path, t, p)
		return e
	}
	meta := t.get("metadata")
	e.Namespace, e.Name = readable(meta.field("namespace")), readable(meta.field("name"))
	k, ok := findKind(p, t)
	if !ok {
		d.report(e, path, t, p)
		return e
	}
	e.Kind = k.kind
	obj := k.empty()
	f := &filler{problems: p, strict: k.ours, fields: d.fields}
	f.fill(nil, t, reflect.ValueOf(obj).Elem())
	e.Identified = k.identify(p, obj)
	if !k.namespaced {
		e.Namespace = ""
	}
	converted, errs := Convert(obj, d.opts)
	for _, err := range errs {
		p.addField(err)
	}
	if len(p.list) > 0 {
		converted = closed(converted)
	}
	if e.Identified {
		e.Object = converted
	}
	d.report(e, path, t, p)
	return e
}

// reportTwice reports the fields below path that are given twice.
func (d *decoder) reportTwice(p *problems, path *field.Path) {
	prefix := ""
	if path != nil {
		prefix = path.String()
	}
	for _, twice := range d.twice {
		s := twice.path.String()
		switch {
		case prefix == "":
			p.addField(FieldError{s, "given twice"})
		case within(s, prefix) && len(s) > len(prefix):
			p.addField(FieldError{s[len(prefix)+1:], "given twice"})
		}
	}
}

// report turns problems into the errors of e.
func (d *decoder) report(e *Entry, path *field.Path, t *tree, p *problems) {
	prefix := ""
	if path != nil {
		prefix = path.String()
	}
	for _, err := range p.errors() {
		out := &Error{
			File: d.doc.File, Document: d.doc.Index, Line: t.lineOf(err.Field), Kind: oneLine(e.KindName),
			Namespace: e.Namespace, Name: e.Name, Field: err.Field, Message: err.Message,
		}
		if prefix != "" {
			out.Field = strings.TrimSuffix(prefix+"."+err.Field, ".")
		}
		for _, twice := range d.twice {
			if twice.path.String() == out.Field {
				out.Line = twice.line
			}
		}
		e.Errors = append(e.Errors, out)
	}
}
