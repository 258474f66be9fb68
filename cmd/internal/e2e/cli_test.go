package e2e

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
)

// ended is what a program left.
type ended struct {
	code           int
	stdout, stderr string
}

// run runs bailiwick to its end, as another user where attributes say so.
func run(t *testing.T, attributes *syscall.SysProcAttr, args ...string) ended {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, built.binary, args...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr, cmd.Dir = &stdout, &stderr, attributes, "/"
	err := cmd.Run()
	require.NoError(t, ctx.Err(), "it did not end: %s", stderr.String())
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return ended{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// Whoever makes a mistake is told which flag or file, and what is wanted.
func TestServeRefusesToStart(t *testing.T) {
	f := newFixture(t)
	dir := t.TempDir()
	require.NoError(t, f.ca.WriteSVID(dir, "spiffe://platform.example/ns/bailiwick/sa/server"))
	other := t.TempDir()
	require.NoError(t, f.ca.WriteSVID(other, "spiffe://platform.example/ns/bailiwick/sa/server"))
	garbage := filepath.Join(dir, "garbage.pem")
	require.NoError(t, os.WriteFile(garbage, []byte("not PEM"), 0o600))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	absent := filepath.Join(dir, "absent.pem")
	socket := filepath.Join(dir, "admin.sock")
	used, err := net.Listen("unix", socket)
	require.NoError(t, err)
	defer used.Close()

	good := map[string]string{
		"--config-dir": f.dir, "--cert": filepath.Join(dir, mesh.CertFile), "--key": filepath.Join(dir, mesh.KeyFile),
		"--trust-bundle": "acme.example=" + f.ca.BundleFile("acme.example"),
		"--xds-address":  "127.0.0.1:0", "--health-address": "127.0.0.1:0",
	}
	for name, c := range map[string]struct {
		// change are flags to set, and to leave out where the value is empty.
		change map[string]string
		code   int
		says   []string
	}{
		"no directory":            {map[string]string{"--config-dir": ""}, 2, []string{"--config-dir DIR"}},
		"directory absent":        {map[string]string{"--config-dir": absent}, 1, []string{"--config-dir", absent}},
		"directory is a file":     {map[string]string{"--config-dir": garbage}, 1, []string{"--config-dir", garbage}},
		"no certificate":          {map[string]string{"--cert": ""}, 2, []string{"--cert", "--workload-api"}},
		"no key":                  {map[string]string{"--key": ""}, 2, []string{"--key"}},
		"no trust bundle":         {map[string]string{"--trust-bundle": ""}, 2, []string{"--trust-bundle"}},
		"bundle without a name":   {map[string]string{"--trust-bundle": "acme.pem"}, 2, []string{"--trust-bundle", "TD=FILE"}},
		"unknown trust domain":    {map[string]string{"--trust-domain": "initech.example"}, 2, []string{"--trust-domain", "initech.example"}},
		"two identities":          {map[string]string{"--workload-api": "unix:///nowhere"}, 2, []string{"--workload-api", "exclude"}},
		"unknown flag":            {map[string]string{"--confg-dir": "x"}, 2, []string{"--confg-dir"}},
		"debounce":                {map[string]string{"--debounce-quiet": "2s"}, 2, []string{"--debounce-quiet", "--debounce-max"}},
		"probe source":            {map[string]string{"--probe-source": "10.0.0.1"}, 2, []string{"--probe-source", "10.0.0.1", "CIDR"}},
		"log level":               {map[string]string{"--log-level": "loud"}, 2, []string{"--log-level", "debug, info, warn or error"}},
		"certificate absent":      {map[string]string{"--cert": absent}, 1, []string{absent}},
		"certificate is garbage":  {map[string]string{"--cert": garbage}, 1, []string{garbage, "PEM"}},
		"certificate is a folder": {map[string]string{"--cert": dir}, 1, []string{dir, "directory"}},
		"key absent":              {map[string]string{"--key": absent}, 1, []string{absent}},
		"key of another":          {map[string]string{"--key": filepath.Join(other, mesh.KeyFile)}, 1, []string{other, "match"}},
		"bundle absent":           {map[string]string{"--trust-bundle": "acme.example=" + absent}, 1, []string{"acme.example", absent}},
		"bundle is garbage":       {map[string]string{"--trust-bundle": "acme.example=" + garbage}, 1, []string{"acme.example", garbage}},
		"no trust domain":         {map[string]string{"--trust-bundle": "Acme Inc=" + f.ca.BundleFile("acme.example")}, 1, []string{"Acme Inc"}},
		"port in use":             {map[string]string{"--xds-address": taken.Addr().String()}, 1, []string{"--xds-address", taken.Addr().String(), "in use"}},
		"health port in use":      {map[string]string{"--health-address": taken.Addr().String()}, 1, []string{"--health-address", "in use"}},
		"admin port in use":       {map[string]string{"--admin-address": taken.Addr().String()}, 1, []string{"--admin-address", "in use"}},
		"admin socket in use":     {map[string]string{"--admin-address": "unix:" + socket}, 1, []string{"--admin-address", socket, "in use"}},
		"admin for everybody":     {map[string]string{"--admin-address": "0.0.0.0:0"}, 2, []string{"--admin-address", "loopback"}},
		"no address":              {map[string]string{"--xds-address": "localhost"}, 1, []string{"--xds-address", "localhost"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"serve"}
			for flag, value := range good {
				if changed, ok := c.change[flag]; ok {
					value = changed
				}
				if value != "" {
					args = append(args, flag, value)
				}
			}
			for flag, value := range c.change {
				if _, ok := good[flag]; !ok {
					args = append(args, flag, value)
				}
			}
			got := run(t, nil, args...)
			require.Equal(t, c.code, got.code, got.stderr)
			require.Empty(t, got.stdout)
			for _, word := range c.says {
				require.Contains(t, got.stderr, word)
			}
			require.Equal(t, 1, strings.Count(got.stderr, "bailiwick: "), "the error is said once")
			require.Equal(t, c.code == 2, strings.Contains(got.stderr, "Run 'bailiwick serve --help' for usage."), got.stderr)
		})
	}
}

func TestValidate(t *testing.T) {
	f := newFixture(t)
	valid := run(t, nil, "validate", f.dir, "--allow-loopback-endpoints")
	require.Equal(t, 0, valid.code, valid.stdout)
	require.NotContains(t, valid.stdout, "error")
	require.Contains(t, valid.stderr, "0 errors")

	f.write("tenants/acme/broken.yaml", brokenYAML)
	f.write("tenants/acme/late.yaml", `apiVersion: v1
kind: Service
metadata: {name: late, namespace: acme-shop}
spec:
  ports:
  - {name: http, port: 80800}
  - {name: http2, prt: 8081}
---
apiVersion: bailiwick.dev/v1alpha1
kind: AccessPolicy
metadata: {name: late, namespace: acme-shop}
spec:
  selector: {}
  action: Allow
  rules:
  - ports: [8080]
---
apiVersion: bailiwick.dev/v1alpha1
kind: Tenancy
metadata: {name: late}
`)
	f.write("tenants/acme/foreign.yaml", `apiVersion: bailiwick.dev/v1alpha1
kind: ServiceGrant
metadata: {name: stolen, namespace: globex-shop}
spec:
  from: [{tenant: acme, all: true}]
  to: [{service: orders, all: true}]
`)
	f.write("orders.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: acme-shop}\nspec: {ports: [{port: 1}]}\n")
	got := run(t, nil, "validate", f.dir, "--allow-loopback-endpoints")
	require.Equal(t, 1, got.code)
	for _, want := range []string{
		`tenants/acme/broken\.yaml:3: document 1: cannot be parsed`,
		`tenants/acme/late\.yaml:6: document 1: Service acme-shop/late: spec\.ports\[0\]\.port: 80800`,
		`tenants/acme/late\.yaml:7: document 1: Service acme-shop/late: spec\.ports\[1\]\.prt`,
		`tenants/acme/late\.yaml:\d+: document 2: AccessPolicy acme-shop/late: spec\.rules\[0\]\.from`,
		`tenants/acme/late\.yaml:\d+: document 3: .*Tenancy`,
		`tenants/acme/foreign\.yaml:\d+: document 1: ServiceGrant globex-shop/stolen: namespace globex-shop does not belong to tenant acme`,
		`/orders\.yaml: not read: objects belong into platform/ or tenants/<name>/`,
	} {
		require.Regexp(t, want, got.stdout)
	}
	require.Regexp(t, `\d+ errors`, got.stderr)
}

func TestValidateWithoutADirectory(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	closed := filepath.Join(dir, "closed")
	require.NoError(t, os.Mkdir(closed, 0o000))
	var nobody *syscall.SysProcAttr
	if os.Getuid() == 0 { // for whom no folder is closed
		nobody = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		require.NoError(t, os.Chmod(dir, 0o755))
		require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	}
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"absent":     {[]string{filepath.Join(dir, "absent")}, 1, "no such file or directory"},
		"a file":     {[]string{file}, 1, "not a directory"},
		"unreadable": {[]string{closed}, 1, "permission denied"},
		"not named":  {nil, 2, "accepts 1 arg"},
	} {
		t.Run(name, func(t *testing.T) {
			got := run(t, nobody, append([]string{"validate"}, c.args...)...)
			require.Equal(t, c.code, got.code, got.stderr)
			require.Contains(t, got.stdout+got.stderr, c.says)
		})
	}
}
