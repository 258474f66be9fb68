package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// changeRounds is how often a service comes, changes and goes under load.
const changeRounds = 8

// addedService is a service of acme-shop that leads to the Pod of orders, which
// policies protect as before.
func addedService(name, vip string, orders *pod) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: acme-shop}
spec:
  clusterIP: %[2]s
  clusterIPs: [%[2]s]
  ports: [{name: http, port: 8080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s, namespace: acme-shop, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- addresses: [%[3]s]
  targetRef: {kind: Pod, name: orders-0}
`, name, vip, orders.at.Pod)
}

// another is a Pod of another account behind a service, not ready: it changes
// what clients of the service pin, and no endpoint.
func another(account, service, address string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: acme-shop}
spec: {serviceAccountName: %[1]s, containers: [{name: c}]}
status: {phase: Running, podIP: %[3]s}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s, namespace: acme-shop, labels: {kubernetes.io/service-name: %[2]s}}
addressType: IPv4
ports: [{name: http-acme-shop, port: 8080}, {name: http, port: 8080}]
endpoints:
- addresses: [%[3]s]
  conditions: {ready: false}
  targetRef: {kind: Pod, name: %[1]s}
`, account, service, address)
}

// Services come, change and go under load, on delta and on state-of-the-world
// proxies, and no request is lost. A cluster that changes without its endpoints
// makes no Envoy wait: nothing ever runs into a fetch time-out.
func TestChangesUnderLoadLoseNoRequest(t *testing.T) {
	f := setUp(t)
	f.start(shopWeb, shopOrders, webOrders)
	web, orders, state := f.pods[shopWeb], f.pods[shopOrders], f.pods[webOrders]
	steady := f.load(web, map[string]string{"http://orders:8080/": answeredBy(orders, web)})
	own := f.load(state, map[string]string{"http://orders:8080/": answeredBy(state, state)})
	for i := range changeRounds {
		name := fmt.Sprintf("added-%d", i%2)
		file := "tenants/acme/" + name + ".yaml"
		f.write(file, addedService(name, fmt.Sprintf("10.96.9.%d", 1+i), orders))
		url := "http://" + name + ":8080/"
		fresh := f.load(web, map[string]string{url: answeredBy(orders, web)})
		fresh.more(20)

		account := fmt.Sprintf("pinned-account-%d", i)
		for _, service := range []string{name, "orders"} {
			f.write("tenants/acme/another.yaml", another(account, service, orders.at.Pod.Next().Next().Next().String()))
			f.untilPins(web, account, true)
			fresh.more(20)
			f.remove("tenants/acme/another.yaml")
			f.untilPins(web, account, false)
			fresh.more(20)
		}

		fresh.stop()
		fresh.clean()
		f.remove(file)
		f.untilGet(web, url, unknown)
		steady.more(20)
		own.more(20)
	}
	steady.stop()
	own.stop()
	steady.clean()
	own.clean()
	for _, p := range []*pod{web, orders, state} {
		stats, err := p.envoy.Stats(f.ctx)
		require.NoError(t, err)
		seen := 0
		for stat, value := range stats {
			if strings.HasSuffix(stat, "init_fetch_timeout") {
				seen++
				require.Zero(t, value, "%s of %s", stat, p.name)
			}
		}
		require.Positive(t, seen, "%s has no such statistics", p.name)
	}
}

// untilPins waits until a proxy's active clusters pin an account, or no longer do.
func (f *fixture) untilPins(p *pod, account string, want bool) {
	f.t.Helper()
	f.until(fmt.Sprintf("%s is pinned: %t", account, want), func() error {
		raw, err := p.envoy.Admin(f.ctx, "/config_dump?resource=dynamic_active_clusters")
		if err != nil {
			return err
		}
		warming, err := p.envoy.Admin(f.ctx, "/config_dump?resource=dynamic_warming_clusters")
		if err != nil {
			return err
		}
		if bytes.Contains(raw, []byte(account)) != want || bytes.Contains(warming, []byte(account)) {
			return errors.New("not yet")
		}
		return nil
	})
}
