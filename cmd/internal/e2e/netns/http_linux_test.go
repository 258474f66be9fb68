package netns

import (
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// The listeners whose connections are counted.
const (
	outboundSocket = "listener.127.0.0.1_15001.downstream_cx_total"
	inboundSocket  = "listener.0.0.0.0_15006.downstream_cx_total"
	outboundHTTP   = "listener.0.0.0.0_80.downstream_cx_total"
)

// httpByHost: where a request goes is said by its Host, wherever it was sent.
func (w *world) httpByHost(t *testing.T) {
	to := map[string]string{
		"orders.acme-shop": "acme-shop/orders", "orders.acme-shop.svc": "acme-shop/orders", "ORDERS.Acme-Shop": "acme-shop/orders",
		"orders.acme-shop.svc.cluster.local": "acme-shop/orders", "orders.acme-shop.svc.cluster.local.": "acme-shop/orders",
		"10.96.0.20": "acme-shop/orders", "[fd96::20]": "acme-shop/orders",
		"web": "acme-web/web", "web.acme-web": "acme-web/web", "10.96.0.10": "acme-web/web", "[fd96::10]": "acme-web/web",
	}
	// web lets nobody in, but its own answer proves where the request went.
	status := map[string]int{"acme-shop/orders": http.StatusOK, "acme-web/web": http.StatusForbidden}
	for _, family := range both {
		for host, workload := range to {
			for _, port := range []string{"", ":80"} {
				var got answer
				w.web.counts(t, counted{outboundHTTP: 1, outboundSocket: 0}, func() {
					var err error
					got, err = w.web.request(netip.AddrPortFrom(family.anywhere, 80), false, host+port, "/all?a=b")
					require.NoError(t, err, "%s %s%s", family.name, host, port)
				})
				require.Equal(t, status[workload], got.status, "%s %s%s", family.name, host, port)
				if got.status == http.StatusOK {
					require.Equal(t, workload, got.Workload)
					require.Equal(t, w.web.id(), got.Peer)
					require.Equal(t, "/all?a=b", got.Path)
				}
			}
		}
		got, err := w.orders.request(netip.AddrPortFrom(family.orders, 80), false, "orders", "/all")
		require.NoError(t, err)
		require.Equal(t, "acme-shop/orders", got.Workload, "the short name, in the own namespace")
	}
}

// httpIsJudged: the destination sees who called, and refuses what it must.
func (w *world) httpIsJudged(t *testing.T) {
	const denied = "http.inbound_8080.rbac.denied"
	for _, family := range both {
		w.orders.counts(t, counted{denied: 2}, func() {
			got, err := w.web.request(netip.AddrPortFrom(family.orders, 80), false, "orders.acme-shop", "/self")
			require.NoError(t, err)
			require.Equal(t, http.StatusForbidden, got.status)
			got, err = w.web.request(netip.AddrPortFrom(family.orders, 80), false, "orders.acme-shop", "/all/../self")
			require.NoError(t, err)
			require.Equal(t, http.StatusForbidden, got.status)
			got, err = w.web.request(netip.AddrPortFrom(family.orders, 80), false, "orders.acme-shop", "/all")
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, got.status)
		}, family.name)
	}
}

// httpToBothFamilies: an endpoint of either family is reached, and reaches its
// application, from a connection of either.
func (w *world) httpToBothFamilies(t *testing.T) {
	served := func(address string) uint64 {
		clusters, err := w.web.envoy.Admin(w.ctx, "/clusters")
		require.NoError(t, err)
		line := regexp.MustCompile(`orders\.acme-shop\.svc\.cluster\.local:80::` + regexp.QuoteMeta(address) + `::rq_success::(\d+)`)
		found := line.FindSubmatch(clusters)
		require.NotNil(t, found, "%s is no endpoint:\n%s", address, clusters)
		n, err := strconv.ParseUint(string(found[1]), 10, 64)
		require.NoError(t, err)
		return n
	}
	for _, family := range both {
		for _, address := range []string{"10.77.0.20:8080", "[fd77::20]:8080"} {
			before := served(address)
			w.until(t, address+" served a request", func() error { // Envoy picks at random
				got, err := w.web.request(netip.AddrPortFrom(family.anywhere, 80), false, "orders.acme-shop", "/all")
				require.NoError(t, err)
				require.Equal(t, http.StatusOK, got.status)
				if served(address) == before {
					return fmt.Errorf("%s served none", address)
				}
				return nil
			})
		}
	}
}

func (w *world) h2c(t *testing.T) {
	for _, family := range both {
		for _, h2c := range []bool{true, false} {
			got, err := w.web.request(netip.AddrPortFrom(family.anywhere, 90), h2c, "orders.acme-shop:90", "/all")
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, got.status)
			require.Equal(t, "HTTP/2.0", got.Protocol, "the application speaks HTTP/2")
			got, err = w.web.request(netip.AddrPortFrom(family.anywhere, 80), h2c, "orders.acme-shop", "/all")
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, got.status)
			require.Equal(t, "HTTP/1.1", got.Protocol, "the application speaks HTTP/1.1")
		}
	}
}

// unknownHosts: what the registry does not have is a 502, another tenant's
// names and addresses among it.
func (w *world) unknownHosts(t *testing.T) {
	const refused = "http.outbound_80.downstream_rq_5xx"
	for _, family := range both {
		for _, host := range []string{
			"nothing.example", "orders", "spy", "spy.globex-shop", "spy.globex-shop.svc.cluster.local", "10.96.0.30", "[fd96::30]",
			"10.96.200.1", "10.77.0.20:8080", "db.acme-shop",
		} {
			w.web.counts(t, counted{refused: 1, outBlackhole: 0}, func() {
				got, err := w.web.request(netip.AddrPortFrom(family.outside, 80), false, host, "/all")
				require.NoError(t, err)
				require.Equal(t, http.StatusBadGateway, got.status, host)
			}, host)
		}
	}
}
