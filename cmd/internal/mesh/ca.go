package mesh

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"bailiwick.dev/bailiwick/identity"
)

// Names of the files that [CA.WriteSVID] writes.
const (
	CertFile = "cert.pem"
	KeyFile  = "key.pem"
)

// CA is a throw-away authority for each of some trust domains. It is immutable.
type CA struct {
	dir         string
	domains     []string
	authorities map[string]*identity.Authority
}

// NewCA makes the authorities and writes their bundles into dir, which is made
// if need be. The first trust domain is the server's own.
func NewCA(dir string, trustDomains ...string) (*CA, error) {
	if len(trustDomains) == 0 {
		return nil, fmt.Errorf("make authorities: no trust domain is given")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make authorities: %w", err)
	}
	c := &CA{dir: dir, domains: slices.Clone(trustDomains), authorities: map[string]*identity.Authority{}}
	for _, td := range trustDomains {
		a, err := identity.NewAuthority(td)
		if err != nil {
			return nil, fmt.Errorf("make authorities: %w", err)
		}
		c.authorities[td] = a
		if err := replaceFile(c.BundleFile(td), a.Bundle(), 0o644); err != nil {
			return nil, fmt.Errorf("write the trust bundle of %s: %w", td, err)
		}
	}
	return c, nil
}

// TrustDomains are those of NewCA, in that order.
func (c *CA) TrustDomains() []string { return slices.Clone(c.domains) }

// Authority is that of a trust domain, nil for others.
func (c *CA) Authority(td string) *identity.Authority { return c.authorities[td] }

// BundleFile is the path of the trust bundle of a trust domain.
func (c *CA) BundleFile(td string) string { return filepath.Join(c.dir, td+".pem") }

// Bundles are the trust bundles of all domains in PEM.
func (c *CA) Bundles() map[string][]byte {
	bundles := make(map[string][]byte, len(c.authorities))
	for td, a := range maps.All(c.authorities) {
		bundles[td] = a.Bundle()
	}
	return bundles
}

// Roots are the authorities of a trust domain, for [Direct].
func (c *CA) Roots(td string) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.authorities[td].Bundle())
	return pool
}

// Issue signs a certificate for a SPIFFE ID by the authority of its trust domain.
func (c *CA) Issue(id string, options identity.IssueOptions) (certPEM, keyPEM []byte, err error) {
	parsed, err := spiffeid.FromString(id)
	if err != nil {
		return nil, nil, fmt.Errorf("issue a certificate for %q: %w", id, err)
	}
	a := c.authorities[parsed.TrustDomain().Name()]
	if a == nil {
		return nil, nil, fmt.Errorf("issue a certificate for %s: there is no authority of %s", id, parsed.TrustDomain())
	}
	return a.Issue(id, options)
}

// Certificate is [CA.Issue] for [Direct].
func (c *CA) Certificate(id string, options identity.IssueOptions) (tls.Certificate, error) {
	certPEM, keyPEM, err := c.Issue(id, options)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certPEM, keyPEM)
}

// Source is an identity with the bundles of all trust domains, for clients of
// the server.
func (c *CA) Source(id string, options identity.IssueOptions) (identity.Source, error) {
	certPEM, keyPEM, err := c.Issue(id, options)
	if err != nil {
		return nil, err
	}
	return identity.NewStaticSource(certPEM, keyPEM, c.Bundles())
}

// WriteSVID writes a new certificate of a SPIFFE ID into dir, as [CertFile] and
// [KeyFile], each replaced by rename.
func (c *CA) WriteSVID(dir, id string) error {
	certPEM, keyPEM, err := c.Issue(id, identity.IssueOptions{})
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(dir, KeyFile), keyPEM, 0o600); err != nil {
		return fmt.Errorf("write the key of %s: %w", id, err)
	}
	if err := replaceFile(filepath.Join(dir, CertFile), certPEM, 0o644); err != nil {
		return fmt.Errorf("write the certificate of %s: %w", id, err)
	}
	return nil
}

// replaceFile writes a file whole, by rename.
func replaceFile(path string, data []byte, mode os.FileMode) error {
	temp := path + ".new"
	if err := os.WriteFile(temp, data, mode); err != nil {
		return err
	}
	return os.Rename(temp, path)
}
