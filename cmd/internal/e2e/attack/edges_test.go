package attack

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/xds/adsclient"
)

// evilDomain looks like acme's, and is accepted.
const evilDomain = "acme.example.evil"

// believed listens where a Pod is with a certificate, has a caller call it by host,
// and reports whether the caller said anything to it.
func (w *world) believed(caller *sidecar, host, id string, cert tls.Certificate) bool {
	w.t.Helper()
	var said, greeted atomic.Int64
	lis, err := net.Listen("tcp", netip.AddrPortFrom(address(id), 8080).String())
	require.NoError(w.t, err)
	ended := make(chan struct{})
	go func() { // ends when the listener is closed
		defer close(ended)
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			server := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2"}})
			_ = server.SetDeadline(time.Now().Add(5 * time.Second))
			if server.Handshake() == nil {
				if n, _ := server.Read(make([]byte, 1)); n > 0 {
					said.Add(1)
				}
			}
			greeted.Add(1)
			_ = conn.Close()
		}
	}()
	client := mesh.Through(caller.at.Bind)
	w.until("the caller tries", func() error {
		resp, err := client.Get("http://" + host + ":8080/")
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		require.NotEqual(w.t, http.StatusOK, resp.StatusCode)
		if greeted.Load() == 0 {
			return fmt.Errorf("not dialled, %s", resp.Status)
		}
		return nil
	})
	client.CloseIdleConnections()
	require.NoError(w.t, lis.Close())
	<-ended
	return said.Load() > 0
}

// lookAlikes are tenants, namespaces, accounts and trust domains whose names begin
// with, end in or contain the victim's, at all three places.
func lookAlikes(w *world) {
	names := []string{"acme", "xacme-shop", "acmexshop", "sa", "ns"} // acme's own begin with "acme-"
	w.renew(nil, func(w *world) {
		var b strings.Builder
		fmt.Fprintf(&b, "apiVersion: bailiwick.dev/v1alpha1\nkind: Tenant\nmetadata: {name: acme-evil}\nspec: {trustDomain: acme.example, namespaces: [%s]}\n", strings.Join(names, ", "))
		b.WriteString("---\napiVersion: bailiwick.dev/v1alpha1\nkind: Tenant\nmetadata: {name: acm}\nspec: {trustDomain: " + evilDomain + ", namespaces: [acme-]}\n")
		for _, ns := range names {
			fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {bailiwick.dev/tenant: acme-evil}}\n", ns)
		}
		w.write("platform/alike.yaml", b.String())
		b.Reset()
		for _, ns := range names {
			fmt.Fprintf(&b, "apiVersion: v1\nkind: Service\nmetadata: {name: mine, namespace: %s}\nspec: {clusterIP: None, ports: [{name: http, port: 80}]}\n---\n", ns)
		}
		w.write("tenants/acme-evil/services.yaml", b.String())
	})
	own := []string{"blackhole"}
	for _, ns := range names {
		own = append(own, "mine."+ns+".svc.cluster.local:80")
	}
	to := w.sidecar(globexOrders, 8080)
	w.untilCode(w.certificate("acme.example", acmeWeb, identity.IssueOptions{}), to, http.StatusOK)
	refused := func(by, id string) {
		w.t.Helper()
		require.Contains(w.t, []int{0, http.StatusForbidden}, w.code(w.certificate(by, id, identity.IssueOptions{AnyID: true}), to), id)
	}
	for _, ns := range names {
		for _, account := range []string{"acme-shop-web-account", "acme-shop", "acme.shop", "web.acme-shop", "sa"} {
			id := "spiffe://acme.example/ns/" + ns + "/sa/" + account
			for _, p := range []adsclient.Protocol{adsclient.Delta, adsclient.SotW} {
				c, err := w.dial(p, id, options{node: &corev3.Node{Id: "acme-shop/web-0"}, follow: adsclient.FollowReferences})
				require.NoError(w.t, err)
				require.NoError(w.t, c.Wildcard(snapshot.Cluster.URL()))
				w.said(c)
				require.ElementsMatch(w.t, own, c.Names(snapshot.Cluster.URL()), "%s", id)
				require.NoError(w.t, c.Close())
			}
			refused("acme.example", id)
		}
	}
	// Of the trust domain that looks like acme's: its own CA is accepted, acme's
	// namespace is not its tenant's, nor would acme's CA do.
	path := strings.TrimPrefix(acmeWeb, "spiffe://acme.example")
	w.seesNothing("spiffe://"+evilDomain+path, options{})
	refused(evilDomain, "spiffe://"+evilDomain+path)
	refused(evilDomain, acmeWeb)
	if c, err := w.dial(adsclient.Delta, acmeWeb, options{by: evilDomain, issue: identity.IssueOptions{AnyID: true}}); err == nil {
		_ = c.Wildcard(snapshot.Cluster.URL())
		require.Error(w.t, w.ended(c))
		require.Empty(w.t, c.Log())
	}
	// As those who are called.
	to.envoy.Stop()
	caller := w.sidecar(acmeWeb)
	const host = "orders.globex-shop.svc.cluster.local"
	for by, ids := range map[string][]string{
		"globex.example": {globexOrders + "2", globexOrders + "/x", globexOrders + ".evil", "spiffe://globex.example/ns/globex-shop2/sa/globex-shop-orders-account", "spiffe://globex.example/ns/globex-sho/sa/p"},
		evilDomain:       {"spiffe://" + evilDomain + "/ns/globex-shop/sa/globex-shop-orders-account", globexOrders},
	} {
		for _, id := range ids {
			require.False(w.t, w.believed(caller, host, globexOrders, w.certificate(by, id, identity.IssueOptions{AnyID: true})), "%s by %s", id, by)
		}
	}
	require.True(w.t, w.believed(caller, host, globexOrders, w.certificate("globex.example", globexOrders, identity.IssueOptions{})), "it itself is")
}

