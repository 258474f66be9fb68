package object

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// FieldError says what is wrong with one field of an object.
type FieldError struct {
	// Field is its path, such as spec.to[0].ports[1]; empty for the whole object.
	Field string
	// Message says what is wrong and what is expected, without the field.
	Message string
}

// Error implements error.
func (e FieldError) Error() string {
	if e.Field == "" {
		return e.Message
	}
	return e.Field + ": " + e.Message
}

// Error is a [FieldError] with the place of the object, as far as both are known.
type Error struct {
	// File is the path as the caller gave it, empty for an object of an API
	// server. Document counts from 1 (0: the error is the file's), Line is that of the field in the file (0: unknown).
	File     string `json:"file"`
	Document int    `json:"document,omitempty"`
	Line     int    `json:"line,omitempty"`
	// Kind, Namespace and Name are those of the object, as written.
	Kind      string `json:"kind,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	// Field and Message are those of FieldError.
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
}

// Error implements error: everything on one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 && e.File != "" {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	if e.Document > 0 {
		fmt.Fprintf(&b, ": document %d", e.Document)
	}
	if e.Kind != "" {
		if b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(e.Kind)
		switch {
		case e.Name == "":
		case e.Namespace == "":
			b.WriteString(" " + e.Name)
		default:
			b.WriteString(" " + e.Namespace + "/" + e.Name)
		}
	}
	b.WriteString(": " + FieldError{e.Field, e.Message}.Error())
	return b.String()
}

// maxErrors are reported per object; the rest is counted.
const maxErrors = 32

// problems gathers the errors of one object.
type problems struct {
	list []FieldError
	more int
}

// add reports that the field at path (nil: the whole object) is wrong, unless
// it or what holds it was reported before: one mistake, one error.
func (p *problems) add(path *field.Path, format string, args ...any) {
	at := ""
	if path != nil {
		at = path.String()
	}
	p.addField(FieldError{at, fmt.Sprintf(format, args...)})
}

// addField is add for an error that is made already.
func (p *problems) addField(err FieldError) {
	for _, e := range p.list {
		if within(err.Field, e.Field) {
			return
		}
	}
	if len(p.list) == maxErrors {
		p.more++
		return
	}
	p.list = append(p.list, err)
}

// within reports whether the field at path is that at outer, or part of it.
func within(path, outer string) bool {
	if outer == "" || !strings.HasPrefix(path, outer) {
		return false
	}
	return len(path) == len(outer) || path[len(outer)] == '.' || path[len(outer)] == '['
}

// errors returns what was added.
func (p *problems) errors() []FieldError {
	if p.more > 0 {
		return append(p.list[:len(p.list):len(p.list)], FieldError{"", fmt.Sprintf("and %d more errors", p.more)})
	}
	return p.list
}

// quote makes any string fit for a one-line message.
func quote(s string) string {
	const longest = 64
	if len(s) > longest {
		cut := longest
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		return fmt.Sprintf("%q...", s[:cut])
	}
	return fmt.Sprintf("%q", s)
}

// oneLine is what of a name may stand in a message unquoted.
func oneLine(s string) string {
	for _, r := range s {
		if r < '!' || r > '~' {
			return quote(s)
		}
	}
	if len(s) > 64 {
		return quote(s)
	}
	return s
}
