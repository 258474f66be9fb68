package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Files of testdata/mesh that the tests change.
const (
	requestFile   = "tenants/acme/request.yaml"
	grantFile     = "tenants/globex/grant.yaml"
	grantedPolicy = "tenants/globex/policy-granted.yaml"
	// grantedURL is the granted service, as its consumer names it.
	grantedURL = "http://orders.globex-shop.svc.cluster.local:8080/"
)

// A grant does nothing until it is requested, and a visible service is not yet
// one that may be called.
func TestGrantRequestPolicy(t *testing.T) {
	request := objectFile(t, requestFile)
	f := setUp(t, requestFile, grantedPolicy)
	f.start(shopWeb, globexOrders)
	web, orders := f.pods[shopWeb], f.pods[globexOrders]

	// A grant alone: neither side's proxy knows of the other.
	f.holds(web)
	f.holds(orders)
	f.mentions(web, "globex", false)
	f.mentions(orders, "acme", false)
	require.Equal(t, unknown, f.get(web, grantedURL))
	f.refusesHandshake(f.certificate(web), orders, 8080)

	// Requested: visible to the one, known to the other, and not callable.
	f.write(requestFile, request)
	f.holds(web)
	f.mentions(orders, "spiffe://acme.example/ns/acme-shop/", true)
	f.untilGet(web, grantedURL, forbidden)
	require.Equal(t, forbidden, f.direct(f.certificate(web), orders, 8080))

	// With a policy: callable.
	f.write(grantedPolicy, objectFile(t, grantedPolicy))
	f.untilGet(web, grantedURL, answeredBy(orders, web))
	require.Equal(t, answeredBy(orders, web), f.direct(f.certificate(web), orders, 8080))
}

// What is revoked ends on open connections, and they stay open.
func TestRevocationOnAnOpenConnection(t *testing.T) {
	f := setUp(t)
	f.start(shopWeb, globexOrders)
	web, orders := f.pods[shopWeb], f.pods[globexOrders]
	f.holds(web)
	f.holds(orders)
	f.untilGet(web, grantedURL, answeredBy(orders, web))
	conn := f.open(f.certificate(web), orders, 8080)
	require.Equal(t, answeredBy(orders, web), conn.get())
	before := f.drained(orders)

	for _, c := range []struct {
		file string
		// visible is whether the service still is without the file.
		visible bool
	}{
		{grantedPolicy, true}, {grantFile, false}, {requestFile, false},
	} {
		f.run("without "+c.file, func() {
			text := f.read(c.file)
			f.remove(c.file)
			conn.untilGet(forbidden)
			conn.alive()
			if c.visible {
				require.Equal(f.t, forbidden, f.get(web, grantedURL))
			} else {
				f.untilGet(web, grantedURL, unknown)
			}
			f.holds(web)
			f.mentions(web, "globex", c.visible)
			require.Equal(f.t, forbidden, conn.get())

			f.write(c.file, text)
			conn.untilGet(answeredBy(orders, web))
			conn.alive()
			f.untilGet(web, grantedURL, answeredBy(orders, web))
		})
	}
	require.Equal(t, before, f.drained(orders), "connections were ended or filter chains drained")
}

// drained is what of an Envoy's counters goes up when it ends connections on
// behalf of a new configuration.
func (f *fixture) drained(p *pod) map[string]uint64 {
	f.t.Helper()
	stats, err := p.envoy.Stats(f.ctx)
	require.NoError(f.t, err)
	found := map[string]uint64{}
	for _, name := range []string{
		"http.inbound_8080.downstream_cx_drain_close", "listener_manager.listener_modified", "listener_manager.listener_removed",
		"listener_manager.total_filter_chains_draining", "listener_manager.total_listeners_draining",
	} {
		n, ok := stats[name]
		require.True(f.t, ok, "Envoy does not count %s", name)
		found[name] = n
	}
	return found
}

