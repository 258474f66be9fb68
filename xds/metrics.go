package xds

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"bailiwick.dev/bailiwick/snapshot"
)

// Results of an answered response and of a refused RPC, as label values.
const (
	resultACK     = "ack"
	resultNACK    = "nack"
	resultTimeout = "timeout"

	refusedNoIdentity  = "no_identity"
	refusedExpired     = "expired"
	refusedNotWorkload = "not_workload"
	refusedDomain      = "trust_domain"
	refusedMethod      = "method"
	refusedAddress     = "address"
)

// Counts are sums over the life of a Server, for tests and benchmarks: what a
// change costs must follow from the change and not from the mesh.
type Counts struct {
	// Encodes are bodies encoded, Sends responses written, Bytes their size;
	// by type.
	Encodes, Sends, Bytes [snapshot.NumTypes]uint64
	// Wakes are the times that a stream was woken by the store.
	Wakes uint64
}

type metrics struct {
	wakes                    atomic.Uint64
	encodes, sends, sentSize [snapshot.NumTypes]atomic.Uint64

	tenants     sync.Map // of *meters, by name
	responses   *prometheus.CounterVec
	bytes       *prometheus.CounterVec
	answers     *prometheus.CounterVec
	encodedN    *prometheus.CounterVec
	encodedSize *prometheus.CounterVec
	refused     *prometheus.CounterVec
	limited     *prometheus.CounterVec
	unknownType prometheus.Counter
	// eventSent and eventAcked are the times since an event came to the store.
	eventSent, eventAcked *latency
	panics                prometheus.Counter
	old, frozen           prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, streams func() map[string]int) (*metrics, error) {
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "bailiwick", Subsystem: "xds", Name: name, Help: help}, labels)
	}
	m := &metrics{
		responses:   vec("responses_total", "Responses sent.", "tenant", "type"),
		bytes:       vec("response_bytes_total", "Bytes of responses sent, before TLS.", "tenant", "type"),
		answers:     vec("answers_total", "Responses that clients answered, or did not in time, by result.", "tenant", "type", "result"),
		encodedN:    vec("encodes_total", "Response bodies encoded. Streams share them.", "type"),
		encodedSize: vec("encoded_bytes_total", "Bytes of response bodies encoded.", "type"),
		refused:     vec("refused_rpcs_total", "RPCs refused for their identity or method, by result.", "result"),
		limited:     vec("limited_total", "Streams refused or ended because of a limit of the tenant; of the tenant \"\" those that were not served yet.", "tenant", "limit"),
		unknownType: prometheus.NewCounter(prometheus.CounterOpts{Namespace: "bailiwick", Subsystem: "xds", Name: "unknown_type_requests_total", Help: "Requests for types that are not served."}),
		panics:      prometheus.NewCounter(prometheus.CounterOpts{Namespace: "bailiwick", Subsystem: "xds", Name: "panics_total", Help: "Panics recovered in streams."}),
		old:         prometheus.NewCounter(prometheus.CounterOpts{Namespace: "bailiwick", Subsystem: "xds", Name: "old_proxies_total", Help: "Streams of proxies that are older than the oldest supported Envoy, by their own word."}),
	}
	m.frozen = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "bailiwick", Subsystem: "xds", Name: "frozen_streams_total",
		Help: "Streams of clients with state that were left as they are for a while, because the source was not up to date.",
	})
	m.eventSent = newLatency("event_to_sent_seconds", "Time from the arrival of an event in the store until a response with what follows from it was handed to the transport.")
	m.eventAcked = newLatency("event_to_ack_seconds", "Time from the arrival of an event in the store until a client acknowledged what follows from it.")
	wakes := prometheus.NewCounterFunc(prometheus.CounterOpts{
		Namespace: "bailiwick", Subsystem: "xds", Name: "wakeups_total", Help: "Times that a stream was woken by a change.",
	}, func() float64 { return float64(m.wakes.Load()) })
	for _, c := range []prometheus.Collector{
		m.responses, m.bytes, m.answers, m.encodedN, m.encodedSize, m.refused, m.limited, m.unknownType, m.panics, m.old, m.frozen, wakes,
		m.eventSent.vec, m.eventAcked.vec,
		&streamGauge{streams: streams, desc: prometheus.NewDesc("bailiwick_xds_streams", "Open streams.", []string{"tenant"}, nil)},
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// meters are the series of one tenant, found once and not for each response.
type meters struct {
	metrics *metrics
	tenant  string
	types   [snapshot.NumTypes]atomic.Pointer[typeMeters]
}

type typeMeters struct {
	responses, bytes prometheus.Counter
	acks             prometheus.Counter
}

// over counts that a limit was hit, and is what the client is told.
func (m *metrics) over(tenant, limit, format string, args ...any) error {
	m.limited.WithLabelValues(tenant, limit).Inc()
	return status.Errorf(codes.ResourceExhausted, format, args...)
}

// of returns the meters of a tenant.
func (m *metrics) of(tenant string) *meters {
	if v, ok := m.tenants.Load(tenant); ok {
		return v.(*meters)
	}
	v, _ := m.tenants.LoadOrStore(tenant, &meters{metrics: m, tenant: tenant})
	return v.(*meters)
}

func (ms *meters) of(t snapshot.Type) *typeMeters {
	tm := ms.types[t].Load()
	if tm == nil {
		m := ms.metrics
		tm = &typeMeters{
			responses: m.responses.WithLabelValues(ms.tenant, t.String()),
			bytes:     m.bytes.WithLabelValues(ms.tenant, t.String()),
			acks:      m.answers.WithLabelValues(ms.tenant, t.String(), resultACK),
		}
		ms.types[t].Store(tm)
	}
	return tm
}

func (m *metrics) sent(ms *meters, t snapshot.Type, size int) {
	m.sends[t].Add(1)
	m.sentSize[t].Add(uint64(size))
	tm := ms.of(t)
	tm.responses.Inc()
	tm.bytes.Add(float64(size))
}

func (m *metrics) encoded(t snapshot.Type, size int) {
	m.encodes[t].Add(1)
	m.encodedN.WithLabelValues(t.String()).Inc()
	m.encodedSize.WithLabelValues(t.String()).Add(float64(size))
}

func (ms *meters) answered(t snapshot.Type, result string) {
	if result == resultACK {
		ms.of(t).acks.Inc()
		return
	}
	ms.metrics.answers.WithLabelValues(ms.tenant, t.String(), result).Inc()
}

func (m *metrics) counts() Counts {
	c := Counts{Wakes: m.wakes.Load()}
	for t := range c.Sends {
		c.Encodes[t], c.Sends[t], c.Bytes[t] = m.encodes[t].Load(), m.sends[t].Load(), m.sentSize[t].Load()
	}
	return c
}

// streamGauge reports open streams when it is asked, so that a tenant without
// streams has no series.
type streamGauge struct {
	streams func() map[string]int
	desc    *prometheus.Desc
}

func (g *streamGauge) Describe(ch chan<- *prometheus.Desc) { ch <- g.desc }

func (g *streamGauge) Collect(ch chan<- prometheus.Metric) {
	for tenant, n := range g.streams() {
		ch <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, float64(n), tenant)
	}
}

// latency is a histogram for each type, from half a millisecond to half a minute.
type latency struct {
	vec   *prometheus.HistogramVec
	types [snapshot.NumTypes]prometheus.Observer
}

func newLatency(name, help string) *latency {
	l := &latency{vec: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "bailiwick", Subsystem: "xds", Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
	}, []string{"type"})}
	for t := range snapshot.NumTypes {
		l.types[t] = l.vec.WithLabelValues(t.String())
	}
	return l
}

// observe counts the time since an event; the zero event is none.
func (l *latency) observe(t snapshot.Type, event time.Time) {
	if !event.IsZero() {
		l.types[t].Observe(time.Since(event).Seconds())
	}
}
