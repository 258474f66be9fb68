package netns

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// kubelets are where the Pods' node asks from, which is not where the tests call
// from else.
var kubelets = []netip.Addr{netip.MustParseAddr("10.77.0.3"), netip.MustParseAddr("fd77::3")}

// from dials from the node with this source address.
func from(ip netip.Addr) func(context.Context, netip.AddrPort) (net.Conn, error) {
	return func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 0))}
		return d.DialContext(ctx, "tcp", to.String())
	}
}

// probes: the kubelet's questions reach the application without TLS, and from its
// address nothing else does; the same questions from elsewhere get nowhere.
func (w *world) probes(t *testing.T) {
	ip(t, "addr add 10.77.0.3/24 dev pods\naddr add fd77::3/64 dev pods nodad")
	// The next tests call from the addresses that they know.
	defer ip(t, "addr del 10.77.0.3/24 dev pods\naddr del fd77::3/64 dev pods")
	w.serveHealth(t)
	for i, family := range both {
		kubelet := from(kubelets[i])
		get := func(port uint16, path string) answer {
			got, err := w.request(func(ctx context.Context) (net.Conn, error) { return kubelet(ctx, w.orders.at(family.anywhere, port)) }, false, "pod", path)
			require.NoError(t, err, "%s %d %s", family.name, port, path)
			return got
		}
		for port, path := range map[uint16]string{8080: "/ready?deep=1", 8092: "/stop"} {
			got := get(port, path)
			require.Equal(t, http.StatusOK, got.status)
			require.Equal(t, "acme-shop/orders", got.Workload)
			require.Equal(t, path, got.Path)
			require.Empty(t, got.Peer)
			require.Equal(t, "HTTP/1.1", got.Protocol)
		}
		for _, other := range []string{"/ready", "/ready?deep=2", "/ready/", "/readyz?deep=1", "/all", "/x/../ready?deep=1", "/", "/stop"} {
			require.Equal(t, http.StatusNotFound, get(8080, other).status, other)
		}
		require.Equal(t, http.StatusNotFound, get(8092, "/ready?deep=1").status)
		w.healthOver(t, kubelet, w.orders.at(family.anywhere, 8091))

		// A TCP probe is a connection that is made.
		conn, err := kubelet(w.ctx, w.orders.at(family.anywhere, 3306))
		require.NoError(t, err)
		require.NoError(t, conn.Close())

		// A port that nothing asks is closed to the kubelet, too; ports that are
		// asked are closed to everybody else, the Pods of the mesh among them.
		for _, port := range []uint16{8090, 3306, 8093} {
			refused(t, dialed(kubelet(w.ctx, w.orders.at(family.anywhere, port))), hello, fmt.Sprint("kubelet to ", port))
		}
		const probe = "GET /ready?deep=1 HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n"
		for _, port := range []uint16{8080, 8091, 8092} {
			refused(t, dialed(from(family.outside)(w.ctx, w.orders.at(family.anywhere, port))), probe, fmt.Sprint("another address to ", port))
		}
		refused(t, dialed(w.spy.dial(w.ctx, w.orders.at(family.anywhere, 8080))), probe, "a Pod of another tenant")
	}
}

// serveHealth runs a gRPC application in the Pod that says it is alive.
func (w *world) serveHealth(t *testing.T) {
	server, live := grpc.NewServer(), health.NewServer()
	live.SetServingStatus("live", grpc_health_v1.HealthCheckResponse_SERVING)
	grpc_health_v1.RegisterHealthServer(server, live)
	var listener net.Listener
	require.NoError(t, w.orders.do(func() (err error) {
		listener, err = new(net.ListenConfig).Listen(w.ctx, "tcp", "[::]:8091")
		return err
	}))
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }() // ends with Stop
	t.Cleanup(func() {
		server.Stop()
		require.NoError(t, <-ended)
	})
}

// healthOver asks as the kubelet does, and for something else.
func (w *world) healthOver(t *testing.T, dial func(context.Context, netip.AddrPort) (net.Conn, error), to netip.AddrPort) {
	conn, err := grpc.NewClient("passthrough:///pod", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, to) }))
	require.NoError(t, err)
	defer conn.Close()
	client := grpc_health_v1.NewHealthClient(conn)
	got, err := client.Check(w.ctx, &grpc_health_v1.HealthCheckRequest{Service: "live"})
	require.NoError(t, err)
	require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, got.GetStatus())
	_, err = client.List(w.ctx, &grpc_health_v1.HealthListRequest{})
	require.Equal(t, codes.Unimplemented, status.Code(err), "%v", err)
}
