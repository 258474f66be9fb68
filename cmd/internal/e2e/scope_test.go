package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/tenancy/canary"
	"bailiwick.dev/bailiwick/xds/adsclient"
)

// holds waits until an Envoy holds exactly the names that it should.
func (f *fixture) holds(p *pod) {
	f.t.Helper()
	want := expected(f.world(), p)
	f.until(p.name+" holds what it should", func() error {
		dump, err := p.envoy.ConfigDump(f.ctx)
		if err != nil {
			return err
		}
		if diff := cmp.Diff(want, namesIn(dump), cmpopts.EquateEmpty()); diff != "" {
			return errors.New("names differ (- wanted, + held):\n" + diff)
		}
		return nil
	})
}

// Nothing here changes the mesh, so that all of it shares one.
func TestTwoTenants(t *testing.T) {
	f := setUp(t)
	f.start(shopWeb, shopOrders, webOrders, globexOrders, globexWeb)
	for name, p := range f.pods {
		f.run("names of "+name, func() { f.holds(p) })
		f.run("strings of "+name, func() { f.knowsNoMore(p, f.pages(p)) })
		f.run("bytes to "+name, func() {
			f.knowsNoMore(p, f.received(p, false))
			f.knowsNoMore(p, f.received(p, true))
		})
	}
	f.run("requests", f.checkRequests)
	f.run("past the own proxy", f.checkDirect)
	f.run("plaintext", f.checkPlaintext)
	f.run("server speaks first", f.checkServerFirst)
	f.run("client speaks first", f.checkClientFirst)
	// Last, because others count what they cause.
	f.run("explained", f.checkExplained)
	f.run("asked", f.checkAsked)
}

// revealed are the strings of another tenant that a live grant shows to a Pod's
// proxy: to the consumer the service's name, addresses, zone and account (with
// its trust domain), to the producer the namespace that requested it.
func revealed(p *pod) []string {
	switch p.name {
	case shopWeb, shopOrders:
		return []string{
			"orders.globex-shop.svc.cluster.local",
			"spiffe://globex.example/ns/globex-shop/sa/globex-shop-orders-account",
			"globex.example", "globex-shop-zone", podAddress(3, 1), "10.96.3.1",
		}
	case globexOrders:
		return []string{"spiffe://acme.example/ns/acme-shop/", "acme.example"}
	}
	return nil
}

// podAddress is that of a Pod of the third namespace, and so on.
func podAddress(namespace, pod int) string {
	return fmt.Sprintf("127.%d.%d.%d", built.network, namespace, pod)
}

// foreign are the strings that everything of another tenant has in it: all its
// names have the tenant's, all its addresses the namespace's number.
func foreign(p *pod) []string {
	tenant, namespaces := "globex", []int{3, 4}
	if strings.HasPrefix(p.name, "globex") {
		tenant, namespaces = "acme", []int{1, 2}
	}
	words := []string{tenant}
	for _, n := range namespaces {
		words = append(words, fmt.Sprintf("127.%d.%d.", built.network, n), fmt.Sprintf("10.96.%d.", n))
	}
	return words
}

// pages are all that an Envoy has to say.
func (f *fixture) pages(p *pod) string {
	f.t.Helper()
	var all strings.Builder
	for _, page := range []string{"/config_dump?include_eds", "/clusters", "/listeners", "/certs", "/stats", "/init_dump"} {
		raw, err := p.envoy.Admin(f.ctx, page)
		require.NoError(f.t, err)
		all.Write(raw)
	}
	return all.String()
}

