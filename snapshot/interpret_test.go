package snapshot

import (
	"maps"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	matcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	networkinputsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	sslv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/ssl/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/input_matchers/metadata/v3"
	envoymatcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/anypb"
	"pgregory.net/rapid"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/identity/tokentest"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
	"bailiwick.dev/bailiwick/tenancy/reference"
)

// interpreter decides by a compiled RBAC configuration as Envoy does, and fails
// on what Envoy would do something surprising with.
type interpreter struct {
	t      require.TestingT
	caller reference.Caller
	r      policy.Request
}

func unpack(t require.TestingT, a *anypb.Any) any {
	m, err := a.UnmarshalNew()
	require.NoError(t, err)
	return m
}

// trees are the matchers of an extension resource.
func trees(t require.TestingT, r *Resource) (enforced, shadow *matcherv3.Matcher) {
	msg, err := decode(r)
	require.NoError(t, err)
	switch c := unpack(t, msg.(*corev3.TypedExtensionConfig).TypedConfig).(type) {
	case *httprbacv3.RBAC:
		return c.Matcher, c.ShadowMatcher
	case *netrbacv3.RBAC:
		return c.Matcher, c.ShadowMatcher
	}
	require.Fail(t, "no RBAC")
	return nil, nil
}

func (in interpreter) on(o *matcherv3.Matcher_OnMatch) policy.Decision {
	require.NotNil(in.t, o, "a matcher without an end falls back to what is around it")
	if m := o.GetMatcher(); m != nil {
		return in.judge(m)
	}
	action := unpack(in.t, o.GetAction().TypedConfig).(*rbacv3.Action)
	return policy.Decision{Allowed: action.Action == rbacv3.RBAC_ALLOW, By: action.Name}
}

func (in interpreter) judge(m *matcherv3.Matcher) policy.Decision {
	if list := m.GetMatcherList(); list != nil {
		for _, f := range list.Matchers {
			if in.met(f.Predicate) {
				return in.on(f.OnMatch)
			}
		}
		return in.on(m.OnNoMatch)
	}
	tree := m.GetMatcherTree()
	if tree == nil {
		return in.on(m.OnNoMatch)
	}
	id, ok := in.text(unpack(in.t, tree.Input.TypedConfig))
	require.True(in.t, ok, "where there is no certificate, its name decides nothing")
	if exact := tree.GetExactMatchMap().GetMap(); exact != nil {
		if o := exact[id]; o != nil {
			return in.on(o)
		}
		return in.on(m.OnNoMatch)
	}
	longest := ""
	prefixes := tree.GetPrefixMatchMap().GetMap()
	require.NotEmpty(in.t, prefixes, "an empty map is refused")
	for key := range prefixes {
		if strings.HasPrefix(id, key) && len(key) > len(longest) {
			longest = key
		}
	}
	if longest != "" {
		return in.on(prefixes[longest])
	}
	return in.on(m.OnNoMatch)
}

// text is a text input; false where it is not to be had.
func (in interpreter) text(input any) (string, bool) {
	switch i := input.(type) {
	case *sslv3.UriSanInput:
		return in.caller.ID, !in.caller.Plaintext
	case *envoymatcherv3.HttpRequestHeaderMatchInput:
		switch i.HeaderName {
		case ":method":
			return in.r.Method, true
		case ":path":
			return in.r.Path, true
		case ":authority":
			return in.r.Host, true
		}
		v, ok := in.r.Headers[i.HeaderName]
		return v, ok
	}
	require.Fail(in.t, "an input that is not known", "%T", input)
	return "", false
}

