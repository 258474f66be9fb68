package xds

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"bailiwick.dev/bailiwick/identity"
)

// countingConn counts the writes that reach the system.
type countingConn struct {
	net.Conn
	writes atomic.Int64
}

func (c *countingConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// What gRPC writes at once is one write below TLS, whole and in order, while the
// client writes too; a connection that is gone is an error.
func TestAWriteOfManyRecordsIsOneToTheSystem(t *testing.T) {
	authority, err := identity.NewAuthority("acme.example")
	require.NoError(t, err)
	source := func(id string) identity.Source {
		cert, key, err := authority.Issue(id, identity.IssueOptions{})
		require.NoError(t, err)
		s, err := identity.NewStaticSource(cert, key, map[string][]byte{"acme.example": authority.Bundle()})
		require.NoError(t, err)
		return s
	}
	server := source("spiffe://acme.example/server")
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, lis.Close()) }()
	proxy := source("spiffe://acme.example/ns/shop/sa/web")
	var client *tls.Conn
	var g errgroup.Group
	g.Go(func() error {
		dialer := &tls.Dialer{Config: identity.ClientTLS(proxy, proxy, spiffeid.RequireFromString("spiffe://acme.example/server"))}
		conn, err := dialer.DialContext(context.WithoutCancel(t.Context()), "tcp", lis.Addr().String())
		if err == nil {
			client = conn.(*tls.Conn)
		}
		return err
	})
	raw, err := lis.Accept()
	require.NoError(t, err)
	counting := &countingConn{Conn: raw}
	conn, _, err := Credentials(identity.ServerTLS(server, []string{"acme.example"})).Clone().ServerHandshake(counting)
	require.NoError(t, err)
	require.NoError(t, g.Wait())

	sizes := []int{1, oneRecord, oneRecord + 1, writeBuffer, 3 * writeBuffer, 10}
	total := 0
	for _, size := range sizes {
		total += size
	}
	var sent []byte
	got := make([]byte, total)
	var reader errgroup.Group
	reader.Go(func() error { _, err := io.ReadFull(client, got); return err })
	for n, size := range sizes {
		b := bytes.Repeat([]byte{byte('a' + n)}, size)
		sent = append(sent, b...)
		g.Go(func() error { _, err := io.CopyN(io.Discard, conn, 1); return err })
		_, err := client.Write([]byte("x"))
		require.NoError(t, err)
		before := counting.writes.Load()
		wrote, err := conn.Write(b)
		require.NoError(t, err)
		require.Equal(t, size, wrote)
		require.Equal(t, int64(1), counting.writes.Load()-before, "of %d bytes", size)
		require.NoError(t, g.Wait())
	}
	require.NoError(t, reader.Wait())
	require.True(t, bytes.Equal(sent, got))

	require.NoError(t, raw.Close())
	_, err = conn.Write(make([]byte, writeBuffer))
	require.ErrorIs(t, err, net.ErrClosed)
	require.NoError(t, client.Close())
}