// received is every byte that the server sends to a client with the identity and
// the node of a Pod's proxy, and with its subscriptions.
func (f *fixture) received(p *pod, sotw bool) string {
	f.t.Helper()
	config := f.envoyConfig(p)
	config.SotW = sotw
	client, err := mesh.DialADS(f.ctx, config)
	require.NoError(f.t, err)
	defer func() { require.NoError(f.t, client.Close()) }()
	want := expected(f.world(), p)
	// Static clusters have their endpoints themselves, and two Secrets are files.
	endpoints := only(slices.Sorted(maps.Keys(want.Endpoints)), func(name string) bool { return strings.Contains(name, ".svc.") })
	secrets := only(want.Secrets, func(name string) bool { return name != "default" && !strings.HasPrefix(name, "spiffe://") })
	for _, c := range []struct {
		url   string
		names []string
		ask   []string
	}{
		{resourcev3.ClusterType, want.Clusters, []string{"*"}},
		{resourcev3.EndpointType, endpoints, nil},
		{resourcev3.ListenerType, want.Listeners, []string{"*"}},
		{resourcev3.SecretType, secrets, nil},
		{resourcev3.ExtensionConfigType, want.Extensions, nil},
		{resourcev3.RouteType, slices.Sorted(maps.Keys(want.Routes)), nil},
	} {
		if c.ask == nil {
			c.ask = c.names
		}
		require.NoError(f.t, client.Subscribe(c.url, c.ask...))
		require.NoError(f.t, client.Wait(f.ctx, func(v adsclient.View) bool { return slices.Equal(v.Names(c.url), c.names) }), c.url)
	}
	var all strings.Builder
	for _, m := range client.Log() {
		all.Write(m.Raw)
	}
	return all.String()
}

// only are the names that fit.
func only(names []string, fits func(name string) bool) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !fits(name) })
}

// knowsNoMore looks for strings in what a Pod's proxy knows. What no proxy has
// any use for (labels, uids, nodes and so on) is marked as "kanary", because
// Envoy has canaries of its own.
func (f *fixture) knowsNoMore(p *pod, text string) {
	f.t.Helper()
	text = canary.Readable(text)
	f.findsOwn(p, text)
	for _, word := range revealed(p) {
		require.Contains(f.t, text, word)
		text = strings.ReplaceAll(text, word, "*")
	}
	for _, word := range append(foreign(p), "kanary") {
		require.Empty(f.t, around(text, word), "%s knows of %q", p.name, word)
	}
}

// around is the neighbourhood of the first occurrence of a word, so that a
// failure shows that and not megabytes; the word's absence if there is none.
func around(text, word string) string {
	i := strings.Index(text, word)
	if i < 0 {
		return ""
	}
	return text[max(0, i-200):min(len(text), i+len(word)+100)]
}

// findsOwn shows that the search finds: what policies say is in the
// configuration of the workload that they protect, and in no other.
func (f *fixture) findsOwn(p *pod, text string) {
	owners := map[string]string{"acme-shop": shopOrders, "globex-shop": globexOrders}
	for prefix, owner := range owners {
		for _, suffix := range []string{"-path", "-prefix", "-host.example", "-header", "-header-value"} {
			require.Equal(f.t, owner == p.name, strings.Contains(text, prefix+suffix), "%s in the configuration of %s", prefix+suffix, p.name)
		}
	}
	require.Equal(f.t, p.name == shopOrders, strings.Contains(text, "acme-web-only-in-policy-account"))
	require.Equal(f.t, p.name == globexOrders, strings.Contains(text, "globex-web-only-in-policy-account"))
}

