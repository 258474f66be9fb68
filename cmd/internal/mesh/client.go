package mesh

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// dialTimeout bounds a connection's set-up on loopback.
const dialTimeout = 5 * time.Second

// Through returns a client for what an application does behind its proxy: the
// URL names a host and port as the mesh knows them, and the connection goes to
// that port of the proxy's bind address. Close its idle connections when done.
func Through(bind netip.Addr) *http.Client {
	return &http.Client{Transport: throughTransport(bind, false)}
}

// ThroughH2C is [Through] with HTTP/2 without TLS, as gRPC applications speak.
func ThroughH2C(bind netip.Addr) *http.Client {
	return &http.Client{Transport: throughTransport(bind, true)}
}

func throughTransport(bind netip.Addr, h2c bool) *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!h2c)
	protocols.SetUnencryptedHTTP2(h2c)
	return &http.Transport{
		Protocols: protocols,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, fmt.Errorf("dial through the proxy at %s: %w", bind, err)
			}
			return dialer.DialContext(ctx, network, net.JoinHostPort(bind.String(), port))
		},
	}
}

// Direct returns a client that speaks mTLS to an inbound proxy, past any proxy
// of its own, as an attacker or a foreign workload would: with the certificate
// given (none if it has no chain) and the roots given. What the server must name
// is checked by verify with the verified leaf; nil takes any, and nil roots do
// not check the chain either. All requests go to addr, whatever host they name.
func Direct(addr netip.AddrPort, cert tls.Certificate, roots *x509.CertPool, verify func(*x509.Certificate) error) *http.Client {
	config := directTLS(cert, roots, verify)
	dialer := &net.Dialer{Timeout: dialTimeout}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return &http.Client{Transport: &http.Transport{
		Protocols:       protocols,
		TLSClientConfig: config,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, addr.String())
		},
	}}
}

// DialDirect is [Direct] for TCP: a connection after its handshake. Note that
// with TLS 1.3 a server's refusal of the client's certificate comes with the
// first read.
func DialDirect(ctx context.Context, addr netip.AddrPort, cert tls.Certificate, roots *x509.CertPool, verify func(*x509.Certificate) error) (net.Conn, error) {
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: directTLS(cert, roots, verify)}
	return dialer.DialContext(ctx, "tcp", addr.String())
}

func directTLS(cert tls.Certificate, roots *x509.CertPool, verify func(*x509.Certificate) error) *tls.Config {
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		// SPIFFE certificates name no host: the chain is checked below.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			return verifyPeer(state, roots, verify)
		},
	}
	if len(cert.Certificate) > 0 {
		// Certificates would be left out where the server's hint does not name
		// their issuer: a foreigner's has to be shown.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	return config
}

func verifyPeer(state tls.ConnectionState, roots *x509.CertPool, verify func(*x509.Certificate) error) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the server has no certificate")
	}
	leaf := state.PeerCertificates[0]
	if roots != nil {
		intermediates := x509.NewCertPool()
		for _, c := range state.PeerCertificates[1:] {
			intermediates.AddCert(c)
		}
		if _, err := leaf.Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}); err != nil {
			return fmt.Errorf("the server's certificate: %w", err)
		}
	}
	if verify == nil {
		return nil
	}
	return verify(leaf)
}
