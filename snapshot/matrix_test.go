package snapshot

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

func TestEnvoyLoadsTransparentCapture(t *testing.T) {
	ca := newFleet(t)
	f := newFiles(t, ca.acme, "spiffe://acme.example/ns/acme-shop/sa/orders")
	b, s := NewBuilder(BuilderConfig{}), ordersSpec()
	in, errs := b.Inbound(workloadSpec(t), Variant{}, nil, ca.bundles())
	require.Empty(t, errs)
	for _, out := range []tenancy.OutboundPolicy{tenancy.RegistryOnly, tenancy.AllowAny} {
		resources, err := b.StaticClusters(out)
		require.NoError(t, err)
		resources = append(resources, in...)
		host, err := b.VirtualHost(s, &s.Ports[0], tenancy.OwnNamespace, true)
		require.NoError(t, err)
		for _, build := range []func() (*Resource, error){
			func() (*Resource, error) { return b.Bundle("acme.example", ca.acmeB) },
			func() (*Resource, error) { return b.Cluster(s, &s.Ports[0]) },
			func() (*Resource, error) { return b.Cluster(s, &s.Ports[1]) },
			func() (*Resource, error) { return b.Endpoints(s, &s.Ports[0]) },
			func() (*Resource, error) { return b.Endpoints(s, &s.Ports[1]) },
			func() (*Resource, error) { return b.RouteConfiguration(80, []*Part{host.Part}, out) },
			func() (*Resource, error) { return b.HTTPListener(80, Variant{}) },
			func() (*Resource, error) {
				return b.TCPListener(s.VIPs[0], 3306, b.ClusterName(s.Key, 3306), Variant{}, nil)
			},
			func() (*Resource, error) {
				return b.TCPListener(s.VIPs[1], 3306, b.ClusterName(s.Key, 3306), Variant{}, nil)
			},
			func() (*Resource, error) { return b.VirtualOutbound(out) },
		} {
			r, err := build()
			require.NoError(t, err)
			resources = append(resources, r)
		}
		f.validate(resources...)
	}
}

// caller is one client of the matrix; id is its URI SANs as RBAC sees them.
type caller struct {
	name, id string
	tls      *tls.Config
}

func (f *fleet) callers() []caller {
	ids := []string{
		"spiffe://acme.example/ns/acme-shop/sa/orders", "spiffe://acme.example/ns/acme-shop/sa/other",
		"spiffe://acme.example/ns/acme-web/sa/web", "spiffe://acme.example/ns/acme-web/sa/we",
		"spiffe://acme.example/ns/acme-webb/sa/web", "spiffe://acme.example/ns/g-shop/sa/cart",
	}
	var out []caller
	for _, id := range ids {
		out = append(out, caller{id, id, f.cert(f.acme, id, identity.IssueOptions{})})
	}
	for _, id := range []string{"spiffe://globex.example/ns/g-shop/sa/cart", "spiffe://globex.example/ns/acme-web/sa/web"} {
		out = append(out, caller{id, id, f.cert(f.globex, id, identity.IssueOptions{})})
	}
	// A CA of one domain that also names a workload of another, and of its own.
	two := []string{"spiffe://globex.example/ns/g-shop/sa/cart", ids[2]}
	out = append(out, caller{"two SANs", strings.Join(two, ","), f.cert(f.globex, two[0], identity.IssueOptions{ExtraURIs: two[1:]})})
	two = []string{ids[2], ids[0]}
	return append(out, caller{"two own SANs", strings.Join(two, ","), f.cert(f.acme, two[0], identity.IssueOptions{ExtraURIs: two[1:]})})
}