func (f *fixture) checkRequests() {
	const domain = ".svc.cluster.local:8080/"
	at := func(to string) func(*pod) string {
		return func(from *pod) string { return answeredBy(f.pods[to], from) }
	}
	is := func(s string) func(*pod) string { return func(*pod) string { return s } }
	for _, c := range []struct {
		from, method, url string
		want              func(from *pod) string
	}{
		// One name, three services.
		{shopWeb, "GET", "http://orders:8080/", at(shopOrders)},
		{shopWeb, "GET", "http://orders.acme-shop:8080/", at(shopOrders)},
		{shopWeb, "GET", "http://orders.acme-shop" + domain, at(shopOrders)},
		{shopWeb, "GET", "http://10.96.1.1:8080/", at(shopOrders)},
		{shopWeb, "GET", "http://orders.acme-web:8080/", at(webOrders)},
		{shopWeb, "GET", "http://orders.acme-web" + domain, at(webOrders)},
		{shopWeb, "GET", "http://10.96.2.1:8080/", at(webOrders)},
		{shopWeb, "GET", "http://orders.globex-shop" + domain, at(globexOrders)},
		{shopWeb, "GET", "http://10.96.3.1:8080/", at(globexOrders)},
		{shopOrders, "GET", "http://orders.globex-shop" + domain, at(globexOrders)},
		{webOrders, "GET", "http://orders:8080/", at(webOrders)},
		{globexWeb, "GET", "http://orders.globex-shop:8080/", at(globexOrders)},
		// Visible, but not permitted: by whom, by method, by path.
		{webOrders, "GET", "http://orders.acme-shop:8080/", is(forbidden)},
		{shopWeb, "POST", "http://orders:8080/", is(forbidden)},
		{shopWeb, "GET", "http://orders.acme-web:8080/acme-web-denied/x", is(forbidden)},
		{shopWeb, "POST", "http://orders.globex-shop" + domain, is(forbidden)},
		{globexWeb, "GET", "http://web:8080/", is(forbidden)},
		// Of another tenant: not there, by any of its names.
		{shopWeb, "GET", "http://web.globex-web" + domain, is(unknown)},
		{shopWeb, "GET", "http://globex-web-ledger.globex-web" + domain, is(unknown)},
		{shopWeb, "GET", "http://10.96.4.1:8080/", is(unknown)},
		{webOrders, "GET", "http://orders.globex-shop" + domain, is(unknown)}, // granted to acme-shop alone
		{webOrders, "GET", "http://10.96.3.1:8080/", is(unknown)},
		{globexWeb, "GET", "http://orders.acme-shop" + domain, is(unknown)},
		{globexOrders, "GET", "http://web.acme-shop" + domain, is(unknown)},
		{globexWeb, "GET", "http://10.96.1.1:8080/", is(unknown)},
		// A granted service has no short names, another's namespace no first ones.
		{shopWeb, "GET", "http://orders.globex-shop:8080/", is(unknown)},
		{globexWeb, "GET", "http://orders:8080/", is(unknown)},
	} {
		from := f.pods[c.from]
		require.Equal(f.t, c.want(from), f.request(from, c.method, c.url), "%s: %s %s", c.from, c.method, c.url)
	}
	// What has the granted port's number alone is granted.
	_, err := send(f.ctx, f.pods[shopWeb].through.Transport, http.MethodGet, "http://orders.globex-shop.svc.cluster.local:9090/")
	require.ErrorIs(f.t, err, syscall.ECONNREFUSED)
	require.Equal(f.t, answeredBy(f.pods[globexOrders], f.pods[globexWeb]), f.get(f.pods[globexWeb], "http://orders.globex-shop:8080/"))
}

// checkDirect calls inbound ports with certificates of their own, as code that
// goes around its proxy can.
func (f *fixture) checkDirect() {
	web, shop, foreignWeb := f.pods[shopWeb], f.pods[shopOrders], f.pods[globexWeb]
	granted := f.pods[globexOrders]
	require.Equal(f.t, answeredBy(shop, web), f.direct(f.certificate(web), shop, 8080))
	require.Equal(f.t, answeredBy(granted, web), f.direct(f.certificate(web), granted, 8080))

	// Nobody of globex may call acme, so that its certificates say nothing there.
	for _, to := range []string{shopOrders, shopWeb} {
		f.refusesHandshake(f.certificate(foreignWeb), f.pods[to], 8080)
	}
	f.refusesHandshake(f.certificate(foreignWeb), f.pods[webOrders], 8081)
	// Some of acme may call globex-shop: the others are told apart by the policy.
	for _, id := range []string{
		f.pods[webOrders].workload.String(),                             // without a request
		"spiffe://acme.example/ns/globex-web/sa/globex-web-web-account", // acme's authority, globex's namespace
		"spiffe://acme.example/ns/globex-shop/sa/globex-shop-orders-account",
		"spiffe://acme.example/ns/acme-shop-2/sa/acme-shop-web-account",
	} {
		require.Equal(f.t, forbidden, f.direct(f.certificateFor(id), granted, 8080), id)
	}
	// The other port of the same Pod is not granted.
	require.Equal(f.t, forbidden, f.direct(f.certificate(web), granted, 9090))
	stats, err := granted.envoy.Stats(f.ctx)
	require.NoError(f.t, err)
	require.EqualValues(f.t, 1, stats["http.inbound_9090.rbac.denied"])
}

