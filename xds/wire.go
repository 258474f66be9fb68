package xds

import (
	"errors"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// wire is a stream's connection to its client.
type wire interface {
	// recv blocks until a request arrives or the stream is over.
	recv() (*request, error)
	// send hands a response to the transport; it blocks while the client has not
	// read what it was sent before.
	send(*message) error
	// end ends the stream with the status of an error, from a goroutine that is not
	// its own; recv returns then.
	end(error)
}

// grpcWire is the wire of an RPC.
type grpcWire struct {
	g    grpc.ServerStream
	mode protocol
}

func (w *grpcWire) send(m *message) error { return w.g.SendMsg(m) }

func (w *grpcWire) recv() (*request, error) {
	in := incoming{mode: w.mode}
	if err := w.g.RecvMsg(&in); err != nil {
		return nil, err
	}
	return in.req, nil
}

// end ends the stream as gRPC itself does when its goroutine returns; there is no
// other way to make that return while it waits for a request. Should a release of
// gRPC hide it, a response that cannot be encoded does the same, under another code.
func (w *grpcWire) end(err error) {
	if t, ok := grpc.ServerTransportStreamFromContext(w.g.Context()).(interface {
		WriteStatus(*status.Status) error
	}); ok {
		_ = t.WriteStatus(status.Convert(told(err))) // the client is gone if it fails
		return
	}
	_ = w.g.SendMsg(told(err))
}

// told is what a client is told of an error.
func told(err error) error {
	switch {
	case errors.Is(err, errFinal), errors.Is(err, errAged):
		return status.Error(codes.Unavailable, err.Error())
	case errors.Is(err, errElsewhere):
		return status.Error(codes.PermissionDenied, err.Error())
	}
	return err
}

// decode reads what came of a request as it was on the wire.
func (r *request) decode(mode protocol) error {
	raw := r.raw
	if raw == nil {
		return nil
	}
	r.raw = nil
	var err error
	if mode == state {
		var m discoveryv3.DiscoveryRequest
		err = proto.Unmarshal(raw, &m)
		r.fromState(&m)
	} else {
		var m discoveryv3.DeltaDiscoveryRequest
		err = proto.Unmarshal(raw, &m)
		r.fromDelta(&m)
	}
	if err != nil {
		return status.Errorf(codes.Internal, "the request cannot be decoded: %v", err)
	}
	return nil
}

func (r *request) fromDelta(m *discoveryv3.DeltaDiscoveryRequest) {
	r.url, r.node, r.nonce, r.failed = m.GetTypeUrl(), m.GetNode(), m.GetResponseNonce(), m.GetErrorDetail()
	r.subscribe, r.unsubscribe, r.has = m.GetResourceNamesSubscribe(), m.GetResourceNamesUnsubscribe(), m.GetInitialResourceVersions()
}

func (r *request) fromState(m *discoveryv3.DiscoveryRequest) {
	r.url, r.node, r.nonce, r.failed = m.GetTypeUrl(), m.GetNode(), m.GetResponseNonce(), m.GetErrorDetail()
	r.names, r.version = m.GetResourceNames(), m.GetVersionInfo()
}
