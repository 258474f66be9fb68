package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// intoReadme puts the tables of the report between their marks in a file.
func (r *Report) intoReadme(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read what the tables go into: %w", err)
	}
	text := string(raw)
	for mark, print := range map[string]func(io.Writer){"results": r.print, "burst": r.printBurst} {
		var table strings.Builder
		print(&table)
		begin, end := "<!-- "+mark+" -->\n", "<!-- end of "+mark+" -->"
		before, rest, ok := strings.Cut(text, begin)
		_, after, closed := strings.Cut(rest, end)
		if !ok || !closed {
			return fmt.Errorf("%s has no marks of %s", path, mark)
		}
		text = before + begin + table.String() + end + after
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write the tables: %w", err)
	}
	return nil
}

// printBurst writes the table for those who set the debounce.
func (r *Report) printBurst(w io.Writer) {
	figure := func(c, name string) Figure {
		for _, f := range r.Figures {
			if f.Scenario == "burst" && f.Case == c && f.Name == name {
				return f
			}
		}
		return Figure{}
	}
	fmt.Fprintln(w, "| | known after, p50 / p99 ms | responses per client | KB per client | server CPU, ms |")
	fmt.Fprintln(w, "|---|---:|---:|---:|---:|")
	for _, f := range r.Figures {
		if f.Scenario != "burst" || f.Name != burstLatency {
			continue
		}
		fmt.Fprintf(w, "| %s | %s / %s | %s | %s | %s |\n", f.Case, number(f.P50), number(f.P99),
			number(figure(f.Case, burstResponses).P50), number(figure(f.Case, burstBytes).P50), number(figure(f.Case, burstCPU).P50))
	}
}

// Names of the figures of burst.
const (
	burstLatency   = "a new Pod is known to the last client"
	burstResponses = "responses per client"
	burstBytes     = "sent per client"
	burstCPU       = "server CPU"
)
