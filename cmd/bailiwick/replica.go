package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"

	"bailiwick.dev/bailiwick/tenancy/condition"
	"bailiwick.dev/bailiwick/tenancy/guard"
	"bailiwick.dev/bailiwick/tenancy/kube/status"
)

// leaseName is the Lease of whoever writes the status of objects.
const leaseName = "bailiwick"

// statusSettle is how old a change has to be before a status speaks of it, so
// that what the source finds wrong with it, which it tells at most once a second,
// is known.
const statusSettle = 1500 * time.Millisecond

// replicaFlags say which of several servers this one is.
type replicaFlags struct {
	replica      string
	namespace    string
	maxStreams   int
	maxStreamAge time.Duration
	drain        time.Duration
}

func (r *replicaFlags) add(f *pflag.FlagSet) {
	f.StringVar(&r.replica, "replica", os.Getenv("POD_NAME"), "`NAME` of this server among its replicas (default: $POD_NAME, or the host's name)")
	f.StringVar(&r.namespace, "system-namespace", os.Getenv("POD_NAMESPACE"), "`NAMESPACE` of the replicas' reports and Lease (default: $POD_NAMESPACE); without one the status of objects is not written")
	f.IntVar(&r.maxStreams, "max-streams", 0, "`NUMBER` of streams that this server takes, so that proxies go to its replicas; 0 is no bound")
	f.DurationVar(&r.maxStreamAge, "max-stream-age", time.Hour, "how long a proxy is served, give or take a tenth, before it has to connect anew and may find another replica; 0 is for ever")
	f.DurationVar(&r.drain, "drain", 10*time.Second, "over what time proxies are sent away when the server is told to end (SIGTERM)")
}

func (r *replicaFlags) check() error {
	if r.maxStreams < 0 || r.maxStreamAge < 0 || r.drain < 0 {
		return usagef("--max-streams %d, --max-stream-age %v, --drain %v: want none below 0", r.maxStreams, r.maxStreamAge, r.drain)
	}
	return nil
}

// board is where the conditions of objects are worked out.
func (c *serveConfig) board() *condition.Board {
	if c.configDir != "" {
		return condition.NewBoard(time.Now, 0)
	}
	return condition.NewBoard(time.Now, statusSettle)
}

// keep makes what stands between the source and the publisher, and what keeps
// the conditions of objects.
func (s *server) keep(board *condition.Board) error {
	s.feed = &feed{board: board, publisher: s.publisher}
	var err error
	s.feed.guard, err = guard.New(guard.Config{Next: s.feed.absorb, Share: s.config.maxRemoval, Logger: s.log, Registerer: s.registry})
	if err != nil {
		return fmt.Errorf("make the guard of removals: %w", err)
	}
	replica := s.config.replica
	if replica == "" {
		if replica, err = os.Hostname(); err != nil {
			return fmt.Errorf("find the host's name (give --replica NAME): %w", err)
		}
	}
	s.keeper = &keeper{replica: replica, board: board, publisher: s.publisher, streams: s.xds.Streams, guard: s.feed.guard, log: s.log}
	if s.config.configDir != "" {
		return nil
	}
	if s.config.namespace == "" {
		s.log.Warn("the status of objects is not written: give --system-namespace NAMESPACE")
		return nil
	}
	config, err := s.config.rest()
	if err != nil {
		return err
	}
	s.fleet, err = status.New(status.Config{
		REST: config, Namespace: s.config.namespace, Replica: replica, Lease: leaseName, Logger: s.log,
	})
	if err != nil {
		return err
	}
	s.keeper.fleet = s.fleet
	return s.makeSteward()
}
