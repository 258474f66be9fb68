package identity

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// files is a source's directory.
type files struct {
	dir       string
	authority *Authority
	config    FileConfig
	journal   *journal
}

func newFiles(t *testing.T, dir string) *files {
	t.Helper()
	f := &files{dir: dir, authority: newAuthority(t, "mesh.example"), journal: newJournal()}
	f.config = FileConfig{
		CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"),
		Bundles: map[string]string{"mesh.example": filepath.Join(dir, "bundle.pem")},
		Logger:  f.journal.logger(),
	}
	return f
}

// fill writes a new pair and the bundle into a directory.
func (f *files) fill(t *testing.T, dir string) {
	t.Helper()
	cert, key := issue(t, f.authority, idServer, IssueOptions{})
	write(t, filepath.Join(dir, "cert.pem"), cert)
	write(t, filepath.Join(dir, "key.pem"), key)
	write(t, filepath.Join(dir, "bundle.pem"), f.authority.Bundle())
}

func (f *files) open(t *testing.T) Source {
	t.Helper()
	s, err := NewFileSource(f.config)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// awaitRotation waits until the source has another certificate than before.
func awaitRotation(t *testing.T, s Source, before string) {
	t.Helper()
	for serial(t, s) == before {
		await(t, s.Updated(), "rotation")
	}
}

func TestFileSourceSeesRenames(t *testing.T) {
	f := newFiles(t, t.TempDir())
	f.fill(t, f.dir)
	s := f.open(t)
	require.Equal(t, map[string][]byte{"mesh.example": f.authority.Bundle()}, s.Bundles())
	for range 3 {
		before := serial(t, s)
		cert, key := issue(t, f.authority, idServer, IssueOptions{})
		replace(t, f.config.KeyFile, key)
		replace(t, f.config.CertFile, cert)
		awaitRotation(t, s, before)
	}
}

func TestFileSourceSeesWritesInPlace(t *testing.T) {
	f := newFiles(t, t.TempDir())
	f.fill(t, f.dir)
	s := f.open(t)
	before := serial(t, s)
	f.fill(t, f.dir)
	awaitRotation(t, s, before)
}

// A Kubernetes volume: cert.pem -> ..data/cert.pem, and ..data is swapped.
func TestFileSourceSeesDataSymlinkSwaps(t *testing.T) {
	f := newFiles(t, t.TempDir())
	f.fill(t, filepath.Join(f.dir, "..1"))
	require.NoError(t, os.Symlink("..1", filepath.Join(f.dir, "..data")))
	for _, name := range []string{"cert.pem", "key.pem", "bundle.pem"} {
		require.NoError(t, os.Symlink(filepath.Join("..data", name), filepath.Join(f.dir, name)))
	}
	s := f.open(t)
	for _, next := range []string{"..2", "..3"} {
		before := serial(t, s)
		f.fill(t, filepath.Join(f.dir, next))
		require.NoError(t, os.Symlink(next, filepath.Join(f.dir, "..tmp")))
		require.NoError(t, os.Rename(filepath.Join(f.dir, "..tmp"), filepath.Join(f.dir, "..data")))
		awaitRotation(t, s, before)
	}
	require.NoError(t, os.RemoveAll(filepath.Join(f.dir, "..1")))
	before := serial(t, s)
	f.fill(t, filepath.Join(f.dir, "..3"))
	awaitRotation(t, s, before)
}

// A link to a release directory, absolute and above the files.
func TestFileSourceSeesADirectoryLinkSwap(t *testing.T) {
	root := t.TempDir()
	f := newFiles(t, filepath.Join(root, "live", "tls"))
	f.fill(t, filepath.Join(root, "v1", "tls"))
	require.NoError(t, os.Symlink(filepath.Join(root, "v1"), filepath.Join(root, "live")))
	s := f.open(t)
	before := serial(t, s)
	f.fill(t, filepath.Join(root, "v2", "tls"))
	require.NoError(t, os.Symlink(filepath.Join(root, "v2"), filepath.Join(root, "next")))
	require.NoError(t, os.Rename(filepath.Join(root, "next"), filepath.Join(root, "live")))
	awaitRotation(t, s, before)
	// And what happens in the new directory is seen, too.
	before = serial(t, s)
	f.fill(t, filepath.Join(root, "v2", "tls"))
	awaitRotation(t, s, before)
}

func TestFileSourceSurvivesItsDirectory(t *testing.T) {
	f := newFiles(t, filepath.Join(t.TempDir(), "certs"))
	f.fill(t, f.dir)
	s := f.open(t)
	before := serial(t, s)
	require.NoError(t, os.Rename(f.dir, f.dir+".old"))
	f.journal.await(t, "cannot renew")
	require.Equal(t, before, serial(t, s))
	staged := f.dir + ".new"
	f.fill(t, staged)
	require.NoError(t, os.Rename(staged, f.dir))
	awaitRotation(t, s, before)
	require.NoError(t, os.RemoveAll(f.dir))
	before = serial(t, s)
	f.fill(t, f.dir)
	awaitRotation(t, s, before)
}

func TestFileSourceKeepsTheOldPairWhenTheNewOneIsBroken(t *testing.T) {
	other := newAuthority(t, "other.example")
	past := time.Now().Add(-time.Minute)
	for name, spoil := range map[string]func(t *testing.T, f *files){
		"key of another pair": func(t *testing.T, f *files) {
			_, key := issue(t, f.authority, idServer, IssueOptions{})
			replace(t, f.config.KeyFile, key)
		},
		"half a certificate": func(t *testing.T, f *files) {
			cert, key := issue(t, f.authority, idServer, IssueOptions{})
			replace(t, f.config.KeyFile, key)
			replace(t, f.config.CertFile, cert[:len(cert)/2])
		},
		"two URI SANs": func(t *testing.T, f *files) {
			cert, key := issue(t, f.authority, idServer, IssueOptions{ExtraURIs: []string{idShop}})
			replace(t, f.config.KeyFile, key)
			replace(t, f.config.CertFile, cert)
		},
		"expired": func(t *testing.T, f *files) {
			cert, key := issue(t, f.authority, idServer, IssueOptions{NotBefore: past.Add(-time.Hour), NotAfter: past})
			replace(t, f.config.KeyFile, key)
			replace(t, f.config.CertFile, cert)
		},
		"an authority instead of a leaf": func(t *testing.T, f *files) {
			key, err := encodeKey(other.key)
			require.NoError(t, err)
			replace(t, f.config.KeyFile, key)
			replace(t, f.config.CertFile, other.Bundle())
		},
		"gone": func(t *testing.T, f *files) { require.NoError(t, os.Remove(f.config.CertFile)) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFiles(t, t.TempDir())
			f.fill(t, f.dir)
			s := f.open(t)
			before := serial(t, s)
			spoil(t, f)
			f.journal.await(t, "cannot renew")
			require.Equal(t, before, serial(t, s))
			// A withdrawn authority must not wait for the pair to be repaired.
			replace(t, f.config.Bundles["mesh.example"], other.Bundle())
			await(t, s.Updated(), "the bundle's change")
			require.Equal(t, other.Bundle(), s.Bundles()["mesh.example"])
			require.Equal(t, before, serial(t, s))
			// And repaired it is taken.
			f.fill(t, f.dir)
			awaitRotation(t, s, before)
		})
	}
}

