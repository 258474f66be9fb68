package snapshot

import (
	"fmt"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	matcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	sslv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/ssl/v3"
	envoymatcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

// rbacKind is which of the two filters a resource is for. Their names differ,
// because Envoy has one name space for both.
type rbacKind uint8

const (
	rbacHTTP rbacKind = iota
	rbacTCP
)

const (
	rbacHTTPPrefix = "rbac-http-"
	rbacTCPPrefix  = "rbac-tcp-"
)

// rbacName is the name of a port's RBAC extension, which is also that of its
// filter.
func rbacName(p tenancy.InboundPort) string {
	if p.Protocol.IsHTTP() {
		return rbacHTTPPrefix + portText(p.Port)
	}
	return rbacTCPPrefix + portText(p.Port)
}

// plainRBACName is that of the port's chain for callers without a certificate.
func plainRBACName(p tenancy.InboundPort) string { return rbacName(p) + "-plain" }

func rbacKindOf(p tenancy.InboundPort) rbacKind {
	if p.Protocol.IsHTTP() {
		return rbacHTTP
	}
	return rbacTCP
}

// rbacSource is where a filter finds its RBAC: on the stream, and until it is
// there nobody is let in. Without warming, because a listener that waits for
// what does not come never opens.
func rbacSource(pk *packer, kind rbacKind) *corev3.ExtensionConfigSource {
	none := denyAll(pk, kind, policy.ByDefaultDeny)
	return &corev3.ExtensionConfigSource{
		ConfigSource:                     ads(),
		DefaultConfig:                    pk.any(none),
		ApplyDefaultConfigWithoutWarming: true,
		TypeUrls:                         []string{typeURL(none)},
	}
}

// RBAC compiles the policy of a port into its extension resource. The matcher
// tree decides as policy.Port.Decide does:
//
//	several URI SANs          -> deny "multi-san"
//	exact ID                  -> the class's steps, then its end
//	namespace's prefix        -> the class's steps, then its end
//	anybody else              -> the platform's Denies, then deny "tenant-floor"
//
// Each nested matcher ends in its own decision, because Envoy falls back to
// the outer matcher where there is none. Identities are only ever matched by
// maps over the whole URI SAN, whose cost does not grow with their number.
func RBAC(p tenancy.InboundPort, origins []tenancy.Ref) (*Resource, error) {
	return compile(rbacName(p), p, origins, func(c *compiler, port policy.Port) (*matcherv3.Matcher, error) {
		t, err := c.classes(port.Classes(), port.Outside(), func(class policy.Class) (*matcherv3.Matcher_OnMatch, error) { return c.class(class) })
		return t, err
	}, (*compiler).observed)
}

// PlainRBAC compiles what callers without a certificate may do. The tree asks
// for no certificate: where there is none, such an input decides nothing.
func PlainRBAC(p tenancy.InboundPort, origins []tenancy.Ref) (*Resource, error) {
	return compile(plainRBACName(p), p, origins, func(c *compiler, port policy.Port) (*matcherv3.Matcher, error) {
		on, err := c.class(port.Plain())
		return root(on), err
	}, (*compiler).observedPlain)
}

// tree makes a matcher of a port.
type tree func(*compiler, policy.Port) (*matcherv3.Matcher, error)

func compile(name string, p tenancy.InboundPort, origins []tenancy.Ref, enforced, shadow tree) (*Resource, error) {
	port := p.Policy
	port.HTTP = p.Protocol.IsHTTP()
	c := &compiler{kind: rbacKindOf(p), groups: map[int]*matcherv3.Matcher_OnMatch{}}
	m, err := enforced(c, port)
	if err != nil {
		return nil, fmt.Errorf("compile %q: %w", name, err)
	}
	var watched *matcherv3.Matcher
	if observes(port) {
		if watched, err = shadow(c, port); err != nil {
			return nil, fmt.Errorf("compile what %q observes: %w", name, err)
		}
	}
	config := c.pk.any(rbacConfig(c.kind, m, watched))
	return c.pk.resource(Extension, name, &corev3.TypedExtensionConfig{Name: name, TypedConfig: config}, nil, origins)
}

// compiler translates classes; equal ones once.
type compiler struct {
	pk     packer
	kind   rbacKind
	groups map[int]*matcherv3.Matcher_OnMatch
	// label names the action of a decision; nil takes its By.
	label func(by string) string
}

// classes is the tree over a partition; outside is everybody else.
func (c *compiler) classes(classes []policy.Class, outside policy.Class, translate func(policy.Class) (*matcherv3.Matcher_OnMatch, error)) (*matcherv3.Matcher, error) {
	exact, prefixes := map[string]*matcherv3.Matcher_OnMatch{}, map[string]*matcherv3.Matcher_OnMatch{}
	for _, class := range classes {
		on, err := translate(class)
		if err != nil {
			return nil, err
		}
		if class.Prefix {
			prefixes[class.Key] = on
		} else {
			exact[class.Key] = on
		}
	}
	rest, err := c.steps(outside, 0)
	if err != nil {
		return nil, err
	}
	return c.tree(exact, prefixes, rest), nil
}

func (c *compiler) tree(exact, prefixes map[string]*matcherv3.Matcher_OnMatch, rest *matcherv3.Matcher_OnMatch) *matcherv3.Matcher {
	if len(exact) == 0 && len(prefixes) == 0 && rest.GetMatcher() == nil {
		return root(rest)
	}
	m := root(rest)
	if len(prefixes) > 0 {
		m = &matcherv3.Matcher{OnNoMatch: rest, MatcherType: c.uriTree(&matcherv3.Matcher_MatcherTree{
			TreeType: &matcherv3.Matcher_MatcherTree_PrefixMatchMap{PrefixMatchMap: &matcherv3.Matcher_MatcherTree_MatchMap{Map: prefixes}},
		})}
	}
	if len(exact) > 0 {
		outer := &matcherv3.Matcher{OnNoMatch: rest, MatcherType: c.uriTree(&matcherv3.Matcher_MatcherTree{
			TreeType: &matcherv3.Matcher_MatcherTree_ExactMatchMap{ExactMatchMap: &matcherv3.Matcher_MatcherTree_MatchMap{Map: exact}},
		})}
		if len(prefixes) > 0 {
			outer.OnNoMatch = nested(m)
		}
		m = outer
	}
	guard := single(c.uriSAN(), &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Contains{Contains: ","}})
	return &matcherv3.Matcher{
		MatcherType: matcherList(&matcherv3.Matcher_MatcherList_FieldMatcher{Predicate: guard, OnMatch: c.action(policy.ByMultiSAN, false)}),
		OnNoMatch:   nested(m),
	}
}

