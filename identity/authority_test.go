package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/stretchr/testify/require"
)

func leafOf(t *testing.T, certPEM []byte) *x509.Certificate {
	t.Helper()
	block, rest := pem.Decode(certPEM)
	require.NotNil(t, block)
	require.Empty(t, rest)
	cert, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	return cert
}

func TestIssueIsASPIFFESVID(t *testing.T) {
	a := newAuthority(t, "acme.example")
	certPEM, keyPEM := issue(t, a, idShop, IssueOptions{TTL: time.Hour, DNSNames: []string{"web"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	svid, err := x509svid.Parse(certPEM, keyPEM) // checks the specification's demands on a leaf
	require.NoError(t, err)
	require.Equal(t, idShop, svid.ID.String())

	bundle, err := parseBundle("acme.example", a.Bundle())
	require.NoError(t, err)
	id, _, err := x509svid.Verify(svid.Certificates, bundle)
	require.NoError(t, err)
	require.Equal(t, idShop, id.String())

	leaf := leafOf(t, certPEM)
	require.Equal(t, x509.KeyUsageDigitalSignature, leaf.KeyUsage)
	require.Equal(t, elliptic.P256(), leaf.PublicKey.(*ecdsa.PublicKey).Curve)
	require.Equal(t, []string{"web"}, leaf.DNSNames)
	require.WithinDuration(t, time.Now().Add(time.Hour), leaf.NotAfter, time.Minute)
	require.Positive(t, leaf.SerialNumber.Sign())
}

func TestIssueRefuses(t *testing.T) {
	a := newAuthority(t, "acme.example")
	for id, why := range map[string]string{
		"":                                    "not a SPIFFE ID",
		"https://acme.example/":               "not a SPIFFE ID",
		"spiffe://acme.example":               "a path is missing",
		"spiffe://acme.example/ns//sa/x":      "not a SPIFFE ID",
		"spiffe://acme.example/ns/a/sa/x/":    "not a SPIFFE ID",
		"spiffe://globex.example/ns/a/sa/x":   "not in trust domain",
		"spiffe://acme.example/ns/a/sa/x,y":   "not a SPIFFE ID",
		"spiffe://ACME.example/ns/a/sa/x":     "not a SPIFFE ID",
		"spiffe://acme.example/ns/a/sa/x?q=1": "not a SPIFFE ID",
	} {
		_, _, err := a.Issue(id, IssueOptions{})
		require.ErrorContains(t, err, why, id)
	}
	_, _, err := a.Issue(idShop, IssueOptions{TTL: -time.Hour})
	require.ErrorContains(t, err, "not in the future")
	_, _, err = a.Issue(idShop, IssueOptions{TTL: 2 * authorityLife})
	require.ErrorContains(t, err, "outlive")
}

func TestIssueWhatNobodyShould(t *testing.T) {
	a := newAuthority(t, "acme.example")
	certPEM, _ := issue(t, a, idShop, IssueOptions{ExtraURIs: []string{"spiffe://globex.example/ns/a/sa/b"}})
	require.Len(t, leafOf(t, certPEM).URIs, 2)
	certPEM, _ = issue(t, a, "", IssueOptions{NoURI: true})
	require.Empty(t, leafOf(t, certPEM).URIs)
	certPEM, _ = issue(t, a, "spiffe://globex.example", IssueOptions{AnyID: true})
	require.Equal(t, "spiffe://globex.example", leafOf(t, certPEM).URIs[0].String())
	past := time.Now().Add(-time.Minute).Truncate(time.Second)
	certPEM, _ = issue(t, a, idShop, IssueOptions{NotBefore: past.Add(-time.Hour), NotAfter: past})
	require.True(t, leafOf(t, certPEM).NotAfter.Equal(past))
}

func TestAuthoritySaveAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	a := newAuthority(t, "acme.example")
	require.NoError(t, a.Save(dir))
	info, err := os.Stat(filepath.Join(dir, "ca-key.pem"))
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode())

	again, err := LoadAuthority(dir)
	require.NoError(t, err)
	require.Equal(t, "acme.example", again.TrustDomain())
	require.Equal(t, a.Bundle(), again.Bundle())
	certPEM, keyPEM := issue(t, again, idShop, IssueOptions{})
	svid, err := x509svid.Parse(certPEM, keyPEM)
	require.NoError(t, err)
	bundle, err := parseBundle("acme.example", a.Bundle())
	require.NoError(t, err)
	_, _, err = x509svid.Verify(svid.Certificates, bundle)
	require.NoError(t, err)

	before, err := os.ReadFile(filepath.Join(dir, "ca-key.pem"))
	require.NoError(t, err)
	require.ErrorIs(t, newAuthority(t, "globex.example").Save(dir), fs.ErrExist)
	require.NoError(t, os.Remove(filepath.Join(dir, "ca.pem")))
	require.ErrorIs(t, newAuthority(t, "globex.example").Save(dir), fs.ErrExist, "the key alone must not be overwritten either")
	after, err := os.ReadFile(filepath.Join(dir, "ca-key.pem"))
	require.NoError(t, err)
	require.Equal(t, before, after)
}

func TestLoadAuthorityRefuses(t *testing.T) {
	_, err := LoadAuthority(t.TempDir())
	require.ErrorIs(t, err, fs.ErrNotExist)

	dir := t.TempDir()
	a := newAuthority(t, "acme.example")
	require.NoError(t, a.Save(dir))
	leaf, key := issue(t, a, idShop, IssueOptions{})
	write(t, filepath.Join(dir, "ca-key.pem"), key)
	_, err = LoadAuthority(dir)
	require.ErrorContains(t, err, "not that of the certificate")
	write(t, filepath.Join(dir, "ca.pem"), leaf)
	_, err = LoadAuthority(dir)
	require.ErrorContains(t, err, "not that of a SPIFFE authority")
	write(t, filepath.Join(dir, "ca.pem"), []byte("hello"))
	_, err = LoadAuthority(dir)
	require.ErrorContains(t, err, "PEM")
}

func TestNewAuthorityRefuses(t *testing.T) {
	for _, td := range []string{"", "spiffe://acme.example", "ACME", "a b", strings.Repeat("a", 256)} {
		_, err := NewAuthority(td)
		require.Error(t, err, td)
	}
	long := newAuthority(t, strings.Repeat("a", 255))
	require.Len(t, long.TrustDomain(), 255)
}
