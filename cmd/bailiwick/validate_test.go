package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

// runValidate runs the command as the command line does.
func runValidate(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	root := &cobra.Command{Use: "bailiwick", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(newValidateCommand())
	root.SetOut(&out)
	root.SetErr(&errs)
	code = execute(context.Background(), root, append([]string{"validate"}, args...))
	return code, out.String(), errs.String()
}

func writeFile(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
}

const validateMesh = `apiVersion: bailiwick.dev/v1alpha1
kind: Tenant
metadata: {name: acme}
spec: {trustDomain: acme.example}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {bailiwick.dev/tenant: acme}}
`

func TestValidateDemo(t *testing.T) {
	code, out, errs := runValidate("../../deploy/demo", "--allow-loopback-endpoints", "--strict")
	require.Zero(t, code, "%s%s", out, errs)
	require.Empty(t, out)
	require.Contains(t, errs, "0 errors and 0 warnings in 15 files with 38 valid objects")
}

func TestValidateDemoWithoutLoopback(t *testing.T) {
	code, out, errs := runValidate("../../deploy/demo")
	require.Equal(t, 1, code)
	require.Contains(t, out, "orders.yaml:27: document 2: Pod acme-shop/orders: status.podIP: 127.10.1.1 is refused: loopback address\n")
	require.Contains(t, errs, "bailiwick: ../../deploy/demo: 14 errors")
}

func TestValidatePrintsEveryErrorWithItsPlace(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "platform/mesh.yaml", validateMesh)
	writeFile(t, dir, "tenants/acme/bad.yaml", `apiVersion: v1
kind: Service
metadata: {name: a, namespace: shop}
spec:
  ports:
  - port: 0
    naem: x
---
kind: [
`)
	writeFile(t, dir, "tenants/globex/foreign.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\n")
	code, out, errs := runValidate(dir)
	require.Equal(t, 1, code)
	bad := filepath.Join(dir, "tenants/acme/bad.yaml")
	require.Equal(t, []string{
		bad + ":6: document 1: Service shop/a: spec.ports[0].port: 0 is no port number: 1 to 65535",
		bad + ":7: document 1: Service shop/a: spec.ports[0].naem: unknown field, did you mean name?",
		bad + ":9: document 2: cannot be parsed: did not find expected node content",
		filepath.Join(dir, "tenants/globex/foreign.yaml") + ":1: document 1: Service shop/a: namespace shop does not belong to tenant globex",
	}, strings.Split(strings.TrimSpace(out), "\n"))
	require.Contains(t, errs, "4 errors and 0 warnings in 3 files with 2 valid objects")

	code, out, _ = runValidate(dir, "-o", "json")
	require.Equal(t, 1, code)
	var report struct {
		Errors []struct {
			File, Field, Kind, Namespace, Name string
			Document, Line                     int
		}
		Held  []string
		Ready bool
	}
	require.NoError(t, json.Unmarshal([]byte(out), &report))
	require.Len(t, report.Errors, 4)
	require.Equal(t, "spec.ports[0].naem", report.Errors[1].Field)
	require.Equal(t, 7, report.Errors[1].Line)
	require.Equal(t, []string{"acme"}, report.Held)
	require.True(t, report.Ready)
}

func TestValidateWarnsOfWhatLeadsNowhere(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "platform/mesh.yaml", validateMesh)
	writeFile(t, dir, "tenants/acme/request.yaml", `apiVersion: bailiwick.dev/v1alpha1
kind: ServiceRequest
metadata: {name: r, namespace: shop}
spec: {to: {namespace: elsewhere, service: logs, all: true}}
`)
	code, out, errs := runValidate(dir)
	require.Zero(t, code, errs)
	require.Regexp(t, `request.yaml:1: document 1: ServiceRequest shop/r: .*NotAvailable: .* \(warning\)\n$`, out)
	code, _, errs = runValidate(dir, "--strict")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "0 errors and 1 warnings")
}

func TestValidateRefusals(t *testing.T) {
	for name, args := range map[string][]string{
		"no directory":   {},
		"two":            {"a", "b"},
		"unknown output": {t.TempDir(), "-o", "xml"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, errs := runValidate(args...)
			require.Equal(t, exitUsage, code, errs)
		})
	}
	code, out, errs := runValidate(filepath.Join(t.TempDir(), "missing"))
	require.Equal(t, exitFailed, code, errs)
	require.Contains(t, out, "missing: cannot be read")
	code, out, _ = runValidate(t.TempDir())
	require.Equal(t, exitFailed, code)
	require.Contains(t, out, "platform: no file found")
}