// root is a matcher that goes straight to on.
func root(on *matcherv3.Matcher_OnMatch) *matcherv3.Matcher {
	if m := on.GetMatcher(); m != nil {
		return m
	}
	return &matcherv3.Matcher{OnNoMatch: on}
}

// class is what happens to a class: its steps in order, then its end.
func (c *compiler) class(class policy.Class) (*matcherv3.Matcher_OnMatch, error) {
	if on, ok := c.groups[class.Group]; ok && class.Key != "" {
		return on, nil
	}
	on, err := c.steps(class, 0)
	if err == nil && class.Key != "" {
		c.groups[class.Group] = on
	}
	return on, err
}

// steps is what happens from one step of a class on. A Pass goes on where its
// tier ends.
func (c *compiler) steps(class policy.Class, from int) (*matcherv3.Matcher_OnMatch, error) {
	if c.kind == rbacTCP && len(class.Steps) > 0 {
		return nil, fmt.Errorf("%s has conditions on requests, which a TCP port has none of", class.Key)
	}
	var steps []*matcherv3.Matcher_MatcherList_FieldMatcher
	on := c.action(class.End.By, class.End.Allowed)
	for _, s := range class.Steps[from:] {
		then := c.action(s.By, s.Action == policy.Allow)
		if s.Action == policy.Pass {
			var err error
			if then, err = c.steps(class, s.Next); err != nil {
				return nil, err
			}
		}
		predicate := c.predicate(s.Match, s.Action)
		if predicate == nil { // every request meets it, whatever comes after
			on = then
			break
		}
		steps = append(steps, &matcherv3.Matcher_MatcherList_FieldMatcher{Predicate: predicate, OnMatch: then})
	}
	if len(steps) > 0 {
		on = nested(&matcherv3.Matcher{MatcherType: matcherList(steps...), OnNoMatch: on})
	}
	return on, nil
}

func (c *compiler) action(by string, allowed bool) *matcherv3.Matcher_OnMatch {
	if c.label != nil {
		by = c.label(by)
	}
	action := rbacv3.RBAC_DENY
	if allowed {
		action = rbacv3.RBAC_ALLOW
	}
	return &matcherv3.Matcher_OnMatch{OnMatch: &matcherv3.Matcher_OnMatch_Action{
		Action: c.extension(by, &rbacv3.Action{Name: by, Action: action}),
	}}
}

func (c *compiler) extension(name string, m proto.Message) *xdscorev3.TypedExtensionConfig {
	return &xdscorev3.TypedExtensionConfig{Name: name, TypedConfig: c.pk.any(m)}
}

func (c *compiler) uriSAN() *xdscorev3.TypedExtensionConfig {
	return c.extension("envoy.matching.inputs.uri_san", &sslv3.UriSanInput{})
}

func (c *compiler) uriTree(t *matcherv3.Matcher_MatcherTree) *matcherv3.Matcher_MatcherTree_ {
	t.Input = c.uriSAN()
	return &matcherv3.Matcher_MatcherTree_{MatcherTree: t}
}

func (c *compiler) header(name string) *xdscorev3.TypedExtensionConfig {
	return c.extension("envoy.matching.inputs.request_headers", &envoymatcherv3.HttpRequestHeaderMatchInput{HeaderName: name})
}

// denyAll is an RBAC configuration that lets nobody in.
func denyAll(pk *packer, kind rbacKind, by string) proto.Message {
	c := &compiler{kind: kind}
	m := rbacConfig(kind, &matcherv3.Matcher{OnNoMatch: c.action(by, false)}, nil)
	if pk.err == nil {
		pk.err = c.pk.err
	}
	return m
}

func rbacConfig(kind rbacKind, m, shadow *matcherv3.Matcher) proto.Message {
	prefix := ""
	if shadow != nil {
		prefix = observedPrefix
	}
	if kind == rbacTCP {
		return &netrbacv3.RBAC{StatPrefix: "tcp.", Matcher: m, ShadowMatcher: shadow, ShadowRulesStatPrefix: prefix}
	}
	return &httprbacv3.RBAC{Matcher: m, ShadowMatcher: shadow, ShadowRulesStatPrefix: prefix, TrackPerRuleStats: shadow != nil}
}

func nested(m *matcherv3.Matcher) *matcherv3.Matcher_OnMatch {
	return &matcherv3.Matcher_OnMatch{OnMatch: &matcherv3.Matcher_OnMatch_Matcher{Matcher: m}}
}

func matcherList(l ...*matcherv3.Matcher_MatcherList_FieldMatcher) *matcherv3.Matcher_MatcherList_ {
	return &matcherv3.Matcher_MatcherList_{MatcherList: &matcherv3.Matcher_MatcherList{Matchers: l}}
}
