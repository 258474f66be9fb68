package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// peerTLS is one for all Pods of acme-shop, whose name is migration.
func peerTLS(spec string) string {
	return `apiVersion: bailiwick.dev/v1alpha1
kind: PeerTLS
metadata: {name: migration, namespace: acme-shop}
spec: {selector: {}, ` + spec + "}\n"
}

// forPlaintext lets callers without a certificate read one path of orders.
const forPlaintext = `apiVersion: bailiwick.dev/v1alpha1
kind: AccessPolicy
metadata: {name: for-plaintext, namespace: acme-shop}
spec:
  selector: {matchLabels: {app: acme-shop-orders-app}}
  action: Allow
  rules: [{from: [{plaintext: true}], ports: [8080, 6379]}]
`

const (
	peerFile      = "tenants/acme/peers.yaml"
	plaintextFile = "tenants/acme/for-plaintext.yaml"
	peerObject    = "PeerTLS acme-shop/migration"
	tenantsFile   = "platform/tenants.yaml"
)

// plaintext is one HTTP/1 connection without a certificate.
func (f *fixture) plaintext(to *pod, port uint16) *openConn {
	f.t.Helper()
	addr := netip.AddrPortFrom(to.at.Pod, port)
	conn, err := new(http.Transport).NewClientConn(f.ctx, "http", addr.String())
	require.NoError(f.t, err)
	f.t.Cleanup(func() { _ = conn.Close() })
	return &openConn{f: f, conn: conn, to: to, url: fmt.Sprintf("http://%s/", addr)}
}

// anew sends a request without a certificate on a connection of its own.
func (f *fixture) anew(to *pod, port uint16) string {
	conn := f.plaintext(to, port)
	defer func() { _ = conn.conn.Close() }()
	return conn.get()
}

// untilAnew is anew until it ends as wanted; failed stands for any failure.
func (f *fixture) untilAnew(to *pod, want string) {
	f.t.Helper()
	f.until(fmt.Sprintf("plaintext to %s is %q", to.name, want), func() error {
		if got := f.anew(to, 8080); got != want && !strings.HasPrefix(got, want+": ") {
			return errors.New(got)
		}
		return nil
	})
}

// refusals is how many requests without a certificate a Pod's port has refused.
func (f *fixture) refusals(p *pod, port uint16) uint64 {
	f.t.Helper()
	stats, err := p.envoy.Stats(f.ctx)
	require.NoError(f.t, err)
	n, ok := stats[fmt.Sprintf("http.inbound_%d_plain.rbac.denied", port)]
	require.True(f.t, ok, "%s does not count what it refuses", p.name)
	return n
}

// tenantSpec gives acme's Tenant one more field.
func (f *fixture) tenantSpec(more string) {
	f.t.Helper()
	text := objectFile(f.t, tenantsFile)
	const before = "  namespaces: [\"acme-\"]\n"
	require.Contains(f.t, text, before)
	f.write(tenantsFile, strings.Replace(text, before, before+"  "+more+"\n", 1))
}

