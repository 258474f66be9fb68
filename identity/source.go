package identity

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Source holds the own SVID and the trust bundles, both current. It is safe for
// concurrent use.
type Source interface {
	x509svid.Source
	x509bundle.Source

	// Bundles maps each trust domain to its X.509 authorities in PEM, sorted by
	// their DER bytes and without duplicates, so that equal bundles are equal
	// bytes on every replica. A domain without authorities is not in it. The map
	// is the caller's; its values are shared and must not be written to.
	Bundles() map[string][]byte

	// Updated receives a value after the SVID or a bundle has changed; changes
	// that nobody has received yet are one value. It has one receiver and is
	// never closed.
	Updated() <-chan struct{}

	// Close ends the watching. What was last known stays readable. It may be
	// called more than once.
	Close() error
}

// NewStaticSource returns a Source that never changes. The certificate may be
// nil if only bundles are needed. Unlike the other sources it takes a
// certificate with any SANs, so that a test can be the peer that it must not
// believe.
func NewStaticSource(certPEM, keyPEM []byte, bundles map[string][]byte) (Source, error) {
	var svid *x509svid.SVID
	if certPEM != nil {
		pair, err := tls.X509KeyPair(certPEM, keyPEM)
		if err != nil {
			return nil, fmt.Errorf("read certificate and key: %w", err)
		}
		svid, err = looseSVID(pair)
		if err != nil {
			return nil, fmt.Errorf("read certificate: %w", err)
		}
	}
	parsed := make(map[string]*x509bundle.Bundle, len(bundles))
	for name, raw := range bundles {
		bundle, err := parseBundle(name, raw)
		if err != nil {
			return nil, err
		}
		parsed[name] = bundle
	}
	s := &static{holder: newHolder()}
	s.set(svid, parsed)
	return s, nil
}

type static struct{ holder }

func (*static) Close() error { return nil }

// holder is what all sources have in common: the current material, swapped as
// one.
type holder struct {
	current atomic.Pointer[material]
	updated chan struct{}
}

// material is immutable.
type material struct {
	svid    *x509svid.SVID
	bundles map[string]*x509bundle.Bundle
	pem     map[string][]byte
}

func newHolder() holder {
	return holder{updated: make(chan struct{}, 1)}
}

// set swaps in new material. Equal material wakes nobody.
func (h *holder) set(svid *x509svid.SVID, bundles map[string]*x509bundle.Bundle) {
	next := &material{svid: svid, bundles: maps.Clone(bundles), pem: make(map[string][]byte, len(bundles))}
	for name, bundle := range bundles {
		if p := encodeBundle(bundle); len(p) > 0 {
			next.pem[name] = p
		}
	}
	last := h.current.Swap(next)
	if last == nil {
		return // what was there from the start is no change
	}
	if sameSVID(last.svid, next.svid) && maps.EqualFunc(last.pem, next.pem, bytes.Equal) {
		return
	}
	select {
	case h.updated <- struct{}{}:
	default:
	}
}

func (h *holder) GetX509SVID() (*x509svid.SVID, error) {
	m := h.current.Load()
	if m == nil || m.svid == nil {
		return nil, errors.New("no certificate of our own")
	}
	return m.svid, nil
}

func (h *holder) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	if m := h.current.Load(); m != nil {
		if bundle, ok := m.bundles[td.Name()]; ok {
			return bundle, nil
		}
	}
	return nil, fmt.Errorf("no trust bundle for trust domain %q", td.Name())
}

func (h *holder) Bundles() map[string][]byte {
	m := h.current.Load()
	if m == nil {
		return map[string][]byte{}
	}
	return maps.Clone(m.pem)
}

func (h *holder) Updated() <-chan struct{} { return h.updated }

func sameSVID(a, b *x509svid.SVID) bool {
	if a == nil || b == nil {
		return a == b
	}
	return slices.EqualFunc(a.Certificates, b.Certificates, (*x509.Certificate).Equal)
}

// parseSVID reads a certificate chain and its key from PEM, the key in any of
// the encodings that crypto/tls knows, and checks all that the X.509-SVID
// specification asks of a leaf. One that has expired is refused: nobody would
// accept it.
func parseSVID(certPEM, keyPEM []byte, now time.Time) (*x509svid.SVID, error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	svid, err := x509svid.ParseRaw(bytes.Join(pair.Certificate, nil), key)
	if err != nil {
		return nil, err
	}
	if leaf := svid.Certificates[0]; !now.Before(leaf.NotAfter) {
		return nil, fmt.Errorf("certificate of %s expired at %s", svid.ID, leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return svid, nil
}

// looseSVID makes an SVID of a pair without asking what it names.
func looseSVID(pair tls.Certificate) (*x509svid.SVID, error) {
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("private key of type %T cannot sign", pair.PrivateKey)
	}
	svid := &x509svid.SVID{PrivateKey: signer}
	for _, der := range pair.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		svid.Certificates = append(svid.Certificates, cert)
	}
	if id, err := x509svid.IDFromCert(svid.Certificates[0]); err == nil {
		svid.ID = id
	}
	return svid, nil
}

// parseBundle reads the authorities of a trust domain. An empty bundle, or one
// with a certificate that is no authority, is an error: a leaf in a pool of
// roots would be trusted as it is.
func parseBundle(name string, raw []byte) (*x509bundle.Bundle, error) {
	td, err := parseTrustDomain(name)
	if err != nil {
		return nil, err
	}
	bundle, err := x509bundle.Parse(td, raw)
	if err != nil {
		return nil, fmt.Errorf("trust bundle of %q: %w", name, err)
	}
	if err := checkBundle(bundle); err != nil {
		return nil, err
	}
	return bundle, nil
}

func checkBundle(bundle *x509bundle.Bundle) error {
	name := bundle.TrustDomain().Name()
	authorities := bundle.X509Authorities()
	if len(authorities) == 0 {
		return fmt.Errorf("trust bundle of %q has no certificate", name)
	}
	for _, cert := range authorities {
		if !cert.IsCA {
			return fmt.Errorf("trust bundle of %q: certificate of %q is not a CA's", name, cert.Subject)
		}
	}
	return nil
}

// parseTrustDomain takes a name only, where go-spiffe takes whole IDs as well.
func parseTrustDomain(name string) (spiffeid.TrustDomain, error) {
	td, err := spiffeid.TrustDomainFromString(name)
	if err != nil {
		return spiffeid.TrustDomain{}, fmt.Errorf("trust domain %q: %w", name, err)
	}
	if td.Name() != name || len(name) > maxTrustDomain {
		return spiffeid.TrustDomain{}, fmt.Errorf("trust domain %q: want a name such as example.org", name)
	}
	return td, nil
}

func encodeBundle(bundle *x509bundle.Bundle) []byte {
	authorities := bundle.X509Authorities()
	slices.SortFunc(authorities, func(a, b *x509.Certificate) int { return bytes.Compare(a.Raw, b.Raw) })
	authorities = slices.CompactFunc(authorities, (*x509.Certificate).Equal)
	var out []byte
	for _, cert := range authorities {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return out
}

// sortedKeys is for logs and errors that should not change from run to run.
func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}
