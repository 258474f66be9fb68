package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Report is what a run found.
type Report struct {
	Machine Machine
	Took    time.Duration
	Figures []Figure
}

// Machine describes where a run took place.
type Machine struct {
	CPU     string
	Cores   int
	Go      string
	OS      string
	Commit  string
	Started time.Time
	// Load is the system's load average when the run began: what others did.
	Load string
}

// Figure is one result. P50 is the figure itself where there is no
// distribution; then P99 is 0 and N is 1.
type Figure struct {
	Scenario, Case, Name, Unit string
	N                          int
	P50, P99                   float64
	// Target is what was aimed at, in words; empty for what is only told.
	Target string `json:",omitempty"`
	// Miss is true if the target was not reached.
	Miss bool `json:",omitempty"`
}

func thisMachine() Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), OS: runtime.GOOS + "/" + runtime.GOARCH, Started: time.Now().UTC()}
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	m.Load, _, _ = strings.Cut(string(load), " ")
	if out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output(); err == nil {
		m.Commit = strings.TrimSpace(string(out))
		if changed, err := exec.Command("git", "status", "--porcelain").Output(); err == nil && len(changed) > 0 {
			m.Commit += " and uncommitted changes"
		}
	}
	return m
}

// print writes the report as Markdown.
func (r *Report) print(w io.Writer) {
	fmt.Fprintf(w, "%s, %d cores, %s, %s, commit %s, load average %s at the start, %s, %v in all\n\n",
		r.Machine.CPU, r.Machine.Cores, r.Machine.OS, r.Machine.Go, r.Machine.Commit, r.Machine.Load,
		r.Machine.Started.Format(time.DateTime), r.Took.Round(time.Second))
	fmt.Fprintln(w, "| scenario | case | figure | p50 | p99 | of | target | reached |")
	fmt.Fprintln(w, "|---|---|---|---:|---:|---:|---|---|")
	for _, f := range r.Figures {
		p99, reached := "", ""
		if f.N > 1 {
			p99 = number(f.P99)
		}
		if f.Target != "" {
			reached = "yes"
			if f.Miss {
				reached = "**no**"
			}
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %d | %s | %s |\n", f.Scenario, f.Case, named(f), number(f.P50), p99, f.N, f.Target, reached)
	}
}

func number(v float64) string {
	switch a := math.Abs(v); {
	case a == 0:
		return "0"
	case a < 10:
		return fmt.Sprintf("%.2f", v)
	case a < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

func (r *Report) write(path string) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the report: %w", err)
	}
	if err := os.WriteFile(path, append(raw, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// readReport reads what write wrote.
func readReport(path string) (*Report, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read a report: %w", err)
	}
	var r Report
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("read a report: %w", err)
	}
	return &r, nil
}

// put prints the report and writes it to where it is wanted.
func (r *Report) put(file, plots, readme string) error {
	r.print(os.Stdout)
	var err error
	if file != "" {
		err = r.write(file)
	}
	if plots != "" {
		err = errors.Join(err, r.drawPlots(plots))
	}
	if readme != "" {
		err = errors.Join(err, r.intoReadme(readme))
	}
	return err
}

// percentile of values, which it sorts. Of the nearest rank, so that the p99 of
// 300 is the fourth largest and of less than 100 the largest.
func percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[min(len(values)-1, max(0, int(math.Ceil(p/100*float64(len(values))))-1))]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func inMilliseconds(list []time.Duration) []float64 {
	out := make([]float64, len(list))
	for i, d := range list {
		out[i] = milliseconds(d)
	}
	return out
}

// named is a figure's name with its unit.
func named(f Figure) string {
	if f.Unit == "" {
		return f.Name
	}
	return f.Name + ", " + f.Unit
}
