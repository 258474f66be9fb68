package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/identity/tokentest"
)

// newIssuer makes one whose tokens admit, but for what is changed in them.
func newIssuer(t *testing.T) tokentest.Issuer {
	return tokentest.New(t, map[string]any{
		"iss": "https://idp.example", "aud": []string{"other", "orders"}, "realm": map[string]any{"roles": []string{"user", "ops"}},
	})
}

const (
	acmePolicies = "tenants/acme/policies.yaml"
	ordersURL    = "http://orders:8080"
	opsOnly      = "    jwt: {provider: idp, claims: [{path: [realm, roles], values: [admin, ops]}]}\n"
)

// edit changes a file, which must have old in it.
func (f *fixture) edit(rel, old, now string) {
	f.t.Helper()
	text := f.read(rel)
	require.Contains(f.t, text, old)
	f.write(rel, strings.Replace(text, old, now, 1))
}

// provide gives acme an issuer with these keys, or wherever they are.
func (f *fixture) provide(keys string) {
	f.t.Helper()
	f.write(tenantsFile, strings.Replace(objectFile(f.t, tenantsFile), "  trustDomain: acme.example\n",
		"  trustDomain: acme.example\n  jwt:\n    providers:\n    - {name: idp, issuer: https://idp.example, audiences: [orders], "+keys+"}\n", 1))
}

// bear is a GET through the proxy of a Pod with a token.
func (f *fixture) bear(from *pod, url, token string) outcome {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.ctx, http.MethodGet, url, http.NoBody)
	require.NoError(f.t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := from.through.Do(req)
	require.NoError(f.t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(f.t, err)
	o := outcome{status: resp.StatusCode, body: string(body)}
	if o.status == http.StatusOK {
		require.NoError(f.t, json.Unmarshal(body, &o.answer))
	}
	return o
}

func (f *fixture) untilBear(from *pod, url, token string, want int) {
	f.t.Helper()
	f.until(fmt.Sprintf("a token's answer is %d", want), func() error {
		if o := f.bear(from, url, token); o.status != want {
			return errors.New(o.String())
		}
		return nil
	})
}

// A rule about claims admits who has both the identity and the token, and is
// not honoured where there are no requests.
func TestTokens(t *testing.T) {
	f := newFixture(t)
	idp := newIssuer(t)
	f.provide("jwks: '" + idp.JWKS() + "'")
	f.edit(acmePolicies, "    methods: [GET]\n", "    methods: [GET]\n"+opsOnly)
	f.serve()
	f.start(shopWeb, shopOrders)
	web, orders := f.pods[shopWeb], f.pods[shopOrders]
	good := idp.Token(nil)
	f.untilBear(web, ordersURL, good, 200)
	o := f.bear(web, ordersURL, good)
	require.Equal(t, "Bearer "+good, o.answer.Headers.Get("Authorization"), "the application has the token as it came")
	require.Equal(t, web.workload.String(), o.answer.Peer, "and the identity beside it")
	for name, c := range map[string]struct {
		token string
		want  int
	}{
		"none":               {"", 401},
		"another role":       {idp.Token(map[string]any{"realm": map[string]any{"roles": []string{"user"}}}), 403},
		"a text, not a list": {idp.Token(map[string]any{"realm": map[string]any{"roles": "admin"}}), 200},
		"a flat claim":       {idp.Token(map[string]any{"realm": nil, "realm.roles": "admin"}), 403},
		"another audience":   {idp.Token(map[string]any{"aud": "payments"}), 403},
		"expired":            {idp.Token(map[string]any{"exp": 1}), 401},
		"another issuer":     {idp.Token(map[string]any{"iss": "https://idp"}), 401},
		"another key":        {newIssuer(t).Token(nil), 401},
		"alg none":           {"eyJhbGciOiJub25lIn0." + strings.Split(good, ".")[1] + ".", 401},
	} {
		require.Equal(t, c.want, f.bear(web, ordersURL, c.token).status, name)
	}
	// A token makes up for no identity: orders itself is not named by the rule.
	client := mesh.Direct(netip.AddrPortFrom(orders.at.Pod, 8080), f.certificate(orders), f.ca.Roots("acme.example"), nil)
	defer client.CloseIdleConnections()
	stranger := &pod{through: client}
	require.Equal(t, forbidden, f.bear(stranger, "https://orders:8080/", good).String())

	f.run("where it is optional", func() {
		f.edit(acmePolicies, "provider: idp, ", "provider: idp, optional: true, ")
		f.untilBear(web, ordersURL, "", 403)
		require.Equal(f.t, 200, f.bear(web, ordersURL, good).status)
		f.edit(acmePolicies, "optional: true, ", "")
		f.untilBear(web, ordersURL, "", 401)
	})
	f.run("with new keys", func() {
		next := newIssuer(f.t)
		f.provide("jwks: '" + next.JWKS() + "'")
		f.untilBear(web, ordersURL, good, 401)
		require.Equal(f.t, 200, f.bear(web, ordersURL, next.Token(nil)).status)
	})
	f.run("without the provider", func() {
		f.write(tenantsFile, objectFile(f.t, tenantsFile))
		f.untilBear(web, ordersURL, good, 403)
		f.says(acmePolicy, "Accepted", "False/ProviderNotFound")
	})
	f.run("on TCP", func() {
		f.provide("jwks: '" + idp.JWKS() + "'")
		f.write(acmePolicies, objectFile(f.t, acmePolicies))
		f.untilTCP(web, true)
		f.edit(acmePolicies, "    ports: [2525, 6379]\n", "    ports: [2525, 6379]\n"+opsOnly)
		f.untilTCP(web, false)
		f.says(acmePolicy, "Accepted", "False/PortNotHTTP")
		f.write(acmePolicies, objectFile(f.t, acmePolicies))
		f.untilTCP(web, true)
		f.write("tenants/acme/deny.yaml", "apiVersion: bailiwick.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: deny, namespace: acme-shop}\n"+
			"spec:\n  selector: {}\n  action: Deny\n  rules:\n  - from: [{namespace: acme-shop}]\n"+opsOnly)
		f.untilTCP(web, false)
		f.says("AccessPolicy acme-shop/deny", "Accepted", "False/PortNotHTTP")
		f.untilBear(web, ordersURL, good, 403)
		require.Equal(f.t, 200, f.bear(web, ordersURL, idp.Token(map[string]any{"realm": nil})).status)
	})
}

// untilTCP waits until a connection to the cache of orders is let in, or not.
func (f *fixture) untilTCP(from *pod, want bool) {
	f.t.Helper()
	f.until(fmt.Sprintf("port 6379 lets in: %v", want), func() error {
		conn, err := f.dialDirect(f.certificate(from), f.pods[shopOrders], 6379)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "hello\n")
		got := make([]byte, 1)
		if n, _ := conn.Read(got); (n > 0) != want {
			return fmt.Errorf("%d bytes came back", n)
		}
		return nil
	})
}

