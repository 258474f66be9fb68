package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
)

// legacy is a service of globex-shop whose Pod has no sidecar.
const legacy = `apiVersion: v1
kind: Service
metadata: {name: legacy, namespace: globex-shop}
spec: {clusterIP: 10.96.3.9, clusterIPs: [10.96.3.9], ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: legacy-0, namespace: globex-shop, labels: {app: legacy}}
spec: {serviceAccountName: legacy, containers: [{name: c}]}
status: {phase: Running, podIP: 127.40.3.9}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: legacy, namespace: globex-shop, labels: {kubernetes.io/service-name: legacy}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- addresses: [127.40.3.9]
  targetRef: {kind: Pod, name: legacy-0}
`

// legacyGrant offers it to acme and to globex itself.
func legacyGrant(plain bool) string {
	return fmt.Sprintf(`apiVersion: bailiwick.dev/v1alpha1
kind: ServiceGrant
metadata: {name: legacy, namespace: globex-shop}
spec: {from: [{tenant: acme, all: true}, {tenant: globex, all: true}], to: [{service: legacy, all: true, plain: %t}]}
`, plain)
}

func legacyRequest(namespace string, plain bool) string {
	return fmt.Sprintf(`apiVersion: bailiwick.dev/v1alpha1
kind: ServiceRequest
metadata: {name: legacy, namespace: %s}
spec: {to: {namespace: globex-shop, service: legacy, ports: [8080], plain: %t}}
`, namespace, plain)
}

const (
	legacyGrantFile   = "tenants/globex/legacy-grant.yaml"
	legacyRequestFile = "tenants/acme/legacy-request.yaml"
	legacyCluster     = "legacy.globex-shop.svc.cluster.local:8080"
	legacyURL         = "http://" + legacyCluster + "/"
)

// hasTLS tells whether a proxy would call a cluster with mTLS.
func (f *fixture) hasTLS(p *pod, cluster string) (bool, error) {
	raw, err := p.envoy.Admin(f.ctx, "/config_dump?resource=dynamic_active_clusters")
	if err != nil {
		return false, err
	}
	var dump struct {
		Configs []struct{ Cluster map[string]any }
	}
	if err := json.Unmarshal(raw, &dump); err != nil {
		return false, err
	}
	for _, c := range dump.Configs {
		if c.Cluster["name"] == cluster {
			return c.Cluster["transport_socket"] != nil, nil
		}
	}
	return false, errors.New("no such cluster")
}

func (f *fixture) untilTLS(p *pod, want bool) {
	f.t.Helper()
	f.until(fmt.Sprintf("%s calls legacy with mTLS: %t", p.name, want), func() error {
		if has, err := f.hasTLS(p, legacyCluster); err != nil || has != want {
			return fmt.Errorf("%t: %w", has, err)
		}
		return nil
	})
}

// A service without a sidecar is called without mTLS by those who agreed on that
// with its owner, and by nobody else; as soon as one of those whose consent it
// takes withdraws it, there is mTLS again, and what has none is not called.
func TestPlainDestinationsNeedConsent(t *testing.T) {
	f := newFixture(t)
	tenants := objectFile(t, tenantsFile)
	permit := func(who ...string) {
		text := tenants
		for _, tenant := range who {
			line := "  trustDomain: " + tenant + ".example\n"
			require.Contains(t, text, line)
			text = strings.Replace(text, line, line+"  tls: {plainDestinations: Allow}\n", 1)
		}
		f.write(tenantsFile, text)
	}
	permit("acme", "globex")
	f.write("tenants/globex/legacy.yaml", legacy)
	f.write(legacyGrantFile, legacyGrant(true))
	f.write(legacyRequestFile, legacyRequest("acme-shop", true))
	f.write("tenants/acme/legacy-other.yaml", legacyRequest("acme-web", false))
	f.write("tenants/globex/legacy-own.yaml", legacyRequest("globex-web", true))
	f.serve()
	require.NoError(t, f.server.WaitReady(f.ctx))
	app, err := mesh.StartEcho(f.ctx, "legacy", netip.AddrPortFrom(netip.MustParseAddr(podAddress(3, 9)), 8080))
	require.NoError(t, err)
	t.Cleanup(app.Stop)
	f.start(shopWeb, webOrders, globexWeb)
	web, other, own := f.pods[shopWeb], f.pods[webOrders], f.pods[globexWeb]

	plainly := func(p *pod) {
		f.untilTLS(p, false)
		f.until("legacy answers", func() error {
			if got := f.get(p, legacyURL); !strings.HasPrefix(got, "200 by legacy") {
				return errors.New(got)
			}
			return nil
		})
	}
	// Who calls with mTLS calls nobody: there is no sidecar that speaks it.
	secured := func(p *pod) {
		f.untilTLS(p, true)
		require.Regexp(f.t, "^503 ", f.get(p, legacyURL))
	}
	plainly(web)
	plainly(own)
	secured(other)
	f.holds(web)
	f.holds(own)
	tls, err := f.hasTLS(web, "orders.globex-shop.svc.cluster.local:8080")
	require.NoError(t, err)
	require.True(t, tls, "this service and no other")

	for _, c := range []struct {
		name       string
		undo, redo func()
		reason     string
		// ours is set if the owner's own tenant is affected too.
		ours bool
	}{
		{"the producer's Tenant", func() { permit("acme") }, func() { permit("acme", "globex") }, "False/NotPlain", true},
		{"the consumer's Tenant", func() { permit("globex") }, func() { permit("acme", "globex") }, "False/NotPermitted", false},
		{"the grant", func() { f.write(legacyGrantFile, legacyGrant(false)) }, func() { f.write(legacyGrantFile, legacyGrant(true)) }, "False/NotPlain", true},
		{"the request", func() { f.write(legacyRequestFile, legacyRequest("acme-shop", false)) }, func() { f.write(legacyRequestFile, legacyRequest("acme-shop", true)) }, "True/Accepted", false},
	} {
		f.run("without "+c.name, func() {
			c.undo()
			secured(web)
			if c.ours {
				secured(own)
			} else {
				plainly(own)
			}
			f.says("ServiceRequest acme-shop/legacy", "Accepted", c.reason)
			c.redo()
			plainly(web)
			plainly(own)
			f.says("ServiceRequest acme-shop/legacy", "Accepted", "True/Accepted")
		})
	}
	f.run("explained", func() {
		for p, want := range map[*pod]string{web: `"allowed".*agree that the service is plain`, other: `"denied"`} {
			got := run(f.t, nil, "explain", "--config-dir", f.dir, "--allow-loopback-endpoints", "-o", "json", "--from", p.workload.String(), "--to", "globex-shop/legacy:8080")
			require.Regexp(f.t, "(?s)"+want, got.stdout, got.stderr)
		}
	})
	f.remove(legacyGrantFile)
	f.untilGet(web, legacyURL, unknown)
}
