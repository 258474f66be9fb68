package snapshot

import (
	"bufio"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/identity/tokentest"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

// keyServer serves an issuer's keys over HTTPS at localhost, well and badly.
type keyServer struct {
	at          string // https://localhost:port
	ca          *identity.Authority
	keys        atomic.Pointer[string]
	broken      atomic.Bool
	connections atomic.Int64
	failures    atomic.Int64
	redirected  atomic.Int64
	release     chan struct{} // ends the answers that never come
}

func newKeyServer(t *testing.T, keys string) *keyServer {
	ca, err := identity.NewAuthority("idp.example")
	require.NoError(t, err)
	certPEM, keyPEM, err := ca.Issue("", identity.IssueOptions{NoURI: true, DNSNames: []string{"localhost"}})
	require.NoError(t, err)
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	s := &keyServer{at: "https://localhost:" + port, ca: ca, release: make(chan struct{})}
	s.keys.Store(&keys)
	mux := http.NewServeMux()
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		if s.broken.Load() {
			s.failures.Add(1)
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		_, _ = io.WriteString(w, *s.keys.Load())
	})
	mux.HandleFunc("/elsewhere", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/taken", http.StatusFound) })
	mux.HandleFunc("/taken", func(w http.ResponseWriter, _ *http.Request) {
		s.redirected.Add(1)
		_, _ = io.WriteString(w, *s.keys.Load())
	})
	mux.HandleFunc("/never", func(http.ResponseWriter, *http.Request) { <-s.release })
	mux.HandleFunc("/nonsense", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"keys":[]}`) })
	server := &http.Server{
		Handler: mux, TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}}, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				s.connections.Add(1)
			}
		},
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.ServeTLS(l, "", "") }() // ends with server.Close
	t.Cleanup(func() { close(s.release); _ = server.Close(); <-done })
	return s
}

// TestEnvoyFetchesKeys: proxies fetch keys from where a certificate and an
// address vouch for it, and until they have them no token is good.
func TestEnvoyFetchesKeys(t *testing.T) {
	envoyBinary(t)
	if !knowsJitter(t) {
		t.Skip("SKIPPED: this Envoy is not told to fetch keys: its resolver filters no addresses")
	}
	idp := newIssuer(t)
	keys := newKeyServer(t, idp.JWKS())
	ca := newFleet(t)
	pod, app, _ := testHosts()
	own := policy.NamespaceRef{TrustDomain: "acme.example", Namespace: "acme-shop"}
	w := workloadSpec(t)
	w.Tokens, w.Ports = true, nil
	trusted := string(keys.ca.Bundle())
	fetch := func(path, host, ca string) policy.KeyFetch {
		return policy.KeyFetch{URI: strings.Replace(keys.at, "localhost", host, 1) + path, Host: host, CA: ca, Refresh: time.Second}
	}
	const good, silent, early = 8120, 8122, 8126
	sources := map[uint16]policy.KeyFetch{
		good:   fetch("/keys", "localhost", trusted),
		8121:   fetch("/elsewhere", "localhost", trusted),
		silent: fetch("/never", "localhost", trusted),
		8123:   fetch("/nonsense", "localhost", trusted),
		8124:   fetch("/keys", "localhost", ""),            // not signed by whom the system trusts
		8125:   fetch("/keys", "other.localhost", trusted), // not the name in the certificate
		early:  fetch("/keys", "localhost", trusted),
	}
	for port, source := range sources {
		p := policy.Port{HTTP: true, AllowSelected: true, TokenRequired: true, TokenEnforced: true, Floor: policy.Floor{Tenant: []policy.NamespaceRef{own}}}
		provider := policy.Provider{Name: "idp-" + portText(port), Issuer: "https://idp", Audiences: []string{"shop"}, Fetch: source}
		p.Providers = []policy.Provider{provider}
		p.Rules = []policy.Rule{{Policy: "acme-shop/admins", Action: policy.Allow, From: policy.Principals{All: true}, Match: policy.Match{
			Provider: provider.Name, Claims: []policy.Claim{{Path: []string{"role"}, Values: []string{"admin"}}},
		}}}
		w.Ports = append(w.Ports, portOf(p, port))
		serveHTTP(t, netip.AddrPortFrom(app, port))
	}
	build := func(c BuilderConfig, v Variant, only ...uint16) []*Resource {
		v.Explicit, v.App = true, app
		w := *w
		if len(only) > 0 {
			w.Ports = slices.DeleteFunc(slices.Clone(w.Ports), func(p tenancy.InboundPort) bool { return !slices.Contains(only, p.Port) })
		}
		out, errs := NewBuilder(c).Inbound(&w, v, []netip.Addr{pod}, ca.bundles())
		require.Empty(t, errs)
		return out
	}
	mine := ca.cert(ca.acme, own.Prefix()+"orders", identity.IssueOptions{})
	ask := func(port uint16, by tokentest.Issuer) int {
		one := &wire{t: t, at: netip.AddrPortFrom(pod, port), tls: mine}
		code, _ := one.get("/", "Authorization: Bearer "+by.Token(map[string]any{"role": "admin"}))
		return code
	}
	until := func(port uint16, by tokentest.Issuer, want int) {
		t.Helper()
		require.Eventually(t, func() bool { return ask(port, by) == want }, 30*time.Second, 20*time.Millisecond)
	}
	permitted := BuilderConfig{JWKSAddresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}

	// A proxy whose resolver filters nothing is not told to fetch anything.
	for _, r := range build(permitted, Variant{}) {
		require.False(t, strings.HasPrefix(r.Name(), jwksPrefix), r.Name())
		require.NotContains(t, string(r.Value()), keys.at)
	}
	f := newFiles(t, ca.acme, own.Prefix()+"orders")
	f.put(build(BuilderConfig{}, Variant{FiltersAddresses: true}, early)...)
	e := f.start()
	counted := func(port, what string) {
		t.Helper()
		require.Regexp(t, what+`: [1-9]`, e.get("/stats?filter=cluster.jwks-idp-"+port+"."+what))
	}

	// Internal addresses are refused before anything is sent there.
	require.Equal(t, 401, ask(early, idp))
	counted("8126", "upstream_cx_none_healthy")
	require.Zero(t, keys.connections.Load())

	f.put(build(permitted, Variant{FiltersAddresses: true})...)
	until(early, idp, 200)
	until(good, idp, 200)
	require.Eventually(t, func() bool { return len(e.names()["ecds_filters"]) == 2*len(sources) }, 30*time.Second, 20*time.Millisecond)
	// Asked now, and read at the end: it takes as long as Envoy's patience.
	plain := mine.Clone()
	plain.NextProtos = nil
	never, err := tls.Dial("tcp", netip.AddrPortFrom(pod, silent).String(), plain)
	require.NoError(t, err)
	defer never.Close()
	_, err = io.WriteString(never, "GET / HTTP/1.1\r\nHost: orders\r\nAuthorization: Bearer "+idp.Token(map[string]any{"role": "admin"})+"\r\n\r\n")
	require.NoError(t, err)
	require.Len(t, e.names()["dynamic_active_clusters"], 2*len(sources))
	require.Equal(t, 401, ask(good, newIssuer(t)), "another's key")
	for port := range sources {
		if port != good && port != early && port != silent {
			require.Equal(t, 401, ask(port, idp), "%+v", sources[port])
		}
	}
	counted("8121", "upstream_rq_302")
	counted("8124", "ssl.fail_verify_error")
	counted("8125", "ssl.fail_verify_san")
	require.Zero(t, keys.redirected.Load(), "redirections are not followed")

	// New keys come by themselves, and the old ones are forgotten.
	next := newIssuer(t)
	set := next.JWKS()
	keys.keys.Store(&set)
	until(good, next, 200)
	require.Equal(t, 401, ask(good, idp))

	// While keys cannot be had, those that were had stay good.
	keys.broken.Store(true)
	require.Eventually(t, func() bool { return keys.failures.Load() >= 2 }, 30*time.Second, 20*time.Millisecond)
	require.Equal(t, 200, ask(good, next))
	require.NoError(t, never.SetReadDeadline(time.Now().Add(time.Minute)))
	resp, err := http.ReadResponse(bufio.NewReader(never), nil)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 401, resp.StatusCode, "an answer that does not come")
}

func TestAddressesThatKeysAreNotFetchedFrom(t *testing.T) {
	refused := func(permitted []netip.Prefix, addr string) bool {
		for _, r := range without(internalRanges(), permitted) {
			if r.Contains(netip.MustParseAddr(addr)) {
				return true
			}
		}
		return false
	}
	for _, addr := range strings.Fields(`0.0.0.0 10.1.2.3 100.64.0.1 127.0.0.1 169.254.169.254 172.16.0.1 172.31.255.255 192.168.1.1 198.18.0.1
		224.0.0.1 240.0.0.1 255.255.255.255 :: ::1 ::ffff:10.0.0.1 ::ffff:8.8.8.8 64:ff9b::a00:1 fc00::1 fd00:ec2::254 fe80::1 ff02::1 2001:db8::1 2002:a00:1::1 2001::1`) {
		require.True(t, refused(nil, addr), addr)
	}
	for _, addr := range strings.Fields(`8.8.8.8 1.1.1.1 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 192.167.0.1 223.255.255.255 2001:4860:4860::8888 2606:4700::1`) {
		require.False(t, refused(nil, addr), addr)
	}
	some := []netip.Prefix{netip.MustParsePrefix("10.20.0.7/16"), netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("127.0.0.1/32")}
	for addr, want := range map[string]bool{
		"10.20.0.0": false, "10.20.255.255": false, "10.19.255.255": true, "10.21.0.0": true, "127.0.0.1": false, "127.0.0.2": true, "127.0.0.0": true,
		"fd12::1": false, "fc00::1": true, "fe80::1": true, "::1": true, "169.254.169.254": true,
	} {
		require.Equal(t, want, refused(some, addr), addr)
	}
	require.Empty(t, without(internalRanges(), []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}))
}
