package main

import (
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// bareServer is the least that a server built on grpc-go can do: it takes whatever
// is asked for as an ADS stream, answers it once, reads what comes back without
// looking at it, and writes bodies that were encoded before the push. It knows
// nothing of xDS. What is above it is ours, what is below it gRPC's.
type bareServer struct {
	mu      sync.Mutex
	body    []byte        // guarded by mu
	streams []*bareStream // guarded by mu
}

type bareStream struct {
	grpc.ServerStream
	nonce atomic.Uint64
}

// bareBytes are a message as it is.
type bareBytes struct{ parts mem.BufferSlice }

// bareCodec copies nothing.
type bareCodec struct{}

func (bareCodec) Name() string { return "proto" }

func (bareCodec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(bareBytes)
	if !ok {
		return nil, fmt.Errorf("no message: %T", v)
	}
	return m.parts, nil
}

func (bareCodec) Unmarshal(mem.BufferSlice, any) error { return nil }

// register adds both flavours of ADS.
func (b *bareServer) register(g *grpc.Server) {
	handler := func(_ any, s grpc.ServerStream) error { return b.serve(s) }
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: "envoy.service.discovery.v3.AggregatedDiscoveryService", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{
			{StreamName: "DeltaAggregatedResources", Handler: handler, ServerStreams: true, ClientStreams: true},
			{StreamName: "StreamAggregatedResources", Handler: handler, ServerStreams: true, ClientStreams: true},
		},
	}, b)
}

func (b *bareServer) serve(g grpc.ServerStream) error {
	s := &bareStream{ServerStream: g}
	if err := g.RecvMsg(nil); err != nil {
		return err
	}
	b.mu.Lock()
	b.streams = append(b.streams, s)
	body := b.body
	b.mu.Unlock()
	for err := s.send(body); ; err = g.RecvMsg(nil) {
		if err != nil {
			return err
		}
	}
}

// send writes a body and behind it the nonce, as every ADS server has to.
func (s *bareStream) send(body []byte) error {
	nonce := protowire.AppendTag(nil, 5, protowire.BytesType)
	nonce = protowire.AppendString(nonce, strconv.FormatUint(s.nonce.Add(1), 10))
	return s.SendMsg(bareBytes{mem.BufferSlice{mem.SliceBuffer(body), mem.SliceBuffer(nonce)}})
}

// unblocked is how much gRPC takes of a stream before it lets the writer wait.
const unblocked = 64 << 10

// push writes to every stream: from one goroutine for each core as long as no
// write has to wait for a client, else from one for each stream.
func (b *bareServer) push(body []byte) error {
	b.mu.Lock()
	b.body = body
	streams := b.streams
	b.mu.Unlock()
	writers := len(streams)
	if len(body) < unblocked {
		writers = runtime.GOMAXPROCS(0)
	}
	var g errgroup.Group
	for n := range writers {
		g.Go(func() error { // ends when it has written its share
			for i := n; i < len(streams); i += writers {
				if err := streams[i].send(body); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}