// checkPlaintext speaks without TLS to every port of a Pod.
func (f *fixture) checkPlaintext() {
	for _, port := range []uint16{8080, 2525, 6379} {
		before := f.dialled(f.pods[shopOrders], port)
		f.closed(f.dial(f.pods[shopOrders].at.Pod, port), "GET / HTTP/1.1\r\nHost: orders\r\n\r\n")
		require.Equal(f.t, before, f.dialled(f.pods[shopOrders], port), "the application at port %d was dialled", port)
	}
}

// dialled is how often a proxy dialled its application.
func (f *fixture) dialled(p *pod, port uint16) uint64 {
	f.t.Helper()
	stats, err := p.envoy.Stats(f.ctx)
	require.NoError(f.t, err)
	n, ok := stats[fmt.Sprintf("cluster.inbound-%d.upstream_cx_total", port)]
	require.True(f.t, ok, "%s does not count what it dials", p.name)
	return n
}

func (f *fixture) checkServerFirst() {
	web, shop := f.pods[shopWeb], f.pods[shopOrders]
	conn := f.dial(web.at.Bind, 2525)
	r := bufio.NewReader(conn)
	line, err := r.ReadString('\n')
	require.NoError(f.t, err)
	require.Equal(f.t, banner(shopOrders), line)
	f.echoes(conn, r)

	before := f.dialled(shop, 2525)
	// Visible but not permitted: not even the banner.
	f.closed(f.dial(f.pods[webOrders].at.Bind, 2525), "")
	// Past the proxy: the same, by the certificate.
	for _, p := range []string{webOrders, globexWeb, globexOrders} {
		if conn, err := f.dialDirect(f.certificate(f.pods[p]), shop, 2525); err == nil {
			f.closed(conn, "")
		}
	}
	require.Equal(f.t, before, f.dialled(shop, 2525), "the application was dialled for somebody who may not call it")
	// Of another tenant: there is no such port.
	f.notThere(f.pods[globexWeb], 2525)
	conn, err = f.dialDirect(f.certificate(web), shop, 2525)
	require.NoError(f.t, err)
	line, err = bufio.NewReader(conn).ReadString('\n')
	require.NoError(f.t, err)
	require.Equal(f.t, banner(shopOrders), line)
}

func (f *fixture) checkClientFirst() {
	web, shop := f.pods[shopWeb], f.pods[shopOrders]
	conn := f.dial(web.at.Bind, 6379)
	f.echoes(conn, bufio.NewReader(conn))

	before := f.dialled(shop, 6379)
	for _, p := range []string{webOrders, globexWeb, globexOrders} {
		if conn, err := f.dialDirect(f.certificate(f.pods[p]), shop, 6379); err == nil {
			f.closed(conn, "ping\n")
		}
	}
	require.Equal(f.t, before, f.dialled(shop, 6379), "the application was dialled for somebody who may not call it")
	// Two services of acme have this port. In acme-web it is that of acme-web,
	// which has no Pods.
	f.closed(f.dial(f.pods[webOrders].at.Bind, 6379), "ping\n")
	f.notThere(f.pods[globexWeb], 6379)
	conn, err := f.dialDirect(f.certificate(web), shop, 6379)
	require.NoError(f.t, err)
	f.echoes(conn, bufio.NewReader(conn))
}

func (f *fixture) echoes(conn io.Writer, r *bufio.Reader) {
	f.t.Helper()
	_, err := io.WriteString(conn, "ping\n")
	require.NoError(f.t, err)
	line, err := r.ReadString('\n')
	require.NoError(f.t, err)
	require.Equal(f.t, "ping\n", line)
}

// notThere requires that a Pod's proxy has no such port.
func (f *fixture) notThere(from *pod, port uint16) {
	f.t.Helper()
	_, err := send(f.ctx, from.through.Transport, http.MethodGet, fmt.Sprintf("http://any:%d/", port))
	require.ErrorIs(f.t, err, syscall.ECONNREFUSED)
}
