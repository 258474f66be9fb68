package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

// width is that of an ordinary terminal with some margin.
const width = 96

// style is how a word is shown on a terminal; elsewhere it changes nothing.
type style string

const (
	plain style = ""
	bold  style = "1"
	good  style = "32"
	bad   style = "31;1"
	dim   style = "2"
)

// printer writes the demo's account.
type printer struct {
	w      io.Writer
	colour bool
}

// newPrinter uses colours if w is a terminal and NO_COLOR is not set.
func newPrinter(w io.Writer) *printer {
	p := &printer{w: w}
	if f, ok := w.(*os.File); ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" {
		info, err := f.Stat()
		p.colour = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

func (p *printer) line(format string, args ...any) {
	// A terminal that is gone is no reason to leave the processes running.
	_, _ = fmt.Fprintf(p.w, format+"\n", args...)
}

// heading begins a section, with a word on where its content comes from.
func (p *printer) heading(title, source string) {
	p.line("")
	p.line("%s  %s", p.paint(bold, strings.ToUpper(title)), p.paint(dim, source))
}

func (p *printer) paint(s style, text string) string {
	if !p.colour || s == plain {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// pad fills text with blanks up to n columns.
func pad(text string, n int) string {
	return text + strings.Repeat(" ", max(0, n-utf8.RuneCountInString(text)))
}

// list prints words after a label, wrapped below one another.
func (p *printer) list(label string, indent int, words []string) {
	line, used := "  "+pad(label, indent), 2+indent
	fresh := true
	for i, word := range words {
		if i < len(words)-1 {
			word += ","
		}
		if !fresh && used+1+len(word) > width {
			p.line("%s", line)
			line, used, fresh = strings.Repeat(" ", 2+indent), 2+indent, true
		}
		if !fresh {
			line, used = line+" ", used+1
		}
		line, used, fresh = line+word, used+len(word), false
	}
	p.line("%s", line)
}
