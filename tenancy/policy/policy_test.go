package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	web  = NamespaceRef{"acme.example", "acme-web"}
	shop = NamespaceRef{"acme.example", "acme-shop"}
	peer = NamespaceRef{"globex.example", "globex-a"}
	near = NamespaceRef{"acme.example", "acme-web-evil"}

	webApp = web.Prefix() + "app"
	webBad = web.Prefix() + "bad"
	peerID = peer.Prefix() + "client"
)

func TestZeroPortAdmitsNobody(t *testing.T) {
	for _, id := range []string{"", webApp, "spiffe://acme.example", "spiffe://acme.example/ns/acme-web/sa/"} {
		require.Equal(t, Decision{By: ByTenantFloor}, Port{}.Decide(id, Request{}), id)
	}
	exact, prefixes := Port{}.SANs()
	require.Empty(t, exact)
	require.Empty(t, prefixes)
}

// TestPrecedence judges every combination of floor, Deny, Allow, other Allow
// and default against the order that doc.go states.
func TestPrecedence(t *testing.T) {
	from := Principals{IDs: []string{webApp, peerID}}
	elsewhere := Principals{IDs: []string{shop.Prefix() + "x"}}
	for bits := range 1 << 6 {
		on := func(n int) bool { return bits&(1<<n) != 0 }
		own, granted, deny, allow, other, within := on(0), on(1), on(2), on(3), on(4), on(5)
		p := Port{Number: 80, AllowWithinTenant: within, AllowSelected: allow || other}
		if own {
			p.Floor.Tenant = []NamespaceRef{web}
		}
		if granted {
			p.Floor.Granted = []NamespaceRef{peer}
		}
		if allow {
			p.Rules = append(p.Rules, Rule{Policy: "n/allow", Action: Allow, From: from})
		}
		if other {
			p.Rules = append(p.Rules, Rule{Policy: "n/other", Action: Allow, From: elsewhere})
		}
		if deny {
			p.Rules = append(p.Rules, Rule{Policy: "n/deny", Action: Deny, From: from})
		}
		want := func(inFloor, isOwn bool) Decision {
			switch {
			case !inFloor:
				return Decision{By: ByTenantFloor}
			case deny:
				return Decision{By: "n/deny"}
			case allow:
				return Decision{Allowed: true, By: "n/allow"}
			case !other && within && isOwn:
				return Decision{Allowed: true, By: ByDefaultAllow}
			default:
				return Decision{By: ByDefaultDeny}
			}
		}
		for _, http := range []bool{true, false} {
			p.HTTP = http
			name := fmt.Sprintf("%06b http=%v", bits, http)
			require.Equal(t, want(own, true), p.Decide(webApp, Request{}), name)
			require.Equal(t, want(granted, false), p.Decide(peerID, Request{}), name)
			require.Equal(t, Decision{By: ByMultiSAN}, p.Decide(webApp+","+peerID, Request{}), name)
			require.Equal(t, Decision{By: ByTenantFloor}, p.Decide(near.Prefix()+"app", Request{}), name)
		}
	}
}

func TestSeveralSANsAreDeniedWhateverAPolicySays(t *testing.T) {
	two := webApp + "," + webBad
	p := Port{
		Floor: Floor{Tenant: []NamespaceRef{web}}, AllowSelected: true,
		Rules: []Rule{{Policy: "n/p", Action: Allow, From: Principals{All: true, IDs: []string{two}}},
			{Policy: "n/q", Action: Allow, From: Principals{IDs: []string{two}}}},
	}
	require.Equal(t, Decision{By: ByMultiSAN}, p.Decide(two, Request{}))
	for _, c := range p.Classes() {
		require.NotContains(t, c.Key, ",")
	}
}

