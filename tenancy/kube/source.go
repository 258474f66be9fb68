package kube

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/object"
)

// Config says which API server to follow, and how.
type Config struct {
	// REST reaches the API server. Required; it is not changed.
	REST *rest.Config
	// Options of decoding; Options.Source goes into all keys.
	Options object.Options
	// Logger is told of outages and, at debug level, what client-go says.
	// Required.
	Logger *slog.Logger
	// Registerer takes the metrics; nil for none.
	Registerer prometheus.Registerer
	// Tolerance is how long a kind may be out of reach before that is logged and
	// reported; default 2s. Watches end and begin again all the time.
	Tolerance time.Duration
	// Absence is how long a kind that only ever adds rights may not be served at
	// the start before it is taken to have no objects; default 30s.
	Absence time.Duration
	// Retry bounds the pause between two attempts to reach the API server;
	// default 5s.
	Retry time.Duration
}

// Sink is who absorbs what a Source finds. Its methods are called by goroutines of
// [Source.Run], one call at a time, and must not block: they hand over to a queue
// of their own and return.
type Sink interface {
	// Apply is given what changed since the last call; the first is given all
	// there is.
	Apply(events []tenancy.Event)
	// Report is given the state after the first load and whenever it differs from
	// the last report, at most once a second.
	Report(r Report)
	// Synced is called once, when every kind has been read completely: after the
	// Apply and Report of that. Before it nobody may be served.
	Synced()
}

// Report is the state of the source. It is never changed after it was handed out.
type Report struct {
	// Ready is whether Synced has been, or is about to be, called.
	Ready bool `json:"ready"`
	// Objects that are applied.
	Objects int `json:"objects"`
	// Errors are all there are now, by kind, namespace, name and field.
	Errors []*object.Error `json:"errors"`
	// Invalid are the same by object.
	Invalid map[tenancy.Ref]Fault `json:"-"`
	// Held are tenants whose Tenant object is in error and never was good: their
	// streams wait in silence, so that their proxies keep what they have.
	// HeldNamespaces are those whose Namespace object is.
	Held           []string `json:"held,omitempty"`
	HeldNamespaces []string `json:"heldNamespaces,omitempty"`
	// Stale are the kinds that cannot be followed now, by name.
	Stale []Stale `json:"stale,omitempty"`
}

// Fault is what is wrong with one object as it is written.
type Fault struct {
	// Generation is metadata.generation; 0 where the kind has none.
	Generation int64
	Errors     []object.FieldError
}

// Stale says that a kind cannot be followed.
type Stale struct {
	// Kind is its name as in YAML.
	Kind string `json:"kind"`
	// Since is when it was last known to be up to date; zero if it never was.
	Since time.Time `json:"since"`
	// Reason is what the API server, or the way to it, last said.
	Reason string `json:"reason"`
	// Unserved is set if the API server does not know the kind.
	Unserved bool `json:"unserved,omitempty"`
}

// Source follows one API server. [Source.Run] is called, once.
type Source struct {
	cfg     Config
	clients *clients
	kinds   []*kind

	// handing is held, before mu, while the sink is told something, so that it
	// hears of all in order. sink is set by Run.
	handing sync.Mutex
	sink    Sink

	// mu guards all below and the state of the kinds.
	mu sync.Mutex
	// queue are the changes that were not handed on yet, in order of the first of
	// each object; queued is where an object stands in it.
	queue  []tenancy.Event
	queued map[tenancy.Ref]int
	// unsaid is set when the report may differ from the last one.
	unsaid bool
	synced bool
	began  time.Time
}

// New returns a Source that has not read anything yet. The error is about the
// configuration; the API server is not asked.
func New(cfg Config) (*Source, error) {
	if cfg.REST == nil || cfg.Logger == nil {
		return nil, fmt.Errorf("Kubernetes source: a client configuration and a logger are required")
	}
	cfg.Tolerance = cmp.Or(cfg.Tolerance, 2*time.Second)
	cfg.Absence = cmp.Or(cfg.Absence, 30*time.Second)
	cfg.Retry = cmp.Or(cfg.Retry, 5*time.Second)
	s := &Source{cfg: cfg, queued: map[tenancy.Ref]int{}}
	clients, err := newClients(cfg.REST)
	if err != nil {
		return nil, err
	}
	s.clients = clients
	for _, info := range object.Kinds() {
		k, err := newKind(s, info, clients)
		if err != nil {
			return nil, err
		}
		s.kinds = append(s.kinds, k)
	}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(&collector{source: s}); err != nil {
			return nil, fmt.Errorf("Kubernetes source: register metrics: %w", err)
		}
	}
	return s, nil
}

// Run follows the API server until ctx is done, then returns nil. Nothing that
// happens to the API server ends it.
func (s *Source) Run(ctx context.Context, sink Sink) error {
	s.mu.Lock()
	s.began, s.sink = time.Now(), sink
	s.mu.Unlock()
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, k := range s.kinds {
		wg.Go(func() { k.follow(ctx) }) // ends with ctx
		if k.definition != "" {
			wg.Go(func() { k.settle(ctx) }) // ends with ctx
		}
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.watchStaleness()
			s.handing.Lock()
			s.hand()
			s.say()
			s.handing.Unlock()
		}
	}
}

// absorb notes something of a kind, holding mu, and hands on what follows: the
// goroutine that read a change of an object is the one that tells the sink.
func (s *Source) absorb(note func()) {
	s.handing.Lock()
	defer s.handing.Unlock()
	s.mu.Lock()
	note()
	s.mu.Unlock()
	s.hand()
}

// hand gives the sink what changed, once everything was read. Source.handing is
// held.
func (s *Source) hand() {
	s.mu.Lock()
	first := !s.synced && s.complete()
	s.synced = s.synced || first
	var events []tenancy.Event
	if s.synced {
		events, s.queue = s.queue, nil
		clear(s.queued)
	}
	s.mu.Unlock()
	if len(events) > 0 {
		s.sink.Apply(events)
	}
	if first {
		s.say()
		s.sink.Synced()
	}
}

// say gives the sink the report if it may differ from the last. Source.handing is
// held.
func (s *Source) say() {
	s.mu.Lock()
	if !s.unsaid {
		s.mu.Unlock()
		return
	}
	s.unsaid = false
	r := s.report()
	s.mu.Unlock()
	s.sink.Report(r)
}

// complete reports whether every kind was read. A kind that is not served is
// taken to be empty after a while if it can only add rights: grants and requests.
// Of the others nobody knows what they would refuse or whose a namespace is, so
// that serving without them could widen or take away.
func (s *Source) complete() bool {
	for _, k := range s.kinds {
		if !k.read && !(k.state.unserved && k.adds && time.Since(s.began) >= s.cfg.Absence) {
			return false
		}
	}
	return true
}

// enqueue notes a change.
func (s *Source) enqueue(ev tenancy.Event) {
	if i, ok := s.queued[ev.Ref]; ok {
		s.queue[i] = ev
		return
	}
	s.queued[ev.Ref] = len(s.queue)
	s.queue = append(s.queue, ev)
}
