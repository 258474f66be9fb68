package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// PeerHeader is the header in which an inbound proxy tells the application who
// called: the SPIFFE ID of the verified peer.
const PeerHeader = "x-tenant-identity"

// Answer is what an [Echo] answers with, as JSON: who answered, and the request
// as the application saw it.
type Answer struct {
	Workload string      `json:"workload"`
	Peer     string      `json:"peer,omitempty"`
	Method   string      `json:"method"`
	Path     string      `json:"path"`
	Host     string      `json:"host"`
	Protocol string      `json:"protocol"`
	Headers  http.Header `json:"headers"`
}

// Echo is an HTTP/1.1 and h2c application that answers every request with an
// [Answer].
type Echo struct {
	// Addr is where it listens.
	Addr   netip.AddrPort
	server *http.Server
	ended  chan struct{}
}

// StartEcho listens at addr (port 0 takes a free one) and answers as workload,
// until Stop or the end of ctx.
func StartEcho(ctx context.Context, workload string, addr netip.AddrPort) (*Echo, error) {
	listener, err := listen(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("start the application of %s (does another mesh run on these addresses?): %w", workload, err)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	e := &Echo{
		Addr: addrOf(listener),
		server: &http.Server{
			Handler:           echoHandler(workload),
			Protocols:         protocols,
			ReadHeaderTimeout: 10 * time.Second,
		},
		ended: make(chan struct{}),
	}
	go func() { // ends when the server is closed
		defer close(e.ended)
		_ = e.server.Serve(listener) // always ErrServerClosed here
	}()
	context.AfterFunc(ctx, func() { _ = e.server.Close() })
	return e, nil
}

// Stop ends the application and its connections.
func (e *Echo) Stop() {
	_ = e.server.Close()
	<-e.ended
}

func echoHandler(workload string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		// An error here is the client's going away.
		_ = json.NewEncoder(w).Encode(Answer{
			Workload: workload, Peer: r.Header.Get(PeerHeader), Method: r.Method,
			Path: r.URL.RequestURI(), Host: r.Host, Protocol: r.Proto, Headers: r.Header,
		})
	})
}

// TCPEcho is a TCP application that sends back what it gets, after a banner if
// it has one: then it is of the kind that speaks first.
type TCPEcho struct {
	// Addr is where it listens.
	Addr     netip.AddrPort
	listener net.Listener
	banner   string

	mu sync.Mutex
	// conns are the open connections, guarded by mu; nil once stopped.
	conns map[net.Conn]struct{}
	wg    sync.WaitGroup
}

// StartTCPEcho listens at addr (port 0 takes a free one) until Stop or the end
// of ctx. The banner, if not empty, is what each connection begins with.
func StartTCPEcho(ctx context.Context, banner string, addr netip.AddrPort) (*TCPEcho, error) {
	listener, err := listen(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("start a TCP application: %w", err)
	}
	e := &TCPEcho{Addr: addrOf(listener), listener: listener, banner: banner, conns: map[net.Conn]struct{}{}}
	e.wg.Go(e.accept) // ends when the listener is closed
	context.AfterFunc(ctx, e.close)
	return e, nil
}

// Stop ends the application and its connections.
func (e *TCPEcho) Stop() {
	e.close()
	e.wg.Wait()
}

func (e *TCPEcho) close() {
	_ = e.listener.Close()
	e.mu.Lock()
	defer e.mu.Unlock()
	for conn := range e.conns {
		_ = conn.Close()
	}
	e.conns = nil
}

func (e *TCPEcho) accept() {
	for {
		conn, err := e.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		e.mu.Lock()
		if e.conns == nil {
			e.mu.Unlock()
			_ = conn.Close()
			return
		}
		e.conns[conn] = struct{}{}
		e.mu.Unlock()
		e.wg.Go(func() { e.serve(conn) }) // ends with the connection
	}
}

func (e *TCPEcho) serve(conn net.Conn) {
	defer func() {
		_ = conn.Close()
		e.mu.Lock()
		delete(e.conns, conn)
		e.mu.Unlock()
	}()
	if _, err := io.WriteString(conn, e.banner); err != nil {
		return
	}
	_, _ = io.Copy(conn, conn) // ends when either side closes
}

func listen(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
	var config net.ListenConfig
	return config.Listen(ctx, "tcp", addr.String())
}

func addrOf(l net.Listener) netip.AddrPort {
	return l.Addr().(*net.TCPAddr).AddrPort()
}
