package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/xds"
)

// StockConfig says which of the servers that ours is compared with.
type StockConfig struct {
	CA string
	// Kind is "snapshot" or "linear", go-control-plane's caches behind its own
	// server; "bare", which is gRPC and nothing above it; "raw", which writes bytes
	// to TLS connections and reads what comes back, or "greet", which writes to new
	// ones.
	Kind string
	// Body is the size of the one assignment.
	Body    int
	Profile string
}

// Stock is the child with a server to compare with.
type Stock struct {
	common
	config    StockConfig
	round     int
	snapshots cachev3.SnapshotCache
	linear    *cachev3.LinearCache
	raw       *rawServer
	bare      *bareServer
}

// oneNode makes all nodes one, so that a push is one snapshot: the best case.
type oneNode struct{}

func (oneNode) ID(*corev3.Node) string { return fanoutName }

// Start serves.
func (s *Stock) Start(config StockConfig, started *Started) error {
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
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	started.Address = listener.Addr().String()
	tlsConfig := identity.ServerTLS(source, []string{trustDomain})
	var cache cachev3.Cache
	switch config.Kind {
	case "raw", "greet":
		s.raw = &rawServer{}
		if config.Kind == "greet" {
			s.raw.greeting = make([]byte, config.Body)
		}
		go s.raw.accept(tls.NewListener(listener, tlsConfig)) // ends with the process
		return nil
	case "snapshot":
		s.snapshots = cachev3.NewSnapshotCache(true, oneNode{}, nil)
		cache = s.snapshots
	case "bare":
		s.bare = &bareServer{}
	case "linear":
		s.linear = cachev3.NewLinearCache(resourcev3.EndpointType)
		cache = s.linear
	default:
		return fmt.Errorf("no server is called %q", config.Kind)
	}
	if err := s.Push(struct{}{}, new(Instant)); err != nil {
		return err
	}
	// The transport is set up as ours is, so that only what is above it differs.
	options := append(xds.Transport(), grpc.Creds(xds.Credentials(tlsConfig)))
	if s.bare != nil {
		options = append(options, grpc.ForceServerCodecV2(bareCodec{}))
	}
	g := grpc.NewServer(options...)
	if s.bare != nil {
		s.bare.register(g)
	} else {
		discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, serverv3.NewServer(context.Background(), cache, nil))
	}
	go func() { _ = g.Serve(listener) }() // ends with the process
	return nil
}

// Push changes the one assignment and returns when.
func (s *Stock) Push(_ struct{}, at *Instant) error {
	s.round++
	if s.raw != nil {
		*at = now()
		return s.raw.push(s.config.Body)
	}
	next := assignment(s.config.Body, s.round)
	if s.bare != nil {
		return s.pushBare(next, at)
	}
	*at = now()
	if s.linear != nil {
		return s.linear.UpdateResource(fanoutName, next)
	}
	snap, err := cachev3.NewSnapshot(strconv.Itoa(s.round), map[resourcev3.Type][]types.Resource{
		resourcev3.EndpointType: {next},
	})
	if err != nil {
		return err
	}
	return s.snapshots.SetSnapshot(context.Background(), fanoutName, snap)
}

// pushBare encodes a response before the clock starts.
func (s *Stock) pushBare(next *endpointv3.ClusterLoadAssignment, at *Instant) error {
	res, err := snapshot.NewResource(snapshot.Endpoint, fanoutName, next, nil, nil)
	if err != nil {
		return err
	}
	body := protowire.AppendTag(slices.Clone(res.DeltaFrame()), 4, protowire.BytesType)
	body = protowire.AppendString(body, snapshot.Endpoint.URL())
	*at = now()
	return s.bare.push(body)
}

// rawServer writes the same bytes to every connection, each from a goroutine of
// its own, and does nothing else: what no server over TLS can undercut.
type rawServer struct {
	// greeting is what each connection begins with.
	greeting []byte

	mu    sync.Mutex
	wakes []chan []byte // guarded by mu
}

func (r *rawServer) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		wake := make(chan []byte, 1)
		go func() { // ends with the connection
			defer func() { _ = conn.Close() }()
			if conn.(*tls.Conn).Handshake() != nil {
				return
			}
			if _, err := conn.Write(r.greeting); err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, conn) }() // ends with the connection
			r.mu.Lock()
			r.wakes = append(r.wakes, wake)
			r.mu.Unlock()
			for b := range wake {
				if _, err := conn.Write(b); err != nil {
					return
				}
			}
		}()
	}
}

// framed is how many bytes a message of n bytes is on an HTTP/2 stream.
func framed(n int) int {
	n += 5
	return n + 9*((n+firstFrame-1)/firstFrame)
}

func (r *rawServer) push(size int) error {
	b := make([]byte, framed(size))
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, wake := range r.wakes {
		wake <- b
	}
	return nil
}
