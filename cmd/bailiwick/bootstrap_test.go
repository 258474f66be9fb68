package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/xds/bootstrap/envoytest"
)

var bootstrapArgs = []string{
	"bootstrap", "--spiffe-id", "spiffe://acme.example/ns/shop/sa/web", "--node-id", "shop/web-0",
	"--xds-address", "127.0.0.1:18000,127.0.0.1:18001",
	"--server-id", "spiffe://mesh.example/ns/bailiwick-system/sa/bailiwick",
}

func with(args ...string) []string {
	return append(append([]string(nil), bootstrapArgs...), args...)
}

// With the certificates of `ca`, what `bootstrap` writes is what Envoy takes.
func TestBootstrapForEnvoy(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	must(t, "ca", "init", "--dir", in("acme"), "--trust-domain", "acme.example")
	must(t, "ca", "init", "--dir", in("mesh"), "--trust-domain", "mesh.example")
	must(t, "ca", "issue", "--dir", in("acme"), "--spiffe-id", "spiffe://acme.example/ns/shop/sa/web", "--out", in("web"))
	files := []string{"--cert", in("web/cert.pem"), "--key", in("web/key.pem"), "--trust-bundle", "mesh.example=" + in("mesh/ca.pem")}
	for name, extra := range map[string][]string{
		"delta":    nil,
		"sotw":     {"--sotw"},
		"explicit": {"--capture", "explicit", "--bind-address", "::1", "--app-address", "127.0.0.3"},
		"bounded":  {"--max-heap-mib", "256", "--max-connections", "100", "--stats-prefix", "http."},
	} {
		out := in("envoy-" + name)
		printed := must(t, with(append(append(extra, files...), "--out", out, "--admin-address", "127.0.0.1:0")...)...)
		require.Equal(t, []string{
			filepath.Join(out, "svid", "sds.json"), filepath.Join(out, "svid", "xds.json"), filepath.Join(out, "bootstrap.json"),
		}, strings.Fields(printed))
		args := strings.Fields(must(t, "bootstrap", "--args", "--concurrency", "1"))
		require.Contains(t, envoytest.Validate(t, out, args...), "OK")
	}
}

func TestBootstrapPrints(t *testing.T) {
	printed := must(t, with("--sds", "unix:/run/spire/agent.sock")...)
	var tree map[string]any
	require.NoError(t, json.Unmarshal([]byte(printed), &tree))
	require.Equal(t, "shop/web-0", tree["node"].(map[string]any)["id"])
	require.Equal(t, printed, must(t, with("--sds", "unix:///run/spire/agent.sock")...))

	out := t.TempDir()
	require.Equal(t, filepath.Join(out, "bootstrap.json")+"\n", must(t, with("--sds", "unix:/run/spire/agent.sock", "--out", out)...))
	written, err := os.ReadFile(filepath.Join(out, "bootstrap.json"))
	require.NoError(t, err)
	require.Equal(t, printed, string(written))

	require.Equal(t, "-c\nbootstrap.json\n--concurrency\n2\n--drain-time-s\n5\n--drain-strategy\nimmediate\n--disable-hot-restart\n--file-flush-interval-msec\n1000\n",
		must(t, "bootstrap", "--args", "--drain-time", "5s"))
	require.Equal(t, must(t, "bootstrap", "--args"), must(t, with("--sds", "unix:/s", "--out", out, "--args")...))
}

func TestBootstrapNotesMissingFiles(t *testing.T) {
	dir := t.TempDir()
	r := bailiwick(t, with("--cert", dir+"/cert.pem", "--key", dir+"/key.pem", "--trust-bundle", dir+"/ca.pem", "--out", dir)...)
	require.Equal(t, exitOK, r.code)
	require.Equal(t, 3, strings.Count(r.stderr, "Envoy needs this file"))
}

func TestBootstrapTakesRelativePaths(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	here, err := os.Getwd()
	require.NoError(t, err)
	r := bailiwick(t, with("--cert", "c.pem", "--key", "k.pem", "--trust-bundle", "b.pem", "--out", "envoy")...)
	require.Equal(t, exitOK, r.code)
	secrets, err := os.ReadFile("envoy/svid/sds.json")
	require.NoError(t, err)
	require.Contains(t, string(secrets), `"`+filepath.Join(here, "c.pem")+`"`)
}

func TestBootstrapRefuses(t *testing.T) {
	socket := []string{"--sds", "unix:/s"}
	for why, args := range map[string][]string{
		"missing --spiffe-id, --xds-address, --server-id, --cert": {"bootstrap"},
		"missing --cert, --key, --trust-bundle":                   with(),
		"--sds replaces":                                          with("--sds", "unix:/s", "--cert", "x"),
		"want unix:/path":                                         with("--sds", "/s"),
		"want NAMESPACE/NAME":                                     with(append(socket, "--node-id", "web-0")...),
		`not in namespace "shop"`:                                 with(append(socket, "--node-id", "other/web-0")...),
		"is not the name of a Pod":                                with(append(socket, "--node-id", "shop/web/0")...),
		"not the SPIFFE ID of a":                                  with(append(socket, "--spiffe-id", "spiffe://acme.example/shop")...),
		"--server-id \"x\"":                                       with(append(socket, "--server-id", "x")...),
		"has no path":                                             with(append(socket, "--server-id", "spiffe://mesh.example")...),
		"want host:port":                                          with(append(socket, "--xds-address", "127.0.0.1")...),
		"want transparent or explicit":                            with(append(socket, "--capture", "both")...),
		"with --capture explicit only":                            with(append(socket, "--bind-address", "127.0.0.2")...),
		`"nowhere" is not an IP address`:                          with(append(socket, "--capture", "explicit", "--app-address", "nowhere")...),
		"not a loopback address":                                  with(append(socket, "--admin-address", "0.0.0.0:15000")...),
		"want IP:PORT":                                            with(append(socket, "--admin-address", "localhost:15000")...),
		"at least 1s":                                             {"bootstrap", "--args", "--drain-time", "1ms"},
		"must be positive":                                        with(append(socket, "--max-connections", "0")...),
		`trust domain of --server-id is`:                          with("--cert", "c", "--key", "k", "--trust-bundle", "acme.example=f"),
		"in one directory":                                        with("--cert", "a/c", "--key", "b/k", "--trust-bundle", "f"),
		"must name files":                                         with("--cert", "", "--key", "b/k", "--trust-bundle", "f"),
	} {
		r := bailiwick(t, args...)
		require.Equal(t, exitUsage, r.code, why)
		require.Contains(t, r.stderr, why)
		require.Empty(t, r.stdout)
	}
}
