package main

import (
	"context"
	"log/slog"

	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/file"
)

// sink hands what the directory says to the publisher, and what is wrong with
// it to the log. One goroutine, that of the source, calls it.
type sink struct {
	publisher *snapshot.Publisher
	log       *slog.Logger
	// told are the errors of the last report, so that each is said once.
	told map[string]struct{}
}

func newSink(p *snapshot.Publisher, log *slog.Logger) *sink {
	return &sink{publisher: p, log: log, told: map[string]struct{}{}}
}

// Apply implements file.Sink.
func (s *sink) Apply(events []tenancy.Event) { s.publisher.Apply(events) }

// Synced implements file.Sink.
func (s *sink) Synced() { s.publisher.Synced() }

// Report implements file.Sink.
func (s *sink) Report(r file.Report) {
	s.publisher.Hold(r.Held, r.HeldNamespaces)
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
