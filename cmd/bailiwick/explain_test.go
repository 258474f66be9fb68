package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/object"
	"bailiwick.dev/bailiwick/tenancy/read"
)

var demo = []string{"--config-dir", "../../deploy/demo", "--allow-loopback-endpoints"}

var update = flag.Bool("update", false, "write the golden files")

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

func TestExplainDemo(t *testing.T) {
	for name, c := range map[string]struct {
		args string
		code int
	}{
		"allowed":     {"--from spiffe://acme.example/ns/acme-web/sa/web --to acme-shop/orders:8080", exitOK},
		"denied":      {"--from spiffe://acme.example/ns/acme-web/sa/orders --to acme-shop/orders:8080 --method POST", exitDenied},
		"method":      {"--from spiffe://acme.example/ns/acme-web/sa/web --to acme-shop/orders:8080 --method POST", exitDenied},
		"deny":        {"--from spiffe://acme.example/ns/acme-web/sa/orders --to acme-web/web:8080 --path /x/../admin;a=b", exitDenied},
		"not-granted": {"--from spiffe://acme.example/ns/acme-web/sa/web --to platform/logs:8080", exitDenied},
		"tenant":      {"--from spiffe://acme.example/ns/acme-web/sa/web --to globex-web/web:8080 --tenant acme", exitDenied},
		"unknown":     {"--from spiffe://acme.example/ns/acme-shop/sa/orders --to platform/logs:8080 --tenant acme", exitUnknown},
		"default":     {"--from spiffe://globex.example/ns/globex-web/sa/web --to globex-shop/orders:8080 -o json", exitOK},
	} {
		t.Run(name, func(t *testing.T) {
			r := bailiwick(t, append(append([]string{"explain"}, strings.Fields(c.args)...), demo...)...)
			require.Equal(t, c.code, r.code, r.stderr)
			require.Empty(t, r.stderr)
			golden(t, "explain/"+name+".txt", strings.ReplaceAll(r.stdout, "../../", ""))
		})
	}
}

// What a tenant hears about a name of another is what it hears about any.
func TestExplainForeignNameIsLikeAnyOther(t *testing.T) {
	ask := func(to string) string {
		r := bailiwick(t, append([]string{"explain", "--from", "spiffe://acme.example/ns/acme-web/sa/web", "--to", to, "--tenant", "acme"}, demo...)...)
		require.Equal(t, exitDenied, r.code)
		return r.stdout
	}
	require.Equal(t, ask("globex-web/web:8080"), strings.ReplaceAll(ask("nobody-web/web:8080"), "nobody", "globex"))
}

func TestMatrixDemo(t *testing.T) {
	r := bailiwick(t, append([]string{"matrix"}, demo...)...)
	require.Zero(t, r.code, r.stderr)
	golden(t, "matrix/platform.txt", r.stdout)
	r = bailiwick(t, append([]string{"matrix", "--tenant", "acme"}, demo...)...)
	golden(t, "matrix/acme.txt", r.stdout)
	r = bailiwick(t, append([]string{"matrix", "--tenant", "platform", "-o", "svg"}, demo...)...)
	golden(t, "matrix/platform.svg", r.stdout)
}

// Every piece of YAML that explain offers does what it says: what was denied for
// want of an Allow is allowed with it, what was allowed is denied.
func TestWhatExplainOffersWorks(t *testing.T) {
	dir := "../../deploy/demo"
	d, err := loadDirectory(dir, object.Options{AllowLoopback: true}, "cluster.local")
	require.NoError(t, err)
	matrix, err := d.Matrix(t.Context())
	require.NoError(t, err)
	tried := map[string]int{}
	for _, from := range matrix.Callers {
		for _, to := range matrix.Services {
			q := read.Question{Namespace: to.Namespace, Service: to.Service, Port: to.Port}
			q.From.TrustDomain, q.From.Namespace, q.From.ServiceAccount = from.Tenant+".example", from.Namespace, from.Account
			before, err := d.Explain(t.Context(), q)
			require.NoError(t, err)
			for _, change := range before.Change {
				_, yaml, ok := strings.Cut(change, ":\n")
				if !ok {
					continue
				}
				after, err := loadDirectory(dir, object.Options{AllowLoopback: true}, "cluster.local")
				require.NoError(t, err)
				decoded := object.DecodeAll("offered.yaml", []byte(yaml), object.Options{})
				require.Nil(t, decoded.Unreadable, yaml)
				require.Len(t, decoded.Entries, 1)
				for _, e := range decoded.Entries {
					require.Empty(t, e.Errors, yaml)
					after.model.Apply(tenancy.Event{Ref: e.Ref(""), Object: e.Object})
				}
				now, err := after.Explain(t.Context(), q)
				require.NoError(t, err)
				require.NotEqual(t, before.Verdict, now.Verdict, yaml)
				tried[before.Verdict]++
			}
		}
	}
	require.Positive(t, tried[read.Allowed])
	require.Positive(t, tried[read.Denied])
}

