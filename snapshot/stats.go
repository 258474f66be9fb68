package snapshot

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Stats count the publisher's work, for metrics and for tests that hold the
// cost of an event equal at different mesh sizes. Its methods may be called
// from anywhere.
type Stats struct {
	events       atomic.Uint64
	publications atomic.Uint64
	merged       atomic.Uint64
	panics       atomic.Uint64
	overLimit    atomic.Uint64
	ahead        atomic.Uint64 // services built on several cores
	builds       [NumTypes]atomic.Uint64

	// windows are the quiet and the max in force, by tenant.
	windows sync.Map
	// usage is that of tenants which have anything, by name; views is what each
	// view costs, by tenancy.ViewKey.
	usage, views sync.Map
	// waited is how long bursts waited, by whether they were gathered.
	waited [2]prometheus.Observer
}

// Events is how many events were absorbed.
func (s *Stats) Events() uint64 { return s.events.Load() }

// Publications is how many times a group of layers changed.
func (s *Stats) Publications() uint64 { return s.publications.Load() }

// Builds is how many resources or parts of type t were built and encoded.
func (s *Stats) Builds(t Type) uint64 { return s.builds[t].Load() }

func (s *Stats) built(t Type) { s.builds[t].Add(1) }

func newStats(reg prometheus.Registerer) (*Stats, error) {
	s := &Stats{}
	waited := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "bailiwick", Subsystem: "snapshot", Name: "window_wait_seconds",
		Help:    "How long changes waited in their tenant's window until they were built, by whether that was at once or when the burst was gathered.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8),
	}, []string{"build"})
	s.waited = [2]prometheus.Observer{waited.WithLabelValues("immediate"), waited.WithLabelValues("gathered")}
	if reg == nil {
		return s, nil
	}
	counter := func(name, help string, labels prometheus.Labels, v *atomic.Uint64) error {
		return reg.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "bailiwick", Subsystem: "snapshot", Name: name, Help: help, ConstLabels: labels,
		}, func() float64 { return float64(v.Load()) }))
	}
	errs := []error{
		reg.Register(waited),
		reg.Register(windowGauge{s, prometheus.NewDesc("bailiwick_snapshot_window_seconds", "Debounce in force, of tenants that had a change.", []string{"tenant", "bound"}, nil)}),
		reg.Register(newLimitGauge(s)),
		counter("events_total", "Events absorbed from the sources.", nil, &s.events),
		counter("publications_total", "Times that a view or a workload layer changed.", nil, &s.publications),
		counter("merged_total", "Changes that joined a burst already waiting in a tenant's window.", nil, &s.merged),
		counter("over_limit_total", "Services left out of a view because of its tenant's limits, counted each time.", nil, &s.overLimit),
		counter("panics_total", "Panics contained in the model and in builders; each has a stack in the log.", nil, &s.panics),
	}
	for t := range NumTypes {
		errs = append(errs, counter("builds_total", "Resources and parts built and encoded.", prometheus.Labels{"type": t.String()}, &s.builds[t]))
	}
	return s, errors.Join(errs...)
}

// window counts how long a burst waited that is about to be built.
func (s *Stats) window(w *window, now time.Time) {
	gathered := 0
	if w.gathering {
		gathered = 1
	}
	s.waited[gathered].Observe(now.Sub(w.first).Seconds())
}

// windowGauge reports the windows when it is asked.
type windowGauge struct {
	stats *Stats
	desc  *prometheus.Desc
}

func (g windowGauge) Describe(ch chan<- *prometheus.Desc) { ch <- g.desc }

func (g windowGauge) Collect(ch chan<- prometheus.Metric) {
	g.stats.windows.Range(func(tenant, w any) bool {
		bounds := w.([2]time.Duration)
		ch <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, bounds[0].Seconds(), tenant.(string), "quiet")
		ch <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, bounds[1].Seconds(), tenant.(string), "max")
		return true
	})
}
