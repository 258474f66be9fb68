package read

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Text writes an answer for people.
func (a Answer) Text(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n\n", a.Verdict, a.Why)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(k, v string) {
		if v != "" {
			fmt.Fprintf(t, "%s\t%s\n", k, v)
		}
	}
	row("from", a.From)
	row("to", a.To)
	row("request", a.Request)
	row("visible", a.Visible)
	by := a.By
	if a.At != "" {
		by += " (" + a.At + ")"
	}
	row("decided by", by)
	for _, end := range a.Ends {
		row("ends", end)
	}
	for _, u := range a.Unknown {
		row("unknown", u)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(a.Looked) > 0 {
		b.WriteString("\npolicies looked at:\n")
		for _, l := range a.Looked {
			fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", l.Action, l.Policy, l.Outcome, l.At)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if len(a.Change) > 0 {
		b.WriteString("\nwhat would change it:\n")
		for _, c := range a.Change {
			b.WriteString("  " + strings.ReplaceAll(c, "\n", "\n    ") + "\n")
		}
	}
	_, err := io.WriteString(w, trimmed(b.String()))
	return err
}

// trimmed takes the blanks from the ends of lines, which a table leaves.
func trimmed(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}
