package read

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Table writes a matrix for people: columns are numbered, the numbers explained
// below.
func (m Matrix) Table(w io.Writer) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	b.WriteString("who may call whom (rows call columns)\n\n")
	for j := range m.Services {
		fmt.Fprintf(t, "\t%d", j+1)
	}
	fmt.Fprintln(t)
	for i, c := range m.Callers {
		fmt.Fprintf(t, "%s\t%s\n", c, strings.Join(m.Cells[i], "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	b.WriteString("\n")
	for j, s := range m.Services {
		whose := "tenant " + s.Tenant
		if s.Tenant == "" {
			whose = "plain, nobody's"
		}
		fmt.Fprintf(t, "%d\t%s\t%s\n", j+1, s, whose)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	b.WriteString("\n" + legend + "\n")
	_, err := io.WriteString(w, trimmed(b.String()))
	return err
}

const legend = "yes all requests, some under conditions, no refused, . not visible, empty no Pod, ? may not read the policies"

// colours of cells in drawings.
func colour(cell string) string {
	switch cell {
	case CellAll:
		return "#2e7d32"
	case CellSome:
		return "#f9a825"
	case CellNone:
		return "#c62828"
	case CellEmpty, CellUnknown:
		return "#9e9e9e"
	default:
		return "#eeeeee"
	}
}

// SVG writes a matrix as a drawing. Every cell says in words what it means,
// when it is pointed at.
func (m Matrix) SVG(w io.Writer) error {
	const cell, left, top, char = 22, 230, 230, 7
	width, height := left+cell*len(m.Services)+180, top+cell*len(m.Callers)+40
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="monospace" font-size="12">`+"\n", width, height)
	b.WriteString(`<rect width="100%" height="100%" fill="white"/>` + "\n")
	for j, s := range m.Services {
		x := left + cell*j + cell/2 + char/2
		fmt.Fprintf(&b, `<text x="%d" y="%d" transform="rotate(-60 %d %d)">%s</text>`+"\n", x, top-6, x, top-6, escaped(s.String()))
	}
	for i, c := range m.Callers {
		y := top + cell*i
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", left-8, y+cell-7, escaped(c.String()))
		for j, s := range m.Services {
			what := m.Cells[i][j]
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" fill="%s"><title>%s</title></rect>`+"\n",
				left+cell*j, y, cell-2, cell-2, colour(what), escaped(c.String()+" to "+s.String()+": "+what))
		}
	}
	fmt.Fprintf(&b, `<text x="8" y="%d">%s</text>`+"\n</svg>\n", height-14, escaped(legend))
	_, err := io.WriteString(w, b.String())
	return err
}

func escaped(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder takes everything
	return b.String()
}
