package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
)

// play is the whole demo. It returns errDiffers when something was not as the
// policies say.
func play(ctx context.Context, o *options, out *printer) error {
	s, w, err := setStage(ctx, o)
	if err != nil {
		return err
	}
	defer func() { s.close(o.keep) }()
	out.line("%s: %s", out.paint(bold, "Bailiwick"), w.counts())
	out.line("Everything runs on this machine. Objects, certificates and logs are in")
	out.line("  %s", s.dir)

	if why := noEnvoy(ctx, o, w); why != "" {
		return playWithoutEnvoy(ctx, o, out, s, w, why)
	}
	begin := time.Now()
	if err := s.startActors(ctx, o, w); err != nil {
		return err
	}
	version, err := s.envoys[w.actors[0].name()].Version(ctx)
	if err != nil {
		return err
	}
	out.line("One server and %d Envoys (%s) are running, ready after %.1f s.", len(s.envoys), version, time.Since(begin).Seconds())

	show := &show{o: o, out: out, s: s, w: w, prober: newProber(w, s.ca)}
	defer show.prober.close()
	for _, act := range []func(context.Context) error{show.sights, show.calls, show.walls, show.changes} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return show.end(ctx)
}

// noEnvoy says why Envoys cannot be run, or nothing.
func noEnvoy(ctx context.Context, o *options, w *world) string {
	if o.envoy == "" {
		return "no Envoy is given (ENVOY=/path/to/envoy)"
	}
	if info, err := os.Stat(o.envoy); err != nil || info.Mode()&0o111 == 0 {
		return "there is no Envoy at " + o.envoy
	}
	if err := mesh.Usable(ctx, w.actors[0].at.Pod); err != nil {
		return err.Error()
	}
	return ""
}

// show is the part of the demo with Envoys.
type show struct {
	o      *options
	out    *printer
	s      *stage
	w      *world
	prober *prober
	// rows are the cells as they were last.
	rows [][]cell
	// wrong counts what was not as the policies say.
	wrong int
}

// sights prints what each Envoy knows.
func (s *show) sights(ctx context.Context) error {
	s.out.heading("Who sees what", "from the configuration dump of each Envoy")
	seen := map[string][]string{}
	for name, envoy := range s.s.envoys {
		dump, err := envoy.ConfigDump(ctx)
		if err != nil {
			return err
		}
		seen[name] = s.w.namesOf(dump.Clusters)
	}
	s.wrong += showSights(s.out, s.w, seen)
	return nil
}

// calls prints who may call whom.
func (s *show) calls(ctx context.Context) error {
	s.out.heading("Who may call whom", "real requests, each through the caller's own Envoy")
	wait, cancel := context.WithTimeout(ctx, s.o.patience)
	defer cancel()
	rows, err := s.prober.settled(wait, s.w)
	if err != nil {
		return err
	}
	s.rows = rows
	s.wrong += showMatrix(s.out, s.w, rows)
	return ctx.Err()
}

// walls calls what is not visible past the caller's Envoy: there the
// destination alone refuses.
func (s *show) walls(ctx context.Context) error {
	tried, passed := 0, []string{}
	for _, row := range s.rows {
		for _, c := range row {
			if c.want != invisible {
				continue
			}
			got, err := s.prober.direct(ctx, c)
			if err != nil {
				return err
			}
			tried++
			if want := s.w.admits(c.from, c.to); got != want {
				passed = append(passed, fmt.Sprintf("%s -> %s: %s, by the policies %s", c.from.name(), c.to.name(), got, want))
			}
		}
	}
	s.out.line("")
	s.out.line("  Past their own Envoys, with their own certificates, %d calls to what is not visible:", tried)
	if len(passed) == 0 {
		s.out.line("  %s by the Envoy at the destination.", s.out.paint(good, "all refused"))
	}
	for _, p := range passed {
		s.out.line("  %s %s", s.out.paint(bad, "!"), p)
	}
	s.wrong += len(passed)
	return nil
}

// changes does what the directory offers to do, one thing after the other.
func (s *show) changes(ctx context.Context) error {
	s.out.heading("Changes on disk", "time from the write to the first request that behaves differently")
	for _, choose := range []func(directory, *world) (*change, error){chooseRequest, choosePolicy, chooseGrant} {
		c, err := choose(s.s.config, s.w)
		if err != nil {
			return err
		}
		if c == nil {
			continue // the directory has nothing of the kind
		}
		if err := s.change(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func (s *show) change(ctx context.Context, c *change) error {
	wait, cancel := context.WithTimeout(ctx, s.o.patience)
	defer cancel()
	took, err := c.apply(wait, s.prober, s.w)
	if err != nil {
		return err
	}
	showTook(s.out, took, c)
	next, err := s.s.config.world()
	if err != nil {
		return err
	}
	rows, err := s.prober.settled(wait, next)
	if err != nil {
		return err
	}
	showDifference(s.out, s.rows, rows)
	if n := differing(rows); n > 0 {
		s.out.line("")
		s.wrong += showMatrix(s.out, next, rows)
	}
	s.w, s.rows = next, rows
	return ctx.Err()
}

// end judges, and unless the demo is to end by itself goes on calling and
// printing what changes.
func (s *show) end(ctx context.Context) error {
	err := judge(s.out, s.wrong)
	if !s.o.once {
		s.follow(ctx)
	}
	return err
}

// follow calls everybody once a second and prints what changed, until ctx ends.
func (s *show) follow(ctx context.Context) {
	s.out.line("")
	s.out.line("Edit the files below %s: calls go on,", s.s.config.root)
	s.out.line("and what changes is shown here. For instance remove a grant. Ctrl-C ends the demo.")
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	lastError := ""
	for {
		select {
		case <-ctx.Done():
			s.out.line("")
			s.out.line("Stopped.")
			return
		case <-tick.C:
		}
		next, err := s.s.config.world()
		if err != nil {
			if lastError != err.Error() {
				lastError = err.Error()
				s.out.line("  the directory cannot be read; what it last said holds: %s", strings.TrimSpace(lastError))
			}
			continue
		}
		lastError = ""
		s.followOnce(ctx, next)
	}
}

// followOnce shows what changed since the last look. Pods that came later have
// no Envoy here and are left out.
func (s *show) followOnce(ctx context.Context, next *world) {
	next.actors = s.running(next)
	rows, err := s.prober.matrix(ctx, next)
	if err != nil {
		return // only when ctx ended
	}
	known := map[string]verdict{}
	for _, row := range s.rows {
		for _, c := range row {
			known[c.from.name()+" -> "+c.to.name()] = c.got
		}
	}
	for _, row := range rows {
		for _, c := range row {
			pair := c.from.name() + " -> " + c.to.name()
			if was := known[pair]; was != c.got {
				s.out.line("  %s  %s: %s, was %s", time.Now().Format(time.TimeOnly), pair, c.got, was)
			}
		}
	}
	s.w, s.rows = next, rows
}

func (s *show) running(w *world) []actor {
	var here []actor
	for _, a := range w.actors {
		if s.s.envoys[a.name()] != nil {
			here = append(here, a)
		}
	}
	return here
}
