package bootstrap

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/xds/bootstrap/envoytest"
)

func TestEnvoyAcceptsEveryVariant(t *testing.T) {
	explicit := func(c *Config) {
		c.Explicit, c.Bind, c.App = true, netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")
	}
	socket := func(c *Config) {
		c.CertFile, c.KeyFile, c.TrustBundle, c.SDSSocket = "", "", "", "/run/spire/agent.sock"
	}
	for name, change := range map[string]func(*Config){
		"delta":                      func(*Config) {},
		"sotw":                       func(c *Config) { c.SotW = true },
		"explicit":                   explicit,
		"explicit without addresses": func(c *Config) { c.Explicit = true },
		"explicit on IPv6": func(c *Config) {
			c.Explicit, c.Bind, c.App = true, netip.MustParseAddr("::1"), netip.MustParseAddr("::1")
			c.Servers = []string{"[2001:db8::1]:18000"}
			c.Admin = netip.MustParseAddrPort("[::1]:0")
		},
		"socket":          socket,
		"socket and sotw": func(c *Config) { socket(c); c.SotW = true },
		"host names":      func(c *Config) { c.Servers = []string{"localhost:18000", "127.0.0.1:18001", "[::1]:18002"} },
		"heap":            func(c *Config) { c.MaxHeapBytes = 512 << 20 },
		"metrics":         func(c *Config) { c.StatsPrefixes = []string{"http."} },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c := sample()
			newPKI(t).files(t, &c, t.TempDir())
			c.Admin = netip.MustParseAddrPort("127.0.0.1:0")
			change(&c)
			_, err := Write(dir, c)
			require.NoError(t, err)
			out := envoytest.Validate(t, dir, Process{Concurrency: 1, DrainTime: time.Second}.Args()...)
			require.Contains(t, out, "OK")
			for _, complaint := range []string{"[warning]", "[error]", "[critical]", "eprecated"} {
				require.NotContains(t, out, complaint)
			}
		})
	}
}

// ads records who connects and what comes first. It answers nothing.
type ads struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	first chan hello
}

type hello struct {
	delta bool
	peer  identity.Peer
	node  *corev3.Node
}

func (a *ads) greet(ctx context.Context, h hello) error {
	peer, err := identity.FromContext(ctx)
	if err != nil {
		return status.Error(codes.Unauthenticated, err.Error())
	}
	h.peer = peer
	select {
	case a.first <- h:
	default:
	}
	<-ctx.Done()
	return nil
}

func (a *ads) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	req, err := stream.Recv()
	if err != nil {
		return err
	}
	return a.greet(stream.Context(), hello{delta: true, node: req.GetNode()})
}

func (a *ads) StreamAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	req, err := stream.Recv()
	if err != nil {
		return err
	}
	return a.greet(stream.Context(), hello{node: req.GetNode()})
}

// run serves until the test ends.
func run(t *testing.T, server *grpc.Server, listener net.Listener) {
	t.Helper()
	ended := make(chan struct{})
	go func() { // ends when the server is stopped
		defer close(ended)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() { server.Stop(); <-ended })
}

// pki has an authority for the server's and one for the workload's domain.
type pki struct{ mesh, acme *identity.Authority }

func newPKI(t *testing.T) pki {
	t.Helper()
	mesh, err := identity.NewAuthority("mesh.example")
	require.NoError(t, err)
	acme, err := identity.NewAuthority("acme.example")
	require.NoError(t, err)
	return pki{mesh, acme}
}

// serveADS listens as the holder of id and returns the address.
func (p pki) serveADS(t *testing.T, id string) (string, *ads) {
	t.Helper()
	cert, key, err := p.mesh.Issue(id, identity.IssueOptions{})
	require.NoError(t, err)
	source, err := identity.NewStaticSource(cert, key, map[string][]byte{"acme.example": p.acme.Bundle()})
	require.NoError(t, err)
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(identity.ServerTLS(source, []string{"acme.example"}))),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}))
	a := &ads{first: make(chan hello, 1)}
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, a)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	run(t, server, listener)
	return listener.Addr().String(), a
}

