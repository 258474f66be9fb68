package xds

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
)

const (
	idServer = "spiffe://mesh.example/ns/sys/sa/xds"
	idShop   = "spiffe://acme.example/ns/acme-shop/sa/web"
)

// rig is a server on an in-memory listener, with real mTLS.
type rig struct {
	t      *testing.T
	world  *world
	lis    *bufconn.Listener
	acme   *identity.Authority
	mesh   *identity.Authority
	source identity.Source
	ended  chan error
	stop   context.CancelFunc
}

func newRig(t *testing.T, v view, edit ...func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, world: newWorld(t, v, edit...), lis: bufconn.Listen(1 << 20), ended: make(chan error, 1)}
	var err error
	r.acme, err = identity.NewAuthority("acme.example")
	require.NoError(t, err)
	r.mesh, err = identity.NewAuthority("mesh.example")
	require.NoError(t, err)
	cert, key, err := r.mesh.Issue(idServer, identity.IssueOptions{})
	require.NoError(t, err)
	r.source, err = identity.NewStaticSource(cert, key, map[string][]byte{"acme.example": r.acme.Bundle(), "mesh.example": r.mesh.Bundle()})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() { r.ended <- r.world.srv.Serve(ctx, r.lis, r.source, []string{"acme.example"}) }() // ends with r.close
	return r
}

// close stops the server and waits for it.
func (r *rig) close() {
	r.stop()
	require.NoError(r.t, <-r.ended)
}

// watchedConn tells when the other side has closed the connection.
type watchedConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.once.Do(func() { close(c.closed) })
	}
	return n, err
}

// dial connects with a certificate; conns has each connection that is made.
func (r *rig) dial(creds credentials.TransportCredentials) (cc *grpc.ClientConn, conns chan *watchedConn) {
	r.t.Helper()
	conns = make(chan *watchedConn, 16)
	cc, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(creds), grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		c, err := r.lis.DialContext(ctx)
		if err != nil {
			return nil, err
		}
		w := &watchedConn{Conn: c, closed: make(chan struct{})}
		conns <- w
		return w, nil
	}))
	require.NoError(r.t, err)
	return cc, conns
}

func (r *rig) as(id string, o identity.IssueOptions) credentials.TransportCredentials {
	r.t.Helper()
	cert, key, err := r.acme.Issue(id, o)
	require.NoError(r.t, err)
	svid, err := identity.NewStaticSource(cert, key, nil)
	require.NoError(r.t, err)
	server, err := spiffeid.FromString(idServer)
	require.NoError(r.t, err)
	return credentials.NewTLS(identity.ClientTLS(svid, r.source, server))
}

// ask opens a delta stream and returns the first answer to a CDS request.
func ask(ctx context.Context, cc *grpc.ClientConn) (discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient, *discoveryv3.DeltaDiscoveryResponse, error) {
	s, err := discoveryv3.NewAggregatedDiscoveryServiceClient(cc).DeltaAggregatedResources(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: snapshot.Cluster.URL()}); err != nil {
		_, err = s.Recv()
		return nil, nil, err
	}
	m, err := s.Recv()
	return s, m, err
}

func TestServeOverMutualTLS(t *testing.T) {
	r := newRig(t, shopView())
	cc, _ := r.dial(r.as(idShop, identity.IssueOptions{}))
	s, m, err := ask(t.Context(), cc)
	require.NoError(t, err)
	require.Len(t, m.GetResources(), 2)
	require.Equal(t, "1", m.GetNonce())
	require.Empty(t, m.GetSystemVersionInfo())
	require.Equal(t, []snapshot.Proxy{{Workload: shop}}, r.world.store.proxies())

	sotw, err := discoveryv3.NewAggregatedDiscoveryServiceClient(cc).StreamAggregatedResources(t.Context())
	require.NoError(t, err)
	require.NoError(t, sotw.Send(&discoveryv3.DiscoveryRequest{TypeUrl: snapshot.Cluster.URL()}))
	full, err := sotw.Recv()
	require.NoError(t, err)
	require.Len(t, full.GetResources(), 2)
	require.NotEmpty(t, full.GetVersionInfo())

	require.NoError(t, s.CloseSend())
	for err == nil {
		_, err = s.Recv()
	}
	r.close()
	_, err = sotw.Recv()
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.NoError(t, cc.Close())
}

func TestOnlyADSIsRegistered(t *testing.T) {
	r := newRig(t, shopView())
	defer r.close()
	info := r.world.srv.GRPC(r.source, []string{"acme.example"}).GetServiceInfo()
	require.Len(t, info, 1)
	var methods []string
	for _, m := range info["envoy.service.discovery.v3.AggregatedDiscoveryService"].Methods {
		name := "/envoy.service.discovery.v3.AggregatedDiscoveryService/" + m.Name
		require.True(t, known(name), name)
		methods = append(methods, m.Name)
	}
	slices.Sort(methods)
	require.Equal(t, []string{"DeltaAggregatedResources", "StreamAggregatedResources"}, methods)
}

