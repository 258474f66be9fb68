package snapshot

import (
	"errors"
	"sync/atomic"

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
	builds       [NumTypes]atomic.Uint64
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
	if reg == nil {
		return s, nil
	}
	counter := func(name, help string, labels prometheus.Labels, v *atomic.Uint64) error {
		return reg.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "bailiwick", Subsystem: "snapshot", Name: name, Help: help, ConstLabels: labels,
		}, func() float64 { return float64(v.Load()) }))
	}
	errs := []error{
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