// files writes a certificate of the sample's workload and the server's bundle.
func (p pki) files(t *testing.T, c *Config, dir string) {
	t.Helper()
	cert, key, err := p.acme.Issue(c.Workload.String(), identity.IssueOptions{})
	require.NoError(t, err)
	c.CertFile, c.KeyFile, c.TrustBundle = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "mesh.pem")
	for path, data := range map[string][]byte{c.CertFile: cert, c.KeyFile: key, c.TrustBundle: p.mesh.Bundle()} {
		require.NoError(t, os.WriteFile(path+".new", data, 0o600))
		require.NoError(t, os.Rename(path+".new", path))
	}
}

func start(t *testing.T, c Config) *envoytest.Process {
	t.Helper()
	dir := t.TempDir()
	_, err := Write(dir, c)
	require.NoError(t, err)
	return envoytest.Start(t, dir, Process{Concurrency: 1, DrainTime: time.Second}.Args()...)
}

func awaitHello(t *testing.T, a *ads) hello {
	t.Helper()
	select {
	case h := <-a.first:
		return h
	case <-time.After(30 * time.Second):
		require.FailNow(t, "Envoy did not connect")
		return hello{}
	}
}

func TestEnvoyConnects(t *testing.T) {
	envoytest.Binary(t)
	for _, sotw := range []bool{false, true} {
		p := newPKI(t)
		addr, a := p.serveADS(t, serverID)
		c := sample()
		c.SotW, c.Admin = sotw, netip.MustParseAddrPort("127.0.0.1:0")
		// The first address is dead.
		c.Servers = []string{deadAddress(t), addr}
		p.files(t, &c, t.TempDir())
		envoy := start(t, c)

		got := awaitHello(t, a)
		require.Equal(t, !sotw, got.delta)
		require.Equal(t, c.Workload, got.peer.Workload)
		require.Equal(t, "acme-shop/web-0", got.node.GetId())
		require.Equal(t, "transparent", got.node.GetMetadata().GetFields()["bailiwick"].GetStructValue().GetFields()["capture"].GetStringValue())
		requireAdmin(t, envoy)
	}
}

// deadAddress is one that nobody listens on.
func deadAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

func requireAdmin(t *testing.T, envoy *envoytest.Process) {
	t.Helper()
	for path, want := range map[string]int{
		"/stats?format=json": 200, "/config_dump?include_eds": 200, "/clusters": 200, "/stats/prometheus?usedonly": 200,
		"/logging?level=trace": 403, "/quitquitquit": 403, "/stats/recentlookups": 403, "/": 403, "/readyx": 403,
	} {
		got, _, err := envoy.Get(path)
		require.NoError(t, err)
		require.Equal(t, want, got, path)
	}
	_, stats, err := envoy.Get("/stats")
	require.NoError(t, err)
	require.Contains(t, stats, "cluster.xds.ssl.handshake: ")
	require.Contains(t, stats, "server.live")
	require.NotContains(t, stats, "listener.admin.", "the inclusion list is in force")
}

func TestEnvoyRefusesAnotherServer(t *testing.T) {
	envoytest.Binary(t)
	p := newPKI(t)
	addr, a := p.serveADS(t, "spiffe://mesh.example/ns/bailiwick-system/sa/other")
	c := sample()
	c.Servers, c.Admin = []string{addr}, netip.MustParseAddrPort("127.0.0.1:0")
	p.files(t, &c, t.TempDir())
	envoy := start(t, c)
	awaitStat(t, envoy, "cluster.xds.ssl.fail_verify_san")
	require.Empty(t, a.first)

	// The right name by an authority that is not the server's domain's.
	p2 := newPKI(t)
	addr, a = p2.serveADS(t, serverID)
	c.Servers = []string{addr}
	envoy = start(t, c)
	awaitStat(t, envoy, "cluster.xds.ssl.fail_verify_error")
	require.Empty(t, a.first)
}

// awaitStat waits until a counter is not zero.
func awaitStat(t *testing.T, envoy *envoytest.Process, name string) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, body, err := envoy.Get("/stats?filter=^" + name + "$")
		return err == nil && strings.HasPrefix(body, name+": ") && !strings.HasPrefix(body, name+": 0")
	}, 30*time.Second, 20*time.Millisecond, name)
}

