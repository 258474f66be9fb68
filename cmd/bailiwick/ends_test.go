package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy/read"
)

// What rests on something that ends says when, and what has ended is said to be
// why, with what to do about it: by explain to whoever may know of it, by preview
// of what a change brings.
func TestEndsAreTold(t *testing.T) {
	dir := copyOfDemo(t)
	later, earlier := time.Now().Add(240*time.Hour).UTC().Format(time.RFC3339), time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	ending := func(path, end string) {
		text, err := os.ReadFile(filepath.Join(demoDir, path))
		require.NoError(t, err)
		docs := strings.Split(string(text), "\n---\n")
		for i, doc := range docs {
			if strings.Contains(doc, "kind: AccessPolicy") || strings.Contains(doc, "kind: ServiceGrant") || strings.Contains(doc, "kind: ServiceRequest") {
				docs[i] = strings.Replace(doc, "\nspec:\n", "\nspec:\n  expiresAt: \""+end+"\"\n", 1)
			}
		}
		writeFile(t, dir, path, strings.Join(docs, "\n---\n"))
	}
	explain := func(from, to string, more ...string) (int, read.Answer) {
		r := bailiwick(t, append([]string{"explain", "--config-dir", dir, "--allow-loopback-endpoints", "-o", "json", "--from", from, "--to", to}, more...)...)
		var a read.Answer
		require.NoError(t, json.Unmarshal([]byte(r.stdout), &a), r.stderr)
		return r.code, a
	}
	const (
		web, orders     = "spiffe://acme.example/ns/acme-web/sa/web", "acme-shop/orders:8080"
		consumer, logs  = "spiffe://acme.example/ns/acme-shop/sa/orders", "platform/logs:8080"
		policies        = "tenants/acme/acme-shop/policy-orders.yaml"
		request, grants = "tenants/acme/acme-shop/request-logs.yaml", "platform/logs.yaml"
	)
	code, a := explain(web, orders)
	require.Zero(t, code)
	require.Empty(t, a.Ends)

	ending(policies, later)
	ending(request, later)
	ending(grants, later)
	code, a = explain(web, orders)
	require.Zero(t, code)
	require.Equal(t, []string{"policy acme-shop/orders-from-web ends at " + later}, a.Ends)
	_, a = explain(consumer, logs)
	require.Contains(t, a.Ends, "ServiceRequest acme-shop/logs ends at "+later)
	require.Contains(t, a.Ends, "ServiceGrant platform/logs ends at "+later)
	_, a = explain(consumer, logs, "--tenant", "acme")
	require.Equal(t, []string{"ServiceRequest acme-shop/logs ends at " + later}, a.Ends, "the owner's grant is its own affair")

	ending(policies, earlier)
	ending(request, earlier)
	code, a = explain(web, orders)
	require.Equal(t, exitDenied, code)
	require.Contains(t, a.Looked, read.Looked{
		Policy: "acme-shop/orders-from-web", Action: "Allow", At: filepath.Join(dir, policies) + ":3", Outcome: "ended at " + earlier + ": it is as if it were not there",
	})
	code, a = explain(consumer, logs)
	require.Equal(t, exitDenied, code)
	require.Contains(t, strings.Join(a.Change, "\n"), "ServiceRequest acme-shop/logs ended at "+earlier+": renew it")
	ending(grants, earlier)
	_, a = explain(consumer, logs)
	require.Contains(t, strings.Join(a.Change, "\n"), "ServiceGrant platform/logs ended at "+earlier+": renew it")
	_, a = explain(consumer, logs, "--tenant", "acme")
	require.NotContains(t, strings.Join(a.Change, "\n"), "ServiceGrant platform/logs ended", "the owner's grant is its own affair")

	ending(grants, later)
	code, d := previewed(t, demoDir, dir)
	require.Equal(t, exitDenied, code, "what has ended is not honoured")
	var told []string
	for _, e := range d.Ends {
		word := " ends "
		if e.Over {
			word = " ended "
		}
		told = append(told, e.Object+word+e.At)
	}
	require.Contains(t, told, "AccessPolicy acme-shop/orders-from-web ended "+earlier)
	require.Contains(t, told, "ServiceRequest acme-shop/logs ended "+earlier)
	require.Contains(t, told, "ServiceGrant platform/logs ends "+later)
	text := bailiwick(t, "preview", dir, "--config-dir", demoDir, "--allow-loopback-endpoints")
	require.Regexp(t, "ServiceGrant platform/logs +ends +"+later, text.stdout)
	require.Regexp(t, "ServiceRequest acme-shop/logs +has ended +"+earlier, text.stdout)
}
