package netns

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/identity"
)

// hello is a request in plain text.
const hello = "GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

// connection is what a dial returned.
type connection struct {
	net.Conn
	err error
}

func dialed(conn net.Conn, err error) connection { return connection{conn, err} }

// refused says something on a connection that was made, and fails unless it is
// closed without an answer. Capture cannot refuse a connection itself.
func refused(t *testing.T, c connection, say, what string) {
	t.Helper()
	require.NoError(t, c.err, what)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	_, _ = c.Write([]byte(say)) // may be closed already
	buffer := make([]byte, 64)
	n, err := c.Read(buffer)
	require.Zero(t, n, "%s answered %q", what, buffer[:n])
	require.Error(t, err)
	var timeout net.Error
	require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "%s: the connection stays open", what)
}

// adminPort of the Pod's Envoy.
func (p *pod) adminPort(t *testing.T) uint16 {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(p.envoyDir(), "admin-address"))
	require.NoError(t, err)
	addr, err := netip.ParseAddrPort(strings.TrimSpace(string(text)))
	require.NoError(t, err)
	return addr.Port()
}

// outsideDial dials from the node, where nothing is captured.
func outsideDial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", to.String())
}

// noWayAroundFromOutside: whatever comes from outside comes to the inbound
// listener as what it was, and plain text gets nowhere there.
func (w *world) noWayAroundFromOutside(t *testing.T) {
	for _, p := range []*pod{w.orders, w.spy} {
		for _, family := range both {
			ports := map[uint16]string{
				15000: inBlackhole, p.adminPort(t): inBlackhole, 15001: inBlackhole, 15006: loopGuard, 4444: inBlackhole, 80: inBlackhole,
				// Strict mTLS: plain text to a port of a service is no better.
				8080: inBlackhole,
			}
			if p == w.orders {
				ports[8090], ports[3306], ports[6379] = inBlackhole, inBlackhole, inBlackhole
			}
			for port, counter := range ports {
				want := counted{inboundSocket: 1, inBlackhole: 0, loopGuard: 0, noneHealthy: 1}
				want[counter] = 1
				p.counts(t, want, func() {
					refused(t, dialed(outsideDial(w.ctx, p.at(family.anywhere, port))), hello, fmt.Sprint(p.name, " ", port))
				}, p.name, family.name, port)
			}
		}
	}
}

func (w *world) certificate(t *testing.T, id string) tls.Certificate {
	t.Helper()
	cert, err := w.ca.Certificate(id, identity.IssueOptions{})
	require.NoError(t, err)
	return cert
}

// mutualTLSFromOutside: with a certificate it is RBAC that decides, and only at
// the port that the connection is for.
func (w *world) mutualTLSFromOutside(t *testing.T) {
	web, spy := w.certificate(t, w.web.id()), w.certificate(t, w.spy.id())
	other := w.certificate(t, "spiffe://acme.example/ns/acme-web/sa/other")
	for _, family := range both {
		for _, c := range []struct {
			cert   tls.Certificate
			path   string
			status int
		}{
			{web, "/all", 200}, {web, "/self", 403}, {web, "/granted", 403}, {other, "/all", 403},
			{spy, "/granted", 200}, {spy, "/all", 403}, {spy, "/self", 403},
		} {
			status, err := get(w.ctx, mesh.Direct(w.orders.at(family.anywhere, 8080), c.cert, w.ca.Roots("acme.example"), nil), c.path)
			require.NoError(t, err)
			require.Equal(t, c.status, status, c.path)
		}
		for _, port := range []uint16{15000, 15001, 15006, 4444, w.orders.adminPort(t)} {
			_, err := mesh.DialDirect(w.ctx, w.orders.at(family.anywhere, port), web, nil, nil)
			require.Error(t, err, "port %d", port)
		}
		// TCP: web may, spy and other may not.
		for _, port := range []uint16{3306, 6379} {
			exchange := func(cert tls.Certificate) (string, error) {
				conn, err := mesh.DialDirect(w.ctx, w.orders.at(family.anywhere, port), cert, w.ca.Roots("acme.example"), nil)
				if port == 3306 {
					return first(conn, err)
				}
				return echoed(conn, err)
			}
			line, err := exchange(web)
			require.NoError(t, err)
			require.Equal(t, map[uint16]string{3306: banner, 6379: "ping\n"}[port], line)
			for _, cert := range []tls.Certificate{spy, other} {
				line, err = exchange(cert)
				require.Error(t, err)
				require.Empty(t, line)
			}
		}
	}
}