// Whoever registers another service later does not open it by that.
func TestInterceptorsDenyByDefault(t *testing.T) {
	r := newRig(t, shopView())
	defer r.close()
	srv := r.world.srv
	lis := bufconn.Listen(1 << 16)
	g := srv.GRPC(r.source, []string{"acme.example"})
	g.RegisterService(&grpc.ServiceDesc{ServiceName: "test.T", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(_ any, ctx context.Context, dec func(any) error, in grpc.UnaryServerInterceptor) (any, error) {
			return in(ctx, &emptypb.Empty{}, &grpc.UnaryServerInfo{FullMethod: "/test.T/Unary"}, func(context.Context, any) (any, error) { return &emptypb.Empty{}, nil })
		}}},
		Streams: []grpc.StreamDesc{{StreamName: "Stream", ServerStreams: true, ClientStreams: true, Handler: func(any, grpc.ServerStream) error { return nil }}},
	}, nil)
	served := make(chan struct{})
	go func() { defer close(served); _ = g.Serve(Listener(lis)) }() // ends with g.Stop
	defer func() { g.Stop(); <-served }()
	inner := *r
	inner.lis = lis
	cc, _ := inner.dial(r.as(idShop, identity.IssueOptions{}))
	defer cc.Close()
	require.Equal(t, codes.PermissionDenied, status.Code(cc.Invoke(t.Context(), "/test.T/Unary", &emptypb.Empty{}, &emptypb.Empty{})))
	s, err := cc.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/test.T/Stream")
	require.NoError(t, err)
	require.Equal(t, codes.PermissionDenied, status.Code(s.RecvMsg(&emptypb.Empty{})))
}

func TestWhoIsRefused(t *testing.T) {
	r := newRig(t, shopView())
	defer r.close()
	globex, err := identity.NewAuthority("globex.example")
	require.NoError(t, err)
	foreign := func(a *identity.Authority, id string) credentials.TransportCredentials {
		x := *r
		x.acme = a
		return x.as(id, identity.IssueOptions{AnyID: true})
	}
	for name, c := range map[string]struct {
		creds credentials.TransportCredentials
		code  codes.Code
	}{
		"a good one":                           {r.as(idShop, identity.IssueOptions{}), codes.OK},
		"not a workload":                       {r.as("spiffe://acme.example/host/a", identity.IssueOptions{}), codes.PermissionDenied},
		"root path":                            {r.as("spiffe://acme.example", identity.IssueOptions{AnyID: true}), codes.PermissionDenied},
		"trust domain with bundle, not listed": {foreign(r.mesh, "spiffe://mesh.example/ns/a/sa/b"), codes.Unavailable},
		"unknown authority":                    {foreign(globex, "spiffe://globex.example/ns/a/sa/b"), codes.Unavailable},
		"name of another authority":            {foreign(globex, idShop), codes.Unavailable},
		"two URI SANs":                         {r.as(idShop, identity.IssueOptions{ExtraURIs: []string{"spiffe://globex.example/ns/a/sa/b"}}), codes.Unavailable},
		"no URI SAN":                           {r.as(idShop, identity.IssueOptions{NoURI: true}), codes.Unavailable},
		"expired":                              {r.as(idShop, identity.IssueOptions{NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(-time.Minute)}), codes.Unavailable},
		"no TLS":                               {insecure.NewCredentials(), codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			cc, _ := r.dial(c.creds)
			defer cc.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			_, _, err := ask(ctx, cc)
			require.Equal(t, c.code.String(), status.Code(err).String(), "%v", err)
		})
	}
}

func TestConnectionEndsWithItsCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, shopView())
		cc, conns := r.dial(r.as(idShop, identity.IssueOptions{TTL: time.Minute}))
		s, _, err := ask(t.Context(), cc)
		require.NoError(t, err)
		c := <-conns
		go func() { // reads what follows the first answer; ends with the connection
			for err == nil {
				_, err = s.Recv()
			}
		}()
		time.Sleep(time.Minute - 2*time.Second)
		synctest.Wait()
		select {
		case <-c.closed:
			t.Fatal("closed before the certificate expired")
		default:
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		<-c.closed
		require.NoError(t, cc.Close())
		synctest.Wait()
		require.Equal(t, codes.Unavailable, status.Code(err))
		r.close()
	})
}

// A client that keeps its connection and opens streams again is refused and cut off.
func TestStreamOnAConnectionWithAnExpiredCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, shopView())
		cc, conns := r.dial(r.as(idShop, identity.IssueOptions{TTL: time.Minute}))
		ctx, cancel := context.WithCancel(t.Context())
		_, _, err := ask(ctx, cc)
		require.NoError(t, err)
		cancel()
		c := <-conns
		time.Sleep(time.Minute + time.Second)
		_, _, err = ask(t.Context(), cc)
		require.Contains(t, []codes.Code{codes.Unauthenticated, codes.Unavailable}, status.Code(err))
		<-c.closed
		require.NoError(t, cc.Close())
		r.close()
	})
}

func TestFinalBindingClosesTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, shopView())
		cc, conns := r.dial(r.as(idShop, identity.IssueOptions{}))
		s, m, err := ask(t.Context(), cc)
		require.NoError(t, err)
		c := <-conns
		ack := func(m *discoveryv3.DeltaDiscoveryResponse) {
			require.NoError(t, s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce()}))
		}
		ack(m)
		empty := newView("")
		empty.Final = true
		r.world.store.bind(empty.Binding)
		m, err = s.Recv()
		require.NoError(t, err)
		require.ElementsMatch(t, []string{"a", "b"}, m.GetRemovedResources())
		ack(m)
		<-c.closed
		_, err = s.Recv()
		require.Equal(t, codes.Unavailable, status.Code(err))
		require.NoError(t, cc.Close())
		r.close()
	})
}

// boom panics where a stream attaches.
type boom struct{}

func (boom) Attach(snapshot.Proxy) *snapshot.Attachment { panic("a bug in the store") }

func TestPanicEndsOneStreamOnly(t *testing.T) {
	var log syncBuffer
	r := newRig(t, shopView(), func(c *Config) {
		c.Store = boom{}
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	defer r.close()
	cc, _ := r.dial(r.as(idShop, identity.IssueOptions{}))
	defer cc.Close()
	for range 2 {
		_, _, err := ask(t.Context(), cc)
		require.Equal(t, codes.Internal, status.Code(err))
		require.NotContains(t, err.Error(), "bug")
	}
	require.Contains(t, log.String(), "a bug in the store")
	require.Contains(t, log.String(), "handle", "the stack")
	require.Empty(t, r.world.srv.gate.streams())
	require.Empty(t, r.world.srv.Streams())
}

func TestServeReportsAListenerThatFails(t *testing.T) {
	r := newRig(t, shopView())
	require.NoError(t, r.lis.Close())
	require.ErrorContains(t, <-r.ended, "serve xDS on")
}

func TestStopDoesNotWaitForClientsThatDoNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newView("acme").set(res(snapshot.Route, "r", strings.Repeat("x", 1<<20)))
		r := newRig(t, v)
		cc, _ := r.dial(r.as(idShop, identity.IssueOptions{}))
		s, _, err := ask(t.Context(), cc)
		require.NoError(t, err)
		for range 8 { // more than the windows take
			require.NoError(t, s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: snapshot.Route.URL(), ResourceNamesSubscribe: []string{"r"}}))
		}
		synctest.Wait()
		begin := time.Now()
		r.close()
		require.LessOrEqual(t, time.Since(begin), 3*time.Second)
		require.NoError(t, cc.Close())
	})
}

type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// A shared body with a nonce behind it is the message that the stock codec
// would have written, fields in another order.
func TestCodecWritesWhatProtobufReads(t *testing.T) {
	b := encodeBody(delta, snapshot.Cluster, svc("a", "1")[:1], []string{"x", "y"})
	m := newMessage(b.bytes, 42)
	out, err := newCodec().Marshal(m)
	require.NoError(t, err)
	var got discoveryv3.DeltaDiscoveryResponse
	require.NoError(t, proto.Unmarshal(out.Materialize(), &got))
	require.Equal(t, "42", got.GetNonce())
	require.Equal(t, []string{"x", "y"}, got.GetRemovedResources())
	require.Equal(t, m.size(), out.Len())
	require.Same(t, &b.bytes[0], &out[0].ReadOnlyData()[0], "not copied")
	require.Equal(t, "proto", newCodec().Name())

	ordinary, err := newCodec().Marshal(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: "x"})
	require.NoError(t, err)
	var back discoveryv3.DeltaDiscoveryRequest
	require.NoError(t, newCodec().Unmarshal(ordinary, &back))
	require.Equal(t, "x", back.GetTypeUrl())
}

// badWire is a connection whose decoding has a bug.
type badWire struct{ wire }

func (badWire) recv() (*request, error) { panic("a bug in the decoder") }

// Requests are read on a goroutine of its own, where no interceptor recovers.
func TestPanicInReceivingEndsOneStreamOnly(t *testing.T) {
	var log syncBuffer
	w := newWorld(t, shopView(), func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	st, err := w.srv.open(delta, identity.Peer{Workload: shop, NotAfter: time.Now().Add(time.Hour)}, netip.Addr{}, badWire{})
	require.NoError(t, err)
	err = w.srv.serveStream(st)
	require.Equal(t, codes.Internal, status.Code(err))
	require.NotContains(t, err.Error(), "bug")
	require.Contains(t, log.String(), "a bug in the decoder")
	require.Empty(t, w.srv.Streams())
}
