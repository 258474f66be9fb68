package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// withEnd is a file of one object with an end in its spec.
func withEnd(text string, in time.Duration) string {
	return strings.Replace(text, "\nspec:\n", fmt.Sprintf("\nspec:\n  expiresAt: %q\n", time.Now().Add(in).UTC().Format(time.RFC3339)), 1)
}

// What has an end holds until then and is reported; then it is as if it were
// removed: by the clock alone, at proxies that are connected and on connections
// that are open.
func TestEndsReachEnvoy(t *testing.T) {
	f := setUp(t)
	f.start(shopWeb, globexOrders)
	web, orders := f.pods[shopWeb], f.pods[globexOrders]
	f.untilGet(web, grantedURL, answeredBy(orders, web))
	conn := f.open(f.certificate(web), orders, 8080)
	for _, c := range []struct {
		file, object string
		// visible is whether the service still is after the end.
		visible bool
	}{
		{grantedPolicy, "AccessPolicy globex-shop/globex-shop-granted-policy", true},
		{grantFile, "ServiceGrant globex-shop/globex-shop-grant", false},
		{requestFile, "ServiceRequest acme-shop/acme-shop-request", false},
	} {
		f.run("end of "+c.file, func() {
			text := f.read(c.file)
			f.write(c.file, withEnd(text, 24*time.Hour))
			f.says(c.object, "Accepted", "True/ExpiringSoon")
			require.Equal(f.t, answeredBy(orders, web), conn.get())
			require.Equal(f.t, answeredBy(orders, web), f.get(web, grantedURL))

			f.write(c.file, withEnd(text, 2*time.Second))
			f.says(c.object, "Accepted", "False/Expired")
			conn.untilGet(forbidden)
			conn.alive()
			if c.visible {
				f.untilGet(web, grantedURL, forbidden)
			} else {
				f.untilGet(web, grantedURL, unknown)
			}
			f.mentions(web, "globex", c.visible)

			f.write(c.file, text)
			f.says(c.object, "Accepted", "True/Accepted")
			conn.untilGet(answeredBy(orders, web))
			f.untilGet(web, grantedURL, answeredBy(orders, web))
		})
	}
	conn.alive()
}

// Open TCP connections are not judged again. They end within the Tenant's bound,
// and whoever was revoked does not come back.
func TestOpenConnectionsEndWithinTheBound(t *testing.T) {
	f := newFixture(t)
	f.tenantSpec("connections: {maxConnectionAge: 4s, maxStreamAge: 4s}")
	f.serve()
	require.NoError(t, f.server.WaitReady(f.ctx))
	f.start(shopWeb, shopOrders)
	web, orders := f.pods[shopWeb], f.pods[shopOrders]
	f.holds(orders)
	f.holds(web)
	open := map[uint16]net.Conn{}
	for _, port := range []uint16{6379, 2525} {
		through, direct := f.dial(web.at.Bind, port), f.mustDialDirect(web, orders, port)
		for _, conn := range []net.Conn{through, direct} {
			r := bufio.NewReader(conn)
			if port == 2525 {
				line, err := r.ReadString('\n')
				require.NoError(t, err)
				require.Equal(t, banner(shopOrders), line)
			}
			f.echoes(conn, r)
		}
		open[port] = direct
		require.NoError(t, through.Close())
	}
	streamed := make(chan string, 1)
	body, more := io.Pipe() // the application answers at its end, which does not come
	t.Cleanup(func() { _ = more.Close() })
	stream := f.open(f.certificate(web), orders, 8080)
	request, err := http.NewRequestWithContext(f.ctx, http.MethodGet, stream.url, body)
	require.NoError(t, err)
	go func() { streamed <- told(sent(stream.conn.RoundTrip(request))) }() // ends with the stream, or the test's patience
	f.until("the stream is open", func() error {
		if n := f.stat(orders, "http.inbound_8080.downstream_rq_active"); n != 1 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	policies := f.read("tenants/acme/policies.yaml")
	const rule = "ports: [2525, 6379]"
	require.Contains(t, policies, rule)
	const reads = "methods: [GET]"
	require.Contains(t, policies, reads)
	f.write("tenants/acme/policies.yaml", strings.NewReplacer(rule, "ports: [2526]", reads, "methods: [HEAD]").Replace(policies))
	for port, conn := range open {
		f.until(fmt.Sprintf("port %d takes nobody new", port), func() error {
			fresh, err := f.dialDirect(f.certificate(web), orders, port)
			if err != nil {
				return nil //nolint:nilerr // refused at the handshake
			}
			defer func() { _ = fresh.Close() }()
			_, _ = io.WriteString(fresh, "ping\n")
			if got, _ := bufio.NewReader(fresh).ReadString('\n'); got != "" {
				return errors.New("it answers " + got)
			}
			return nil
		})
		got, err := io.ReadAll(conn)
		var late net.Error
		require.False(t, errors.As(err, &late) && late.Timeout(), "the connection to port %d was left open", port)
		require.Empty(t, got)
	}
	f.untilGet(web, "http://orders:8080/", forbidden)
	require.NotRegexp(t, "^200", <-streamed, "the stream ends before the application has answered")
	require.NotZero(t, f.stat(orders, "http.inbound_8080.downstream_rq_max_duration_reached"), "it ended for another reason")
	for port := range open {
		require.NotZero(t, f.stat(orders, fmt.Sprintf("tcp.inbound_%d.max_downstream_connection_duration", port)), "it ended for another reason")
	}
}

// stat is one of an Envoy's counters or gauges.
func (f *fixture) stat(p *pod, name string) uint64 {
	f.t.Helper()
	stats, err := p.envoy.Stats(f.ctx)
	require.NoError(f.t, err)
	n, ok := stats[name]
	require.True(f.t, ok, "%s has no %s", p.name, name)
	return n
}

func (f *fixture) mustDialDirect(from, to *pod, port uint16) net.Conn {
	f.t.Helper()
	conn, err := f.dialDirect(f.certificate(from), to, port)
	require.NoError(f.t, err)
	return conn
}
