package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"bailiwick.dev/bailiwick/identity"
)

// listenTLS listens with a certificate of its own; client is what to dial with.
func listenTLS(t *testing.T) (listener net.Listener, server, client *tls.Config) {
	t.Helper()
	authority, err := identity.NewAuthority(trustDomain)
	require.NoError(t, err)
	cert, key, err := authority.Issue("spiffe://"+trustDomain+"/ns/a/sa/b", identity.IssueOptions{})
	require.NoError(t, err)
	pair, err := tls.X509KeyPair(cert, key)
	require.NoError(t, err)
	listener, err = net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server = &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13}
	client = &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13} //nolint:gosec // only frames are looked at
	return listener, server, client
}

// A gRPC server with its ordinary window gets requests of ten times as much, each
// whole.
func TestRequestsAboveTheWindowArrive(t *testing.T) {
	const size, rounds, each = 600 << 10, 10, 3
	listener, server, client := listenTLS(t)
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(server)), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		for {
			var m wrapperspb.BytesValue
			if err := s.RecvMsg(&m); err != nil {
				return err
			}
			if err := s.SendMsg(wrapperspb.UInt64(uint64(len(m.Value)))); err != nil {
				return err
			}
		}
	}))
	go func() { _ = g.Serve(listener) }() // ends with Stop
	t.Cleanup(g.Stop)
	raw, err := proto.Marshal(wrapperspb.Bytes(make([]byte, size)))
	require.NoError(t, err)
	want, err := proto.Marshal(wrapperspb.UInt64(size))
	require.NoError(t, err)
	for range rounds {
		w, err := dialWire(t.Context(), listener.Addr().String(), "/any/thing", client)
		require.NoError(t, err)
		require.NoError(t, w.send(raw, raw, raw))
		left := each
		err = w.receive(func(answer []byte, _ int) error {
			require.Equal(t, want, answer)
			if left--; left == 0 {
				return io.EOF
			}
			return nil
		})
		w.close()
		require.ErrorIs(t, err, io.EOF)
	}
}

// Not a byte more than the server allows is sent: on the stream, after a smaller
// initial window, and on the connection.
func TestWindowsAreHonoured(t *testing.T) {
	listener, server, client := listenTLS(t)
	peer := make(chan error, 1)
	go func() { peer <- errors.Join(strictPeer(tls.NewListener(listener, server)), listener.Close()) }() // ends with the client's connection
	w, err := dialWire(t.Context(), listener.Addr().String(), "/any/thing", client)
	require.NoError(t, err)
	defer w.close()
	require.NoError(t, w.send(make([]byte, 200<<10)))
	require.ErrorIs(t, w.receive(nil), errReset)
	require.NoError(t, <-peer)
}

// strictPeer widens the windows one after the other and looks after each step
// whether exactly what they allow has come: a PING tells that the client is done.
func strictPeer(listener net.Listener) error {
	conn, err := listener.Accept()
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return fmt.Errorf("read the preface: %w", err)
	}
	framer := http2.NewFramer(conn, conn)
	got := 0
	steps := []struct {
		widen func() error
		want  int
	}{
		{func() error { return framer.WriteSettings() }, firstWindow},
		{func() error { return framer.WriteWindowUpdate(0, 1<<20) }, firstWindow},
		{func() error { return framer.WriteWindowUpdate(1, 1000) }, firstWindow + 1000},
		{func() error {
			return framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: firstWindow - 5000})
		}, firstWindow + 1000},
		{func() error { return framer.WriteWindowUpdate(1, 5000) }, firstWindow + 1000},
		{func() error { return framer.WriteWindowUpdate(1, 7) }, firstWindow + 1007},
		{func() error {
			return framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 16})
		}, 200<<10 + 5},
	}
	for i, step := range steps {
		if err := errors.Join(step.widen(), framer.WritePing(false, [8]byte{byte(i)})); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		for answered := false; !answered; {
			f, err := framer.ReadFrame()
			if err != nil {
				return fmt.Errorf("step %d: read a frame: %w", i, err)
			}
			switch f := f.(type) {
			case *http2.DataFrame:
				got += len(f.Data())
			case *http2.PingFrame:
				answered = f.IsAck()
			}
		}
		if got != step.want {
			return fmt.Errorf("step %d: %d bytes came, want %d", i, got, step.want)
		}
	}
	if err := framer.WriteRSTStream(1, http2.ErrCodeFlowControl); err != nil {
		return fmt.Errorf("reset the stream: %w", err)
	}
	return nil
}