// sds is what SPIRE's agent does for Envoy: secrets by name, sotw.
type sds struct {
	secretv3.UnimplementedSecretDiscoveryServiceServer
	secrets map[string]*tlsv3.Secret

	mu    sync.Mutex
	asked map[string]bool // guarded by mu
}

func (s *sds) StreamSecrets(stream secretv3.SecretDiscoveryService_StreamSecretsServer) error {
	for {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		if req.GetResponseNonce() != "" {
			continue // an ACK
		}
		resp := &discoveryv3.DiscoveryResponse{VersionInfo: "1", Nonce: "1", TypeUrl: req.GetTypeUrl()}
		for _, name := range req.GetResourceNames() {
			s.mu.Lock()
			s.asked[name] = true
			s.mu.Unlock()
			packed, err := anypb.New(s.secrets[name])
			if err != nil {
				return err
			}
			resp.Resources = append(resp.Resources, packed)
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

func inline(data []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: data}}
}

func TestEnvoyConnectsWithASocketsCertificates(t *testing.T) {
	envoytest.Binary(t)
	p := newPKI(t)
	addr, a := p.serveADS(t, serverID)
	c := sample()
	c.Servers, c.Admin = []string{addr}, netip.MustParseAddrPort("127.0.0.1:0")
	cert, key, err := p.acme.Issue(c.Workload.String(), identity.IssueOptions{})
	require.NoError(t, err)
	c.CertFile, c.KeyFile, c.TrustBundle = "", "", ""
	c.SDSSocket = filepath.Join(t.TempDir(), "sds.sock")
	s := &sds{asked: make(map[string]bool), secrets: map[string]*tlsv3.Secret{
		"default": {Name: "default", Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: inline(cert), PrivateKey: inline(key),
		}}},
		"spiffe://mesh.example": {Name: "spiffe://mesh.example", Type: &tlsv3.Secret_ValidationContext{
			ValidationContext: spireContext(t, "mesh.example", p.mesh.Bundle()),
		}},
	}}
	server := grpc.NewServer()
	secretv3.RegisterSecretDiscoveryServiceServer(server, s)
	listener, err := net.Listen("unix", c.SDSSocket)
	require.NoError(t, err)
	run(t, server, listener)

	start(t, c)
	require.Equal(t, c.Workload, awaitHello(t, a).peer.Workload)
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Equal(t, map[string]bool{"default": true, "spiffe://mesh.example": true}, s.asked)
}

// spireContext is how SPIRE's agent hands out the bundle of a trust domain: with
// Envoy's SPIFFE validator.
func spireContext(t *testing.T, td string, bundle []byte) *tlsv3.CertificateValidationContext {
	t.Helper()
	validator, err := anypb.New(&tlsv3.SPIFFECertValidatorConfig{TrustDomains: []*tlsv3.SPIFFECertValidatorConfig_TrustDomain{
		{Name: td, TrustBundle: inline(bundle)},
	}})
	require.NoError(t, err)
	return &tlsv3.CertificateValidationContext{CustomValidatorConfig: &corev3.TypedExtensionConfig{
		Name: "envoy.tls.cert_validator.spiffe", TypedConfig: validator,
	}}
}

// A rotated certificate is used for the next connection.
func TestEnvoyRotates(t *testing.T) {
	envoytest.Binary(t)
	p := newPKI(t)
	addr, a := p.serveADS(t, serverID)
	dir := t.TempDir()
	c := sample()
	c.Servers, c.Admin = []string{addr}, netip.MustParseAddrPort("127.0.0.1:0")
	p.files(t, &c, dir)
	// The first certificate is of an authority that the server does not know.
	stranger, err := identity.NewAuthority("acme.example")
	require.NoError(t, err)
	cert, key, err := stranger.Issue(c.Workload.String(), identity.IssueOptions{})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(c.CertFile, cert, 0o600))
	require.NoError(t, os.WriteFile(c.KeyFile, key, 0o600))
	envoy := start(t, c)
	awaitStat(t, envoy, "cluster.xds.upstream_cx_destroy_remote")
	require.Empty(t, a.first)
	p.files(t, &c, dir)
	require.Equal(t, c.Workload, awaitHello(t, a).peer.Workload)
}