// A namespace goes from Strict to Permissive and back while it serves mTLS, and
// loses none of that: what callers without a certificate may do is a decision, and
// what is refused them is counted where it was.
func TestPermissiveAndBack(t *testing.T) {
	f := setUp(t)
	f.start(shopWeb, shopOrders)
	web, orders := f.pods[shopWeb], f.pods[shopOrders]
	f.holds(orders)
	secure := f.load(web, map[string]string{"http://orders:8080/": answeredBy(orders, web)})
	kept := f.open(f.certificate(web), orders, 8080)
	admitted := "200 by " + orders.name + " to "

	// Never below what the Tenant permits.
	f.write(plaintextFile, forPlaintext)
	f.write(peerFile, peerTLS("mode: Permissive"))
	f.says(peerObject, "Accepted", "False/NotPermitted")
	require.Regexp(t, "^failed: ", f.anew(orders, 8080))
	secure.more(20)

	f.tenantSpec("tls: {peers: Permissive}")
	f.says(peerObject, "Accepted", "False/ServerSpeaksFirst")
	f.untilAnew(orders, admitted)
	plain := f.plaintext(orders, 8080)
	require.Equal(t, admitted, plain.get(), "whatever name it gives itself")
	require.Zero(t, f.plaintextExplained())
	f.run("TCP", func() { f.checkPlainTCP(orders) })

	// Only rules that say so.
	f.remove(plaintextFile)
	plain.untilGet(forbidden)
	before := f.refusals(orders, 8080)
	require.Equal(t, forbidden, plain.get())
	require.Equal(t, before+1, f.refusals(orders, 8080), "counted where it was refused")
	require.Equal(t, 3, f.plaintextExplained())
	f.write(plaintextFile, forPlaintext)
	plain.untilGet(admitted)
	secure.more(20)

	// Strict is a decision: it comes to the connection that is open, and no chain
	// and no connection goes.
	chains := f.drained(orders)
	f.write(peerFile, peerTLS("mode: Strict"))
	plain.untilGet(forbidden)
	f.untilAnew(orders, forbidden)
	require.Equal(t, 3, f.plaintextExplained())
	f.says(peerObject, "Accepted", "True/Accepted")
	f.write(peerFile, peerTLS("ports: [8080], mode: Permissive"))
	plain.untilGet(admitted)
	f.says(peerObject, "Accepted", "True/Accepted")
	require.Equal(t, chains, f.drained(orders))
	plain.alive()

	f.run("ends", func() { f.checkPermissiveEnds(orders, admitted) })

	// The Tenant permits it no longer: what is open is refused, the chain goes.
	plain = f.plaintext(orders, 8080)
	require.Equal(t, admitted, plain.get())
	f.tenantSpec("tls: {peers: Strict}")
	f.until("nobody without a certificate is let in", func() error {
		if got := plain.get(); got == admitted {
			return errors.New(got)
		}
		return nil
	})
	f.untilAnew(orders, "failed")
	f.says(peerObject, "Accepted", "False/NotPermitted")
	secure.more(20)
	secure.stop()
	secure.clean()
	require.Equal(t, answeredBy(orders, web), kept.get())
	kept.alive()
}

// plaintextExplained is the exit code of explain for a caller without a certificate.
func (f *fixture) plaintextExplained() int {
	f.t.Helper()
	return run(f.t, nil, "explain", "--config-dir", f.dir, "--allow-loopback-endpoints", "--from", "plaintext", "--to", "acme-shop/orders:8080").code
}

// checkPlainTCP speaks without a certificate to ports that are not HTTP: where
// the client speaks first RBAC judges it, where the server does nobody could in
// time, and there is no such chain.
func (f *fixture) checkPlainTCP(orders *pod) {
	conn := f.dial(orders.at.Pod, 6379)
	f.echoes(conn, bufio.NewReader(conn))
	before := f.dialled(orders, 2525)
	f.closed(f.dial(orders.at.Pod, 2525), "EHLO x\r\n")
	require.Equal(f.t, before, f.dialled(orders, 2525), "the application was dialled for somebody without a certificate")
}

// checkPermissiveEnds: an end is a reminder, and acts only where it says so.
func (f *fixture) checkPermissiveEnds(orders *pod, admitted string) {
	at := func(in time.Duration) string { return time.Now().Add(in).UTC().Format(time.RFC3339) }
	f.write(peerFile, peerTLS(`ports: [8080], mode: Permissive, until: "`+at(24*time.Hour)+`"`))
	f.says(peerObject, "Accepted", "True/ExpiringSoon")
	f.write(peerFile, peerTLS(`ports: [8080], mode: Permissive, until: "`+at(-time.Minute)+`"`))
	f.says(peerObject, "Accepted", "True/Overdue")
	f.untilAnew(orders, admitted)
	plain := f.plaintext(orders, 8080)
	require.Equal(f.t, admitted, plain.get())
	f.write(peerFile, peerTLS(`ports: [8080], mode: Permissive, enforceAtEnd: true, until: "`+at(2*time.Second)+`"`))
	f.says(peerObject, "Accepted", "True/Overdue")
	plain.untilGet(forbidden)
	plain.alive()
	f.write(peerFile, peerTLS("ports: [8080], mode: Permissive"))
	plain.untilGet(admitted)
}
