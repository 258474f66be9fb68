package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/cmd/internal/preview"
	"bailiwick.dev/bailiwick/tenancy/object"
	"bailiwick.dev/bailiwick/tenancy/read"
)

const demoDir = "../../deploy/demo"

func copyOfDemo(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(demoDir)))
	return dir
}

func previewed(t *testing.T, before, after string) (int, preview.Diff) {
	t.Helper()
	r := bailiwick(t, "preview", after, "--config-dir", before, "--allow-loopback-endpoints", "-o", "json")
	require.Empty(t, r.stderr)
	var d preview.Diff
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &d))
	return r.code, d
}

func TestPreviewDemo(t *testing.T) {
	dir := copyOfDemo(t)
	require.NoError(t, os.Remove(filepath.Join(dir, "tenants/acme/acme-shop/policy-orders.yaml")))
	request, err := os.ReadFile(filepath.Join(demoDir, "tenants/acme/acme-shop/request-logs.yaml"))
	require.NoError(t, err)
	writeFile(t, dir, "tenants/acme/acme-web/request-logs.yaml", strings.ReplaceAll(string(request), "acme-shop", "acme-web"))
	r := bailiwick(t, "preview", dir, "--config-dir", demoDir, "--allow-loopback-endpoints")
	require.Equal(t, exitDenied, r.code, r.stderr)
	// How many bytes is for the builders to say.
	golden(t, "preview/demo.txt", regexp.MustCompile(`[1-9][0-9]* bytes`).ReplaceAllString(r.stdout, "N bytes"))

	code, d := previewed(t, demoDir, demoDir)
	require.Zero(t, code)
	require.Empty(t, d.Calls)
	require.Empty(t, d.Clusters)
	require.Empty(t, d.Touched)
}

// Whichever file is taken away: what explain says differently of a call is a
// change that is shown, who is said not to be touched has all that there was,
// and the way back is the same change the other way round.
func TestPreviewOfEveryFile(t *testing.T) {
	require.NoError(t, filepath.WalkDir(demoDir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Ext(path) != ".yaml" {
			return err
		}
		rel, err := filepath.Rel(demoDir, path)
		if err != nil {
			return err
		}
		t.Run(rel, func(t *testing.T) {
			dir := copyOfDemo(t)
			require.NoError(t, os.Remove(filepath.Join(dir, rel)))
			if strings.HasPrefix(rel, "platform/") { // objects of namespaces that are nobody's now
				require.NoError(t, os.Rename(filepath.Join(dir, "tenants"), filepath.Join(dir, "platform", "tenants")))
			}
			code, there := previewed(t, demoDir, dir)
			_, back := previewed(t, dir, demoDir)
			require.Equal(t, len(there.Calls) > 0, code == exitDenied)
			require.Len(t, back.Calls, len(there.Calls))
			for i, c := range there.Calls {
				other := preview.Call{From: c.From, To: c.To, Before: c.After, After: c.Before, More: c.Less, Less: c.More}
				require.Equal(t, other, back.Calls[i])
			}
			require.Equal(t, there.Came, back.Gone)
			require.Equal(t, there.Gone, back.Came)
			require.Len(t, back.Touched, len(there.Touched))
			for i := range there.Clusters {
				require.Equal(t, there.Clusters[i].Appears, !back.Clusters[i].Appears)
			}
			explained(t, dir, there)
		})
		return nil
	}))
}

// explained compares a preview of the demo with what explain says before and after.
func explained(t *testing.T, dir string, d preview.Diff) {
	t.Helper()
	options := object.Options{AllowLoopback: true}
	before, err := loadDirectory(demoDir, options, "cluster.local")
	require.NoError(t, err)
	after, err := loadDirectory(dir, options, "cluster.local")
	require.NoError(t, err)
	matrix, err := before.Matrix(t.Context())
	require.NoError(t, err)
	for _, from := range matrix.Callers {
		for _, to := range matrix.Services {
			q := read.Question{Namespace: to.Namespace, Service: to.Service, Port: to.Port}
			q.From.TrustDomain, q.From.Namespace, q.From.ServiceAccount = from.Tenant+".example", from.Namespace, from.Account
			was, now := before.reader().Explain(q), after.reader().Explain(q)
			shown := false
			for _, c := range d.Calls {
				shown = shown || c.From == from.String() && c.To == to.String()
			}
			if was.Verdict != now.Verdict {
				require.True(t, shown, "%s to %s: %s, then %s", from, to, was.Verdict, now.Verdict)
			}
		}
	}
}

func TestPreviewRefuses(t *testing.T) {
	dir := copyOfDemo(t)
	writeFile(t, dir, "tenants/acme/acme-web/broken.yaml", "kind: AccessPolicy\n")
	r := bailiwick(t, "preview", dir, "--config-dir", demoDir, "--allow-loopback-endpoints")
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.stderr, "broken.yaml")
	writeFile(t, dir, "tenants/acme/acme-web/broken.yaml", "a: [\n")
	r = bailiwick(t, "preview", demoDir, "--config-dir", dir, "--allow-loopback-endpoints")
	require.Equal(t, exitUnknown, r.code)
	require.Contains(t, r.stderr, "may not read ")
	r = bailiwick(t, "preview", demoDir)
	require.Equal(t, exitUsage, r.code)
	r = bailiwick(t, "preview", filepath.Join(dir, "nowhere"), "--config-dir", demoDir)
	require.Equal(t, exitFailed, r.code)
}

// A service that comes to be called without mTLS, or with it again, is a change of
// its cluster that is shown.
func TestPreviewOfPlainDestinations(t *testing.T) {
	dir := copyOfDemo(t)
	change := func(path, from, to string) {
		text, err := os.ReadFile(filepath.Join(dir, path))
		require.NoError(t, err)
		require.Contains(t, string(text), from)
		writeFile(t, dir, path, strings.ReplaceAll(string(text), from, to))
	}
	tenants := regexp.MustCompile(`\n  trustDomain: [a-z]+\.example\n`)
	text, err := os.ReadFile(filepath.Join(dir, "platform/tenants.yaml"))
	require.NoError(t, err)
	require.Regexp(t, tenants, string(text))
	writeFile(t, dir, "platform/tenants.yaml", tenants.ReplaceAllString(string(text), "$0  tls: {plainDestinations: Allow}\n"))
	change("platform/logs.yaml", "  - service: logs\n", "  - service: logs\n    plain: true\n")
	change("tenants/acme/acme-shop/request-logs.yaml", "    service: logs\n", "    service: logs\n    plain: true\n")

	const logs = "logs.platform.svc.cluster.local:8080"
	_, d := previewed(t, demoDir, dir)
	require.Equal(t, []preview.Cluster{{Namespace: "acme-shop", Name: logs, Changes: "plain"}}, d.Clusters)
	_, d = previewed(t, dir, demoDir)
	require.Equal(t, []preview.Cluster{{Namespace: "acme-shop", Name: logs, Changes: "mTLS"}}, d.Clusters)
	r := bailiwick(t, "preview", dir, "--config-dir", demoDir, "--allow-loopback-endpoints")
	require.Regexp(t, `~ in acme-shop +`+logs+` +is called without mTLS`, r.stdout)
	r = bailiwick(t, "explain", "--config-dir", dir, "--allow-loopback-endpoints", "--from", "spiffe://acme.example/ns/acme-shop/sa/orders", "--to", "platform/logs:8080")
	require.Zero(t, r.code)
	require.Contains(t, r.stdout, "agree that the service is plain")
}
