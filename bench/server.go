package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"runtime/metrics"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/xds"
)

// ServerConfig says what a server serves.
type ServerConfig struct {
	// CA is the folder of the authority. Address is where to listen; port 0
	// takes a free one.
	CA, Address string
	Shape       shape
	// Dir, if set, is the directory to watch; else changes are applied by call.
	Dir string
	// Kubeconfig, if set, is of the API server to follow.
	Kubeconfig string
	// Quiet and Max are the debounce, 0 for the default.
	Quiet, Max time.Duration
	// Body, if set, serves one assignment of that many bytes to everybody.
	Body    int
	Profile string
}

// Started is where a server listens and how long it took until everything was
// loaded.
type Started struct {
	Address string
	Load    time.Duration
	// Objects is how many there are, Held the heap's bytes that source and model
	// keep for them.
	Objects int
	Held    uint64
}

// Server is the child with our server.
type Server struct {
	common
	config    ServerConfig
	publisher *snapshot.Publisher
	xds       *xds.Server
	one       *oneStore
	flooding  chan struct{} // closed to end a flood
	flooded   sync.WaitGroup
}

// Start loads the mesh and serves it.
func (s *Server) Start(config ServerConfig, started *Started) error {
	if err := s.Profile(config.Profile, nil); err != nil {
		return err
	}
	s.config = config
	authority, err := identity.LoadAuthority(config.CA)
	if err != nil {
		return err
	}
	source, err := issue(authority, "spiffe://"+trustDomain+serverPath)
	if err != nil {
		return err
	}
	store, err := s.load(authority, started)
	if err != nil {
		return err
	}
	s.xds, err = xds.NewServer(xds.Config{Store: store})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", config.Address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	started.Address = listener.Addr().String()
	go func() { // ends with the process
		_ = s.xds.Serve(context.Background(), listener, source, []string{trustDomain})
	}()
	return nil
}

// load makes the store and fills it.
func (s *Server) load(authority *identity.Authority, started *Started) (xds.Store, error) {
	if s.config.Body > 0 {
		var err error
		s.one, err = newOneStore(s.config.Body)
		return s.one, err
	}
	var err error
	s.publisher, err = snapshot.NewPublisher(snapshot.Config{
		Model: tenancy.NewModel(tenancy.Config{
			ClusterDomain: clusterDomain, TrustDomains: []string{trustDomain}, Limits: tenancy.DefaultLimits().Override(s.config.Shape.limits()),
		}),
		Builder: snapshot.NewBuilder(snapshot.BuilderConfig{ClusterDomain: clusterDomain}),
		Logger:  slog.New(slog.DiscardHandler), Quiet: s.config.Quiet, Max: s.config.Max,
	})
	if err != nil {
		return nil, err
	}
	go func() { _ = s.publisher.Run(context.Background()) }() // ends with the process
	bundle := event(tenancy.KindTrustBundle, "", trustDomain, &tenancy.TrustBundle{PEM: authority.Bundle()})
	s.publisher.Apply([]tenancy.Event{bundle})
	if s.config.Dir != "" || s.config.Kubeconfig != "" {
		return s.publisher, s.follow(started)
	}
	// In portions, as a source's first list comes.
	began := now()
	for t := range s.config.Shape.Tenants {
		events := s.config.Shape.tenantEvents(t)
		started.Objects += len(events)
		s.publisher.Apply(events)
	}
	s.publisher.Synced()
	<-s.publisher.Ready()
	started.Load = now().since(began)
	return s.publisher, nil
}

// Change is one change of the mesh.
type Change struct {
	// What is "endpoint" (the last one is ready or not), "add" or "remove" (a
	// service) or "policy" (there or not).
	What            string
	Tenant, Service int
	On              bool
}