func (in interpreter) met(p *matcherv3.Matcher_MatcherList_Predicate) bool {
	switch {
	case p.GetNotMatcher() != nil:
		return !in.met(p.GetNotMatcher())
	case p.GetOrMatcher() != nil:
		require.GreaterOrEqual(in.t, len(p.GetOrMatcher().Predicate), 2)
		return slices.ContainsFunc(p.GetOrMatcher().Predicate, in.met)
	case p.GetAndMatcher() != nil:
		require.GreaterOrEqual(in.t, len(p.GetAndMatcher().Predicate), 2)
		return !slices.ContainsFunc(p.GetAndMatcher().Predicate, func(p *matcherv3.Matcher_MatcherList_Predicate) bool { return !in.met(p) })
	}
	s := p.GetSinglePredicate()
	input := unpack(in.t, s.Input.TypedConfig)
	if at, ok := input.(*networkinputsv3.DynamicMetadataInput); ok {
		require.Equal(in.t, jwtFilter, at.Filter)
		return in.holds(at, unpack(in.t, s.GetCustomMatch().TypedConfig).(*metadatav3.Metadata).Value)
	}
	text, ok := in.text(input)
	return ok && fits(in.t, s.GetValueMatch(), text)
}

func fits(t require.TestingT, m *matcherv3.StringMatcher, text string) bool {
	of := func(s string) string { return s }
	if m.IgnoreCase {
		of = strings.ToLower
	}
	switch p := m.MatchPattern.(type) {
	case *matcherv3.StringMatcher_Exact:
		return of(text) == of(p.Exact)
	case *matcherv3.StringMatcher_Prefix:
		return strings.HasPrefix(of(text), of(p.Prefix))
	case *matcherv3.StringMatcher_Suffix:
		return strings.HasSuffix(of(text), of(p.Suffix))
	case *matcherv3.StringMatcher_Contains:
		return strings.Contains(of(text), of(p.Contains))
	case *matcherv3.StringMatcher_SafeRegex:
		ok, err := regexp.MatchString("^(?:"+strings.ReplaceAll(p.SafeRegex.Regex, `\C`, `.`)+")$", text)
		require.NoError(t, err)
		return ok
	}
	require.Fail(t, "no pattern")
	return false
}

// holds looks at what the filter for tokens leaves behind.
func (in interpreter) holds(at *networkinputsv3.DynamicMetadataInput, m *envoymatcherv3.ValueMatcher) bool {
	if in.r.Token == nil {
		return false
	}
	claims := map[string]any{"iss": "https://" + in.r.Token.Provider}
	for k, v := range in.r.Token.Claims {
		claims[k] = v
	}
	var value any = map[string]any{in.r.Token.Provider: claims}
	for _, segment := range at.Path {
		object, ok := value.(map[string]any)
		if !ok {
			return false
		}
		value = object[segment.GetKey()]
	}
	is := func(v any, m *envoymatcherv3.ValueMatcher) bool {
		s, ok := v.(string)
		return ok && s == m.GetStringMatch().GetExact()
	}
	switch {
	case m.GetPresentMatch():
		return value != nil
	case m.GetListMatch() != nil:
		list, _ := value.([]any)
		return slices.ContainsFunc(list, func(v any) bool { return is(v, m.GetListMatch().GetOneOf()) })
	}
	return is(value, m)
}

// soak is n in the long form of the tests, else a tenth of it.
func soak(n int) int {
	if os.Getenv("BAILIWICK_SOAK") == "full" {
		return n
	}
	return n / 10
}

func portOf(p policy.Port, number uint16) tenancy.InboundPort {
	port := tenancy.InboundPort{Port: number, Protocol: tenancy.HTTP1, Policy: p}
	if !p.HTTP {
		port.Protocol = tenancy.ClientFirst
	}
	return port
}

