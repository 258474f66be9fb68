package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/stretchr/testify/require"
)

func TestCA(t *testing.T) {
	dir := t.TempDir()
	ca, out := filepath.Join(dir, "ca"), filepath.Join(dir, "web")
	must(t, "ca", "init", "--dir", ca, "--trust-domain", "acme.example")
	requireMode(t, filepath.Join(ca, "ca-key.pem"), 0o600)

	r := bailiwick(t, "ca", "init", "--dir", ca, "--trust-domain", "acme.example")
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.stderr, "remove it first")

	const id = "spiffe://acme.example/ns/shop/sa/web"
	issue := []string{"ca", "issue", "--dir", ca, "--spiffe-id", id, "--out", out, "--ttl", "10m"}
	cert := filepath.Join(out, "cert.pem")
	key := filepath.Join(out, "key.pem")
	require.Equal(t, cert+"\n"+key+"\n"+filepath.Join(out, "bundle.pem")+"\n", must(t, issue...))
	requireMode(t, key, 0o600)
	requireMode(t, cert, 0o644)
	first, err := x509svid.Load(cert, key)
	require.NoError(t, err)
	require.Equal(t, id, first.ID.String())
	bundle, err := os.ReadFile(filepath.Join(out, "bundle.pem"))
	require.NoError(t, err)
	authority, err := os.ReadFile(filepath.Join(ca, "ca.pem"))
	require.NoError(t, err)
	require.Equal(t, authority, bundle)

	// Issuing again is a rotation, and leaves nothing lying around.
	must(t, issue...)
	second, err := x509svid.Load(cert, key)
	require.NoError(t, err)
	require.NotEqual(t, first.Certificates[0].SerialNumber, second.Certificates[0].SerialNumber)
	entries, err := os.ReadDir(out)
	require.NoError(t, err)
	require.Len(t, entries, 3)
}

func requireMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, want, info.Mode(), path)
}

func TestCAIssueRefuses(t *testing.T) {
	dir := t.TempDir()
	ca, out := filepath.Join(dir, "ca"), filepath.Join(dir, "out")
	must(t, "ca", "init", "--dir", ca, "--trust-domain", "acme.example")
	for _, c := range []struct {
		id, why string
		code    int
	}{
		{"acme.example/ns/shop/sa/web", "scheme", exitUsage},
		{"spiffe://acme.example/ns/../sa/web", "dot segments", exitUsage},
		{"spiffe://acme.example/ns/shop/sa/web/", "trailing slash", exitUsage},
		{"spiffe://acme.example", "a path is missing", exitFailed},
		{"spiffe://globex.example/ns/shop/sa/web", `not in trust domain "acme.example"`, exitFailed},
	} {
		r := bailiwick(t, "ca", "issue", "--dir", ca, "--spiffe-id", c.id, "--out", out)
		require.Equal(t, c.code, r.code, c.id)
		require.Contains(t, r.stderr, c.why, c.id)
	}
	r := bailiwick(t, "ca", "issue", "--dir", ca, "--spiffe-id", "spiffe://acme.example/x", "--out", out, "--ttl", "0s")
	require.Equal(t, exitUsage, r.code)
	require.Contains(t, r.stderr, "must be positive")
	require.NoDirExists(t, out)

	// An ID that no Envoy can use is a certificate nevertheless.
	r = bailiwick(t, "ca", "issue", "--dir", ca, "--spiffe-id", "spiffe://acme.example/vm/1", "--out", out)
	require.Equal(t, exitOK, r.code)
	require.Contains(t, r.stderr, "note: no Envoy of the mesh can use this")

	r = bailiwick(t, "ca", "init", "--dir", filepath.Join(dir, "x"), "--trust-domain", "spiffe://acme.example")
	require.Equal(t, exitUsage, r.code)
	require.NoDirExists(t, filepath.Join(dir, "x"))
}
