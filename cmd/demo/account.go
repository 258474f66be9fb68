package main

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// showSights prints what each actor's proxy knows beside what it should, and
// returns in how many they differ.
func showSights(out *printer, w *world, seen map[string][]string) int {
	indent, wrong := nameWidth(w), 0
	for _, a := range w.actors {
		want, got := w.visible(a), seen[a.name()]
		out.list(a.name(), indent, orNothing(got))
		if !slices.Equal(want, got) {
			wrong++
			out.list("! expected:", indent, orNothing(want))
		}
	}
	return wrong
}

// showMatrix prints who may call whom, and returns how many cells differ from
// what the policies say.
func showMatrix(out *printer, w *world, rows [][]cell) int {
	targets := w.callable()
	for j, t := range targets {
		out.line("  %s %s", out.paint(bold, fmt.Sprintf("%2d", j+1)), t.name())
	}
	indent := nameWidth(w)
	head := "  " + strings.Repeat(" ", indent)
	for j := range targets {
		head += fmt.Sprintf("%6d", j+1)
	}
	out.line("")
	out.line("%s", out.paint(bold, head))
	for _, row := range rows {
		line := "  " + pad(row[0].from.name(), indent)
		for _, c := range row {
			line += paintCell(out, c)
		}
		out.line("%s", line)
	}
	out.line("")
	out.line("  %s", out.paint(dim, "200 called and told by whom, 403 refused by RBAC, - not visible, ! not as the policies say"))
	for _, row := range rows {
		for _, c := range row {
			if c.got != c.want {
				out.line("  %s %s -> %s: %s, by the policies %s", out.paint(bad, "!"), c.from.name(), c.to.name(), c.got, c.want)
			}
		}
	}
	return differing(rows)
}

func paintCell(out *printer, c cell) string {
	text, s := string(c.got), plain
	switch {
	case c.got != c.want:
		text, s = text+"!", bad
	case c.got == allowed:
		s = good
	case c.got == invisible:
		s = dim
	}
	blanks := strings.Repeat(" ", max(1, 6-utf8.RuneCountInString(text)))
	return blanks + out.paint(s, text)
}

// showDifference prints the cells that are not what they were.
func showDifference(out *printer, before, after [][]cell) {
	for i := range after {
		for j := range after[i] {
			was, is := before[i][j], after[i][j]
			if was.got != is.got {
				out.line("            %s -> %s: %s, was %s", is.from.name(), is.to.name(), is.got, was.got)
			}
		}
	}
}

// nameWidth is the column after the longest actor's name.
func nameWidth(w *world) int {
	n := 0
	for _, a := range w.actors {
		n = max(n, len(a.name()))
	}
	return n + 2
}

func orNothing(names []string) []string {
	if len(names) == 0 {
		return []string{"nothing"}
	}
	return names
}
