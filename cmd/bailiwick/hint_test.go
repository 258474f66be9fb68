package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

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
		"platform": {"platform/x.yaml", "apiVersion: bailiwick.dev/v1alpha1\nkind: ClusterServiceGrant\nmetadata: {name: x}\n" +
			"spec: {allTenants: true, to: [{namespace: platform, service: log, ports: [8080]}]}\n", "did you mean platform/logs?", nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyOfDemo(t)
			writeFile(t, dir, c.file, c.text)
			r := bailiwick(t, "validate", dir, "--allow-loopback-endpoints")
			require.Contains(t, r.stdout, c.says)
			for _, word := range c.not {
				require.NotContains(t, strings.ReplaceAll(r.stdout, "odrers.globex", ""), word)
			}
		})
	}
}
