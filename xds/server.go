package xds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/tenancy"
	askv1 "bailiwick.dev/bailiwick/xds/ask"
)

// Store is where streams get what they serve. Attach does not block; the
// attachment wakes its stream when there is something to read.
type Store interface {
	Attach(snapshot.Proxy) *snapshot.Attachment
}

// Config is what a Server needs. Store is required, the rest has defaults.
type Config struct {
	Store  Store
	Logger *slog.Logger
	// Registerer takes the metrics; nil keeps them unexposed.
	Registerer prometheus.Registerer
	// Observer is told what clients are sent and answer; nil for nobody.
	Observer Observer
	// Limits are those in force for a tenant; of the empty name, those of
	// identities without one. Nil gives everybody the defaults.
	Limits func(tenant string) tenancy.Limits
	// MaxUnacked is how many bytes per stream and type may be without an
	// answer before that type waits; 0 means 4 MiB.
	MaxUnacked int
	// MaxRequestBytes bounds any request; 0 means 16 MiB. A tenant's own limit
	// can only be lower.
	MaxRequestBytes int
	// SharedBytes bounds the encoded responses that are kept for other streams
	// to share; 0 means 256 MiB.
	SharedBytes int64
	// BindToPodIP refuses streams whose connection does not come from an address
	// of a Pod of their identity.
	BindToPodIP bool
	// Fresh returns a channel that is closed if what is served is up to date, or
	// else when it is again. Until then, clients that state what they have are left
	// as they are. Nil is always up to date.
	Fresh func() <-chan struct{}
	// Ask answers what tenants may ask (package ask), with service names that end
	// in ClusterDomain; nil answers nobody.
	Ask           askv1.Source
	ClusterDomain string
	// MaxStreams is how many streams the server takes in all; 0 is no bound.
	MaxStreams int
	// MaxStreamAge is how long a stream is served, give or take a tenth, before
	// its connection is closed, so that clients spread over servers anew; 0 is for
	// ever.
	MaxStreamAge time.Duration
	// Drain is the time over which Serve spreads the ends of streams when it has
	// to stop; 0 ends them at once. They are served until then.
	Drain time.Duration
	// StopGrace is how long Serve waits after that for streams to end; 0 means 2 s.
	StopGrace time.Duration
}

// Server serves one Store over ADS, in both flavours.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer

	store     Store
	log       *slog.Logger
	observer  Observer
	asked     *askv1.Server // nil for nobody
	gate      *gate
	metrics   *metrics
	memo      *memo
	names     *interner
	suspicion *suspicion
	// accepted are sets that clients have acknowledged (sotw), for those of them
	// that come back and refuse the next one.
	accepted   *lru.Cache[acceptedKey, []*snapshot.Resource]
	maxUnacked int
	maxRequest int
	stopGrace  time.Duration
	maxAge     time.Duration
	drain      time.Duration
	bindToPod  bool
	fresh      func() <-chan struct{}

	// works are what flushes work with, to be used again.
	works sync.Pool
	crew  *crew

	ids     atomic.Uint64
	mu      sync.Mutex
	stops   bool               // all streams have to end; guarded by mu
	streams map[uint64]*stream // guarded by mu
}

const (
	// sharedBatches bounds the number of responses kept for other streams.
	sharedBatches = 4096
	// acceptedSets bounds the number of sets kept for streams that come back.
	acceptedSets = 1024
)

