package netns

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	outBlackhole = "tcp.out_blackhole.downstream_cx_total"
	inBlackhole  = "tcp.in_blackhole.downstream_cx_total"
	noneHealthy  = "cluster.blackhole.upstream_cx_none_healthy"
	loopGuard    = "tcp.loop.downstream_cx_total"
	inbound3306  = "tcp.inbound_3306.downstream_cx_total"
	inbound6379  = "tcp.inbound_6379.downstream_cx_total"
	handshakes   = "listener.0.0.0.0_15006.ssl.handshake"
)

// tcpByVirtualIP: a TCP service has an address of its own; whoever speaks first.
func (w *world) tcpByVirtualIP(t *testing.T) {
	for _, family := range both {
		for _, to := range []netip.AddrPort{netip.AddrPortFrom(family.db, 3306), netip.AddrPortFrom(family.db80, 80)} {
			w.orders.counts(t, counted{inbound3306: 1, handshakes: 1}, func() {
				line, err := first(w.web.dial(w.ctx, to))
				require.NoError(t, err, to)
				require.Equal(t, banner, line)
			}, to)
		}
		w.orders.counts(t, counted{inbound6379: 1, handshakes: 1}, func() {
			line, err := echoed(w.web.dial(w.ctx, netip.AddrPortFrom(family.db, 6379)))
			require.NoError(t, err)
			require.Equal(t, "ping\n", line)
		}, family.name)
		// HTTP on the port of db-on-80 is HTTP still.
		got, err := w.web.request(netip.AddrPortFrom(family.orders, 80), false, "orders.acme-shop", "/all")
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, got.status)
	}
}

// headless are the objects of a headless service, whose endpoints are orders at
// both its addresses and a Pod that does not answer.
const headless = `apiVersion: v1
kind: Service
metadata: {name: primary, namespace: acme-shop}
spec: {clusterIP: None, ports: [{name: mysql, port: 3306}]}
---
apiVersion: v1
kind: Pod
metadata: {name: silent, namespace: acme-shop}
spec: {serviceAccountName: orders}
status: {phase: Running, podIP: 10.77.0.1}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: primary-4, namespace: acme-shop, labels: {kubernetes.io/service-name: primary}}
addressType: IPv4
ports: [{name: mysql, port: 3306}]
endpoints:
- {addresses: [10.77.0.20], hostname: orders, targetRef: {kind: Pod, name: orders}}
- {addresses: [10.77.0.1], hostname: silent, targetRef: {kind: Pod, name: silent}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: primary-6, namespace: acme-shop, labels: {kubernetes.io/service-name: primary}}
addressType: IPv6
ports: [{name: mysql, port: 3306}]
endpoints: [{addresses: ["fd77::20"], hostname: orders, targetRef: {kind: Pod, name: orders}}]
`

// tcpByAddress: the endpoints of a headless service are dialled at their own
// addresses; each is reached by mTLS at the one that was dialled, and no other is.
func (w *world) tcpByAddress(t *testing.T) {
	path := filepath.Join(w.dir, "objects", "tenants", "acme", "primary.yaml")
	require.NoError(t, os.WriteFile(path, []byte(headless), 0o644))
	silent := netip.AddrPortFrom(node4, 3306)
	for _, family := range both {
		to := w.orders.at(family.anywhere, 3306)
		w.until(t, to.String()+" is reached", func() error {
			line, err := first(w.web.dial(w.ctx, to))
			if err == nil && line != banner {
				err = fmt.Errorf("it says %q", line)
			}
			return err
		})
		w.orders.counts(t, counted{inbound3306: 5, handshakes: 5}, func() {
			for range 5 {
				line, err := first(w.web.dial(w.ctx, to))
				require.NoError(t, err, to)
				require.Equal(t, banner, line)
			}
		}, to)
	}
	w.orders.counts(t, counted{inbound3306: 0}, func() {
		for range 3 {
			line, err := first(w.web.dial(w.ctx, silent))
			require.Error(t, err, line)
		}
	})
	require.NoError(t, os.Remove(path))
	w.until(t, "the addresses are nobody's again", func() error {
		if line, err := first(w.web.dial(w.ctx, w.orders.at(node4, 3306))); err == nil {
			return fmt.Errorf("it says %q", line)
		}
		return nil
	})
}