// Where a file that may bear on the call cannot be read the answer is not
// known; what another tenant's folder has wrong is of no account.
func TestExplainWithUnreadableFiles(t *testing.T) {
	ask := func(folder string) (int, read.Answer) {
		dir := t.TempDir()
		require.NoError(t, os.CopyFS(dir, os.DirFS("../../deploy/demo")))
		writeFile(t, dir, folder+"/broken.yaml", "a: [\n")
		r := bailiwick(t, "explain", "--config-dir", dir, "--allow-loopback-endpoints", "-o", "json",
			"--from", "spiffe://acme.example/ns/acme-web/sa/web", "--to", "acme-shop/orders:8080")
		require.Contains(t, r.stderr, "1 objects or files are in error")
		var a read.Answer
		require.NoError(t, json.Unmarshal([]byte(r.stdout), &a), r.stderr)
		return r.code, a
	}
	for _, folder := range []string{"platform", "tenants/acme"} {
		code, a := ask(folder)
		require.Equal(t, exitUnknown, code, folder)
		require.Contains(t, fmt.Sprint(a.Unknown), "may not read ", folder)
		require.Contains(t, fmt.Sprint(a.Unknown), folder+"/broken.yaml")
	}
	code, a := ask("tenants/globex")
	require.Zero(t, code)
	require.Equal(t, read.Allowed, a.Verdict)
}

func TestExplainRefuses(t *testing.T) {
	for args, says := range map[string]string{
		"": "missing --from, --to",
		"--from spiffe://a.example/x --to a/b:1 --config-dir x":                                       "--from",
		"--from spiffe://a.example/ns/a/sa/b --to a/b --config-dir x":                                 "NAMESPACE/SERVICE:PORT",
		"--from spiffe://a.example/ns/a/sa/b --to a/b:99999 --config-dir x":                           "NAMESPACE/SERVICE:PORT",
		"--from spiffe://a.example/ns/a/sa/b --to a/b:80":                                             "--config-dir DIR",
		"--from spiffe://a.example/ns/a/sa/b --to a/b:80 --config-dir x -o yaml":                      "-o yaml",
		"--from spiffe://a.example/ns/a/sa/b --to a/b:80 --config-dir x --path /a%2fb":                "escaped",
		"--from spiffe://a.example/ns/a/sa/b --to a/b:80 --config-dir x --header x":                   "NAME=VALUE",
		"--from spiffe://a.example/ns/a/sa/b --to a/b:80 --config-dir x --path relative --method PUT": "--path",
	} {
		r := bailiwick(t, append([]string{"explain"}, strings.Fields(args)...)...)
		require.Equal(t, exitUsage, r.code, args)
		require.Contains(t, r.stderr, says, args)
	}
}

