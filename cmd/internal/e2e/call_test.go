package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/identity"
)

// outcome is what became of a request.
type outcome struct {
	status int
	// answer is the application's, if it was that which answered.
	answer mesh.Answer
	// body is what a proxy answered itself.
	body string
}

// String tells the outcomes apart that tests know: who answered, who was let in
// where, and what proxies say.
func (o outcome) String() string {
	if o.status == http.StatusOK {
		return fmt.Sprintf("200 by %s to %s", o.answer.Workload, o.answer.Peer)
	}
	return fmt.Sprintf("%d %s", o.status, o.body)
}

// answeredBy is the outcome of a request that p let in.
func answeredBy(p *pod, from *pod) string {
	return fmt.Sprintf("200 by %s to %s", p.name, from.workload)
}

// The outcomes of requests that are not let in: by the RBAC filter at the
// destination, whose text this is, and by the own proxy.
const (
	forbidden = "403 RBAC: access denied"
	unknown   = "502 "
)

// roundTripper is what requests can be sent with.
type roundTripper interface {
	RoundTrip(*http.Request) (*http.Response, error)
}

// send sends one request and reads the answer.
func send(ctx context.Context, by roundTripper, method, url string) (outcome, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, http.NoBody)
	if err != nil {
		return outcome{}, err
	}
	// What an application may try to pass for.
	req.Header.Set(mesh.PeerHeader, "spiffe://acme.example/ns/forged/sa/forged")
	req.Header.Set("X_Bailiwick_Peer", "spiffe://acme.example/ns/forged/sa/forged")
	return sent(by.RoundTrip(req))
}

// sent reads the answer to a request.
func sent(resp *http.Response, err error) (outcome, error) {
	if err != nil {
		return outcome{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return outcome{}, err
	}
	o := outcome{status: resp.StatusCode}
	if o.status != http.StatusOK {
		o.body = string(body)
		return o, nil
	}
	return o, json.Unmarshal(body, &o.answer)
}

// get is a GET through the proxy of a Pod; what fails is told as an outcome.
func (f *fixture) get(from *pod, url string) string {
	return f.request(from, http.MethodGet, url)
}

func (f *fixture) request(from *pod, method, url string) string {
	return told(send(f.ctx, from.through.Transport, method, url))
}

func told(o outcome, err error) string {
	if err != nil {
		return "failed: " + err.Error()
	}
	return o.String()
}

// untilGet sends requests until one ends as wanted.
func (f *fixture) untilGet(from *pod, url, want string) {
	f.t.Helper()
	f.until(fmt.Sprintf("GET %s from %s is %q", url, from.name, want), func() error {
		if got := f.get(from, url); got != want {
			return errors.New(got)
		}
		return nil
	})
}

// certificate is one of a Pod's workload.
func (f *fixture) certificate(of *pod) tls.Certificate {
	f.t.Helper()
	return f.certificateFor(of.workload.String())
}

func (f *fixture) certificateFor(id string) tls.Certificate {
	f.t.Helper()
	cert, err := f.ca.Certificate(id, identity.IssueOptions{})
	require.NoError(f.t, err)
	return cert
}

// direct sends a request to a Pod's inbound port past any proxy of the caller,
// on a connection of its own.
func (f *fixture) direct(cert tls.Certificate, to *pod, port uint16) string {
	client := mesh.Direct(netip.AddrPortFrom(to.at.Pod, port), cert, f.ca.Roots(to.workload.TrustDomain), nil)
	defer client.CloseIdleConnections()
	return told(send(f.ctx, client.Transport, http.MethodGet, fmt.Sprintf("https://%s:%d/", to.at.Pod, port)))
}

// dial makes a TCP connection that ends with the test's patience.
func (f *fixture) dial(addr netip.Addr, port uint16) net.Conn {
	f.t.Helper()
	var dialer net.Dialer
	conn, err := dialer.DialContext(f.ctx, "tcp", netip.AddrPortFrom(addr, port).String())
	require.NoError(f.t, err)
	f.bound(conn)
	return conn
}

func (f *fixture) bound(conn net.Conn) {
	f.t.Helper()
	f.t.Cleanup(func() { _ = conn.Close() })
	deadline, _ := f.ctx.Deadline()
	require.NoError(f.t, conn.SetDeadline(deadline))
}

// dialDirect is a connection to a Pod's TCP port past any proxy of the caller.
// Nil with an error is a refused handshake.
func (f *fixture) dialDirect(cert tls.Certificate, to *pod, port uint16) (net.Conn, error) {
	f.t.Helper()
	conn, err := mesh.DialDirect(f.ctx, netip.AddrPortFrom(to.at.Pod, port), cert, f.ca.Roots(to.workload.TrustDomain), nil)
	if err != nil {
		return nil, err
	}
	f.bound(conn)
	return conn, nil
}

// refusesHandshake requires that a port does not take a certificate. With TLS
// 1.3 a client hears of it when it reads.
func (f *fixture) refusesHandshake(cert tls.Certificate, to *pod, port uint16) {
	f.t.Helper()
	conn, err := f.dialDirect(cert, to, port)
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	require.ErrorContains(f.t, err, "remote error: tls: ", "%s takes the certificate at port %d", to.name, port)
}

// closed requires that the other side of a connection ends it without a byte,
// after text was sent.
func (f *fixture) closed(conn net.Conn, text string) {
	f.t.Helper()
	_, _ = io.WriteString(conn, text) // may fail already
	got, err := io.ReadAll(conn)
	var late net.Error
	require.False(f.t, errors.As(err, &late) && late.Timeout(), "the connection was left open")
	require.Empty(f.t, string(got))
}

// openConn is one HTTP/2 connection to a Pod's inbound port, past any proxy of
// the caller.
type openConn struct {
	f    *fixture
	conn *http.ClientConn
	to   *pod
	url  string
}

// open makes the connection.
func (f *fixture) open(cert tls.Certificate, to *pod, port uint16) *openConn {
	f.t.Helper()
	addr := netip.AddrPortFrom(to.at.Pod, port)
	client := mesh.Direct(addr, cert, f.ca.Roots(to.workload.TrustDomain), nil)
	conn, err := client.Transport.(*http.Transport).NewClientConn(f.ctx, "https", addr.String())
	require.NoError(f.t, err)
	f.t.Cleanup(func() { _ = conn.Close() })
	return &openConn{f: f, conn: conn, to: to, url: fmt.Sprintf("https://%s/", addr)}
}

// get sends a request on the connection.
func (c *openConn) get() string {
	return told(send(c.f.ctx, c.conn, http.MethodGet, c.url))
}

// untilGet sends requests on the connection until one ends as wanted.
func (c *openConn) untilGet(want string) {
	c.f.t.Helper()
	c.f.until(fmt.Sprintf("a request on an open connection to %s is %q", c.to.name, want), func() error {
		if got := c.get(); got != want {
			return errors.New(got)
		}
		return nil
	})
}

// alive requires that the other side wants to go on with the connection: it
// neither ended it nor asked to make another (GOAWAY).
func (c *openConn) alive() {
	c.f.t.Helper()
	require.NoError(c.f.t, c.conn.Err())
	require.Positive(c.f.t, c.conn.Available(), "the proxy is draining the connection")
}