// NewServer makes a Server. It starts nothing.
func NewServer(c Config) (*Server, error) {
	if c.Store == nil {
		return nil, errors.New("xds: a store is required")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	if c.Limits == nil {
		c.Limits = func(string) tenancy.Limits { return tenancy.DefaultLimits() }
	}
	s := &Server{
		store: c.Store, log: c.Logger, observer: c.Observer,
		gate: newGate(c.Limits, c.MaxStreams), names: newInterner(), suspicion: newSuspicion(),
		maxUnacked: orDefault(c.MaxUnacked, 4<<20),
		maxRequest: orDefault(c.MaxRequestBytes, tenancy.DefaultLimits().RequestBytes),
		stopGrace:  orDefault(c.StopGrace, 2*time.Second),
		maxAge:     c.MaxStreamAge, drain: c.Drain,
		bindToPod: c.BindToPodIP,
		crew:      newCrew(),
		streams:   map[uint64]*stream{},
		works:     sync.Pool{New: func() any { return new(work) }},
	}
	if s.fresh = c.Fresh; s.fresh == nil {
		s.fresh = always
	}
	if c.Ask != nil {
		config := askv1.Config{Source: c.Ask, ClusterDomain: c.ClusterDomain, Peer: asker}
		if c.BindToPodIP {
			config.From = addressOf
		}
		s.asked = askv1.NewServer(config)
	}
	var err error
	if s.memo, err = newMemo(sharedBatches, orDefault(c.SharedBytes, 256<<20)); err != nil {
		return nil, fmt.Errorf("make the memo of shared responses: %w", err)
	}
	if s.accepted, err = lru.New[acceptedKey, []*snapshot.Resource](acceptedSets); err != nil {
		return nil, fmt.Errorf("make the memory of accepted sets: %w", err)
	}
	if s.metrics, err = newMetrics(c.Registerer, s.gate.streams); err != nil {
		return nil, fmt.Errorf("register the metrics of xds: %w", err)
	}
	s.gate.over = s.metrics.over
	return s, nil
}

func orDefault[T int | int64 | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

// GRPC returns a gRPC server that authenticates every RPC with the connection's
// certificate and has ADS and what tenants may ask registered, nothing else. Use it with a listener
// that [Listener] has wrapped. Serve does both.
func (s *Server) GRPC(src identity.Source, trustDomains []string) *grpc.Server {
	allowed := slices.Clone(trustDomains)
	g := grpc.NewServer(append(Transport(),
		grpc.Creds(Credentials(identity.ServerTLS(src, allowed))),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.StreamInterceptor(s.streamInterceptor(allowed)),
		grpc.UnaryInterceptor(s.unaryInterceptor(allowed)),
		grpc.MaxRecvMsgSize(s.maxRequest),
		grpc.MaxConcurrentStreams(16),
		grpc.MaxHeaderListSize(64<<10),
		grpc.ConnectionTimeout(10*time.Second),
		grpc.WaitForHandlers(true),
	)...)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s)
	if s.asked != nil {
		askv1.RegisterAskServer(g, s.asked)
	}
	return g
}

// Serve serves ADS on lis until ctx ends, then takes no more, ends all streams
// with Unavailable, within Config.Drain, and returns nil. It closes lis. A Server serves once.
func (s *Server) Serve(ctx context.Context, lis net.Listener, src identity.Source, trustDomains []string) error {
	g := s.GRPC(src, trustDomains)
	served := make(chan error, 1)
	go func() { served <- g.Serve(Listener(lis)) }() // ends with g.Stop below
	select {
	case err := <-served:
		s.stop()
		g.Stop()
		return fmt.Errorf("serve xDS on %s: %w", lis.Addr(), err)
	case <-ctx.Done():
	}
	s.stop()
	ended := make(chan struct{})
	go func() { // ends when the streams have, or with g.Stop below
		g.GracefulStop()
		close(ended)
	}()
	grace := time.NewTimer(s.drain + s.stopGrace)
	defer grace.Stop()
	select {
	case <-ended:
	case <-grace.C:
		// Clients that do not read keep their streams in a write.
		g.Stop()
		<-ended
	}
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve xDS on %s: %w", lis.Addr(), err)
	}
	return nil
}

// stop lets all streams end, those to come as well.
func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stops = true
	for _, st := range s.streams {
		st.post(stopping)
	}
}

// Counts returns the sums so far.
func (s *Server) Counts() Counts { return s.metrics.counts() }

// Streams lists the open streams in the order of their opening, for the
// platform's dump.
func (s *Server) Streams() []StreamStatus {
	s.mu.Lock()
	open := slices.Collect(maps.Values(s.streams))
	s.mu.Unlock()
	out := make([]StreamStatus, 0, len(open))
	for _, st := range open {
		out = append(out, st.status.get())
	}
	slices.SortFunc(out, func(a, b StreamStatus) int { return int(a.ID) - int(b.ID) })
	return out
}

// DeltaAggregatedResources implements the incremental flavour of ADS.
func (s *Server) DeltaAggregatedResources(g discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return s.serve(g, delta)
}

// StreamAggregatedResources implements the state-of-the-world flavour of ADS.
func (s *Server) StreamAggregatedResources(g discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return s.serve(g, state)
}

// serve runs a stream for the peer that the interceptor has authenticated.
func (s *Server) serve(g grpc.ServerStream, mode protocol) error {
	st, err := s.accept(g, mode)
	if err != nil {
		return err
	}
	return s.serveStream(st)
}

// accept opens the stream of an RPC.
func (s *Server) accept(g grpc.ServerStream, mode protocol) (*stream, error) {
	ctx := g.Context()
	peer, ok := peerFrom(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "no verified identity")
	}
	var from netip.Addr
	if s.bindToPod {
		if from, ok = addressOf(ctx); !ok {
			return nil, errElsewhere
		}
	}
	return s.open(mode, peer, from, &grpcWire{g, mode})
}

// open makes a stream. It has its first turn when a request comes.
func (s *Server) open(mode protocol, peer identity.Peer, from netip.Addr, w wire) (*stream, error) {
	place, err := s.gate.wait(peer.Workload)
	if err != nil {
		return nil, err
	}
	id := s.ids.Add(1)
	st := &stream{
		srv: s, id: id, mode: mode, who: peer, from: from, wire: w, ticket: place, budget: &bucket{},
		log:     s.log.With("spiffe_id", peer.Workload.String(), "stream", id, "protocol", mode.String()),
		turns:   turns{done: make(chan struct{}, 1)},
		leaving: s.leaving(time.Now()),
		status:  &streamStatus{now: StreamStatus{ID: id, Workload: peer.Workload, Protocol: mode.String(), Opened: time.Now()}},
	}
	st.arm()
	st.log.Debug("stream opened")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams[id] = st
	if s.stops {
		st.post(stopping)
	}
	return st, nil
}

// serveStream runs a stream and forgets it.
func (s *Server) serveStream(st *stream) error {
	err := st.run()
	s.mu.Lock()
	delete(s.streams, st.id)
	s.mu.Unlock()
	st.close()
	st.log.Debug("stream ended", "err", err)
	return err
}

// closedInOrder turns the end of a client's requests into that of the stream.
func closedInOrder(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
