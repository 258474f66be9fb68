package main

import (
	"context"
	"log/slog"
	"slices"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/file"
	"bailiwick.dev/bailiwick/tenancy/object"
)

// sink hands what the directory says to the publisher, and what is wrong with
// it to the log. One goroutine, that of the source, calls it.
type sink struct {
	feed *feed
	log  *slog.Logger
	// told are the errors of the last report, so that each is said once, and
	// invalid those of single objects.
	told    map[string]struct{}
	invalid map[tenancy.Ref][]object.FieldError
}

func newSink(f *feed, log *slog.Logger) *sink {
	return &sink{feed: f, log: log, told: map[string]struct{}{}}
}

// Apply implements file.Sink.
func (s *sink) Apply(events []tenancy.Event) { s.feed.Apply(events) }

// Synced implements file.Sink.
func (s *sink) Synced() { s.feed.Synced() }

// Report implements file.Sink.
func (s *sink) Report(r file.Report) {
	s.feed.publisher.Hold(r.Held, r.HeldNamespaces)
	s.faults(r.Invalid)
	now := make(map[string]struct{}, len(r.Errors))
	for _, e := range r.Errors {
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
	level := slog.LevelInfo
	if !r.Ready {
		level = slog.LevelError
	}
	s.log.Log(context.Background(), level, "directory read", "ready", r.Ready, "files", r.Files, "objects", r.Objects, "errors", len(r.Errors), "waiting_tenants", len(r.Held))
}

// faults tells of the objects whose errors differ from those of the last report.
func (s *sink) faults(now map[tenancy.Ref][]object.FieldError) {
	for ref := range s.invalid {
		if len(now[ref]) == 0 {
			s.feed.Errors(ref, 0, nil)
		}
	}
	for ref, errs := range now {
		if !slices.Equal(errs, s.invalid[ref]) {
			s.feed.Errors(ref, 0, errs)
		}
	}
	s.invalid = now
}
