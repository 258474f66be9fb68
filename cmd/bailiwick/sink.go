package main

import (
	"context"
	"log/slog"
	"slices"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/file"
	"bailiwick.dev/bailiwick/tenancy/kube"
	"bailiwick.dev/bailiwick/tenancy/object"
)

// sink hands what the source says to the feed, and what is wrong with it to the
// log. The source calls it, one call at a time.
type sink struct {
	feed  *feed
	fresh *freshness
	log   *slog.Logger
	// told are the errors of the last report, so that each is said once, and
	// invalid those of single objects.
	told    map[string]struct{}
	invalid map[tenancy.Ref]kube.Fault
}

func newSink(f *feed, fresh *freshness, log *slog.Logger) *sink {
	return &sink{feed: f, fresh: fresh, log: log, told: map[string]struct{}{}}
}

// Apply implements file.Sink and kube.Sink.
func (s *sink) Apply(events []tenancy.Event) { s.feed.Apply(events) }

// Synced implements file.Sink and kube.Sink.
func (s *sink) Synced() { s.feed.Synced() }

// report absorbs what the reports of all sources have: who waits, and what is
// wrong.
func (s *sink) report(held, namespaces []string, errors []*object.Error, invalid map[tenancy.Ref]kube.Fault) {
	s.feed.publisher.Hold(held, namespaces)
	s.faults(invalid)
	now := make(map[string]struct{}, len(errors))
	for _, e := range errors {
		text := e.Error()
		now[text] = struct{}{}
		if _, known := s.told[text]; !known {
			s.log.Error("object or file is not honoured as written; what was good before stays", "err", text)
		}
	}
	if len(s.told) > 0 && len(now) == 0 {
		s.log.Info("all objects and files are read again without an error")
	}
	s.told = now
}

// faults tells of the objects whose errors differ from those of the last report.
func (s *sink) faults(now map[tenancy.Ref]kube.Fault) {
	for ref := range s.invalid {
		if len(now[ref].Errors) == 0 {
			s.feed.Errors(ref, 0, nil)
		}
	}
	for ref, fault := range now {
		if was := s.invalid[ref]; fault.Generation != was.Generation || !slices.Equal(fault.Errors, was.Errors) {
			s.feed.Errors(ref, fault.Generation, fault.Errors)
		}
	}
	s.invalid = now
}

// directorySink is a sink for files.
type directorySink struct{ *sink }

// Report implements file.Sink.
func (s *directorySink) Report(r file.Report) {
	invalid := make(map[tenancy.Ref]kube.Fault, len(r.Invalid))
	for ref, errs := range r.Invalid {
		invalid[ref] = kube.Fault{Errors: errs}
	}
	s.report(r.Held, r.HeldNamespaces, r.Errors, invalid)
	level := slog.LevelInfo
	if !r.Ready {
		level = slog.LevelError
	}
	s.log.Log(context.Background(), level, "directory read", "ready", r.Ready, "files", r.Files, "objects", r.Objects, "errors", len(r.Errors), "waiting_tenants", len(r.Held))
}

// clusterSink is a sink for an API server, whose outages the source logs itself.
type clusterSink struct{ *sink }

// Report implements kube.Sink.
func (s *clusterSink) Report(r kube.Report) {
	s.report(r.Held, r.HeldNamespaces, r.Errors, r.Invalid)
	stale := slices.ContainsFunc(r.Stale, func(k kube.Stale) bool {
		// What was never read has nothing to be revoked, and what the API server does
		// not serve nobody can have changed.
		return !k.Since.IsZero() && !k.Unserved
	})
	s.fresh.set(stale)
	s.feed.publisher.SetStale(stale)
	s.log.Debug("objects of the API server", "ready", r.Ready, "objects", r.Objects, "errors", len(r.Errors), "waiting_tenants", len(r.Held), "stale_kinds", len(r.Stale))
}