// events are what a source would make of it.
func (s shape) change(c Change) []tenancy.Event {
	switch c.What {
	case "endpoint":
		return []tenancy.Event{s.sliceEvent(c.Tenant, c.Service, c.On)}
	case "add":
		return s.serviceEvents(c.Tenant, c.Service)
	case "policy":
		return []tenancy.Event{policyEvent(c.Tenant, c.On)}
	default:
		return s.removalEvents(c.Tenant, c.Service)
	}
}

// writeChange makes the same change in files.
func (s shape) writeChange(dir string, c Change) error {
	var err error
	switch c.What {
	case "endpoint":
		err = writeObject(sliceFile(dir, c.Tenant, c.Service), s.sliceText(c.Tenant, c.Service, c.On))
	case "add":
		text := s.serviceText(c.Tenant, c.Service) + "---\n" + s.sliceText(c.Tenant, c.Service, true)
		err = writeObject(serviceFile(dir, c.Tenant, c.Service), text)
	case "policy":
		err = writePolicy(dir, c.Tenant, c.On)
	default:
		err = removeObject(serviceFile(dir, c.Tenant, c.Service))
	}
	return err
}

// Apply makes a change and returns when it began to be handed in.
func (s *Server) Apply(c Change, at *Instant) error {
	events := s.config.Shape.change(c)
	*at = now()
	s.publisher.Apply(events)
	return nil
}

// Push changes the one assignment and returns when.
func (s *Server) Push(_ struct{}, at *Instant) error {
	next, err := s.one.next()
	if err != nil {
		return err
	}
	*at = now()
	s.one.publish(next)
	return nil
}

// Flooding says whose endpoint changes how often a second.
type Flooding struct{ Tenant, PerSecond int }

// Flood starts a flood.
func (s *Server) Flood(f Flooding, _ *struct{}) error {
	s.flooding = make(chan struct{})
	s.flooded.Go(func() { // ends with Calm
		tick := time.NewTicker(time.Second / time.Duration(f.PerSecond))
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-s.flooding:
				return
			case <-tick.C:
				s.publisher.Apply([]tenancy.Event{s.config.Shape.sliceEvent(f.Tenant, n/2%s.config.Shape.Services, n%2 == 1)})
			}
		}
	})
	return nil
}

// Calm ends the flood.
func (s *Server) Calm(struct{}, *struct{}) error {
	close(s.flooding)
	s.flooded.Wait()
	return nil
}

// Served are the server's sums.
type Served struct {
	Wakes, Builds, Publications uint64
	Streams                     int
	// Allocated bytes and the CPU of collections.
	Allocated  uint64
	Collecting time.Duration
}

// Counts are sums since the start.
func (s *Server) Counts(_ struct{}, out *Served) error {
	out.Wakes = s.xds.Counts().Wakes
	out.Streams = len(s.xds.Streams())
	if s.publisher != nil {
		for t := range snapshot.NumTypes {
			out.Builds += s.publisher.Stats().Builds(t)
		}
		out.Publications = s.publisher.Stats().Publications()
	}
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/cpu/classes/gc/total:cpu-seconds"}}
	metrics.Read(sample)
	out.Allocated = sample[0].Value.Uint64()
	out.Collecting = time.Duration(sample[1].Value.Float64() * float64(time.Second))
	return nil
}

// BuildAll opens a view of every tenant as its first proxy would, in order, and
// returns how long it took until the last one was built.
func (s *Server) BuildAll(_ struct{}, took *time.Duration) error {
	began := now()
	var g errgroup.Group
	attachments := make([]*snapshot.Attachment, s.config.Shape.Tenants)
	for t := range attachments {
		attachments[t] = s.publisher.Attach(snapshot.Proxy{Workload: workloadOf(t, 0), Pod: podName(0, 0)})
		g.Go(func() error {
			<-attachments[t].Wake()
			return nil
		})
	}
	err := g.Wait()
	*took = now().since(began)
	for _, a := range attachments {
		a.Close()
	}
	return err
}

// caDir is where a run's authority is.
func caDir(work string) string { return filepath.Join(work, "ca") }
