package snapshot

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/identity"
)

// testHosts are loopback addresses of this test process alone: the Pod's, the
// application's and the one where outbound listeners bind.
func testHosts() (pod, app, bind netip.Addr) {
	pid := os.Getpid()
	host := func(last byte) netip.Addr {
		return netip.AddrFrom4([4]byte{127, byte(64 + pid>>8&63), byte(pid), last})
	}
	return host(20), host(21), host(22)
}

// fleet is two authorities and what they issued.
type fleet struct {
	t              testing.TB
	acme, globex   *identity.Authority
	acmeB, globexB []byte
}

func newFleet(t testing.TB) *fleet {
	t.Helper()
	acme, err := identity.NewAuthority("acme.example")
	require.NoError(t, err)
	globex, err := identity.NewAuthority("globex.example")
	require.NoError(t, err)
	return &fleet{t, acme, globex, acme.Bundle(), globex.Bundle()}
}

func (f *fleet) bundles() map[string][]byte {
	return map[string][]byte{"acme.example": f.acmeB, "globex.example": f.globexB}
}

func (f *fleet) cert(ca *identity.Authority, id string, o identity.IssueOptions) *tls.Config {
	f.t.Helper()
	cert, key, err := ca.Issue(id, o)
	require.NoError(f.t, err)
	pair, err := tls.X509KeyPair(cert, key)
	require.NoError(f.t, err)
	// The server's identity is not what this test is about.
	return &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true, NextProtos: []string{"h2"}}
}

// serveHTTP runs the application: it tells what it was told.
func serveHTTP(t testing.TB, addr netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", addr.String())
	require.NoError(t, err)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "websocket" {
			echoUpgrade(w)
			return
		}
		for name, values := range r.Header {
			w.Header()["Saw-"+name] = values
		}
		w.Header().Set("Saw-Proto", r.Proto)
		w.Header().Set("Saw-Path", r.URL.Path)
		w.Header().Set("Saw-Target", r.RequestURI)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }() // ends with s.Close
	t.Cleanup(func() { _ = s.Close(); <-done })
}

func echoUpgrade(w http.ResponseWriter) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	line, _ := rw.ReadString('\n')
	_, _ = io.WriteString(conn, "echo "+line)
}

// serveTCP runs an application that greets and then echoes one line.
func serveTCP(t testing.TB, addr netip.AddrPort, greeting string) {
	t.Helper()
	l, err := net.Listen("tcp", addr.String())
	require.NoError(t, err)
	done := make(chan struct{})
	go func() { // ends when the listener is closed
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, greeting)
			line, _ := bufio.NewReader(c).ReadString('\n')
			_, _ = io.WriteString(c, "echo "+line)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
}
