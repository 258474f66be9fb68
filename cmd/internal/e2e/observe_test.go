package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What observes and what audits changes no outcome: the proxy writes one line of
// JSON for each decision, with the policy, what would be and what is, and counts it.
func TestObservedPolicies(t *testing.T) {
	f := setUp(t)
	const observed = "tenants/acme/observed.yaml"
	text := `apiVersion: bailiwick.dev/v1alpha1
kind: AccessPolicy
metadata: {name: watch, namespace: acme-shop}
spec: {selector: {}, action: Deny, mode: Observe, rules: [{from: [{all: true}], paths: [{prefix: /old}]}]}
---
apiVersion: bailiwick.dev/v1alpha1
kind: AccessPolicy
metadata: {name: seen, namespace: acme-shop}
spec: {selector: {}, action: Audit, rules: [{from: [{all: true}], paths: [{prefix: /seen}]}]}
`
	platform := `apiVersion: bailiwick.dev/v1alpha1
kind: ClusterAccessPolicy
metadata: {name: trial}
spec:
  tier: Admin
  priority: 1
  mode: Observe
  subjects: [{namespaces: [acme-shop]}]
  rules: [{action: Deny, from: [{all: true}], paths: [{prefix: /trial}]}]
`
	f.write(observed, text)
	f.write("platform/trial.yaml", platform)
	f.start(shopWeb, shopOrders)
	web, orders := f.pods[shopWeb], f.pods[shopOrders]
	f.holds(orders)
	f.untilGet(web, ordersURL+"/other", answeredBy(orders, web))
	for path, allowed := range map[string]bool{"/old/1?secret": true, "/seen?secret": true, "/trial?secret": true, "/other?secret": true} {
		require.Equal(t, allowed, f.get(web, ordersURL+path) == answeredBy(orders, web), path)
	}
	// What is refused is recorded too, as refused.
	require.Equal(t, forbidden, f.request(web, "POST", ordersURL+"/seen"))
	lines := map[string]map[string]any{}
	f.until("the decisions are in the access log", func() error {
		clear(lines)
		for line := range strings.SplitSeq(orders.envoy.LogTail(1000), "\n") {
			var entry map[string]any
			if json.Unmarshal([]byte(line), &entry) == nil {
				key := fmt.Sprint(entry["policy"], " ", entry["method"])
				require.NotContains(t, lines, key, "one line each")
				lines[key] = entry
			}
		}
		if len(lines) < 4 {
			return fmt.Errorf("%d lines", len(lines))
		}
		return nil
	})
	require.Len(t, lines, 4)
	for key, want := range map[string][3]string{
		"acme-shop/watch GET": {"denied", "allowed", "200"},
		"*/trial GET":         {"denied", "allowed", "200"},
		"acme-shop/seen GET":  {"allowed", "allowed", "200"},
		"acme-shop/seen POST": {"denied", "denied", "403"},
	} {
		require.Contains(t, lines, key)
		got := lines[key]
		require.Equal(t, want, [3]string{fmt.Sprint(got["would"]), fmt.Sprint(got["result"]), fmt.Sprint(got["code"])}, "%v", got)
		require.Equal(t, web.workload.String(), got["caller"])
		require.NotContains(t, fmt.Sprint(got), "secret", "no query")
	}
	stats, err := orders.envoy.Stats(f.ctx)
	require.NoError(t, err)
	require.Equal(t, uint64(3), stats["http.inbound_8080.rbac.observed_.shadow_denied"])
	require.Equal(t, uint64(1), stats["http.inbound_8080.rbac.observed_.policy.acme-shop/watch.shadow_denied"])
	require.Equal(t, uint64(1), stats["http.inbound_8080.rbac.observed_.policy.*/trial.shadow_denied"])

	// Enforced, it is what was said of it.
	f.write(observed, strings.Replace(text, "mode: Observe, ", "", 1))
	f.untilGet(web, ordersURL+"/old/1", forbidden)
	f.write("platform/trial.yaml", strings.Replace(platform, "  mode: Observe\n", "", 1))
	f.untilGet(web, ordersURL+"/trial", forbidden)
	require.Equal(t, answeredBy(orders, web), f.get(web, ordersURL+"/other"))
}
