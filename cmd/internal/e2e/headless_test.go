package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// headlessFile is where the objects of the service db are, dbNames its Pods.
const headlessFile = "tenants/acme/shop-db.yaml"

var dbNames = []string{"acme-shop/db-0", "acme-shop/db-1", "acme-shop/db-2"}

// headless are the objects of a headless service of acme-shop whose Pods have the
// last number of their address given; 0 is a Pod that is not there. Of those that
// are not ready the endpoint says so.
func headless(addresses [3]int, notReady ...int) string {
	var text strings.Builder
	text.WriteString(`apiVersion: v1
kind: Service
metadata: {name: db, namespace: acme-shop}
spec: {clusterIP: None, clusterIPs: [None], ports: [{name: http, port: 8080}]}
---
apiVersion: bailiwick.dev/v1alpha1
kind: AccessPolicy
metadata: {name: db, namespace: acme-shop}
spec: {selector: {matchLabels: {app: db}}, action: Allow, rules: [{from: [{namespace: acme-shop}, {namespace: acme-web}, {granted: true}]}]}
---
apiVersion: bailiwick.dev/v1alpha1
kind: ServiceGrant
metadata: {name: db, namespace: acme-shop}
spec: {from: [{tenant: globex, namespaces: [globex-web]}], to: [{service: db, ports: [8080]}]}
`)
	var endpoints strings.Builder
	for i, n := range addresses {
		if n == 0 {
			continue
		}
		fmt.Fprintf(&text, `---
apiVersion: v1
kind: Pod
metadata: {name: db-%[1]d, namespace: acme-shop, labels: {app: db}}
spec: {serviceAccountName: acme-shop-db-account, hostname: db-%[1]d, subdomain: db, containers: [{name: c}]}
status: {phase: Running, podIP: 127.40.1.%[2]d}
`, i, n)
		ready := !slices.Contains(notReady, i)
		fmt.Fprintf(&endpoints, `
- {addresses: [127.40.1.%d], hostname: db-%[2]d, conditions: {ready: %[3]t}, targetRef: {kind: Pod, name: db-%[2]d}}`, n, i, ready)
	}
	text.WriteString(`---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db, namespace: acme-shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:` + endpoints.String() + "\n")
	return text.String()
}

// Each Pod of a headless service is reached by its own name, and no other is,
// through restarts that change its address. Who may know the service decides how
// short its names are.
func TestHeadlessService(t *testing.T) {
	f := newFixture(t)
	f.write(headlessFile, headless([3]int{10, 11, 12}))
	f.write("tenants/globex/request-db.yaml", `apiVersion: bailiwick.dev/v1alpha1
kind: ServiceRequest
metadata: {name: db, namespace: globex-web}
spec: {to: {namespace: acme-shop, service: db, ports: [8080]}}
`)
	f.serve()
	require.NoError(t, f.server.WaitReady(f.ctx))
	f.start(append([]string{shopWeb, webOrders, globexWeb, globexOrders}, dbNames...)...)
	const fqdn = ".db.acme-shop.svc.cluster.local"
	names := map[string][]string{
		shopWeb:   {".db", ".db.acme-shop", ".db.acme-shop.svc", fqdn, fqdn + "."},
		webOrders: {".db.acme-shop", ".db.acme-shop.svc", fqdn},
		globexWeb: {fqdn},
	}
	reach := func() {
		t.Helper()
		for i, name := range dbNames {
			for from, suffixes := range names {
				for _, suffix := range suffixes {
					url := fmt.Sprintf("http://db-%d%s:8080/", i, suffix)
					want := answeredBy(f.pods[name], f.pods[from])
					f.untilGet(f.pods[from], url, want)
					for range 5 { // nobody else ever is
						require.Equal(t, want, f.get(f.pods[from], url), url)
					}
				}
			}
		}
	}
	reach()
	for from, suffixes := range map[string][]string{
		webOrders: {".db"}, globexWeb: {".db", ".db.acme-shop", ".db.acme-shop.svc"}, globexOrders: {".db", ".db.acme-shop", fqdn},
	} {
		for _, suffix := range suffixes {
			require.Equal(t, unknown, f.get(f.pods[from], "http://db-0"+suffix+":8080/"), from+suffix)
		}
	}
	require.Equal(t, unknown, f.get(f.pods[shopWeb], "http://db-3.db:8080/"))
	require.NotContains(t, f.pages(f.pods[globexOrders]), "db-0")
	answered := map[string]bool{} // the service's own name is anybody's
	f.until("every Pod answers for the service", func() error {
		if answered[f.get(f.pods[shopWeb], "http://db:8080/")] = true; len(answered) < 3 {
			return fmt.Errorf("only %v", answered)
		}
		return nil
	})

	// One after another is stopped and comes back elsewhere.
	addresses := [3]int{10, 11, 12}
	for i, name := range dbNames {
		web, url := f.pods[shopWeb], fmt.Sprintf("http://db-%d.db:8080/", i)
		f.write(headlessFile, headless(addresses, i))
		f.until(name+" takes no more requests", func() error {
			if got := f.get(web, url); !strings.HasPrefix(got, "503 ") {
				return errors.New(got)
			}
			return nil
		})
		f.pods[name].envoy.Stop()
		addresses[i] = 0
		f.write(headlessFile, headless(addresses))
		f.untilGet(web, url, unknown)
		addresses[i] = 20 + i
		f.write(headlessFile, headless(addresses))
		f.start(name)
		f.untilGet(web, url, answeredBy(f.pods[name], web))
	}
	reach()
}
