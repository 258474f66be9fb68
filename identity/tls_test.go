package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// seen is what the server made of a call.
type seen struct {
	peer Peer
	err  error
}

// serve runs a gRPC server with these credentials that reports every call.
func serve(t *testing.T, creds credentials.TransportCredentials) (addr string, calls <-chan seen) {
	t.Helper()
	reported := make(chan seen, 16)
	server := grpc.NewServer(grpc.Creds(creds), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		p, err := FromContext(stream.Context())
		reported <- seen{p, err}
		return status.Error(codes.Aborted, "seen")
	}))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() { // ends when the server is stopped
		defer close(ended)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() { server.Stop(); <-ended })
	return listener.Addr().String(), reported
}

func call(t *testing.T, addr string, creds credentials.TransportCredentials) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(creds))
	require.NoError(t, err)
	defer conn.Close()
	return conn.Invoke(ctx, "/test.Test/Call", &emptypb.Empty{}, &emptypb.Empty{})
}

type mesh struct {
	acme, globex, server *Authority
	source               Source
}

// newMesh has bundles for acme, globex and its own domain.
func newMesh(t *testing.T) mesh {
	t.Helper()
	m := mesh{acme: newAuthority(t, "acme.example"), globex: newAuthority(t, "globex.example"), server: newAuthority(t, "mesh.example")}
	cert, key := issue(t, m.server, idServer, IssueOptions{})
	m.source = staticSource(t, cert, key, map[string][]byte{
		"acme.example": m.acme.Bundle(), "globex.example": m.globex.Bundle(), "mesh.example": m.server.Bundle(),
	})
	return m
}

func (m mesh) client(t *testing.T, a *Authority, id string, options IssueOptions) credentials.TransportCredentials {
	t.Helper()
	cert, key := issue(t, a, id, options)
	svid := staticSource(t, cert, key, nil)
	return credentials.NewTLS(ClientTLS(svid, m.source, parseID(t, idServer)))
}

func TestServerTLSLetsWorkloadsIn(t *testing.T) {
	m := newMesh(t)
	addr, calls := serve(t, credentials.NewTLS(ServerTLS(m.source, []string{"acme.example"})))
	notAfter := time.Now().Add(time.Hour).Truncate(time.Second)
	require.Equal(t, codes.Aborted, status.Code(call(t, addr, m.client(t, m.acme, idShop, IssueOptions{NotAfter: notAfter}))))
	got := <-calls
	require.NoError(t, got.err)
	require.Equal(t, Workload{"acme.example", "acme-shop", "web"}, got.peer.Workload)
	require.True(t, got.peer.NotAfter.Equal(notAfter))
}

func TestServerTLSRefusesAtTheHandshake(t *testing.T) {
	m := newMesh(t)
	past := time.Now().Add(-time.Minute)
	clients := map[string]credentials.TransportCredentials{
		"trust domain not allowed":      m.client(t, m.globex, "spiffe://globex.example/ns/a/sa/b", IssueOptions{}),
		"another domain's authority":    m.client(t, m.globex, idShop, IssueOptions{AnyID: true}),
		"authority of no domain":        m.client(t, newAuthority(t, "acme.example"), idShop, IssueOptions{}),
		"unknown trust domain":          m.client(t, m.acme, "spiffe://other.example/ns/a/sa/b", IssueOptions{AnyID: true}),
		"two URI SANs":                  m.client(t, m.acme, idShop, IssueOptions{ExtraURIs: []string{"spiffe://globex.example/ns/a/sa/b"}}),
		"two URI SANs of one domain":    m.client(t, m.acme, idShop, IssueOptions{ExtraURIs: []string{"spiffe://acme.example/ns/a/sa/b"}}),
		"no URI SAN":                    m.client(t, m.acme, "", IssueOptions{NoURI: true, DNSNames: []string{"web"}}),
		"no SPIFFE ID":                  m.client(t, m.acme, "https://acme.example/x", IssueOptions{AnyID: true}),
		"expired":                       m.client(t, m.acme, idShop, IssueOptions{NotBefore: past.Add(-time.Hour), NotAfter: past}),
		"not yet valid":                 m.client(t, m.acme, idShop, IssueOptions{NotBefore: time.Now().Add(time.Hour)}),
		"no certificate":                credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}),
		"plaintext":                     insecure.NewCredentials(),
		"an old version of TLS":         oldTLS(t, m),
		"the authority's own as a leaf": authorityAsLeaf(t, m),
	}
	addr, calls := serve(t, credentials.NewTLS(ServerTLS(m.source, []string{"acme.example"})))
	for name, creds := range clients {
		require.Equal(t, codes.Unavailable, status.Code(call(t, addr, creds)), name)
		require.Empty(t, calls, name)
	}
	// The server lives and serves others.
	require.Equal(t, codes.Aborted, status.Code(call(t, addr, m.client(t, m.acme, idShop, IssueOptions{}))))
}

