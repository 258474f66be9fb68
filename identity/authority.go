package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Names of the files of a saved [Authority].
const (
	authorityCertFile = "ca.pem"
	authorityKeyFile  = "ca-key.pem"
)

const (
	// authorityLife is how long a new authority lives. It is thrown away long
	// before that.
	authorityLife = 365 * 24 * time.Hour
	// defaultTTL is the life of a leaf whose options say nothing.
	defaultTTL = 24 * time.Hour
	// backdate makes up for the clocks of machines that are not quite in step.
	backdate = time.Minute
)

// Authority is a throw-away certificate authority of one trust domain, for demos
// and tests: keys are ECDSA on P-256, certificates are as the X.509-SVID
// specification wants them. It is immutable and safe for concurrent use.
type Authority struct {
	trustDomain spiffeid.TrustDomain
	cert        *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority makes a new authority with a new key.
func NewAuthority(trustDomain string) (*Authority, error) {
	td, err := parseTrustDomain(trustDomain)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate the authority's key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"Bailiwick throw-away CA"}, CommonName: clip(trustDomain), SerialNumber: serial.String()},
		URIs:                  []*url.URL{td.ID().URL()},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the authority's certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the authority's certificate back: %w", err)
	}
	return &Authority{trustDomain: td, cert: cert, key: key}, nil
}

// TrustDomain is the name of the trust domain.
func (a *Authority) TrustDomain() string { return a.trustDomain.Name() }

// Bundle is the trust bundle in PEM: the authority's certificate.
func (a *Authority) Bundle() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// Save writes the authority into dir, which is made if need be: ca.pem, and
// ca-key.pem readable by the owner only. It does not overwrite: if one of the
// files exists, the error wraps [fs.ErrExist].
func (a *Authority) Save(dir string) error {
	key, err := encodeKey(a.key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the authority's directory: %w", err)
	}
	certPath, keyPath := filepath.Join(dir, authorityCertFile), filepath.Join(dir, authorityKeyFile)
	if _, err := os.Lstat(certPath); err == nil {
		return fmt.Errorf("save the authority: %s: %w", certPath, fs.ErrExist)
	}
	// The key goes first: whoever comes second fails before it wrote anything.
	if err := writeNew(keyPath, key, 0o600); err != nil {
		return fmt.Errorf("save the authority's key: %w", err)
	}
	if err := writeNew(certPath, a.Bundle(), 0o644); err != nil {
		return fmt.Errorf("save the authority's certificate: %w", err)
	}
	return nil
}

// LoadAuthority reads what [Authority.Save] wrote. It fails if the authority has
// expired, because nobody would accept what it signs.
func LoadAuthority(dir string) (*Authority, error) {
	certPEM, err := os.ReadFile(filepath.Join(dir, authorityCertFile))
	if err != nil {
		return nil, fmt.Errorf("read the authority's certificate: %w", err)
	}
	keyPEM, err := os.ReadFile(filepath.Join(dir, authorityKeyFile))
	if err != nil {
		return nil, fmt.Errorf("read the authority's key: %w", err)
	}
	a, err := parseAuthority(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("authority in %s: %w", dir, err)
	}
	return a, nil
}

