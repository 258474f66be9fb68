package snapshot

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

// ask makes a request by an outbound listener, as the application would.
func ask(t *testing.T, at netip.AddrPort, host string) (int, http.Header) {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+at.String()+"/", nil)
	require.NoError(t, err)
	req.Host = host
	resp, err := (&http.Client{Transport: tr, Timeout: 20 * time.Second}).Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, resp.Header
}

// dialLine connects, says hello and returns all that came back.
func dialLine(t *testing.T, at netip.AddrPort, hello string) string {
	t.Helper()
	conn, err := net.Dial("tcp", at.String())
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = io.WriteString(conn, hello)
	require.NoError(t, err)
	out, err := io.ReadAll(bufio.NewReader(conn))
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	return string(out)
}

// TestEnvoyReachesServices has one proxy call itself: out by its outbound
// listeners, mTLS, in by its inbound ones.
func TestEnvoyReachesServices(t *testing.T) {
	envoyBinary(t)
	ca := newFleet(t)
	pod, app, bind := testHosts()
	f := newFiles(t, ca.acme, "spiffe://acme.example/ns/acme-shop/sa/orders")
	b, v := NewBuilder(BuilderConfig{}), Variant{Explicit: true, Bind: bind, App: app}
	own := policy.NamespaceRef{TrustDomain: "acme.example", Namespace: "acme-shop"}
	open := policy.Port{Floor: policy.Floor{Tenant: []policy.NamespaceRef{own}}, AllowWithinTenant: true}
	w := workloadSpec(t)
	w.Ports = []tenancy.InboundPort{
		{Port: 8080, Protocol: tenancy.HTTP1, Policy: open}, {Port: 9090, Protocol: tenancy.HTTP2, Policy: open},
		{Port: 3306, Protocol: tenancy.ServerFirst, Policy: open}, {Port: 6379, Protocol: tenancy.ClientFirst, Policy: open},
	}
	serveHTTP(t, netip.AddrPortFrom(app, 8080))
	serveHTTP(t, netip.AddrPortFrom(app, 9090))
	serveTCP(t, netip.AddrPortFrom(app, 3306), "welcome\n")
	serveTCP(t, netip.AddrPortFrom(app, 6379), "")
	resources, errs := b.Inbound(w, v, []netip.Addr{pod}, ca.bundles())
	require.Empty(t, errs)
	keep := func(r *Resource, err error) *Resource {
		require.NoError(t, err)
		resources = append(resources, r)
		return r
	}
	static, err := b.StaticClusters(tenancy.RegistryOnly)
	require.NoError(t, err)
	resources = append(resources, static...)
	keep(b.Bundle("acme.example", ca.acmeB))

	behind := func(port uint16) []tenancy.EndpointSpec {
		return []tenancy.EndpointSpec{{Address: netip.AddrPortFrom(pod, port), Zone: "a"}}
	}
	orders := ordersSpec()
	orders.Ports = []tenancy.PortSpec{
		{Port: 8000, Protocol: tenancy.HTTP1, Endpoints: behind(8080)}, {Port: 9000, Protocol: tenancy.HTTP2, Endpoints: behind(9090)},
		{Port: 13306, Protocol: tenancy.ServerFirst, Endpoints: behind(3306)}, {Port: 16379, Protocol: tenancy.ClientFirst, Endpoints: behind(6379)},
	}
	// A dead endpoint first and last: retries go round it.
	orders.Ports[0].Endpoints = append(orders.Ports[0].Endpoints, tenancy.EndpointSpec{Address: netip.AddrPortFrom(pod, 1), Zone: "b"})
	imposter := ordersSpec()
	imposter.Key.Name, imposter.VIPs, imposter.Accounts = "imposter", nil, []string{"other"}
	imposter.Ports = []tenancy.PortSpec{{Port: 8000, Protocol: tenancy.HTTP1, Endpoints: behind(8080)}}
	nobodys := ordersSpec()
	nobodys.Key.Name, nobodys.VIPs, nobodys.Accounts = "nobodys", nil, nil
	nobodys.Ports = imposter.Ports

	hosts := map[uint16][]*Part{}
	for _, s := range []*tenancy.ServiceSpec{orders, imposter, nobodys} {
		for i := range s.Ports {
			p := &s.Ports[i]
			c := keep(b.Cluster(s, p))
			keep(b.Endpoints(s, p))
			if !p.Protocol.IsHTTP() {
				keep(b.TCPListener(bind, p.Port, c.Name(), v, nil))
				continue
			}
			h, err := b.VirtualHost(s, p, tenancy.OwnNamespace, true)
			require.NoError(t, err)
			hosts[p.Port] = append(hosts[p.Port], h.Part)
		}
	}
	for port, parts := range hosts {
		keep(b.RouteConfiguration(port, parts, tenancy.RegistryOnly))
		keep(b.HTTPListener(port, v))
	}
	f.put(resources...)
	e := f.start()
	require.Len(t, e.names()["dynamic_listeners"], 8)
	require.Len(t, e.names()["dynamic_route_configs"], 2)
	require.Len(t, e.names()["dynamic_active_clusters"], 4+1+6)

	at := netip.AddrPortFrom(bind, 8000)
	for _, host := range []string{"orders", "orders:8000", "ORDERS.acme-shop", "orders.acme-shop.svc", "orders.acme-shop.svc.cluster.local:1", "orders.acme-shop.svc.cluster.local.", "10.96.0.20", "10.96.0.20:8000", "[fd96::20]:8000", "[fd96::20]"} {
		for range 4 {
			code, header := ask(t, at, host)
			require.Equal(t, 200, code, host)
			require.Equal(t, "spiffe://acme.example/ns/acme-shop/sa/orders", header.Get("Saw-X-Tenant-Identity"))
			require.Equal(t, "HTTP/1.1", header.Get("Saw-Proto"))
		}
	}
	code, header := ask(t, netip.AddrPortFrom(bind, 9000), "orders")
	require.Equal(t, 200, code)
	require.Equal(t, "HTTP/2.0", header.Get("Saw-Proto"))
	for host, want := range map[string]int{"unknown": 502, "orders.globex": 502, "imposter": 503, "nobodys": 503} {
		code, _ := ask(t, at, host)
		require.Equal(t, want, code, host)
	}
	require.Equal(t, "welcome\necho hello\n", dialLine(t, netip.AddrPortFrom(bind, 13306), "hello\n"))
	require.Equal(t, "echo hello\n", dialLine(t, netip.AddrPortFrom(bind, 16379), "hello\n"))
	require.Contains(t, dialLine(t, at, "GET / HTTP/1.0\r\nHost: orders\r\n\r\n"), " 200 OK\r\n")
	upgraded := dialLine(t, at, "GET /ws HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nping\n")
	require.Contains(t, upgraded, "101 Switching Protocols")
	require.Contains(t, upgraded, "echo ping\n")
}
