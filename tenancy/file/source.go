package file

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/object"
)

// Config says which directory to read, and how.
type Config struct {
	// Dir is the directory that holds platform/ and tenants/. Required.
	Dir string
	// Options of decoding; Options.Source goes into all keys.
	Options object.Options
	// Logger is told when the directory cannot be watched; errors of what is in
	// it are in the reports. Required.
	Logger *slog.Logger
	// Settle is how long the directory has to be quiet after a change before it
	// is read, at most ten times as long in all; default 10ms.
	Settle time.Duration
	// Patience is how long a file that was good and is now empty or cannot be
	// parsed is taken for half-written, counted from its modification;
	// default 1s.
	Patience time.Duration
	// Recheck is how often all of the directory is compared, for what was not
	// noticed, as on file systems that do not notify; default 10s.
	Recheck time.Duration
}

// Sink is who absorbs what a Source finds. Its methods are called by one
// goroutine, that of [Source.Run], and must not block: they hand over to a
// queue of their own and return.
type Sink interface {
	// Apply is given the events of one change of the directory, those of the
	// first load being one change. They belong together: apply all, then build.
	Apply(events []tenancy.Event)
	// Report is given the state of the directory after the first load and
	// whenever it differs from the last report, after the Apply that goes with
	// it.
	Report(r Report)
	// Synced is called once, when the directory has been loaded completely:
	// after the Apply and Report of that load. Before it nobody may be served.
	Synced()
}

// Report is the state of the directory. It is never changed after it was
// handed out.
type Report struct {
	// Ready is whether Synced has been, or is about to be, called.
	Ready bool `json:"ready"`
	// Files that were read, and Objects that are applied.
	Files   int `json:"files"`
	Objects int `json:"objects"`
	// Errors are all there are now, by path, document and line.
	Errors []*object.Error `json:"errors"`
	// Invalid are the errors of each object by itself, as the claim that counts is
	// written; whoever else claims the object adds nothing to them.
	Invalid map[tenancy.Ref][]object.FieldError `json:"-"`
	// Held are tenants of which something cannot be read and never could since
	// the start: a file of their folder, or their Tenant object. Their streams
	// wait in silence, so that their proxies keep what they have.
	Held []string `json:"held,omitempty"`
	// HeldNamespaces are namespaces whose Namespace object is in error and has
	// been since the start: whose they are is not known, so their streams wait
	// as well.
	HeldNamespaces []string `json:"heldNamespaces,omitempty"`
}

// Source reads one directory. [Source.Load] or [Source.Run] is called, once.
// Locate may be called at any time by any goroutine.
type Source struct {
	cfg Config
	// mu guards store, which Run changes and Locate reads.
	mu    sync.Mutex
	store *store
	// confirm takes who waits for a pass that takes what is gone for gone.
	confirm chan chan struct{}
}

// New returns a Source that has not read anything yet.
func New(cfg Config) (*Source, error) {
	if cfg.Dir == "" || cfg.Logger == nil {
		return nil, fmt.Errorf("file source: a directory and a logger are required")
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("file source: find %s: %w", cfg.Dir, err)
	}
	cfg.Settle = cmp.Or(cfg.Settle, 10*time.Millisecond)
	cfg.Patience = cmp.Or(cfg.Patience, time.Second)
	cfg.Recheck = cmp.Or(cfg.Recheck, 10*time.Second)
	return &Source{cfg: cfg, store: newStore(cfg, dir), confirm: make(chan chan struct{})}, nil
}

// Load reads the directory once and returns the events of all its objects and
// the state that Run would report first.
func (s *Source) Load() ([]tenancy.Event, Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	events, _ := s.store.pass(s.store.scan(nil), nil)
	return events, s.store.report()
}

// Place is where an object stands.
type Place struct {
	// File is the path below the configured directory joined to it; Document
	// and Line count from 1.
	File           string
	Document, Line int
}

// Locate says where the object stands that is applied as ref.
func (s *Source) Locate(ref tenancy.Ref) (Place, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.locate(ref)
}

// Confirm says that what has vanished from the directory is meant to be gone, and
// waits until Run has read it so and told its sink; or until ctx ends.
func (s *Source) Confirm(ctx context.Context) error {
	read := make(chan struct{})
	select {
	case s.confirm <- read:
	case <-ctx.Done():
		return fmt.Errorf("file source: wait to read %s: %w", s.cfg.Dir, ctx.Err())
	}
	select {
	case <-read:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("file source: wait until %s is read: %w", s.cfg.Dir, ctx.Err())
	}
}