// A trust bundle has a second root and loses the first, while all goes on: at the
// server, at who is called and at who calls, certificates of a root are good as
// long as the bundle has it, and no longer.
func TestRootsComeAndGo(t *testing.T) {
	w := newWorld(t, nil, nil)
	old := w.ca.Authority("acme.example")
	next, err := identity.NewAuthority("acme.example")
	require.NoError(t, err)
	issued := func(by *identity.Authority, id string) tls.Certificate {
		cert, key, err := by.Issue(id, identity.IssueOptions{})
		require.NoError(t, err)
		pair, err := tls.X509KeyPair(cert, key)
		require.NoError(t, err)
		return pair
	}
	to, caller := w.sidecar(globexOrders, 8080), w.sidecar(acmeWeb)
	lasting := w.proxy(adsclient.Delta, acmeInside, options{})
	w.untilCode(issued(old, acmeWeb), to, http.StatusOK)
	stream := func(by *identity.Authority) error {
		cert, key, err := by.Issue(acmeOrders, identity.IssueOptions{})
		require.NoError(t, err)
		c, err := w.dialWith(cert, key, acmeOrders)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		if err := c.Wildcard(snapshot.Cluster.URL()); err != nil {
			return err
		}
		return c.Wait(w.bounded(), func(v adsclient.View) bool { return v.Total("").Messages > 0 })
	}
	states := func(good, bad *identity.Authority) {
		t.Helper()
		if good != nil {
			w.untilCode(issued(good, acmeWeb), to, http.StatusOK)
			w.until("the server lets it in", func() error { return stream(good) })
			w.until("the caller believes it", func() error {
				if !w.believed(caller, "orders", acmeOrders, issued(good, acmeOrders)) {
					return fmt.Errorf("it does not")
				}
				return nil
			})
		}
		if bad != nil {
			w.untilCode(issued(bad, acmeWeb), to, 0)
			w.until("the server does not let it in", func() error {
				if stream(bad) == nil {
					return fmt.Errorf("it does")
				}
				return nil
			})
			w.until("the caller does not believe it", func() error {
				if w.believed(caller, "orders", acmeOrders, issued(bad, acmeOrders)) {
					return fmt.Errorf("it does")
				}
				return nil
			})
		}
	}
	states(old, next)
	bundle := func(pem ...[]byte) {
		file := w.ca.BundleFile("acme.example")
		require.NoError(t, os.WriteFile(file+".new", bytes.Join(pem, nil), 0o600))
		require.NoError(t, os.Rename(file+".new", file))
	}
	bundle(old.Bundle(), next.Bundle())
	states(next, nil)
	states(old, nil)
	bundle(next.Bundle())
	states(next, old)
	// Whoever was there is: a bundle closes nothing.
	w.said(lasting)
	bundle([]byte("-----BEGIN NONSENSE-----"))
	w.logged("trust bundle")
	states(next, old) // what cannot be read changes nothing
}

