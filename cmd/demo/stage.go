package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/tenancy"
)

// stage is everything that runs.
type stage struct {
	dir    string
	config directory
	ca     *mesh.CA
	server *mesh.Server
	// envoys by actor, empty without an Envoy.
	envoys map[string]*mesh.Envoy
}

// setStage makes the working directory, the authorities and the server, and
// waits until that is ready. What it starts ends with ctx; call close then.
func setStage(ctx context.Context, o *options) (*stage, *world, error) {
	dir, err := os.MkdirTemp("", "bailiwick-demo-")
	if err != nil {
		return nil, nil, fmt.Errorf("make a working directory: %w", err)
	}
	s := &stage{dir: dir, envoys: map[string]*mesh.Envoy{}}
	w, err := s.start(ctx, o)
	if err != nil {
		s.close(o.keep)
		return nil, nil, err
	}
	return s, w, nil
}

func (s *stage) start(ctx context.Context, o *options) (*world, error) {
	binary, err := filepath.Abs(o.bailiwick)
	if err != nil {
		return nil, err
	}
	if s.config, err = copyDirectory(o.dir, filepath.Join(s.dir, "config")); err != nil {
		return nil, err
	}
	w, err := s.config.world()
	if err != nil {
		return nil, err
	}
	if len(w.actors) == 0 {
		return nil, fmt.Errorf("%s has no Pod of a tenant", o.dir)
	}
	if s.ca, err = mesh.NewCA(filepath.Join(s.dir, "ca"), serverFirst(trustDomains(w.events))...); err != nil {
		return nil, err
	}
	s.server, err = mesh.StartServer(ctx, mesh.ServerConfig{
		Binary: binary, Dir: filepath.Join(s.dir, "server"), ConfigDir: s.config.root, CA: s.ca,
	})
	if err != nil {
		return nil, err
	}
	wait, cancel := context.WithTimeout(ctx, o.patience)
	defer cancel()
	return w, s.server.WaitReady(wait)
}

// serverFirst moves the domain of the platform, where there is one, to the
// front: the server is the platform's.
func serverFirst(domains []string) []string {
	slices.SortStableFunc(domains, func(a, b string) int {
		return strings.Compare(platformRank(a), platformRank(b))
	})
	return domains
}

func platformRank(td string) string {
	if strings.HasPrefix(td, "platform") {
		return ""
	}
	return td
}

// startActors starts an application and an Envoy per actor and waits until all
// of them have their configuration.
func (s *stage) startActors(ctx context.Context, o *options, w *world) error {
	if err := mesh.Usable(ctx, w.actors[0].at.Pod); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, o.patience)
	defer cancel()
	group := new(errgroup.Group)
	group.SetLimit(2) // the start of an Envoy is work for one core
	for _, a := range w.actors {
		if err := startApplication(ctx, a); err != nil {
			return err
		}
		envoy, err := mesh.StartEnvoy(ctx, s.proxy(o.envoy, a))
		if err != nil {
			return err
		}
		s.envoys[a.name()] = envoy
		group.Go(func() error { return envoy.WaitLive(wait) })
	}
	return group.Wait()
}

// proxy is how the Envoy of an actor is run.
func (s *stage) proxy(binary string, a actor) mesh.EnvoyConfig {
	return mesh.EnvoyConfig{
		Binary: binary, Dir: filepath.Join(s.dir, "envoy", a.pod.Namespace+"."+a.pod.Name),
		Pod: a.pod.Name, Workload: a.workload, At: a.at, CA: s.ca,
		XDS: []netip.AddrPort{s.server.XDS}, ServerID: s.server.ID,
	}
}

// startApplication listens on each port on which services reach the actor,
// until ctx ends.
func startApplication(ctx context.Context, a actor) error {
	for port, protocol := range a.ports {
		addr := netip.AddrPortFrom(a.at.App, port)
		var err error
		switch {
		case protocol.IsHTTP():
			_, err = mesh.StartEcho(ctx, a.name(), addr)
		case protocol == tenancy.ServerFirst:
			_, err = mesh.StartTCPEcho(ctx, "hello from "+a.name()+"\n", addr)
		default:
			_, err = mesh.StartTCPEcho(ctx, "", addr)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// close waits until every process has ended, and removes the working directory.
func (s *stage) close(keep bool) {
	group := new(errgroup.Group)
	for _, e := range s.envoys {
		group.Go(func() error { e.Stop(); return nil })
	}
	_ = group.Wait() // stops return nothing
	if s.server != nil {
		s.server.Stop()
	}
	if !keep {
		// What is left in the temporary directory is the system's to remove.
		_ = os.RemoveAll(s.dir)
	}
}
