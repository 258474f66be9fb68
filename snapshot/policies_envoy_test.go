package snapshot

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/identity/tokentest"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
	"bailiwick.dev/bailiwick/tenancy/reference"
)

// wire speaks HTTP/1.1 byte for byte, so that nothing on this side tidies up.
type wire struct {
	t    *testing.T
	at   netip.AddrPort
	tls  *tls.Config // nil for plaintext
	conn net.Conn
	r    *bufio.Reader
	// dials counts the connections that it took.
	dials int
}

func (w *wire) get(target string, headers ...string) (int, http.Header) {
	w.t.Helper()
	for range 2 { // a refused request may have closed the connection
		if w.conn == nil {
			conn, err := net.Dial("tcp", w.at.String())
			require.NoError(w.t, err)
			require.NoError(w.t, conn.SetDeadline(time.Now().Add(time.Minute)))
			if w.conn = conn; w.tls != nil {
				config := w.tls.Clone()
				config.NextProtos = []string{"http/1.1"}
				w.conn = tls.Client(conn, config)
			}
			w.t.Cleanup(func() { _ = conn.Close() })
			w.r = bufio.NewReader(w.conn)
			w.dials++
		}
		request := append([]string{"GET " + target + " HTTP/1.1", "Host: orders"}, headers...)
		_, err := io.WriteString(w.conn, strings.Join(request, "\r\n")+"\r\n\r\n")
		if err == nil {
			var resp *http.Response
			if resp, err = http.ReadResponse(w.r, nil); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.Close {
					_ = w.conn.Close()
					w.conn = nil
				}
				return resp.StatusCode, resp.Header
			}
		}
		_ = w.conn.Close()
		w.conn = nil
	}
	return 0, nil
}

// newIssuer makes one whose tokens the ports of these tests take.
func newIssuer(t *testing.T) tokentest.Issuer {
	return tokentest.New(t, map[string]any{"iss": "https://idp", "aud": "shop"})
}

// yard is one Envoy with a port per subject of the test below.
type yard struct {
	t    *testing.T
	ca   *fleet
	e    *envoy
	w    *tenancy.WorkloadSpec
	pod  netip.Addr
	app  netip.Addr
	own  policy.NamespaceRef
	mine *tls.Config
}

const (
	portPlain, portObserve, portToken, portPaths, portTCP = 8101, 8102, 8103, 8104, 8105
)

func (y *yard) rule(name string, a policy.Action, m policy.Match) policy.Rule {
	return policy.Rule{Policy: name, Action: a, From: policy.Principals{All: true}, Match: m}
}

func (y *yard) apply() {
	y.t.Helper()
	in, errs := NewBuilder(BuilderConfig{}).Inbound(y.w, Variant{Explicit: true, App: y.app}, []netip.Addr{y.pod}, y.ca.bundles())
	require.Empty(y.t, errs)
	y.e.put(in...)
}

func (y *yard) port(n uint16) *tenancy.InboundPort {
	for i := range y.w.Ports {
		if y.w.Ports[i].Port == n {
			return &y.w.Ports[i]
		}
	}
	return nil
}

func (y *yard) wire(port uint16, config *tls.Config) *wire {
	return &wire{t: y.t, at: netip.AddrPortFrom(y.pod, port), tls: config}
}

func (y *yard) logged(part string) []map[string]any {
	var found []map[string]any
	for line := range strings.SplitSeq(y.e.log.String(), "\n") {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) == nil && strings.Contains(line, part) {
			found = append(found, entry)
		}
	}
	return found
}