// randomPolicies are drawn from names that callers and requests use; the same
// ones in every run.
func randomPolicies(n int) []policy.Port {
	ns := func(td, name string) policy.NamespaceRef {
		return policy.NamespaceRef{TrustDomain: td, Namespace: name}
	}
	own := []policy.NamespaceRef{ns("acme.example", "acme-shop"), ns("acme.example", "acme-web")}
	granted := []policy.NamespaceRef{ns("globex.example", "g-shop")}
	gen := rapid.Custom(func(t *rapid.T) policy.Port {
		return policy.Port{
			HTTP: true, Floor: policy.Floor{Tenant: own, Granted: rapid.SampledFrom([][]policy.NamespaceRef{nil, granted}).Draw(t, "granted")},
			AllowSelected: rapid.Bool().Draw(t, "selected"), AllowWithinTenant: rapid.Bool().Draw(t, "within"),
			Rules: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) policy.Rule {
				pick := func(label string, of ...string) []string {
					return rapid.SliceOfNDistinct(rapid.SampledFrom(of), 0, 2, rapid.ID[string]).Draw(t, label)
				}
				m := policy.Match{Methods: pick("methods", "GET", "POST", "PURGE"), Hosts: pick("hosts", "orders", "10.0.0.1", "[fd00::1]")}
				for _, p := range pick("paths", "/admin", "/api", "/api/v1", "/") {
					m.Paths = append(m.Paths, policy.Path{Type: rapid.SampledFrom([]policy.MatchType{policy.Exact, policy.Prefix}).Draw(t, "path"), Value: p})
				}
				for _, h := range pick("headers", "x-a", "x-b") {
					m.Headers = append(m.Headers, policy.Header{Name: h, Value: "on", Type: rapid.SampledFrom([]policy.MatchType{policy.Exact, policy.Prefix, policy.Present}).Draw(t, "header")})
				}
				if rapid.Bool().Draw(t, "any request") {
					m = policy.Match{}
				}
				from := policy.Principals{
					All: rapid.IntRange(0, 3).Draw(t, "all") == 0, Granted: rapid.IntRange(0, 3).Draw(t, "to granted") == 0,
					IDs: pick("ids", own[0].Prefix()+"orders", own[1].Prefix()+"web", granted[0].Prefix()+"cart", "spiffe://acme.example/ns/g-shop/sa/cart"),
				}
				from.Namespaces = rapid.SliceOfN(rapid.SampledFrom(append(slices.Clone(own), granted...)), 0, 1).Draw(t, "namespaces")
				return policy.Rule{Policy: "acme-shop/p", Action: rapid.SampledFrom([]policy.Action{policy.Allow, policy.Deny}).Draw(t, "action"), From: from, Match: m}
			}), 0, 4).Draw(t, "rules"),
		}
	})
	out := make([]policy.Port, n)
	for i := range out {
		out[i] = gen.Example(i)
	}
	return out
}

func requests() []policy.Request {
	var out []policy.Request
	for i, path := range []string{
		"/", "/admin", "/admin/", "/admin/x", "/admin?x=1", "/admin;x=1", "/administer", "/ADMIN", "/api", "/api?", "/api/v1", "/api/v1/x?y", "/api/v12",
	} {
		headers := []map[string]string{nil, {"x-a": "on"}, {"x-a": "only", "x-b": ""}, {"x-a": "off", "x-b": "on"}, {"x-a": "off,on", "x-b": "off, on,off"}}[i%5]
		out = append(out,
			policy.Request{Method: []string{"GET", "POST"}[i%2], Path: path, Host: []string{"orders", "orders:80", "ORDERS", "10.0.0.1:8080", "orders2", "[fd00::1]:80", "[fd00::1]"}[i%7], Headers: headers},
			policy.Request{Method: "GET", Path: path, Host: "orders.acme-shop:80", Headers: map[string]string{"x-stage": "test", "x-key": "", "x-user": "g-1"}})
	}
	return out
}

