package xds

import (
	"crypto/tls"
	"net"
	"sync"

	"google.golang.org/grpc/credentials"
)

// Credentials are gRPC's for a TLS configuration. What gRPC writes at once on their
// connections goes to the system at once: crypto/tls by itself makes a system call
// for each record, that is for each 16 KB.
func Credentials(config *tls.Config) credentials.TransportCredentials {
	return corking{credentials.NewTLS(config)}
}

type corking struct {
	credentials.TransportCredentials
}

func (c corking) Clone() credentials.TransportCredentials {
	return corking{c.TransportCredentials.Clone()}
}

func (c corking) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	below := &corked{Conn: raw}
	conn, info, err := c.TransportCredentials.ServerHandshake(below)
	if err != nil {
		return nil, nil, err
	}
	return &corker{conn, below}, info, nil
}

// oneRecord is what crypto/tls puts into a record at most.
const oneRecord = 16 << 10

// corker is above TLS, on the side of gRPC.
type corker struct {
	net.Conn
	below *corked
}

// Write returns when all of b was handed to the system, as the Conn's own does.
func (c *corker) Write(b []byte) (int, error) {
	if len(b) <= oneRecord {
		return c.Conn.Write(b)
	}
	c.below.cork()
	n, err := c.Conn.Write(b)
	if failed := c.below.uncork(); err == nil && failed != nil {
		return 0, failed
	}
	return n, err
}

// corked is below TLS. Between cork and uncork it collects.
type corked struct {
	net.Conn

	mu   sync.Mutex
	held *[]byte // guarded by mu; nil while it is not corked
}

// records are the buffers of connections that collect: those of a write by gRPC
// with what TLS adds.
var records = sync.Pool{New: func() any {
	b := make([]byte, 0, writeBuffer+4<<10)
	return &b
}}

// Write takes whole records, from whoever has TLS's lock: in their order, though
// the reading side may have something to say between two of a write.
func (c *corked) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		return c.Conn.Write(b)
	}
	*c.held = append(*c.held, b...)
	return len(b), nil
}

func (c *corked) cork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = records.Get().(*[]byte)
}

func (c *corked) uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	held := c.held
	c.held = nil
	_, err := c.Conn.Write(*held)
	*held = (*held)[:0]
	records.Put(held)
	return err
}
