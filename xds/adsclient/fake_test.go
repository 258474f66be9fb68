package adsclient_test

import (
	"context"
	"net"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/xds/adsclient"
	"bailiwick.dev/bailiwick/xds/xdstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	clusters  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	endpoints = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	secrets   = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
	listeners = "type.googleapis.com/envoy.config.listener.v3.Listener"
	routes    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	rbac      = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
)

// fake is a server that does what a test says and nothing by itself.
type fake struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	t      *testing.T
	lis    *bufconn.Listener
	delta  chan *discoveryv3.DeltaDiscoveryRequest
	state  chan *discoveryv3.DiscoveryRequest
	send   chan proto.Message
	refuse error
}

func newFake(t *testing.T) *fake {
	f := &fake{t: t, lis: bufconn.Listen(1 << 16),
		delta: make(chan *discoveryv3.DeltaDiscoveryRequest, 64), state: make(chan *discoveryv3.DiscoveryRequest, 64), send: make(chan proto.Message)}
	g := grpc.NewServer(grpc.WaitForHandlers(true))
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, f)
	served := make(chan struct{})
	go func() { defer close(served); _ = g.Serve(f.lis) }() // ends with g.Stop
	t.Cleanup(func() { g.Stop(); <-served })
	return f
}

func (f *fake) config(p adsclient.Protocol) adsclient.Config {
	return adsclient.Config{Address: "fake", Protocol: p,
		Dialer: func(ctx context.Context, _ string) (net.Conn, error) { return f.lis.DialContext(ctx) }}
}

func (f *fake) dial(c adsclient.Config) *adsclient.Client {
	f.t.Helper()
	client, err := adsclient.Dial(f.t.Context(), c)
	require.NoError(f.t, err)
	f.t.Cleanup(func() { require.NoError(f.t, client.Close()) })
	return client
}

func pump[T any](ctx context.Context, in chan<- T, recv func() (T, error), out <-chan proto.Message, send func(any) error) error {
	failed := make(chan struct{})
	go func() { // ends with the stream
		for {
			m, err := recv()
			if err != nil {
				close(failed)
				return
			}
			in <- m
		}
	}()
	for {
		select {
		case m := <-out:
			if err := send(m); err != nil {
				return err
			}
		case <-failed:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *fake) DeltaAggregatedResources(s discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	if f.refuse != nil {
		return f.refuse
	}
	return pump(s.Context(), f.delta, s.Recv, f.send, s.SendMsg)
}

func (f *fake) StreamAggregatedResources(s discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return pump(s.Context(), f.state, s.Recv, f.send, s.SendMsg)
}

// respond sends resources to a delta client.
func (f *fake) respond(nonce, url string, removed []string, rs ...*snapshot.Resource) {
	m := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: url, Nonce: nonce, RemovedResources: removed}
	for _, r := range rs {
		m.Resources = append(m.Resources, &discoveryv3.Resource{Name: r.Name(), Version: r.Version(), Resource: &anypb.Any{TypeUrl: r.Type().URL(), Value: r.Value()}})
	}
	f.send <- m
}

// whole sends resources to a client of the state of the world.
func (f *fake) whole(nonce, version, url string, rs ...*snapshot.Resource) {
	m := &discoveryv3.DiscoveryResponse{TypeUrl: url, Nonce: nonce, VersionInfo: version}
	for _, r := range rs {
		m.Resources = append(m.Resources, &anypb.Any{TypeUrl: r.Type().URL(), Value: r.Value()})
	}
	f.send <- m
}

func cluster(name, text string) *snapshot.Resource {
	return xdstest.Resource(snapshot.Cluster, name, text)
}

func assignment(name, text string) *snapshot.Resource {
	return xdstest.Resource(snapshot.Endpoint, name, text)
}