func newYard(t *testing.T, idp tokentest.Issuer) *yard {
	envoyBinary(t)
	ca := newFleet(t)
	y := &yard{t: t, ca: ca, w: workloadSpec(t), own: policy.NamespaceRef{TrustDomain: "acme.example", Namespace: "acme-shop"}}
	y.pod, y.app, _ = testHosts()
	y.mine = ca.cert(ca.acme, y.own.Prefix()+"orders", identity.IssueOptions{})
	y.w.Tokens, y.w.Ports = true, nil
	base := policy.Port{HTTP: true, AllowSelected: true, Floor: policy.Floor{Tenant: []policy.NamespaceRef{y.own}}}
	allow := y.rule("acme-shop/let", policy.Allow, policy.Match{})
	add := func(n uint16, plaintext bool, change func(*policy.Port)) {
		p := base
		change(&p)
		port := portOf(p, n)
		port.Plaintext = plaintext
		y.w.Ports = append(y.w.Ports, port)
		if p.HTTP {
			serveHTTP(t, netip.AddrPortFrom(y.app, n))
		} else {
			serveTCP(t, netip.AddrPortFrom(y.app, n), "")
		}
	}
	add(portPlain, true, func(p *policy.Port) {
		p.Permissive = true
		open := y.rule("acme-shop/open", policy.Allow, policy.Match{Paths: []policy.Path{{Value: "/open"}}})
		open.From = policy.Principals{Plaintext: true}
		p.Rules = []policy.Rule{allow, open}
	})
	add(portObserve, true, func(p *policy.Port) {
		watch := y.rule("acme-shop/watch", policy.Deny, policy.Match{Paths: []policy.Path{{Type: policy.Template, Value: "/old/{*}"}}})
		watch.Observe = true
		p.Rules = []policy.Rule{allow, watch, y.rule("acme-shop/audit", policy.Audit, policy.Match{Methods: []string{"GET"}, Paths: []policy.Path{{Type: policy.Prefix, Value: "/seen"}}})}
	})
	add(portToken, false, func(p *policy.Port) {
		p.Providers = []policy.Provider{{Name: "idp", Issuer: "https://idp", Audiences: []string{"shop"}, JWKS: idp.JWKS()}}
		p.TokenRequired, p.TokenEnforced = true, true
		p.Rules = []policy.Rule{y.rule("acme-shop/admins", policy.Allow, policy.Match{Provider: "idp", Claims: []policy.Claim{
			{Path: []string{"realm", "roles"}, Values: []string{"admin", "ops"}}, {Path: []string{"tenant"}, Values: []string{"acme"}},
		}})}
	})
	add(portPaths, false, func(p *policy.Port) {
		p.Rules = []policy.Rule{y.rule("acme-shop/no", policy.Deny, policy.Match{Paths: []policy.Path{{Type: policy.Prefix, Value: "/admin"}, {Type: policy.Template, Value: "/t/{*}/x"}}}), allow}
	})
	add(portTCP, true, func(p *policy.Port) {
		p.HTTP = false
		p.Rules = []policy.Rule{allow, y.rule("acme-shop/audit-tcp", policy.Audit, policy.Match{})}
	})
	f := newFiles(t, ca.acme, "spiffe://acme.example/ns/acme-shop/sa/orders")
	y.e = &envoy{files: f}
	y.apply()
	y.e = f.start()
	require.Len(t, y.e.names()["dynamic_listeners"], len(y.w.Ports))
	return y
}

func TestEnvoyKeepsToTheLanguage(t *testing.T) {
	idp := newIssuer(t)
	y := newYard(t, idp)
	t.Run("observing and auditing", func(t *testing.T) { y.observes(t) })
	t.Run("tokens", func(t *testing.T) { y.tokens(t, idp) })
	t.Run("encodings", func(t *testing.T) { y.encodings(t) })
	t.Run("plaintext", func(t *testing.T) { y.plaintext(t) })
}

func (y *yard) observes(t *testing.T) {
	w := y.wire(portObserve, y.mine)
	for _, target := range []string{"/old/1?secret", "/seen/it?secret", "/other", "/old"} {
		code, _ := w.get(target)
		require.Equal(t, 200, code, "what observes changes no outcome: %s", target)
	}
	require.Equal(t, "echo hello\n", converse(t, caller{tls: y.mine}, netip.AddrPortFrom(y.pod, portTCP)))
	require.Eventually(t, func() bool { return len(y.logged("acme-shop/")) >= 3 }, 20*time.Second, 20*time.Millisecond)
	watch, audit, tcp := y.logged("acme-shop/watch"), y.logged(`acme-shop/audit"`), y.logged("acme-shop/audit-tcp")
	require.Len(t, watch, 1)
	require.Len(t, audit, 1)
	require.Len(t, tcp, 1)
	for key, want := range map[string]any{
		"policy": "acme-shop/watch", "would": "denied", "result": "allowed", "decided_by": "acme-shop/let", "path": "/old/1", "code": 200.0,
		"caller": y.own.Prefix() + "orders", "method": "GET", "host": "orders", "chain": "inbound-8102",
	} {
		require.Equal(t, want, watch[0][key], "%s of %v", key, watch[0])
	}
	require.Equal(t, "allowed", audit[0]["would"])
	require.Equal(t, "allowed", tcp[0]["would"])
	require.Equal(t, y.own.Prefix()+"orders", tcp[0]["caller"])
	require.NotContains(t, y.e.log.String(), "secret")
	stats := y.e.rbacStats()
	require.Contains(t, stats, "http.inbound_8102.rbac.observed_.shadow_denied: 1\n")
	require.Contains(t, stats, "http.inbound_8102.rbac.observed_.policy.acme-shop/watch.shadow_denied: 1\n")
}

