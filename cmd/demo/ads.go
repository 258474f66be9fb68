package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/xds/adsclient"
)

// viewers ask the server what each actor may know, as its Envoy would.
type viewers struct {
	out     *printer
	s       *stage
	w       *world
	clients map[string]*adsclient.Client
	wrong   int
}

// playWithoutEnvoy shows who sees what where no Envoy can be run. Calls need
// Envoys, and are not shown.
func playWithoutEnvoy(ctx context.Context, o *options, out *printer, s *stage, w *world, why string) error {
	out.line("")
	out.line("Without Envoy: %s.", why)
	out.line("What each workload is given is shown all the same, through a client that")
	out.line("speaks Envoy's protocol with the workload's certificate. Calls need an Envoy.")
	v := &viewers{out: out, s: s, w: w, clients: map[string]*adsclient.Client{}}
	defer v.close()
	if err := v.connect(ctx); err != nil {
		return err
	}
	if err := v.sights(ctx, o.patience); err != nil {
		return err
	}
	out.heading("Changes on disk", "time from the write to its arrival at the client")
	for _, choose := range []func(directory, *world) (*change, error){chooseRequest, chooseGrant} {
		c, err := choose(s.config, v.w)
		if err != nil {
			return err
		}
		if c == nil {
			continue // the directory has nothing of the kind
		}
		if err := v.change(ctx, o.patience, c); err != nil {
			return err
		}
	}
	return v.end(ctx, o)
}

func (v *viewers) connect(ctx context.Context) error {
	for _, a := range v.w.actors {
		client, err := mesh.DialADS(ctx, v.s.proxy("", a))
		if err != nil {
			return err
		}
		v.clients[a.name()] = client
		if err := client.Wildcard(mesh.ClusterType); err != nil {
			return fmt.Errorf("ask for the clusters of %s: %w", a.name(), err)
		}
	}
	return nil
}

func (v *viewers) close() {
	for _, c := range v.clients {
		_ = c.Close() // the server is told by the end of the connection
	}
}

// seen are the names that the clients have now.
func (v *viewers) seen() map[string][]string {
	seen := map[string][]string{}
	for name, client := range v.clients {
		seen[name] = v.w.namesOf(client.Names(mesh.ClusterType))
	}
	return seen
}

// settled is seen, once everybody has what the model says, or after patience.
func (v *viewers) settled(ctx context.Context, patience time.Duration) (map[string][]string, error) {
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, a := range v.w.actors {
		want := v.w.visible(a)
		err := v.clients[a.name()].Wait(wait, func(view adsclient.View) bool {
			return slices.Equal(v.w.namesOf(view.Names(mesh.ClusterType)), want)
		})
		switch {
		case err == nil:
		case wait.Err() == nil:
			return nil, fmt.Errorf("the stream of %s: %w", a.name(), err)
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
	}
	return v.seen(), nil
}

func (v *viewers) sights(ctx context.Context, patience time.Duration) error {
	v.out.heading("Who sees what", "from each workload's own stream of the server")
	seen, err := v.settled(ctx, patience)
	if err != nil {
		return err
	}
	v.wrong += showSights(v.out, v.w, seen)
	return nil
}

// change does the change and waits until the actor whom it is for has heard.
func (v *viewers) change(ctx context.Context, patience time.Duration, c *change) error {
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	before := v.seen()
	start := time.Now()
	if err := c.do(); err != nil {
		return err
	}
	err := v.clients[c.from.name()].Wait(wait, func(view adsclient.View) bool {
		return slices.Contains(view.Names(mesh.ClusterType), c.to.host()) == (c.after != invisible)
	})
	if err != nil {
		return fmt.Errorf("%s has not heard of the change: %w", c.from.name(), err)
	}
	showTook(v.out, time.Since(start), c)
	if v.w, err = v.s.config.world(); err != nil {
		return err
	}
	seen, err := v.settled(ctx, patience)
	if err != nil {
		return err
	}
	v.difference("            ", before, seen)
	if !maps.EqualFunc(seen, v.expected(), slices.Equal) {
		v.wrong += showSights(v.out, v.w, seen)
	}
	return nil
}

// expected are the names that the model says.
func (v *viewers) expected() map[string][]string {
	want := map[string][]string{}
	for _, a := range v.w.actors {
		want[a.name()] = v.w.visible(a)
	}
	return want
}

// difference prints what came and went.
func (v *viewers) difference(prefix string, before, after map[string][]string) {
	for _, name := range slices.Sorted(maps.Keys(after)) {
		for _, service := range after[name] {
			if !slices.Contains(before[name], service) {
				v.out.line("%s%s: sees %s", prefix, name, service)
			}
		}
		for _, service := range before[name] {
			if !slices.Contains(after[name], service) {
				v.out.line("%s%s: no longer sees %s", prefix, name, service)
			}
		}
	}
}

// end judges, and unless the demo is to end by itself goes on showing.
func (v *viewers) end(ctx context.Context, o *options) error {
	err := judge(v.out, v.wrong)
	if o.once {
		return err
	}
	v.out.line("")
	v.out.line("Edit the files below %s:", v.s.config.root)
	v.out.line("what changes for a workload is shown here. Ctrl-C ends the demo.")
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for before := v.seen(); ; {
		select {
		case <-ctx.Done():
			v.out.line("")
			v.out.line("Stopped.")
			return err
		case <-tick.C:
		}
		if next, err := v.s.config.world(); err == nil {
			v.w = next // else the server goes by what it last read, too
		}
		after := v.seen()
		v.difference("  "+time.Now().Format(time.TimeOnly)+"  ", before, after)
		before = after
	}
}

// showTook prints a change and how long it took to arrive.
func showTook(out *printer, took time.Duration, c *change) {
	what := strings.ReplaceAll(c.what, "\n", "\n            ")
	out.line("  %s  %s", out.paint(bold, fmt.Sprintf("%5d ms", took.Milliseconds())), what)
}

// judge prints whether all was as the policies say.
func judge(out *printer, wrong int) error {
	out.line("")
	if wrong > 0 {
		out.line("%s: %d results were not as the policies say.", out.paint(bad, "WRONG"), wrong)
		return errDiffers
	}
	out.line("%s: every result was as the policies say.", out.paint(good, "OK"))
	return nil
}