func oldTLS(t *testing.T, m mesh) credentials.TransportCredentials {
	cert, key := issue(t, m.acme, idShop, IssueOptions{})
	config := ClientTLS(staticSource(t, cert, key, nil), m.source, parseID(t, idServer))
	config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	return credentials.NewTLS(config)
}

func authorityAsLeaf(t *testing.T, m mesh) credentials.TransportCredentials {
	key, err := encodeKey(m.acme.key)
	require.NoError(t, err)
	return credentials.NewTLS(ClientTLS(staticSource(t, m.acme.Bundle(), key, nil), m.source, parseID(t, idServer)))
}

func TestServerTLSAllowsNobodyByDefault(t *testing.T) {
	m := newMesh(t)
	addr, calls := serve(t, credentials.NewTLS(ServerTLS(m.source, nil)))
	require.Equal(t, codes.Unavailable, status.Code(call(t, addr, m.client(t, m.acme, idShop, IssueOptions{}))))
	require.Empty(t, calls)
}

func TestFromContextRefusesWhatIsNoWorkload(t *testing.T) {
	m := newMesh(t)
	addr, calls := serve(t, credentials.NewTLS(ServerTLS(m.source, []string{"acme.example"})))
	for _, id := range []string{"spiffe://acme.example", "spiffe://acme.example/vm/1", "spiffe://acme.example/ns/A/sa/b"} {
		require.Equal(t, codes.Aborted, status.Code(call(t, addr, m.client(t, m.acme, id, IssueOptions{AnyID: true}))), id)
		got := <-calls
		require.ErrorIs(t, got.err, ErrNotWorkload, id)
		require.Zero(t, got.peer, id)
	}
}

func TestFromContextWithoutTLS(t *testing.T) {
	addr, calls := serve(t, insecure.NewCredentials())
	require.Equal(t, codes.Aborted, status.Code(call(t, addr, insecure.NewCredentials())))
	require.ErrorIs(t, (<-calls).err, ErrNoIdentity)

	_, err := FromContext(t.Context())
	require.ErrorIs(t, err, ErrNoIdentity)
	_, err = FromContext(peer.NewContext(t.Context(), &peer.Peer{AuthInfo: credentials.TLSInfo{}}))
	require.ErrorIs(t, err, ErrNoIdentity)
}

func TestFromContextAfterExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t, "acme.example")
		certPEM, _ := issue(t, a, idShop, IssueOptions{TTL: time.Hour})
		state := tls.ConnectionState{}
		state.PeerCertificates = append(state.PeerCertificates, leafOf(t, certPEM))
		ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: state}})
		_, err := FromContext(ctx)
		require.NoError(t, err)
		time.Sleep(time.Hour) // of the bubble's clock
		who, err := FromContext(ctx)
		require.ErrorIs(t, err, ErrExpired)
		require.Equal(t, "acme-shop", who.Workload.Namespace)
	})
}

func TestClientTLSPinsTheServer(t *testing.T) {
	m := newMesh(t)
	cert, key := issue(t, m.server, "spiffe://mesh.example/ns/bailiwick-system/sa/other", IssueOptions{})
	other := staticSource(t, cert, key, m.source.Bundles())
	addr, calls := serve(t, credentials.NewTLS(ServerTLS(other, []string{"acme.example"})))
	require.Equal(t, codes.Unavailable, status.Code(call(t, addr, m.client(t, m.acme, idShop, IssueOptions{}))))
	require.Empty(t, calls)

	// The right ID of the wrong authority.
	cert, key = issue(t, m.acme, idServer, IssueOptions{AnyID: true})
	forged := staticSource(t, cert, key, m.source.Bundles())
	addr, calls = serve(t, credentials.NewTLS(ServerTLS(forged, []string{"acme.example"})))
	require.Equal(t, codes.Unavailable, status.Code(call(t, addr, m.client(t, m.acme, idShop, IssueOptions{}))))
	require.Empty(t, calls)
}

// Resumption would skip the verification of a certificate; a client that asks
// for it gets a full handshake.
func TestServerTLSResumesNothing(t *testing.T) {
	m := newMesh(t)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", ServerTLS(m.source, []string{"acme.example"}))
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() { // ends when the listener is closed
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("x"))
			_ = conn.Close()
		}
	}()
	defer func() { _ = listener.Close(); <-ended }()

	cert, key := issue(t, m.acme, idShop, IssueOptions{})
	config := ClientTLS(staticSource(t, cert, key, nil), m.source, parseID(t, idServer))
	config.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	config.ServerName = "bailiwick"
	for range 3 {
		conn, err := tls.Dial("tcp", listener.Addr().String(), config)
		require.NoError(t, err)
		_, err = io.ReadAll(conn) // the ticket would come with the data
		require.True(t, err == nil || errors.Is(err, io.EOF), "%v", err)
		require.False(t, conn.ConnectionState().DidResume)
		require.NoError(t, conn.Close())
	}
}
