package object

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// MaxFile is how large a file may be, in bytes.
const MaxFile = 16 << 20

// Document is one document of a file.
type Document struct {
	// File is the path for messages, Index counts from 1, Line is the file's
	// line of the document's first.
	File        string
	Index, Line int
	// JSON says how to read Data; else it is YAML.
	JSON bool
	Data []byte
}

// Split cuts a file into its documents: YAML at lines that begin with three
// dashes, JSON (by the file's ending) after each value. Documents that hold
// only blanks, comments or directives are left out, but counted. The error,
// about a file that is too large or no JSON, does not name the file.
func Split(file string, data []byte) ([]Document, error) {
	if len(data) > MaxFile {
		return nil, fmt.Errorf("longer than %d bytes", MaxFile)
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if path.Ext(file) == ".json" {
		return splitJSON(file, data)
	}
	var docs []Document
	doc := Document{File: file, Index: 1, Line: 1}
	begin, line, separators := 0, 1, 0
	end := func(at int) {
		doc.Data = data[begin:at]
		if !blank(doc.Data) {
			docs = append(docs, doc)
		}
	}
	for at := 0; at < len(data); line++ {
		next := len(data)
		if i := bytes.IndexByte(data[at:], '\n'); i >= 0 {
			next = at + i + 1
		}
		if separates(data[at:next]) {
			end(at)
			// Comments before the first separator are no document of their own.
			if separators > 0 || !blank(data[:at]) {
				doc.Index++
			}
			separators++
			// What follows the dashes on their line belongs to the document.
			begin, doc.Line = at+3, line
		}
		at = next
	}
	end(len(data))
	return docs, nil
}

// separates reports whether a line separates documents.
func separates(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	return ok && (len(rest) == 0 || strings.ContainsRune(" \t\r\n", rune(rest[0])))
}

// blank reports whether a document has neither value nor anything unreadable.
func blank(doc []byte) bool {
	for line := range bytes.Lines(doc) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && line[0] != '%' && !bytes.Equal(line, []byte("...")) {
			return false
		}
	}
	return true
}

func splitJSON(file string, data []byte) ([]Document, error) {
	var docs []Document
	dec := json.NewDecoder(bytes.NewReader(data))
	line, counted := 1, int64(0)
	for {
		var raw json.RawMessage
		err := dec.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			var syntax *json.SyntaxError
			if errors.As(err, &syntax) {
				at := min(int(syntax.Offset), len(data))
				return nil, fmt.Errorf("line %d: %w", 1+bytes.Count(data[:at], []byte("\n")), err)
			}
			return nil, err
		}
		begin := dec.InputOffset() - int64(len(raw))
		line += bytes.Count(data[counted:begin], []byte("\n"))
		counted = begin
		docs = append(docs, Document{File: file, Index: len(docs) + 1, Line: line, JSON: true, Data: raw})
	}
}