// TestFourJudgesAgree draws policies and requests and asks the reference,
// Decide, and an interpreter of what is compiled. What is observed is the same
// with observing rules enforced, under the names of who asked for the record.
func TestFourJudgesAgree(t *testing.T) {
	cases := 0
	gen := rapid.Custom(func(t *rapid.T) [2]any { return [2]any{reference.AnyPort(t, true), reference.AnyRequest(t, true)} })
	for seed := 0; cases < soak(10_000); seed++ {
		drawn := gen.Example(seed)
		p, r := drawn[0].(policy.Port), drawn[1].(policy.Request)
		if p.TokenRequired && r.Token == nil {
			continue // refused before RBAC is asked
		}
		compiled := map[bool]*Resource{}
		for plain, build := range map[bool]func(tenancy.InboundPort, []tenancy.Ref) (*Resource, error){false: RBAC, true: PlainRBAC} {
			made, err := build(portOf(p, 8080), nil)
			require.NoError(t, err, "%+v", p)
			again, err := build(portOf(p, 8080), nil)
			require.NoError(t, err)
			require.Equal(t, made.Version(), again.Version())
			compiled[plain] = made
		}
		for _, c := range reference.Callers() {
			enforced, shadow := trees(t, compiled[c.Plaintext])
			want := reference.Judge(p, c, r)
			in := interpreter{t, c, r}
			require.Equal(t, want, in.judge(enforced), "%+v %+v\n%+v", c, r, p)
			decided := p.Decide(c.ID, r)
			if c.Plaintext {
				decided = p.DecidePlaintext(r)
			}
			require.Equal(t, want, decided)
			require.Equal(t, observes(p), shadow != nil)
			if shadow != nil {
				observed := in.judge(shadow)
				would := reference.Judge(p.Observed(), c, r)
				require.Equal(t, would.Allowed, observed.Allowed, "%+v %+v\n%+v", c, r, p)
				requireNames(t, p, c, r, would, observed.By)
			}
			cases++
		}
	}
	t.Logf("%d cases", cases)
}

// requireNames checks under which names a decision is recorded.
func requireNames(t *testing.T, p policy.Port, c reference.Caller, r policy.Request, would policy.Decision, got string) {
	t.Helper()
	var names []string
	audits := p
	audits.Rules = nil
	for _, rule := range p.Rules {
		if rule.Action == policy.Audit {
			rule.Action, rule.Tier, rule.Observe = policy.Allow, policy.TierTenant, false
			if !p.HTTP {
				rule.Match = policy.Match{}
			}
			audits.Rules = append(audits.Rules, rule)
		}
	}
	audits.AllowWithinTenant = false
	if d := reference.Judge(audits, c, r); d.Allowed && !strings.Contains(c.ID, ",") {
		names = append(names, d.By)
	}
	observing := func(r policy.Rule) bool { return r.Observe && r.Policy == would.By }
	base := p.AllowWithinTenant || slices.ContainsFunc(p.Rules, func(r policy.Rule) bool { return r.Tier == policy.TierBaseline })
	switch {
	case slices.ContainsFunc(p.Rules, observing):
		names = append(names, would.By)
	case would.By == policy.ByDefaultDeny && base && !p.AllowSelected && p.AllowObserved != "":
		names = append(names, p.AllowObserved)
	}
	if len(names) == 0 {
		names = []string{unchanged}
	}
	require.Equal(t, strings.Join(slices.Compact(names), ","), got, "%+v %+v\n%+v", c, r, p)
}

// issue gives a drawn port the issuers that its rules speak about, and says
// whether it asks for tokens, as the Model does.
func issue(p *policy.Port, issuers map[string]tokentest.Issuer) {
	p.TokenRequired, p.TokenEnforced = p.TokenRequired && p.HTTP, false
	enforced := false
	for _, r := range p.Rules {
		enforced = enforced || r.Match.Provider != "" && !r.Observe && r.Action != policy.Audit
	}
	p.TokenRequired, p.TokenEnforced = p.TokenRequired && enforced, enforced
	for _, name := range []string{"idp", "other"} {
		if slices.ContainsFunc(p.Rules, func(r policy.Rule) bool { return r.Match.Provider == name }) {
			p.Providers = append(p.Providers, policy.Provider{Name: name, Issuer: "https://" + name, Audiences: []string{"shop"}, JWKS: issuers[name].JWKS()})
		}
	}
}

