package kube

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// collector reads the metrics off the source when they are asked for. Labels are
// names of kinds, which are few and fixed.
type collector struct{ source *Source }

func describe(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("bailiwick_kubernetes_"+name, help, []string{"kind"}, nil)
}

// Describe implements prometheus.Collector: it is an unchecked one.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	stale := describe("stale_seconds", "For how long objects of the kind could not be followed; 0 while they are.")
	objects := describe("objects", "Objects that are applied.")
	errors := describe("object_errors", "Objects that are not honoured as written.")
	events := describe("events_total", "Changes that watches told.")
	reads := describe("reads_total", "Complete reads: the first, and one for each watch that could not be continued.")
	s := c.source
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, k := range s.kinds {
		age := 0.0
		if !s.began.IsZero() {
			age = k.state.stale(s.began, now, s.cfg.Tolerance).Seconds()
		}
		gauge := func(d *prometheus.Desc, v float64) {
			out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, k.info.Name)
		}
		gauge(stale, age)
		gauge(objects, float64(len(k.applied)))
		gauge(errors, float64(len(k.faults)))
		out <- prometheus.MustNewConstMetric(events, prometheus.CounterValue, float64(k.events), k.info.Name)
		out <- prometheus.MustNewConstMetric(reads, prometheus.CounterValue, float64(k.reads), k.info.Name)
	}
}