func TestFileSourceKeepsTheOldBundleWhenTheNewOneIsBroken(t *testing.T) {
	for name, content := range map[string]func(t *testing.T, f *files) []byte{
		"empty": func(*testing.T, *files) []byte { return nil },
		"garbage": func(*testing.T, *files) []byte {
			return []byte("-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n")
		},
		"a leaf": func(t *testing.T, f *files) []byte {
			cert, _ := issue(t, f.authority, idServer, IssueOptions{})
			return cert
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFiles(t, t.TempDir())
			f.fill(t, f.dir)
			s := f.open(t)
			replace(t, f.config.Bundles["mesh.example"], content(t, f))
			f.journal.await(t, "cannot renew")
			require.Equal(t, f.authority.Bundle(), s.Bundles()["mesh.example"])
			before := serial(t, s)
			cert, key := issue(t, f.authority, idServer, IssueOptions{})
			replace(t, f.config.KeyFile, key)
			replace(t, f.config.CertFile, cert)
			awaitRotation(t, s, before)
			require.Equal(t, 1, f.journal.count("item=\"trust bundle of mesh.example\""), "one complaint, however often it is read")
		})
	}
}

func TestFileSourceRefusesToStart(t *testing.T) {
	past := time.Now().Add(-time.Minute)
	for name, spoil := range map[string]func(t *testing.T, f *files) string{
		"no certificate": func(t *testing.T, f *files) string {
			require.NoError(t, os.Remove(f.config.CertFile))
			return "read certificate"
		},
		"no key": func(t *testing.T, f *files) string {
			require.NoError(t, os.Remove(f.config.KeyFile))
			return "read private key"
		},
		"no bundle": func(t *testing.T, f *files) string {
			require.NoError(t, os.Remove(f.config.Bundles["mesh.example"]))
			return "read trust bundle"
		},
		"no directory": func(t *testing.T, f *files) string {
			require.NoError(t, os.RemoveAll(f.dir))
			return "read certificate"
		},
		"bad trust domain": func(_ *testing.T, f *files) string {
			f.config.Bundles = map[string]string{"spiffe://mesh.example": f.config.Bundles["mesh.example"]}
			return "want a name"
		},
		"expired": func(t *testing.T, f *files) string {
			cert, key := issue(t, f.authority, idServer, IssueOptions{NotBefore: past.Add(-time.Hour), NotAfter: past})
			write(t, f.config.CertFile, cert)
			write(t, f.config.KeyFile, key)
			return "expired at"
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFiles(t, filepath.Join(t.TempDir(), "certs"))
			f.fill(t, f.dir)
			want := spoil(t, f)
			_, err := NewFileSource(f.config)
			require.ErrorContains(t, err, want)
			require.Zero(t, f.journal.count("level="), "an error is returned or logged, never both")
		})
	}
}