// Without the label a namespace is nobody's: its proxies know nothing, admit
// nobody and are admitted nowhere.
func TestUnlabelledNamespace(t *testing.T) {
	f := setUp(t)
	f.start(shopWeb, webOrders, globexOrders, globexWeb)
	web, orders := f.pods[shopWeb], f.pods[globexOrders]
	for _, p := range f.pods {
		f.holds(p)
	}
	f.untilGet(web, grantedURL, answeredBy(orders, web))
	f.untilGet(f.pods[globexWeb], "http://orders.globex-shop:8080/", answeredBy(orders, f.pods[globexWeb]))

	f.run("of the producer", func() {
		foreign := f.open(f.certificate(web), orders, 8080)
		own := f.open(f.certificate(f.pods[globexWeb]), orders, 8080)
		require.Equal(f.t, answeredBy(orders, web), foreign.get())
		require.Equal(f.t, answeredBy(orders, f.pods[globexWeb]), own.get())

		label := f.unlabel("globex-shop")
		foreign.untilRefused()
		own.untilRefused()
		for _, p := range f.pods {
			f.holds(p)
		}
		f.mentions(web, "globex", false)
		foreign.refused()
		own.refused()
		require.Regexp(f.t, "^failed: .*refused", f.direct(f.certificate(f.pods[globexWeb]), orders, 8080))
		require.Equal(f.t, unknown, f.get(web, grantedURL))
		require.Equal(f.t, unknown, f.get(f.pods[globexWeb], "http://orders.globex-shop:8080/"))

		label()
		for _, p := range f.pods {
			f.holds(p)
		}
		f.untilGet(web, grantedURL, answeredBy(orders, web))
	})
	f.run("of the consumer", func() {
		conn := f.open(f.certificate(web), orders, 8080)
		sibling := f.open(f.certificate(web), f.pods[webOrders], 8081)
		require.Equal(f.t, answeredBy(orders, web), conn.get())
		require.Equal(f.t, answeredBy(f.pods[webOrders], web), sibling.get())

		f.unlabel("acme-shop")
		conn.untilGet(forbidden)
		sibling.untilGet(forbidden)
		conn.alive()
		sibling.alive()
		for _, p := range f.pods {
			f.holds(p)
		}
		f.mentions(orders, "acme", false)
		f.notThere(web, 8080)
		require.Equal(f.t, forbidden, f.direct(f.certificate(web), f.pods[webOrders], 8081))
	})
}

// unlabel takes the label off a namespace; the answer puts it back.
func (f *fixture) unlabel(namespace string) func() {
	f.t.Helper()
	file := "platform/namespace-" + namespace + ".yaml"
	text := f.read(file)
	tenant, _, _ := strings.Cut(namespace, "-")
	label := "    bailiwick.dev/tenant: " + tenant + "\n"
	require.Contains(f.t, text, label)
	f.write(file, strings.Replace(text, label, "", 1))
	return func() { f.write(file, text) }
}

// mentions waits until a word is in a proxy's configuration, or is not.
func (f *fixture) mentions(p *pod, word string, want bool) {
	f.t.Helper()
	f.until(fmt.Sprintf("%s mentions %q: %v", p.name, word, want), func() error {
		dump, err := p.envoy.ConfigDump(f.ctx)
		if err != nil {
			return err
		}
		switch found := around(string(dump.Raw), word); {
		case want && found == "":
			return errors.New("not in its configuration")
		case !want && found != "":
			return errors.New("in its configuration: " + found)
		}
		return nil
	})
}

// untilRefused sends requests on the connection until one is not let in.
func (c *openConn) untilRefused() {
	c.f.t.Helper()
	c.f.until("nobody is admitted to "+c.to.name, func() error {
		if got := c.get(); strings.HasPrefix(got, "200") {
			return errors.New(got)
		}
		return nil
	})
}

// refused requires that a request on the connection is not let in: the
// connection may have ended.
func (c *openConn) refused() {
	c.f.t.Helper()
	require.NotRegexp(c.f.t, "^200", c.get())
}