func get(ctx context.Context, client *http.Client, path string) (int, error) {
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://orders.acme-shop"+path, http.NoBody)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// silentStranger: who connects and says nothing costs one connection, and no
// application is dialled for it.
func (w *world) silentStranger(t *testing.T) {
	const waiting = "listener.0.0.0.0_15006.downstream_pre_cx_active"
	for _, family := range both {
		for _, port := range []uint16{3306, 6379, 8080} {
			// It never became a connection of the listener's.
			w.orders.counts(t, counted{
				inboundSocket: 0, "cluster.inbound-tcp.upstream_cx_total": 0, "cluster.inbound-http1.upstream_cx_total": 0,
			}, func() {
				conn, err := outsideDial(w.ctx, w.orders.at(family.anywhere, port))
				require.NoError(t, err)
				for _, n := range []uint64{1, 0} {
					w.until(t, fmt.Sprintf("%d connections wait", n), func() error {
						if got := w.orders.stats(t)[waiting]; got != n {
							return fmt.Errorf("it is %d", got)
						}
						return nil
					})
					_ = conn.Close()
				}
			}, family.name, port)
		}
	}
}

// halfShaken: nor is one for who begins a handshake and does not end it.
func (w *world) halfShaken(t *testing.T) {
	for _, family := range both {
		for _, port := range []uint16{3306, 6379, 8080} {
			w.orders.counts(t, counted{
				inboundSocket: 1, handshakes: 0, "cluster.inbound-tcp.upstream_cx_total": 0, "cluster.inbound-http1.upstream_cx_total": 0,
			}, func() {
				conn, err := outsideDial(w.ctx, w.orders.at(family.anywhere, port))
				require.NoError(t, err)
				defer conn.Close()
				require.NoError(t, conn.SetDeadline(time.Now().Add(patience/4)))
				_, err = conn.Write(clientHello(t))
				require.NoError(t, err)
				answer := make([]byte, 1)
				_, err = conn.Read(answer)
				require.NoError(t, err)
				require.EqualValues(t, 22, answer[0], "the server's part of the handshake")
			}, family.name, port)
		}
	}
}

// clientHello is the first thing that a TLS client says.
func clientHello(t *testing.T) []byte {
	t.Helper()
	client, server := net.Pipe()
	hello := make([]byte, 16*1024)
	ended := make(chan struct{})
	go func() { // ends when the pipe is closed
		defer close(ended)
		_ = tls.Client(client, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(t.Context())
	}()
	n, err := server.Read(hello)
	require.NoError(t, err)
	require.NoError(t, server.Close())
	<-ended
	require.NoError(t, client.Close())
	return hello[:n]
}

// noLoops: a connection to one of Envoy's own sockets ends there, where anything
// may be called as well.
func (w *world) noLoops(t *testing.T) {
	for _, p := range []*pod{w.orders, w.spy} {
		for _, family := range both {
			for addr, socket := range map[netip.AddrPort]string{
				netip.AddrPortFrom(family.loopback, 15001): outboundSocket,
				netip.AddrPortFrom(family.loopback, 15006): inboundSocket, p.at(family.anywhere, 15006): inboundSocket,
				// Captured, and as it has that port handed to the inbound listener.
				netip.AddrPortFrom(family.anywhere, 15006): inboundSocket, w.web.at(family.anywhere, 15006): inboundSocket,
			} {
				for _, say := range []string{hello, "no HTTP\n"} {
					want := counted{outboundSocket: 0, inboundSocket: 0, loopGuard: 1, noneHealthy: 1, "cluster.passthrough.upstream_cx_total": 0}
					want[socket] = 1
					p.counts(t, want, func() { refused(t, dialed(p.dial(w.ctx, addr)), say, addr.String()) }, p.name, addr)
				}
			}
			_, err := p.dial(w.ctx, p.at(family.anywhere, 15001))
			require.ErrorIs(t, err, syscall.ECONNREFUSED, "15001 is on loopback alone")
		}
	}
	for _, family := range both {
		// Without a service of that port it is the same as on loopback; with one
		// it is a port like any other, and does not lead to the socket.
		w.orders.counts(t, counted{outboundSocket: 1, loopGuard: 1}, func() {
			refused(t, dialed(w.orders.dial(w.ctx, netip.AddrPortFrom(family.anywhere, 15001))), hello, "15001 of nobody")
		})
		w.spy.counts(t, counted{outboundSocket: 0, loopGuard: 0, "http.inbound_8080.rbac.denied": 1}, func() {
			got, err := w.spy.request(netip.AddrPortFrom(family.anywhere, 15001), false, "spy:15001", "/")
			require.NoError(t, err)
			require.Equal(t, http.StatusForbidden, got.status)
		})
	}
}

// ended says something and reads until the connection ends, whatever comes.
func ended(t *testing.T, c connection, say, what string) {
	t.Helper()
	require.NoError(t, c.err, what)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(10*time.Second)))
	_, _ = c.Write([]byte(say)) // may be closed already
	answer, err := io.ReadAll(c)
	var timeout net.Error
	require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "%s: the connection stays open; %q", what, answer)
	require.NotContains(t, string(answer), "200 OK", what)
}