// keyServer serves keys over HTTPS at localhost.
type keyServer struct {
	uri, ca string
	up      atomic.Bool
	// most is the most that was sent of an answer without an end.
	most atomic.Int64
}

// endless is the length of that answer.
const endless = 100 << 20

func startKeyServer(ctx context.Context, t *testing.T, keys string) *keyServer {
	authority, err := identity.NewAuthority("idp.example")
	require.NoError(t, err)
	certPEM, keyPEM, err := authority.Issue("", identity.IssueOptions{NoURI: true, DNSNames: []string{"localhost"}})
	require.NoError(t, err)
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	require.NoError(t, err)
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &keyServer{ca: string(authority.Bundle()), uri: fmt.Sprintf("https://localhost:%d", listener.Addr().(*net.TCPAddr).Port)}
	mux := http.NewServeMux()
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		if !s.up.Load() {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, keys)
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.TrimSuffix(keys, "}")+`,"x":"`)
		pad := []byte(strings.Repeat("x", 65536))
		var sent int64
		for sent < endless {
			n, err := w.Write(pad)
			if sent += int64(n); err != nil {
				break
			}
		}
		_, _ = io.WriteString(w, `"}`)
		for {
			if most := s.most.Load(); sent <= most || s.most.CompareAndSwap(most, sent) {
				return
			}
		}
	})
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	ended := make(chan struct{})
	go func() { // ends when the server is closed
		defer close(ended)
		_ = server.ServeTLS(listener, "", "")
	}()
	t.Cleanup(func() { _ = server.Close(); <-ended })
	return s
}

// Proxies fetch keys themselves, take no more than they should of an answer,
// and admit nobody without.
func TestTokensOfFetchedKeys(t *testing.T) {
	f := newFixture(t)
	idp := newIssuer(t)
	keys := startKeyServer(f.ctx, t, idp.JWKS())
	source := func(path string) string {
		return fmt.Sprintf("jwksUri: %q, jwksCA: %q", keys.uri+path, keys.ca)
	}
	f.provide(source("/keys"))
	f.edit(acmePolicies, "    methods: [GET]\n", "    methods: [GET]\n"+opsOnly)
	f.serve("--jwks-allow-cidr", "127.0.0.0/8")
	f.start(shopWeb, shopOrders)
	web, orders := f.pods[shopWeb], f.pods[shopOrders]
	if version, err := orders.envoy.Version(f.ctx); err != nil || strings.HasPrefix(version, "1.37.") || strings.HasPrefix(version, "1.38.") {
		require.NoError(t, err)
		f.mentions(orders, "https://idp.example", true)
		f.mentions(orders, keys.uri, false)
		keys.up.Store(true)
		f.untilBear(web, ordersURL, idp.Token(nil), 401)
		t.Skipf("SKIPPED the fetching of keys: Envoy %s is not told to, and admits nobody", version)
	}
	fetches := func(result string) {
		f.t.Helper()
		f.until("a fetch ended with "+result, func() error {
			stats, err := orders.envoy.Stats(f.ctx)
			if err == nil && stats["cluster.jwks-idp.upstream_rq_"+result] == 0 {
				err = errors.New("none")
			}
			return err
		})
	}
	fetches("503")
	require.Equal(t, 401, f.bear(web, ordersURL, idp.Token(nil)).status, "without keys nobody is admitted")
	require.NotContains(t, orders.envoy.LogTail(1000), "rejected")
	keys.up.Store(true)
	f.untilBear(web, ordersURL, idp.Token(nil), 200)
	fetches("200")
	require.Equal(t, 401, f.bear(web, ordersURL, newIssuer(t).Token(nil)).status)

	f.provide(source("/endless"))
	f.untilBear(web, ordersURL, idp.Token(nil), 401)
	f.until("an answer without an end was cut", func() error {
		if keys.most.Load() == 0 {
			return errors.New("not asked for")
		}
		return nil
	})
	// What Envoy does not read stands in the buffers of two sockets.
	require.Less(t, keys.most.Load(), int64(endless/4))
	t.Logf("%d bytes of %d were sent", keys.most.Load(), endless)

	f.provide(source("/keys"))
	f.untilBear(web, ordersURL, idp.Token(nil), 200)
}