func (y *yard) tokens(t *testing.T, idp tokentest.Issuer) {
	good := map[string]any{"tenant": "acme", "realm": map[string]any{"roles": []string{"x", "ops"}}}
	with := func(changes map[string]any) string {
		all := map[string]any{}
		for k, v := range good {
			all[k] = v
		}
		for k, v := range changes {
			all[k] = v
		}
		return idp.Token(all)
	}
	w := y.wire(portToken, y.mine)
	for name, c := range map[string]struct {
		header string
		want   int
	}{
		"good":           {"Authorization: Bearer " + with(nil), 200},
		"text, not list": {"Authorization: Bearer " + with(map[string]any{"realm": map[string]any{"roles": "admin"}}), 200},
		"other role":     {"Authorization: Bearer " + with(map[string]any{"realm": map[string]any{"roles": []string{"adm"}}}), 403},
		"flat claim":     {"Authorization: Bearer " + with(map[string]any{"realm": nil, "realm.roles": "admin"}), 403},
		"other tenant":   {"Authorization: Bearer " + with(map[string]any{"tenant": "globex"}), 403},
		"none":           {"X-A: b", 401},
		"expired":        {"Authorization: Bearer " + with(map[string]any{"exp": 1}), 401},
		"other issuer":   {"Authorization: Bearer " + with(map[string]any{"iss": "https://evil"}), 401},
		"other audience": {"Authorization: Bearer " + with(map[string]any{"aud": "bank"}), 403},
		"other key":      {"Authorization: Bearer " + newIssuer(t).Token(good), 401},
		"no signature":   {"Authorization: Bearer " + strings.Join(strings.Split(with(nil), ".")[:2], ".") + ".", 401},
	} {
		code, _ := w.get("/", c.header)
		require.Equal(t, c.want, code, name)
	}
	code, _ := w.get("/?access_token=" + with(nil))
	require.Equal(t, 401, code, "a token in the query is none")
	// A token does not make up for a certificate of a stranger.
	stranger := y.wire(portToken, y.ca.cert(y.ca.acme, "spiffe://acme.example/ns/x/sa/y", identity.IssueOptions{}))
	code, _ = stranger.get("/", "Authorization: Bearer "+with(nil))
	require.Equal(t, 403, code)
	// Until its configuration is there, no token is good.
	y.e.put(Absent(Extension, "jwt-http-8103"))
	require.Eventually(t, func() bool {
		code, _ := w.get("/", "Authorization: Bearer "+with(nil))
		return code == 401
	}, 20*time.Second, 20*time.Millisecond)
}

