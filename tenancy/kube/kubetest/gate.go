package kubetest

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// Gate stands between one client and the API server, and can be shut. It has an
// address of its own; all else goes on as before.
type Gate struct {
	// Address is host:port of the gate.
	Address string

	cluster *Cluster
	server  *http.Server
	ended   chan struct{}

	mu sync.Mutex
	// conns are the open connections of clients.
	conns map[*gatedConn]struct{}
	// closed refuses new connections; status, if not 0, answers every request.
	closed bool
	status int
	// delay is how long each request waits.
	delay time.Duration
	// held is closed when bytes may pass again; nil if they may.
	held chan struct{}
	// requests were let through or answered.
	requests int
}

// Gate opens a gate that ends with the test.
func (c *Cluster) Gate(t testing.TB) *Gate {
	t.Helper()
	g, err := c.OpenGate()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// OpenGate opens a gate, until Close.
func (c *Cluster) OpenGate() (*Gate, error) {
	certificate, err := tls.LoadX509KeyPair(filepath.Join(c.dir, certFile), filepath.Join(c.dir, keyFile))
	if err != nil {
		return nil, fmt.Errorf("open a gate: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open a gate: %w", err)
	}
	g := &Gate{Address: listener.Addr().String(), cluster: c, conns: map[*gatedConn]struct{}{}, ended: make(chan struct{})}
	// Broken connections are what gates are for.
	quiet := slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	transport := c.transport()
	transport.DisableKeepAlives, transport.ForceAttemptHTTP2 = false, true
	// An API server that hangs is noticed behind a gate as it would be without one.
	transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: time.Second, PingTimeout: time.Second}
	transport.TLSHandshakeTimeout = 5 * time.Second
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "https", Host: c.Address}) },
		Transport:     transport,
		FlushInterval: -1, // watches are streams
		ErrorLog:      quiet,
		// As if the connection broke, not as a 502: nothing stands between in truth.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	g.server = &http.Server{
		Handler: g.handler(proxy), ReadHeaderTimeout: time.Minute, ErrorLog: quiet,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
	}
	go func() { // ends with Close
		defer close(g.ended)
		_ = g.server.ServeTLS(&gatedListener{listener, g}, "", "")
		transport.CloseIdleConnections()
	}()
	return g, nil
}

func (g *Gate) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		status, delay := g.status, g.delay
		g.requests++
		g.mu.Unlock()
		if delay > 0 {
			select {
			case <-time.After(delay):
			case <-r.Context().Done():
				return
			}
		}
		if status != 0 {
			http.Error(w, "the gate says no", status)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// REST is [Cluster.REST] through the gate.
func (g *Gate) REST(user string) *rest.Config { return g.cluster.restTo(g.Address, user) }

// Kubeconfig is [Cluster.Kubeconfig] through the gate.
func (g *Gate) Kubeconfig(user string) (string, error) {
	return g.cluster.kubeconfigTo(g.Address, user)
}

// Requests is how many requests came.
func (g *Gate) Requests() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.requests
}

// Drop breaks all connections. New ones are let through.
func (g *Gate) Drop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.drop()
}

func (g *Gate) drop() {
	for c := range g.conns {
		// A reset, so that nothing waits for an answer.
		if tcp, ok := c.Conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Conn.Close()
	}
	clear(g.conns)
}

// Cut breaks all connections and refuses new ones, until Open.
func (g *Gate) Cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.drop()
}

// Hold lets no byte pass in either direction, on old connections and new ones,
// until Open: a network that has vanished, or a replica that was paused.
func (g *Gate) Hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held == nil {
		g.held = make(chan struct{})
	}
}

// Fail answers every request with that status, and breaks the watches that are
// open, until Open.
func (g *Gate) Fail(status int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.status = status
	g.drop()
}

// Slow delays every new request, until Open.
func (g *Gate) Slow(delay time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.delay = delay
}

// Open ends Cut, Hold, Fail and Slow. What was held passes.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed, g.status, g.delay = false, 0, 0
	if g.held != nil {
		close(g.held)
		g.held = nil
	}
}

// Close ends the gate and its connections.
func (g *Gate) Close() {
	g.Open()
	g.Cut()
	_ = g.server.Close()
	<-g.ended
}

// wait returns when bytes may pass, or false when the gate ends before.
func (g *Gate) wait(ctx context.Context) {
	g.mu.Lock()
	held := g.held
	g.mu.Unlock()
	if held == nil {
		return
	}
	select {
	case <-held:
	case <-ctx.Done():
	}
}

type gatedListener struct {
	net.Listener
	gate *Gate
}

// Accept implements net.Listener.
func (l *gatedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		g := l.gate
		ctx, cancel := context.WithCancel(context.Background())
		c := &gatedConn{Conn: conn, gate: g, ctx: ctx, cancel: cancel}
		g.mu.Lock()
		closed := g.closed
		if !closed {
			g.conns[c] = struct{}{}
		}
		g.mu.Unlock()
		if !closed {
			return c, nil
		}
		_ = c.Close()
	}
}

// gatedConn is a client's connection.
type gatedConn struct {
	net.Conn
	gate   *Gate
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
}

// Read implements net.Conn.
func (c *gatedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.gate.wait(c.ctx)
	return n, err
}

// Write implements net.Conn.
func (c *gatedConn) Write(b []byte) (int, error) {
	c.gate.wait(c.ctx)
	return c.Conn.Write(b)
}

// Close implements net.Conn.
func (c *gatedConn) Close() error {
	c.cancel()
	c.gate.mu.Lock()
	delete(c.gate.conns, c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}