func TestRequestConditionsOnTCP(t *testing.T) {
	get := Match{Methods: []string{"GET"}}
	p := Port{Floor: Floor{Tenant: []NamespaceRef{web, shop}}, AllowSelected: true, Rules: []Rule{
		{Policy: "n/all", Action: Allow, From: Principals{Namespaces: []NamespaceRef{web}}},
		{Policy: "n/get", Action: Allow, From: Principals{Namespaces: []NamespaceRef{shop}}, Match: get},
		{Policy: "n/no", Action: Deny, From: Principals{IDs: []string{webBad}}, Match: get},
	}}
	require.Equal(t, Decision{Allowed: true, By: "n/all"}, p.Decide(webApp, Request{Method: "GET"}))
	require.Equal(t, Decision{By: "n/no"}, p.Decide(webBad, Request{Method: "POST"}), "a Deny denies its sources")
	require.Equal(t, Decision{By: ByDefaultDeny}, p.Decide(shop.Prefix()+"x", Request{Method: "GET"}), "an Allow allows nothing")
	p.HTTP = true
	require.True(t, p.Decide(webBad, Request{Method: "POST"}).Allowed)
	require.True(t, p.Decide(shop.Prefix()+"x", Request{Method: "GET"}).Allowed)
}

func TestGrantedIsTheGrantedPartOfTheFloor(t *testing.T) {
	p := Port{Floor: Floor{Tenant: []NamespaceRef{web}, Granted: []NamespaceRef{peer}}, AllowSelected: true,
		Rules: []Rule{{Policy: "n/p", Action: Allow, From: Principals{Granted: true}}}}
	require.True(t, p.Decide(peerID, Request{}).Allowed)
	require.False(t, p.Decide(webApp, Request{}).Allowed)
}

func TestMatch(t *testing.T) {
	prefix := func(v string) Match { return Match{Paths: []Path{{Type: Prefix, Value: v}}} }
	exact := func(v string) Match { return Match{Paths: []Path{{Type: Exact, Value: v}}} }
	host := func(v string) Match { return Match{Hosts: []string{v}} }
	header := func(h ...Header) Match { return Match{Headers: h} }
	at := func(path string) Request { return Request{Path: path} }
	with := func(kv ...string) Request {
		r := Request{Headers: map[string]string{}}
		for i := 0; i < len(kv); i += 2 {
			r.Headers[kv[i]] = kv[i+1]
		}
		return r
	}
	for _, c := range []struct {
		m           Match
		r           Request
		allow, deny bool
	}{
		{Match{}, Request{}, true, true},
		{prefix("/a"), at("/a"), true, true},
		{prefix("/a"), at("/a?q=/b"), true, true},
		{prefix("/a"), at("/a/b"), true, true},
		{prefix("/a"), at("/a/"), true, true},
		{prefix("/a"), at("/ab"), false, false},
		{prefix("/a"), at("/a;x=y"), false, true},
		{prefix("/a"), at("/a;x/b"), false, true},
		{prefix("/a"), at("/b/a"), false, false},
		{prefix("/"), at("/anything"), true, true},
		{prefix("/"), at("*"), true, true},
		{exact("/a"), at("/a"), true, true},
		{exact("/a"), at("/a?x"), true, true},
		{exact("/a"), at("/a/"), false, false},
		{exact("/a"), at("/A"), false, false},
		{host("orders"), Request{Host: "Orders:8080"}, true, true},
		{host("orders"), Request{Host: "orders"}, true, true},
		{host("orders"), Request{Host: "orders.x"}, false, false},
		{host("[::1]"), Request{Host: "[::1]:80"}, true, true},
		{host("[::1]"), Request{Host: "[::1]"}, true, true},
		{Match{Methods: []string{"GET", "PUT"}}, Request{Method: "PUT"}, true, true},
		{Match{Methods: []string{"GET"}}, Request{Method: "get"}, false, false},
		{header(Header{Name: "x", Type: Present}), with("x", ""), true, true},
		{header(Header{Name: "x", Type: Present}), with(), false, false},
		{header(Header{Name: "x", Type: Exact, Value: ""}), with(), false, false},
		{header(Header{Name: "x", Type: Exact, Value: "b"}), with("x", "b"), true, true},
		{header(Header{Name: "x", Type: Exact, Value: "b"}), with("x", "a,b"), false, true},
		{header(Header{Name: "x", Type: Exact, Value: "b"}), with("x", "b, a"), false, true},
		{header(Header{Name: "x", Type: Exact, Value: "b"}), with("x", "a, b,c"), false, true},
		{header(Header{Name: "x", Type: Exact, Value: "b"}), with("x", "ab,bc"), false, false},
		{header(Header{Name: "x", Type: Prefix, Value: "b"}), with("x", "a, bc"), false, true},
		{header(Header{Name: "x", Type: Prefix, Value: "b"}), with("x", "bc"), true, true},
		{header(Header{Name: "x", Type: Prefix, Value: "b"}), with("x", "ab"), false, false},
		{header(Header{Name: "x", Type: Present}, Header{Name: "y", Type: Present}), with("x", "1"), false, false},
		{Match{Methods: []string{"GET"}, Hosts: []string{"a"}}, Request{Method: "GET", Host: "b"}, false, false},
	} {
		require.Equal(t, c.allow, c.m.Matches(c.r, Allow), "Allow %+v %+v", c.m, c.r)
		require.Equal(t, c.deny, c.m.Matches(c.r, Deny), "Deny %+v %+v", c.m, c.r)
	}
}