// encodings sends every spelling of what is denied that we can think of: if any
// gets through, what the application reads must not be it.
func (y *yard) encodings(t *testing.T) {
	w := y.wire(portPaths, y.mine)
	fixed := map[string]int{
		"/admin": 403, "/admin/": 403, "/admin/x": 403, "/admin?x": 403, "//admin": 403, "/./admin": 403, "/a/../admin": 403, "/%61dmin": 403,
		"/admin;x=1": 403, "/admin;x=1/y": 403, "/;x/admin": 403, "/a/..;/admin": 403, "/a/..%3Bx/admin": 403, "/%2e/admin": 403, "/a/%2e%2e/admin": 403, "/a/..%2fadmin": 400, "/admin%2fx": 400,
		"/admin%5cx": 400, "/admin?\xff": 400, "/t/1/x": 403, "/t/1;a/x;b/": 403, "/t/1/x?\xff\xfe": 400,
		"http://orders/admin": 403, "http://orders//x/../admin": 403, "HTTP://other/admin": 403, "admin": 400, "/#/../admin": 400, "/admin#x": 400, "/admin%23": 200, "/admin%3f": 200,
		"/admin%00": 400, "/a/..%00/admin": 400, "/%00/../admin": 400, "/%c0%afadmin": 200, "/x/..%c0%afadmin": 200, "/%c0%ae%c0%ae/admin": 200,
		"\\admin": 400, "/\\admin": 403, "/x/..\\admin": 403, "/x/\\../admin": 200, "/admin/.": 403, "/admin/../admin": 403, "/x/../../admin": 403, "/admin/..": 200, "/x/%252e%252e/admin": 200,
		"/.;/admin": 403, "/admin%20": 200, "/admin.": 200, "/admin.json": 200, "/admin/%2e%2e/x": 200, "/admin%2f..%2fx": 400, "/%5cadmin": 400, "/admin//": 403, "/admin/%3bx": 403, "/t/1/x/": 403, "/t//1/x": 403,
		"/t/%2e/1/x": 403, "/t/1/x%3Fy": 200, "/administrator": 200, "/ADMIN": 200, "/x/admin": 200, "/t/x": 200, "/t/1/2/x": 200, "/%2561dmin": 200,
	}
	for target, want := range fixed {
		code, _ := w.get(target)
		require.Equal(t, want, code, "%q", target)
	}
	shapes := []string{"/admin%s", "/%sadmin", "/ad%smin", "/x/%s/admin", "/%s/admin", "/admin%s/x", "/x%s/../admin", "/.%s/admin", "/a/..%s/admin"}
	count := map[int]int{}
	for _, shape := range shapes {
		for b := range 256 {
			for _, encoded := range []string{fmt.Sprintf("%%%02x", b), fmt.Sprintf("%%%02X", b), string([]byte{byte(b)})} {
				if b <= ' ' && len(encoded) == 1 || b == 0x7f {
					continue // ends the request line
				}
				target := fmt.Sprintf(strings.Replace(shape, "%s", "%[1]s", 1), encoded)
				code, header := w.get(target)
				count[code]++
				if code != 200 {
					continue
				}
				raw, _, _ := strings.Cut(header.Get("Saw-Target"), "?")
				saw, err := url.PathUnescape(raw)
				if err != nil {
					continue // the application would refuse it
				}
				var kept []string
				for segment := range strings.SplitSeq(strings.ReplaceAll(saw, `\`, "/"), "/") {
					segment, _, _ = strings.Cut(segment, ";")
					kept = append(kept, segment)
				}
				clean := path.Clean(strings.Join(kept, "/"))
				require.False(t, clean == "/admin" || strings.HasPrefix(clean, "/admin/"), "%q reached the application as %q", target, saw)
			}
		}
	}
	require.Greater(t, count[200], 100)
	require.Greater(t, count[403], 100)
	t.Logf("%v", count)
}

// plaintext is let in as far as rules name it, and told from who has a name.
// Going to Strict and back touches no chain: nobody's connection ends.
func (y *yard) plaintext(t *testing.T) {
	secure, plain := y.wire(portPlain, y.mine), y.wire(portPlain, nil)
	forged := []string{"X-Tenant-Identity: spiffe://acme.example/ns/acme-shop/sa/orders", "X-Forwarded-Client-Cert: URI=spiffe://acme.example/ns/a/sa/b"}
	ask := func(wantPlain int) {
		t.Helper()
		code, header := secure.get("/any", forged...)
		require.Equal(t, 200, code)
		require.Equal(t, []string{y.own.Prefix() + "orders"}, header["Saw-X-Tenant-Identity"])
		code, header = plain.get("/open", forged...)
		require.Equal(t, wantPlain, code)
		require.NotContains(t, header, "Saw-X-Tenant-Identity", "who has no certificate has no name")
		require.NotContains(t, fmt.Sprint(header), "spiffe://")
	}
	ask(200)
	code, _ := plain.get("/any")
	require.Equal(t, 403, code, "only rules that say so")
	flip := func(permissive bool, want int) {
		p := y.port(portPlain)
		p.Policy.Permissive = permissive
		y.apply()
		require.Eventually(t, func() bool {
			code, _ := secure.get("/any")
			require.Equal(t, 200, code)
			code, _ = plain.get("/open")
			return code == want
		}, 20*time.Second, 20*time.Millisecond)
		ask(want)
	}
	flip(false, 403)
	require.Contains(t, y.e.rbacStats(), "http.inbound_8101_plain.rbac.denied: ")
	flip(true, 200)
	flip(false, 403)
	require.Equal(t, 1, secure.dials, "no connection ended")
	require.Equal(t, 1, plain.dials)
	require.Equal(t, "listener_manager.listener_in_place_updated: 0\nlistener_manager.listener_modified: 0\n",
		y.e.get("/stats?filter=listener_(modified|in_place_updated)$"))

	// The tenant permits Strict only: now the chain goes too.
	y.port(portPlain).Plaintext = false
	y.apply()
	require.Eventually(t, func() bool {
		code, _ := secure.get("/any")
		require.Equal(t, 200, code)
		fresh := y.wire(portPlain, nil)
		code, _ = fresh.get("/open")
		return code == 0
	}, 20*time.Second, 20*time.Millisecond)
	code, _ = secure.get("/any")
	require.Equal(t, 200, code)
	require.Equal(t, policy.ByPlaintext, reference.Judge(y.port(portPlain).Policy, reference.Caller{Plaintext: true}, policy.Request{}).By)
}