// Keys as openssl and cert-manager write them.
func TestFileSourceTakesOtherKeyEncodings(t *testing.T) {
	f := newFiles(t, t.TempDir())
	f.fill(t, f.dir)
	cert, key := issue(t, f.authority, idServer, IssueOptions{})
	block, _ := pem.Decode(key)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	require.NoError(t, err)
	der, err := x509.MarshalECPrivateKey(parsed.(*ecdsa.PrivateKey))
	require.NoError(t, err)
	write(t, f.config.CertFile, cert)
	write(t, f.config.KeyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
	s := f.open(t)
	svid, err := s.GetX509SVID()
	require.NoError(t, err)
	require.Equal(t, idServer, svid.ID.String())
}

func TestFileSourceCloses(t *testing.T) {
	f := newFiles(t, t.TempDir())
	f.fill(t, f.dir)
	s := f.open(t)
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	require.NotEmpty(t, serial(t, s), "what was known stays readable")
}

func TestBundlesAreDeterministic(t *testing.T) {
	a, b := newAuthority(t, "mesh.example"), newAuthority(t, "mesh.example")
	one := staticSource(t, nil, nil, map[string][]byte{"mesh.example": append(a.Bundle(), b.Bundle()...)})
	two := staticSource(t, nil, nil, map[string][]byte{"mesh.example": append(append(b.Bundle(), a.Bundle()...), b.Bundle()...)})
	require.Equal(t, one.Bundles(), two.Bundles())
	one.Bundles()["mesh.example"] = nil
	require.NotNil(t, one.Bundles()["mesh.example"], "the map is a copy")
	_, err := one.GetX509SVID()
	require.Error(t, err)
	_, err = one.GetX509BundleForTrustDomain(parseID(t, idShop).TrustDomain())
	require.ErrorContains(t, err, "acme.example")
}