func TestHostOnly(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "A": "a", "a:1": "a", "[::1]:1": "[::1]", "[::1]": "[::1]", "fd00::1": "fd00::1", ":80": "",
	} {
		require.Equal(t, want, HostOnly(in), in)
	}
}

func TestClassesShareAndDropWhatIsEqual(t *testing.T) {
	get := Match{Methods: []string{"GET"}}
	p := Port{HTTP: true, AllowSelected: true, Floor: Floor{Tenant: []NamespaceRef{shop, web}, Granted: []NamespaceRef{peer}}, Rules: []Rule{
		{Policy: "n/p", Action: Allow, From: Principals{Namespaces: []NamespaceRef{web, shop}, IDs: []string{webApp}}, Match: get},
		{Policy: "n/q", Action: Deny, From: Principals{IDs: []string{webBad, "spiffe://other.example/ns/x/sa/y", web.Prefix()}}},
	}}
	classes := p.Classes()
	var keys []string
	for _, c := range classes {
		keys = append(keys, c.Key)
		require.Equal(t, c.Prefix, strings.HasSuffix(c.Key, "/sa/"))
	}
	require.Equal(t, []string{webBad, shop.Prefix(), web.Prefix(), peer.Prefix()}, keys,
		"no class for an ID that fares like its namespace, is outside the floor, or names no account")
	require.Equal(t, []int{0, 1, 1, 2}, []int{classes[0].Group, classes[1].Group, classes[2].Group, classes[3].Group})
	require.Same(t, &classes[1].Steps[0], &classes[2].Steps[0])
	require.Equal(t, Decision{By: ByDefaultDeny}, classes[3].End)
	require.Empty(t, classes[0].Steps, "nothing is tried after what matches every request")
}

func TestNamespaceCalledSA(t *testing.T) {
	sa := NamespaceRef{"acme.example", "sa"}
	p := Port{Floor: Floor{Tenant: []NamespaceRef{sa}}, AllowWithinTenant: true}
	require.True(t, p.Decide("spiffe://acme.example/ns/sa/sa/x", Request{}).Allowed)
	require.False(t, p.Decide("spiffe://acme.example/ns/sb/sa/x", Request{}).Allowed)
}

func TestSANs(t *testing.T) {
	p := Port{Floor: Floor{Tenant: []NamespaceRef{web, shop}, Granted: []NamespaceRef{peer}}, AllowSelected: true, Rules: []Rule{
		{Policy: "n/ns", Action: Allow, From: Principals{Namespaces: []NamespaceRef{web, shop}}},
		{Policy: "n/id", Action: Allow, From: Principals{IDs: []string{peerID, webApp}}},
	}}
	exact, prefixes := p.SANs()
	require.Equal(t, []string{peerID}, exact)
	require.Equal(t, []string{shop.Prefix(), web.Prefix()}, prefixes)
	require.Empty(t, p.Partial())

	p.Rules = append(p.Rules, Rule{Policy: "n/no", Action: Deny, From: Principals{IDs: []string{webBad}}})
	require.Equal(t, []NamespaceRef{web}, p.Partial())
	exact, prefixes = p.SANs()
	require.Equal(t, []string{peerID}, exact, "fails closed while no accounts are known")
	require.Equal(t, []string{shop.Prefix()}, prefixes)

	p.KnownAccounts = []Accounts{{web, []string{"app", "bad", "job"}}, {peer, []string{"stranger"}}}
	exact, _ = p.SANs()
	want := []string{webApp, web.Prefix() + "job", peerID}
	slices.Sort(want)
	require.Equal(t, want, exact)
}