// Claims of a request are judged, and what is missing of them is said.
func TestExplainClaims(t *testing.T) {
	dir := copyOfDemo(t)
	tenants, err := os.ReadFile(filepath.Join(dir, "platform/tenants.yaml"))
	require.NoError(t, err)
	const key = `{"keys":[{"kty":"EC","crv":"P-256","kid":"k","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}`
	provider := "  jwt: {providers: [{name: idp, issuer: https://idp.example, audiences: [orders], jwks: '" + key + "'}]}\n"
	writeFile(t, dir, "platform/tenants.yaml", strings.Replace(string(tenants), "  trustDomain: acme.example\n", "  trustDomain: acme.example\n"+provider, 1))
	writeFile(t, dir, "tenants/acme/acme-shop/policy-orders.yaml", `apiVersion: bailiwick.dev/v1alpha1
kind: AccessPolicy
metadata: {name: orders-for-admins, namespace: acme-shop}
spec:
  selector: {matchLabels: {app: orders}}
  action: Allow
  rules:
  - from: [{namespace: acme-web}]
    jwt: {provider: idp, claims: [{path: [realm, roles], values: [admin]}]}
`)
	for flags, want := range map[string]struct {
		code int
		says string
	}{
		"": {exitDenied, "carries no valid token"},
		"--token idp --claim realm.roles=user --claim realm.roles=admin": {exitOK, "orders-for-admins allows it"},
		"--token idp --claim realm.roles=user":                           {exitDenied, "claim realm.roles is not admin"},
		"--token other --claim realm.roles=admin":                        {exitDenied, "there is no valid token of provider idp"},
	} {
		args := []string{"explain", "--from", "spiffe://acme.example/ns/acme-web/sa/web", "--to", "acme-shop/orders:8080", "--config-dir", dir, "--allow-loopback-endpoints"}
		r := bailiwick(t, append(args, strings.Fields(flags)...)...)
		require.Equal(t, want.code, r.code, "%s: %s%s", flags, r.stdout, r.stderr)
		require.Contains(t, r.stdout, want.says)
	}
}

// A caller without a certificate is told the way in as well: what is offered, one
// after the other, ends with the call allowed. Of others' services nothing is said,
// whether or not there are any.
func TestExplainPlaintext(t *testing.T) {
	dir := copyOfDemo(t)
	ask := func(args ...string) (int, read.Answer) {
		t.Helper()
		args = append([]string{"explain", "--from", "plaintext", "--config-dir", dir, "--allow-loopback-endpoints", "-o", "json"}, args...)
		r := bailiwick(t, args...)
		var a read.Answer
		require.NoError(t, json.Unmarshal([]byte(r.stdout), &a), r.stderr)
		require.Equal(t, read.Proxyless, a.Visible)
		return r.code, a
	}
	orders := []string{"--to", "acme-shop/orders:8080"}
	code, a := ask(orders...)
	require.Equal(t, exitDenied, code)
	require.Contains(t, a.Why, "Strict")
	require.Contains(t, fmt.Sprint(a.Change), "spec.tls.peers of Tenant acme")
	for _, l := range a.Looked {
		require.NotContains(t, l.Outcome, "tenant floor")
	}

	tenants, err := os.ReadFile(filepath.Join(dir, "platform/tenants.yaml"))
	require.NoError(t, err)
	writeFile(t, dir, "platform/tenants.yaml", strings.Replace(string(tenants), "  trustDomain: acme.example\n", "  trustDomain: acme.example\n  tls: {peers: Permissive}\n", 1))
	for i := range 3 {
		code, a = ask(orders...)
		if i == 2 {
			break
		}
		require.Equal(t, exitDenied, code)
		_, offered, ok := strings.Cut(a.Change[0], ":\n")
		require.True(t, ok, a.Change)
		writeFile(t, dir, fmt.Sprintf("tenants/acme/acme-shop/offered-%d.yaml", i), offered)
	}
	require.Equal(t, exitOK, code, a)
	require.Equal(t, "acme-shop/allow-plaintext", a.By)
	code, _ = ask(append(orders, "--tenant", "acme")...)
	require.Equal(t, exitOK, code)

	code, foreign := ask("--to", "globex-web/web:8080", "--tenant", "acme")
	require.Equal(t, exitUnknown, code)
	code, none := ask("--to", "nobody-web/web:8080", "--tenant", "acme")
	require.Equal(t, exitUnknown, code)
	require.Equal(t, strings.ReplaceAll(fmt.Sprint(none), "nobody", "globex"), fmt.Sprint(foreign))
}
