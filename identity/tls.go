package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// ServerTLS is the TLS configuration of everything that listens for workloads:
// TLS 1.3 for both sides. A client is let in if its certificate has exactly one
// URI SAN, its trust domain is one of allowed, and its chain ends in the bundle
// that src has for that very domain. An empty list allows nobody. Certificate
// and bundles are read anew for each handshake, so a rotation needs no restart.
//
// Whether the ID is that of a workload is not asked here but by [FromContext]:
// a handshake that fails tells the client nothing it can act on. Use it with
// grpc's credentials.NewTLS; go-spiffe's own grpccredentials crash on a validly
// signed ID without a path.
func ServerTLS(src Source, allowed []string) *tls.Config {
	domains := make(map[string]struct{}, len(allowed))
	for _, d := range allowed {
		domains[d] = struct{}{}
	}
	authorize := func(id spiffeid.ID, _ [][]*x509.Certificate) error {
		if _, ok := domains[id.TrustDomain().Name()]; !ok {
			return fmt.Errorf("trust domain %q is not allowed", id.TrustDomain().Name())
		}
		return nil
	}
	config := tlsconfig.MTLSServerConfig(src, src, authorize)
	// It runs on a goroutine of gRPC's, on bytes of whoever connects: a panic
	// there would end the server.
	verify := config.VerifyPeerCertificate
	config.VerifyPeerCertificate = func(raw [][]byte, chains [][]*x509.Certificate) (err error) {
		defer func() {
			if r := recover(); r != nil {
				err = errors.New("the certificate cannot be judged")
			}
		}()
		return verify(raw, chains)
	}
	config.MinVersion = tls.VersionTLS13
	config.NextProtos = []string{"h2"}
	// crypto/tls does not call VerifyPeerCertificate for a resumed session.
	config.SessionTicketsDisabled = true
	// Records that start small are for browsers: here nothing can be done with half
	// a message, and each record is a system call.
	config.DynamicRecordSizingDisabled = true
	return config
}

// ClientTLS is the TLS configuration of a client of [ServerTLS]: it presents
// svid's certificate and talks to nobody but the holder of server's SPIFFE ID,
// verified with the bundle of the server's own trust domain.
func ClientTLS(svid x509svid.Source, bundles x509bundle.Source, server spiffeid.ID) *tls.Config {
	config := tlsconfig.MTLSClientConfig(svid, bundles, tlsconfig.AuthorizeID(server))
	config.MinVersion = tls.VersionTLS13
	config.NextProtos = []string{"h2"}
	return config
}