func parseAuthority(certPEM, keyPEM []byte) (*Authority, error) {
	certBlock, _ := pem.Decode(certPEM)
	keyBlock, _ := pem.Decode(keyPEM)
	if certBlock == nil || keyBlock == nil {
		return nil, errors.New("certificate and key must be PEM")
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("the key is not that of the certificate")
	}
	if !cert.IsCA || len(cert.URIs) != 1 {
		return nil, errors.New("the certificate is not that of a SPIFFE authority")
	}
	id, err := spiffeid.FromURI(cert.URIs[0])
	if err != nil {
		return nil, err
	}
	if !time.Now().Before(cert.NotAfter) {
		return nil, fmt.Errorf("expired at %s: make a new one", cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return &Authority{trustDomain: id.TrustDomain(), cert: cert, key: key}, nil
}

// IssueOptions say what a leaf certificate is like beyond its SPIFFE ID. The
// zero value is an SVID as a workload should have it.
type IssueOptions struct {
	// TTL is how long it lives from now; zero means 24 hours.
	TTL time.Duration
	// DNSNames and IPAddresses are further SANs, for clients that know no SPIFFE.
	DNSNames    []string
	IPAddresses []net.IP

	// What follows makes certificates that an honest authority would not issue,
	// for tests of those who must refuse them.

	// AnyID takes every ID that is a URI, of whatever trust domain or form.
	AnyID bool
	// ExtraURIs are URI SANs after the ID's.
	ExtraURIs []string
	// NoURI leaves out all URI SANs; the ID is then not looked at.
	NoURI bool
	// NotBefore and NotAfter, unless zero, win over TTL.
	NotBefore, NotAfter time.Time
}

// Issue signs a leaf certificate for a new key and returns both in PEM, the key
// as PKCS #8. It refuses an ID that is not a well-formed SPIFFE ID with a path in
// the authority's trust domain, and a life longer than the authority's own.
func (a *Authority) Issue(id string, options IssueOptions) (certPEM, keyPEM []byte, err error) {
	uris, err := a.uris(id, options)
	if err != nil {
		return nil, nil, fmt.Errorf("issue a certificate: %w", err)
	}
	notBefore, notAfter, err := a.validity(options, time.Now())
	if err != nil {
		return nil, nil, fmt.Errorf("issue a certificate for %s: %w", id, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generate a key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"Bailiwick throw-away SVID"}, SerialNumber: serial.String()},
		URIs:                  uris,
		DNSNames:              options.DNSNames,
		IPAddresses:           options.IPAddresses,
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("sign a certificate for %s: %w", id, err)
	}
	keyPEM, err = encodeKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyPEM, nil
}

func (a *Authority) uris(id string, options IssueOptions) ([]*url.URL, error) {
	if options.NoURI {
		return nil, nil
	}
	var uris []*url.URL
	for _, text := range append([]string{id}, options.ExtraURIs...) {
		uri, err := url.Parse(text)
		if err != nil {
			return nil, err
		}
		uris = append(uris, uri)
	}
	if options.AnyID {
		return uris, nil
	}
	parsed, err := spiffeid.FromString(id)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%q is not a SPIFFE ID: %w", shorten(id), err)
	case parsed.TrustDomain() != a.trustDomain:
		return nil, fmt.Errorf("%q is not in trust domain %q", shorten(id), a.trustDomain.Name())
	case parsed.Path() == "":
		return nil, fmt.Errorf("%q names a trust domain, not a workload: a path is missing", shorten(id))
	}
	return uris, nil
}

func (a *Authority) validity(options IssueOptions, now time.Time) (notBefore, notAfter time.Time, err error) {
	ttl := options.TTL
	switch {
	case ttl == 0:
		ttl = defaultTTL
	case ttl < 0:
		return notBefore, notAfter, fmt.Errorf("a life of %s is not in the future", ttl)
	}
	notBefore, notAfter = now.Add(-backdate), now.Add(ttl)
	if !options.NotBefore.IsZero() {
		notBefore = options.NotBefore
	}
	if !options.NotAfter.IsZero() {
		notAfter = options.NotAfter
	}
	if notAfter.After(a.cert.NotAfter) {
		return notBefore, notAfter, fmt.Errorf("it would outlive its authority, which ends at %s", a.cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return notBefore, notAfter, nil
}

// newSerial is random with 127 bits: positive, and unlike any other.
func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("generate a serial number: %w", err)
	}
	return serial.Add(serial, big.NewInt(1)), nil
}

// clip keeps a name within the 64 characters that X.520 allows a common name.
func clip(name string) string {
	return name[:min(len(name), 64)]
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func writeNew(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
