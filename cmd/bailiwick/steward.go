package main

import (
	"context"
	"time"

	"bailiwick.dev/bailiwick/tenancy/kube/steward"
)

// stewardEvery is how often it is looked whether finalizers and admission
// policies are as they have to be.
const stewardEvery = 10 * time.Second

// makeSteward makes what looks after Tenants in the API server.
func (s *server) makeSteward() error {
	config, err := s.config.rest()
	if err != nil {
		return err
	}
	s.steward, err = steward.New(steward.Config{REST: config, Logger: s.log, Registerer: s.registry, Ledger: s.ledger})
	return err
}

// runSteward looks after Tenants until ctx ends, which is no error.
func (s *server) runSteward(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	failing := "" // what was said last, so that it is said once
	var last time.Time
	var term uint64
	for {
		// Whoever begins to lead looks at once, and what is to be remembered is
		// written soon.
		for !last.IsZero() && s.fleet.Term() == term && time.Since(last) < stewardEvery && !s.ledger.News() {
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			}
		}
		last, term = time.Now(), s.fleet.Term()
		err := s.steward.Pass(ctx, term != 0)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			failing = ""
		case err.Error() != failing:
			s.log.Warn("Tenants in the API server are not looked after", "err", err)
			failing = err.Error()
		}
	}
}