// anotherTenant: globex was granted one port of orders, and has that alone.
func (w *world) anotherTenant(t *testing.T) {
	const fqdn = "orders.acme-shop.svc.cluster.local"
	for _, family := range both {
		for path, status := range map[string]int{"/granted": 200, "/all": 403, "/self": 403} {
			for _, host := range []string{fqdn, fqdn + ":80", "10.96.0.20", "[fd96::20]"} {
				got, err := w.spy.request(netip.AddrPortFrom(family.orders, 80), false, host, path)
				require.NoError(t, err)
				require.Equal(t, status, got.status, "%s%s", host, path)
				if status == http.StatusOK {
					require.Equal(t, w.spy.id(), got.Peer)
				}
			}
		}
		// The shorter names are not known here: the request goes where it was
		// sent, which is not to orders.
		for _, host := range []string{"orders", "orders.acme-shop", "web.acme-web.svc.cluster.local"} {
			got, err := w.spy.request(netip.AddrPortFrom(family.outside, 80), false, host, "/granted")
			require.NoError(t, err)
			require.Equal(t, "outside", got.Workload)
			require.Empty(t, got.Peer)
		}
		// Past its own Envoy's registry, with and without a certificate.
		for _, port := range []uint16{8080, 8090, 3306, 6379, 15001, 4444} {
			w.orders.counts(t, counted{inboundSocket: 1}, func() {
				ended(t, dialed(w.spy.dial(w.ctx, w.orders.at(family.anywhere, port))), hello, fmt.Sprint("plain text to ", port))
			}, port)
		}
		for path, status := range map[string]int{"/granted": 200, "/all": 403} {
			client := mesh.Direct(w.orders.at(family.anywhere, 8080), w.certificate(t, w.spy.id()), w.ca.Roots("acme.example"), nil)
			client.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				return w.spy.dial(ctx, w.orders.at(family.anywhere, 8080))
			}
			got, err := get(w.ctx, client, path)
			require.NoError(t, err)
			require.Equal(t, status, got, path)
		}
	}
}

// allowAny: what is no service is called as if there were no mesh.
func (w *world) allowAny(t *testing.T) {
	const passed = "cluster.passthrough.upstream_cx_total"
	for _, family := range both {
		w.spy.counts(t, counted{passed: 1, outBlackhole: 0}, func() {
			line, err := first(w.spy.dial(w.ctx, netip.AddrPortFrom(family.outside, 7777)))
			require.NoError(t, err)
			require.Equal(t, banner, line)
		}, family.name)
		got, err := w.spy.request(netip.AddrPortFrom(family.outside, 80), false, "outside.example", "/")
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, got.status)
		require.Equal(t, "outside", got.Workload)
		// A service's name leads to the service, whatever the address.
		got, err = w.spy.request(netip.AddrPortFrom(family.outside, 80), false, "orders.acme-shop.svc.cluster.local", "/granted")
		require.NoError(t, err)
		require.Equal(t, "acme-shop/orders", got.Workload)
	}
}

// exclusions do not meet Envoy in either direction.
func (w *world) exclusions(t *testing.T) {
	for _, family := range both {
		w.orders.counts(t, counted{inboundSocket: 0}, func() {
			got, err := w.request(func(ctx context.Context) (net.Conn, error) {
				return outsideDial(ctx, w.orders.at(family.anywhere, excludedInbound))
			}, false, "metrics", "/")
			require.NoError(t, err)
			require.Equal(t, "acme-shop/orders", got.Workload)
		}, family.name)
	}
	w.web.counts(t, counted{outboundSocket: 0}, func() {
		for _, to := range []netip.AddrPort{
			netip.AddrPortFrom(node4, excludedOutbound), netip.AddrPortFrom(node6, excludedOutbound), netip.MustParseAddrPort("10.77.0.2:7777"),
		} {
			line, err := first(w.web.dial(w.ctx, to))
			require.NoError(t, err, to)
			require.Equal(t, banner, line)
		}
	})
}

// withoutEnvoy: where it does not run nothing gets out or in.
func (w *world) withoutEnvoy(t *testing.T) {
	w.spy.envoy.Stop()
	for _, family := range both {
		for _, to := range []netip.AddrPort{netip.AddrPortFrom(family.outside, 7777), netip.AddrPortFrom(family.outside, 80)} {
			_, err := w.spy.dial(w.ctx, to)
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
		}
		_, err := outsideDial(w.ctx, w.spy.at(family.anywhere, 8080))
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
	}
}

// clean takes everything away that the rules are.
func (w *world) clean(t *testing.T) {
	for range 2 { // the second time there is nothing to do
		w.spy.run(t, "", w.binary, "iptables", "--clean", "--apply")
		for _, command := range []string{"iptables", "ip6tables"} {
			require.NotContains(t, w.spy.run(t, "", command, "-t", "nat", "-S"), "BW_")
		}
		require.NotContains(t, w.spy.run(t, "", "ip", "-6", "addr", "show", "dev", "lo"), "::6/128")
	}
	for _, family := range both {
		line, err := first(w.spy.dial(w.ctx, netip.AddrPortFrom(family.outside, 7777)))
		require.NoError(t, err)
		require.Equal(t, banner, line)
		conn, err := outsideDial(w.ctx, w.spy.at(family.anywhere, 8080))
		require.NoError(t, err)
		require.NoError(t, conn.Close())
	}
}