// dialWith opens a stream with that certificate.
func (w *world) dialWith(cert, key []byte, id string) (*adsclient.Client, error) {
	w.t.Helper()
	source, err := identity.NewStaticSource(cert, key, w.ca.Bundles())
	require.NoError(w.t, err)
	return adsclient.Dial(w.ctx, adsclient.Config{
		Address: w.server.XDS.String(), TLS: w.trusting(source), Node: &corev3.Node{Id: podOf(id)}, Protocol: adsclient.Delta,
	})
}

// A directory that is a volume of a ConfigMap is emptied: all stays and is told,
// until that is confirmed; what the same change revokes is not held back.
func TestAnEmptiedVolume(t *testing.T) {
	swap := func(w *world, version string) {
		link := filepath.Join(w.dir, "..data")
		require.NoError(t, os.Symlink(version, link+"_tmp"))
		require.NoError(t, os.Rename(link+"_tmp", link))
	}
	w := newWorld(t, nil, []string{"--max-removal", "0.5"}, func(w *world) {
		first := filepath.Join(w.dir, "..1")
		require.NoError(t, os.Mkdir(first, 0o755))
		for _, folder := range []string{"platform", "tenants"} {
			require.NoError(t, os.Rename(filepath.Join(w.dir, folder), filepath.Join(first, folder)))
			require.NoError(t, os.Symlink(filepath.Join("..data", folder), filepath.Join(w.dir, folder)))
		}
		require.NoError(t, os.Symlink("..1", filepath.Join(w.dir, "..data")))
	})
	const cluster = "orders.globex-shop.svc.cluster.local:8080"
	proxy, victim := w.proxy(adsclient.Delta, acmeWeb, options{}), w.proxy(adsclient.Delta, globexWeb, options{})
	require.Contains(t, proxy.Names(snapshot.Cluster.URL()), cluster)
	w.said(victim)
	had := everything(victim)

	// A version with a revocation and nothing else.
	second := filepath.Join(w.dir, "..2")
	require.NoError(t, os.CopyFS(second, os.DirFS(filepath.Join(w.dir, "..1"))))
	require.NoError(t, os.Remove(filepath.Join(second, requestFile)))
	swap(w, "..2")
	require.NoError(t, proxy.Wait(w.bounded(), func(v adsclient.View) bool { return !v.Has(snapshot.Cluster.URL(), cluster) }))

	// And one of nothing: kubelet removes the links with what they led to.
	require.NoError(t, os.Mkdir(filepath.Join(w.dir, "..3"), 0o755))
	swap(w, "..3")
	for _, folder := range []string{"platform", "tenants"} {
		require.NoError(t, os.Remove(filepath.Join(w.dir, folder)))
	}
	w.logged("vanished")
	w.said(victim)
	require.Equal(t, had, everything(victim))
	again := w.proxy(adsclient.Delta, globexWeb, options{})
	w.said(again)
	require.Equal(t, had, everything(again), "whoever comes gets it as well")

	text, err := w.run("confirm", "--admin-address", w.server.Admin.String())
	require.NoError(t, err, text)
	_ = w.ended(victim) // it is nobody's now
	w.seesNothing(globexWeb, options{})
}
