package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// plot is a drawing of the figures of one name, a bar for each case.
type plot struct {
	file, title string
	scenarios   []string
	names       []string
}

// plots are kept beside the results.
var plots = []plot{
	{"fanout", "Server CPU of a push to 1,000 streams", []string{"fanout"}, []string{"server CPU per push"}},
	{"changes", "A change until the last client has it", []string{"endpoint", "service", "source"}, []string{"endpoint change", "service added", "bare watch has it"}},
	{"cost", "Server CPU of a change", []string{"endpoint", "service", "source"}, []string{"server CPU per endpoint change", "server CPU per service added"}},
	{"tenants", "Server CPU of an endpoint change, by tenants", []string{"tenants"}, []string{"server CPU per endpoint change"}},
	{"burst", "Rolling restart: a new Pod is known to the last client", []string{"burst"}, []string{burstLatency}},
	{"burst-cost", "Rolling restart: server CPU", []string{"burst"}, []string{burstCPU}},
	{"routes", "Routes sent when a service is added", []string{"routes"}, []string{"routes sent per service added"}},
	{"routes-cost", "Server CPU when a service is added, by services of the tenant", []string{"routes"}, []string{"server CPU per service added"}},
	{"size", "Envoy's memory, allocated", []string{"size"}, []string{"Envoy's memory, allocated"}},
}

// drawPlots writes an SVG for each plot that the report has figures of.
func (r *Report) drawPlots(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make a folder for plots: %w", err)
	}
	var failed error
	for _, p := range plots {
		var bars []Figure
		for _, f := range r.Figures {
			if slices.Contains(p.scenarios, f.Scenario) && slices.Contains(p.names, f.Name) && f.P50 > 0 {
				bars = append(bars, f)
			}
		}
		if len(bars) > 0 {
			failed = errors.Join(failed, os.WriteFile(filepath.Join(dir, p.file+".svg"), []byte(p.svg(bars)), 0o644))
		}
	}
	return failed
}

// Measures of a drawing, in pixels.
const (
	plotWidth  = 900
	labelWidth = 380
	barHeight  = 22
	plotTop    = 46
)

// svg draws bars from the p50, with a line to the p99. The axis is logarithmic
// where the bars differ by more than a factor of twenty.
func (p plot) svg(bars []Figure) string {
	least, most := math.Inf(1), 0.0
	for _, f := range bars {
		least, most = min(least, f.P50), max(most, f.P50, f.P99)
	}
	logarithmic := most/least > 20
	least = math.Pow(10, math.Floor(math.Log10(least)))
	length := func(v float64) float64 {
		const room = plotWidth - labelWidth - 90
		if logarithmic {
			return max(1, room*math.Log(max(v, least)/least)/math.Log(most/least))
		}
		return max(1, room*v/most)
	}
	var b strings.Builder
	axis := bars[0].Unit
	if logarithmic {
		axis += ", logarithmic"
	}
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n",
		plotWidth, plotTop+len(bars)*barHeight+10)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/><text x="10" y="20" font-size="15">%s</text><text x="10" y="36" fill="#666">%s; the line ends at the p99</text>`+"\n",
		escaped(p.title), escaped(axis))
	for i, f := range bars {
		y := float64(plotTop + i*barHeight)
		label := f.Case
		if len(p.names) > 1 {
			label += ": " + f.Name
		}
		fmt.Fprintf(&b, `<text x="%d" y="%.0f" text-anchor="end">%s</text>`, labelWidth-8, y+14, escaped(label))
		end := length(f.P50)
		fmt.Fprintf(&b, `<rect x="%d" y="%.0f" width="%.1f" height="%d" fill="#3b6ea5"/>`, labelWidth, y+3, end, barHeight-8)
		if f.N > 1 && f.P99 > f.P50 {
			end = length(f.P99)
			fmt.Fprintf(&b, `<path d="M%.1f %.1fH%.1fm0 -4v8" stroke="#c33" fill="none"/>`, labelWidth+length(f.P50), y+10, labelWidth+end)
		}
		text := number(f.P50)
		if f.N > 1 {
			text += " / " + number(f.P99)
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="%.0f">%s</text>`+"\n", labelWidth+end+6, y+14, text)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func escaped(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // it writes to memory
	return b.String()
}
