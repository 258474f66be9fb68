package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// asksFor is a policy about claims of a provider's tokens.
func asksFor(namespace, provider string) string {
	return "apiVersion: bailiwick.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: x, namespace: " + namespace + "}\n" +
		"spec: {selector: {}, action: Allow, rules: [{from: [{all: true}], jwt: {provider: " + provider + ", claims: [{path: [a], values: [b]}]}}]}\n"
}

// issuers gives each tenant of the demo one of its own, and an admin namespace.
func issuers(t *testing.T, dir string) {
	t.Helper()
	found := 0
	require.NoError(t, filepath.WalkDir(filepath.Join(dir, "platform"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		for name, issuer := range map[string]string{"acme": "acmes-idp", "globex": "globexes-idp"} {
			domain := "trustDomain: " + name + ".example\n"
			if strings.Contains(string(text), "  "+domain) {
				found++
				provider := "  jwt: {providers: [{name: " + issuer + ", issuer: i, audiences: [a], jwksUri: \"https://idp.example/keys\"}]}\n  adminNamespace: " + name + "-web\n"
				text = []byte(strings.Replace(string(text), "  "+domain, "  "+domain+provider, 1))
			}
		}
		if err == nil {
			err = os.WriteFile(path, text, 0o600)
		}
		return err
	}))
	require.Equal(t, 2, found)
}

// Whoever mistypes is told what was probably meant: kinds, fields, services of
// the own namespace, namespaces of the own tenant. Of another tenant nothing is
// said, near as it may be.
func TestValidateSuggests(t *testing.T) {
	for name, c := range map[string]struct {
		file, text string
		says       string
		not        []string
	}{
		"kind": {"tenants/acme/x.yaml", "apiVersion: bailiwick.dev/v1alpha1\nkind: AcessPolicy\nmetadata: {name: x, namespace: acme-web}\n", "did you mean AccessPolicy?", nil},
		"field": {"tenants/acme/x.yaml", "apiVersion: bailiwick.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: x, namespace: acme-web}\n" +
			"spec: {selector: {}, acton: Allow, rules: [{from: [{namespase: acme-web}]}]}\n", "spec.rules[0].from[0].namespase: unknown field, did you mean namespace?", nil},
		"namespace": {"tenants/acme/x.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: x, namespace: acme-wbe}\nspec: {ports: [{port: 80}]}\n",
			"does not belong to tenant acme, did you mean acme-web?", nil},
		"another's namespace": {"tenants/acme/x.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: x, namespace: globex-wbe}\nspec: {ports: [{port: 80}]}\n",
			"namespace globex-wbe does not belong to tenant acme\n", []string{"globex-web"}},
		"service": {"tenants/globex/x.yaml", "apiVersion: bailiwick.dev/v1alpha1\nkind: ServiceGrant\nmetadata: {name: x, namespace: globex-shop}\n" +
			"spec: {from: [{tenant: acme, all: true}], to: [{service: odrers, ports: [8080]}]}\n", "there is no service globex-shop/odrers, did you mean globex-shop/orders?", nil},
		"another's service": {"tenants/acme/x.yaml", "apiVersion: bailiwick.dev/v1alpha1\nkind: ServiceRequest\nmetadata: {name: x, namespace: acme-web}\n" +
			"spec: {to: {namespace: globex-shop, service: odrers, ports: [8080]}}\n", "is not available to this namespace", []string{"did you mean", "orders.globex"}},
		"action": {"tenants/acme/x.yaml", "apiVersion: bailiwick.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: x, namespace: acme-web}\n" +
			"spec: {selector: {}, action: allow, rules: [{from: [{all: true}]}]}\n", `spec.action: "allow" is none of Allow, Deny, Audit, did you mean Allow?`, nil},
		"provider":                        {"tenants/acme/x.yaml", asksFor("acme-web", "acmes-ipd"), "did you mean acmes-idp?", nil},
		"provider, for all of the tenant": {"tenants/acme/x.yaml", strings.Replace(asksFor("acme-web", "acmes-ipd"), "action:", "scope: Tenant, action:", 1), "did you mean acmes-idp?", nil},
		"another's provider":              {"tenants/acme/x.yaml", asksFor("acme-web", "globexes-ipd"), `the Tenant has no provider "globexes-ipd"`, []string{"globexes-idp", "did you mean"}},
		"platform": {"platform/x.yaml", "apiVersion: bailiwick.dev/v1alpha1\nkind: ClusterServiceGrant\nmetadata: {name: x}\n" +
			"spec: {allTenants: true, to: [{namespace: platform, service: log, ports: [8080]}]}\n", "did you mean platform/logs?", nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyOfDemo(t)
			issuers(t, dir)
			writeFile(t, dir, c.file, c.text)
			r := bailiwick(t, "validate", dir, "--allow-loopback-endpoints")
			require.Contains(t, r.stdout, c.says)
			for _, word := range c.not {
				require.NotContains(t, strings.ReplaceAll(r.stdout, "odrers.globex", ""), word)
			}
		})
	}
}