// answer is what a proxy has to say to a request: a token of an issuer that no
// rule speaks about is none, and a bad one where rules are enforced.
func answer(p policy.Port, c reference.Caller, r policy.Request) int {
	shown := r.Token != nil
	if shown && !slices.ContainsFunc(p.Providers, func(known policy.Provider) bool { return known.Name == r.Token.Provider }) {
		r.Token = nil
	}
	decided := reference.Judge(p, c, r)
	switch {
	case p.TokenEnforced && shown && r.Token == nil, decided.By == policy.ByNoToken:
		return http.StatusUnauthorized
	case decided.Allowed:
		return http.StatusOK
	}
	return http.StatusForbidden
}

// TestEnvoyIsTheFourthJudge asks a real Envoy about drawn policies and requests.
func TestEnvoyIsTheFourthJudge(t *testing.T) {
	envoyBinary(t)
	ca := newFleet(t)
	pod, app, _ := testHosts()
	f := newFiles(t, ca.acme, "spiffe://acme.example/ns/acme-shop/sa/orders")
	w := workloadSpec(t)
	w.Tokens, w.Ports = true, nil
	issuers := map[string]tokentest.Issuer{"idp": newIssuer(t), "other": newIssuer(t)}
	type asked struct {
		port uint16
		c    reference.Caller
		r    policy.Request
	}
	var all []asked
	callers := slices.DeleteFunc(reference.Callers(), func(c reference.Caller) bool {
		return c.Plaintext || !strings.HasSuffix(c.ID, "/a") && !strings.HasSuffix(c.ID, "/b") || strings.Contains(c.ID, ",")
	})
	const each = 10
	gen := rapid.Custom(func(t *rapid.T) []any {
		p := reference.AnyPort(t, true)
		p.HTTP, p.Permissive = true, false
		out := []any{p}
		for range each {
			out = append(out, rapid.SampledFrom(callers).Draw(t, "caller"), reference.AnyRequest(t, true))
		}
		return out
	})
	for i := range soak(500) / each {
		drawn, port := gen.Example(i), uint16(8100+i)
		p := drawn[0].(policy.Port)
		issue(&p, issuers)
		w.Ports = append(w.Ports, portOf(p, port))
		serveHTTP(t, netip.AddrPortFrom(app, port))
		for n := range each {
			all = append(all, asked{port, drawn[1+2*n].(reference.Caller), drawn[2+2*n].(policy.Request)})
		}
	}
	in, errs := NewBuilder(BuilderConfig{}).Inbound(w, Variant{Explicit: true, App: app}, []netip.Addr{pod}, ca.bundles())
	require.Empty(t, errs)
	f.put(in...)
	e := f.start()
	require.Len(t, e.names()["dynamic_listeners"], len(w.Ports))
	clients := map[string]*http.Client{}
	count, byToken := map[int]int{}, 0
	for _, one := range all {
		if clients[one.c.ID] == nil {
			authority := ca.acme
			if strings.HasPrefix(one.c.ID, "spiffe://globex") {
				authority = ca.globex
			}
			clients[one.c.ID] = h2Client(t, ca.cert(authority, one.c.ID, identity.IssueOptions{}))
		}
		p, r := w.Ports[one.port-8100].Policy, one.r
		if r.Token != nil {
			r.Headers = maps.Clone(r.Headers)
			if r.Headers == nil {
				r.Headers = map[string]string{}
			}
			claims := maps.Clone(r.Token.Claims)
			claims["iss"] = "https://" + r.Token.Provider
			r.Headers["authorization"] = "Bearer " + issuers[r.Token.Provider].Token(claims)
		}
		got, _, err := status(clients[one.c.ID], netip.AddrPortFrom(pod, one.port), r)
		require.NoError(t, err)
		require.Equal(t, answer(p, one.c, one.r), got, "%+v %+v\n%+v", one.c, one.r, p)
		count[got]++
		if got == 200 && one.r.Token != nil && slices.ContainsFunc(p.Rules, func(r policy.Rule) bool { return r.Match.Provider == one.r.Token.Provider }) {
			byToken++
		}
	}
	require.Greater(t, count[200], soak(500)/20, "the cases must hold all answers")
	require.Greater(t, count[403], soak(500)/20)
	require.Positive(t, count[401])
	require.Positive(t, byToken)
	t.Logf("%v", count)
}