// podToItself: by virtual IP it is like any other caller, with its own identity;
// by its own address it is alone with itself.
func (w *world) podToItself(t *testing.T) {
	p := w.orders
	for _, family := range both {
		got, err := p.request(netip.AddrPortFrom(family.orders, 80), false, "orders", "/self")
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, got.status)
		require.Equal(t, p.id(), got.Peer, "RBAC let orders in as itself: /self is for nobody else")
		got, err = p.request(netip.AddrPortFrom(family.orders, 80), false, "orders", "/granted")
		require.NoError(t, err)
		require.Equal(t, http.StatusForbidden, got.status, "it may not what only others may")

		for _, to := range []netip.AddrPort{netip.AddrPortFrom(family.db, 3306), netip.AddrPortFrom(family.db80, 80)} {
			// mTLS, and once.
			p.counts(t, counted{inbound3306: 1, handshakes: 1, inboundSocket: 1}, func() {
				line, err := first(p.dial(p.w.ctx, to))
				require.NoError(t, err)
				require.Equal(t, banner, line)
			}, to)
		}

		for _, to := range []netip.AddrPort{p.at(family.anywhere, 8080), netip.AddrPortFrom(family.loopback, 8080)} {
			p.counts(t, counted{inboundSocket: 0, outboundSocket: 0}, func() {
				got, err := p.request(to, false, "whatever", "/anything")
				require.NoError(t, err)
				require.Equal(t, http.StatusOK, got.status)
				require.Empty(t, got.Peer, "no proxy is between")
			}, to)
		}
	}
}

// unknownDestinations: an application may only call what its registry has.
func (w *world) unknownDestinations(t *testing.T) {
	for _, family := range both {
		for what, to := range map[string]netip.AddrPort{
			"an address of nobody":      netip.AddrPortFrom(family.anywhere, 4444),
			"another port of a service": netip.AddrPortFrom(family.db, 5432),
			"another service's port":    netip.AddrPortFrom(family.orders, 3306),
			"a Pod":                     w.orders.at(family.anywhere, 8080),
			"a Pod's server-first port": w.orders.at(family.anywhere, 3306),
			"a Pod's excluded port":     w.orders.at(family.anywhere, excludedInbound),
			"another tenant's Pod":      w.spy.at(family.anywhere, 8080),
			"a machine outside":         netip.AddrPortFrom(family.outside, 7777),
			"the server of this mesh":   w.server.XDS,
		} {
			for _, say := range []string{"", "hello\n"} {
				w.web.counts(t, counted{outBlackhole: 1, noneHealthy: 1, outboundSocket: 1},
					func() { refused(t, dialed(w.web.dial(w.ctx, to)), say, what) }, family.name, what)
			}
		}
	}
}

// outboundPolicyChanges: a Tenant's outboundPolicy holds for what comes next, and
// open connections to services do not notice.
func (w *world) outboundPolicyChanges(t *testing.T) {
	conn, err := w.web.dial(w.ctx, netip.AddrPortFrom(both[0].db, 6379))
	require.NoError(t, err)
	defer conn.Close()
	goesOn := func() {
		_, err := conn.Write([]byte("ping\n"))
		require.NoError(t, err)
		line := make([]byte, 5)
		_, err = conn.Read(line)
		require.NoError(t, err)
		require.Equal(t, "ping\n", string(line))
	}
	goesOn()
	outside := func(reached bool) func() error {
		return func() error {
			for _, family := range both {
				line, err := first(w.web.dial(w.ctx, netip.AddrPortFrom(family.outside, 7777)))
				if (line == banner) != reached {
					return errors.Join(fmt.Errorf("%s: read %q", family.name, line), err)
				}
				got, err := w.web.request(netip.AddrPortFrom(family.outside, 80), false, "outside.example", "/")
				if err != nil || (got.status == http.StatusOK) != reached {
					return errors.Join(fmt.Errorf("%s: status %d", family.name, got.status), err)
				}
			}
			return nil
		}
	}
	require.NoError(t, outside(false)())
	w.edit(t, "platform/tenants.yaml", "outboundPolicy: RegistryOnly", "outboundPolicy: AllowAny # was RegistryOnly")
	w.until(t, "web may call anything", outside(true))
	goesOn()
	w.edit(t, "platform/tenants.yaml", "outboundPolicy: AllowAny # was RegistryOnly", "outboundPolicy: RegistryOnly")
	w.until(t, "web may call its registry only", outside(false))
	goesOn()
}
