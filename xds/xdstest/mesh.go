package xdstest

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/test/bufconn"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/xds"
	"bailiwick.dev/bailiwick/xds/adsclient"
)

// ServerID is the SPIFFE ID of a Mesh's server.
const ServerID = "spiffe://mesh.example/ns/bailiwick/sa/xds"

// Mesh is authorities of some trust domains and a server that trusts them.
type Mesh struct {
	// Authorities are those of the trust domains by name. The server's own,
	// mesh.example, is among them.
	Authorities map[string]*identity.Authority
	source      identity.Source
	pinned      spiffeid.ID
}

// NewMesh makes an authority for each trust domain.
func NewMesh(trustDomains ...string) (*Mesh, error) {
	m := &Mesh{Authorities: map[string]*identity.Authority{}}
	var err error
	if m.pinned, err = spiffeid.FromString(ServerID); err != nil {
		return nil, err
	}
	bundles := map[string][]byte{}
	for _, name := range append(trustDomains, m.pinned.TrustDomain().Name()) {
		a, err := identity.NewAuthority(name)
		if err != nil {
			return nil, err
		}
		m.Authorities[name], bundles[name] = a, a.Bundle()
	}
	cert, key, err := m.Authorities[m.pinned.TrustDomain().Name()].Issue(ServerID, identity.IssueOptions{})
	if err != nil {
		return nil, err
	}
	m.source, err = identity.NewStaticSource(cert, key, bundles)
	return m, err
}

// TLS is the client's side of mTLS with a certificate of an authority.
func (m *Mesh) TLS(a *identity.Authority, id string, options identity.IssueOptions) (*tls.Config, error) {
	cert, key, err := a.Issue(id, options)
	if err != nil {
		return nil, err
	}
	svid, err := identity.NewStaticSource(cert, key, nil)
	if err != nil {
		return nil, err
	}
	return identity.ClientTLS(svid, m.source, m.pinned), nil
}

// Running is a server and the way to it.
type Running struct {
	// Config is how a client reaches the server.
	Config adsclient.Config
	stop   context.CancelFunc
	ended  chan error
}

// Stop ends the server and returns its error.
func (r *Running) Stop() error {
	r.stop()
	return <-r.ended
}

// Serve runs a server for clients of the trust domains on a loopback address.
func (m *Mesh) Serve(config xds.Config, trustDomains ...string) (*Running, error) {
	server, err := xds.NewServer(config)
	if err != nil {
		return nil, err
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen on loopback: %w", err)
	}
	return run(adsclient.Config{Address: lis.Addr().String()}, func(ctx context.Context) error {
		return server.Serve(ctx, lis, m.source, trustDomains)
	}), nil
}

// Start runs the stock server in memory, without TLS.
func (o *Oracle) Start() *Running {
	lis := bufconn.Listen(1 << 20)
	dialer := func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }
	return run(adsclient.Config{Address: "stock", Dialer: dialer}, func(ctx context.Context) error { return o.Serve(ctx, lis) })
}

func run(config adsclient.Config, serve func(context.Context) error) *Running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Running{Config: config, stop: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- serve(ctx) }() // ends with Stop
	return r
}