// status makes one HTTP/2 request; refused is what a failed handshake is.
func status(client *http.Client, at netip.AddrPort, r policy.Request) (int, http.Header, error) {
	req, err := http.NewRequestWithContext(context.Background(), r.Method, "https://"+at.String()+r.Path, nil)
	if err != nil {
		return 0, nil, err
	}
	req.Host = r.Host
	for name, v := range r.Headers {
		req.Header.Set(name, v)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.Header, err
}

func h2Client(t testing.TB, config *tls.Config) *http.Client {
	tr := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func TestEnvoyDecidesAsThePolicy(t *testing.T) {
	envoyBinary(t)
	ca := newFleet(t)
	pod, app, _ := testHosts()
	f := newFiles(t, ca.acme, "spiffe://acme.example/ns/acme-shop/sa/orders")
	w := workloadSpec(t)
	w.Ports = nil
	for i, p := range append([]policy.Port{shopPolicy(0), {HTTP: true}}, randomPolicies(10)...) {
		port := uint16(8100 + i)
		w.Ports = append(w.Ports, tenancy.InboundPort{Port: port, Protocol: tenancy.HTTP1, Policy: p})
		serveHTTP(t, netip.AddrPortFrom(app, port))
	}
	in, errs := NewBuilder(BuilderConfig{}).Inbound(w, Variant{Explicit: true, App: app}, []netip.Addr{pod}, ca.bundles())
	require.Empty(t, errs)
	f.put(in...)
	e := f.start()
	require.Len(t, e.names()["ecds_filters"], len(w.Ports))

	count := map[int]int{}
	for _, c := range ca.callers() {
		client := h2Client(t, c.tls)
		for _, p := range w.Ports {
			for _, r := range requests() {
				got, _, err := status(client, netip.AddrPortFrom(pod, p.Port), r)
				require.NoError(t, err, "%s on %d: %+v", c.name, p.Port, r)
				want := http.StatusForbidden
				d := p.Policy.Decide(c.id, r)
				if d.Allowed {
					want = http.StatusOK
				}
				require.Equal(t, want, got, "%s on %d: %+v is %+v by %+v", c.name, p.Port, r, d, p.Policy.Rules)
				count[got]++
			}
		}
	}
	require.Equal(t, len(ca.callers())*len(w.Ports)*len(requests()), count[200]+count[403])
	require.Greater(t, count[200], 200, "the matrix must hold both answers")
	require.Greater(t, count[403], 200)
}

func TestEnvoyTellsTheApplicationWhoCallsAndRefusesTheRest(t *testing.T) {
	envoyBinary(t)
	ca := newFleet(t)
	pod, app, _ := testHosts()
	f := newFiles(t, ca.acme, "spiffe://acme.example/ns/acme-shop/sa/orders")
	w := workloadSpec(t)
	serveHTTP(t, netip.AddrPortFrom(app, 8080))
	serveHTTP(t, netip.AddrPortFrom(app, 9090))
	serveTCP(t, netip.AddrPortFrom(app, 3306), "welcome\n")
	serveTCP(t, netip.AddrPortFrom(app, 6379), "")
	w.Ports[0].Policy.Rules = w.Ports[0].Policy.Rules[1:2] // acme-web/web alone may reach the database
	w.Ports[1].Policy.Rules = w.Ports[0].Policy.Rules
	in, errs := NewBuilder(BuilderConfig{}).Inbound(w, Variant{Explicit: true, App: app}, []netip.Addr{pod}, ca.bundles())
	require.Empty(t, errs)
	f.put(in...)
	e := f.start()
	require.ElementsMatch(t, []string{"rbac-http-8080", "rbac-http-9090", "rbac-tcp-3306", "rbac-tcp-6379"}, e.names()["ecds_filters"])
	require.Len(t, e.names()["dynamic_listeners"], 4)
	require.Equal(t, "listener_manager.listener_create_failure: 0\n", e.get("/stats?filter=listener_create_failure$"))

	callers := ca.callers()
	web := callers[2]
	client := h2Client(t, web.tls)
	for port, proto := range map[uint16]string{8080: "HTTP/1.1", 9090: "HTTP/2.0"} {
		code, header, err := status(client, netip.AddrPortFrom(pod, port), policy.Request{Method: "GET", Path: "/a//b/./c", Host: "orders.", Headers: map[string]string{
			DefaultIdentityHeader: "spiffe://acme.example/ns/x/sa/forged", "X_Tenant_Identity": "forged", "x-tenant_identity": "forged",
			"x-envoy-max-retries": "9", "x-envoy-upstream-alt-stat-name": "forged", "x-forwarded-client-cert": "URI=forged", "x_other": "kept",
		}})
		require.NoError(t, err)
		require.Equal(t, 200, code)
		require.Equal(t, proto, header.Get("Saw-Proto"))
		require.Equal(t, "/a/b/c", header.Get("Saw-Path"))
		require.Equal(t, []string{web.id}, header["Saw-X-Tenant-Identity"])
		require.Equal(t, "kept", header.Get("Saw-X_other"))
		require.Contains(t, header.Get("Saw-X-Forwarded-Client-Cert"), "URI="+web.id)
		require.NotContains(t, fmt.Sprint(header), "forged")
		require.NotContains(t, header, "Saw-X-Envoy-Max-Retries")
		code, _, err = status(client, netip.AddrPortFrom(pod, port), policy.Request{Method: "GET", Path: "/a%2fb", Host: "orders"})
		require.NoError(t, err)
		require.Equal(t, 400, code)
	}
	t.Run("strangers", func(t *testing.T) { refusesStrangers(t, ca, netip.AddrPortFrom(pod, 8080)) })
	t.Run("tcp", func(t *testing.T) {
		for _, c := range callers {
			want := ""
			if c.id == web.id {
				want = "echo hello\n"
			}
			require.Equal(t, want, converse(t, c, netip.AddrPortFrom(pod, 6379)), c.name)
			banner := converse(t, c, netip.AddrPortFrom(pod, 3306))
			switch c.name {
			case web.name:
				require.Equal(t, "welcome\necho hello\n", banner)
			case "two own SANs":
				// Its own authority vouches for both names: it may see the
				// greeting, and RBAC ends it at its first byte.
				require.NotContains(t, banner, "echo")
			default:
				require.Empty(t, banner, c.name)
			}
		}
	})
}

// refusesStrangers shows that without a workload's certificate there is not
// even an answer.
func refusesStrangers(t *testing.T, ca *fleet, at netip.AddrPort) {
	none := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}
	other, err := identity.NewAuthority("acme.example") // same name, other keys
	require.NoError(t, err)
	for name, config := range map[string]*tls.Config{
		"no certificate": none,
		"wrong CA":       ca.cert(other, "spiffe://acme.example/ns/acme-web/sa/web", identity.IssueOptions{}),
		"foreign name":   ca.cert(ca.globex, "spiffe://acme.example/ns/acme-web/sa/web", identity.IssueOptions{AnyID: true}),
		"no name":        ca.cert(ca.acme, "", identity.IssueOptions{NoURI: true}),
	} {
		_, _, err := status(h2Client(t, config), at, policy.Request{Method: "GET", Path: "/", Host: "orders"})
		require.Error(t, err, name)
	}
	conn, err := net.Dial("tcp", at.String())
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: orders\r\n\r\n")
	require.NoError(t, err)
	answer, err := io.ReadAll(conn)
	require.False(t, errors.Is(err, os.ErrDeadlineExceeded), "plaintext must be refused, not ignored")
	require.Empty(t, answer)
}

// converse says hello and returns all that came back.
func converse(t *testing.T, c caller, at netip.AddrPort) string {
	t.Helper()
	config := c.tls.Clone()
	config.NextProtos = nil
	conn, err := net.Dial("tcp", at.String())
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	client := tls.Client(conn, config)
	if client.Handshake() != nil {
		return ""
	}
	greeting := ""
	r := bufio.NewReader(client)
	if at.Port() == 3306 {
		greeting, err = r.ReadString('\n')
		if err != nil {
			return greeting
		}
	}
	_, _ = io.WriteString(client, "hello\n")
	rest, err := io.ReadAll(r)
	require.False(t, errors.Is(err, os.ErrDeadlineExceeded))
	return greeting + string(rest)
}
