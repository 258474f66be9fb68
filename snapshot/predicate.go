package snapshot

import (
	"slices"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	matcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	networkinputsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/input_matchers/metadata/v3"
	envoymatcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"bailiwick.dev/bailiwick/tenancy/policy"
)

// predicates are conditions on a request, in Envoy's words.
type predicate = matcherv3.Matcher_MatcherList_Predicate

// predicate translates a Match; nil is one that every request meets. The path
// and authority that Envoy compares are the raw ones, with query and port.
func (c *compiler) predicate(m policy.Match, a policy.Action) *predicate {
	var all []*predicate
	if len(m.Methods) > 0 {
		all = append(all, or(c.methods(m.Methods)))
	}
	if paths, every := c.paths(m.Paths, a); len(m.Paths) > 0 && !every {
		all = append(all, or(paths))
	}
	if len(m.Hosts) > 0 {
		all = append(all, or(c.hosts(m.Hosts)))
	}
	for _, h := range m.Headers {
		var alternatives []*predicate
		for _, p := range h.Patterns(a) {
			alternatives = append(alternatives, single(c.header(h.Name), headerValue(p)))
		}
		all = append(all, or(alternatives))
	}
	if m.Provider != "" {
		all = append(all, c.token(m.Provider, m.Claims)...)
	}
	// What is taken out of a Deny is taken at its word.
	if len(m.NotMethods) > 0 {
		all = append(all, not(or(c.methods(m.NotMethods))))
	}
	if paths, every := c.paths(m.NotPaths, policy.Allow); every {
		all = append(all, c.never())
	} else if len(paths) > 0 {
		all = append(all, not(or(paths)))
	}
	if len(m.NotHosts) > 0 {
		all = append(all, not(or(c.hosts(m.NotHosts))))
	}
	return and(all)
}

// never is a condition that no request meets.
func (c *compiler) never() *predicate {
	return not(single(c.header(":method"), headerValue(policy.Pattern{At: policy.Beginning})))
}

func (c *compiler) methods(methods []string) (alternatives []*predicate) {
	for _, method := range methods {
		alternatives = append(alternatives, single(c.header(":method"), exactly(method)))
	}
	return alternatives
}

func (c *compiler) hosts(hosts []string) (alternatives []*predicate) {
	for _, host := range hosts {
		bare, withPort := exactly(host), beginning(host+":")
		bare.IgnoreCase, withPort.IgnoreCase = true, true
		alternatives = append(alternatives, single(c.header(":authority"), bare), single(c.header(":authority"), withPort))
	}
	return alternatives
}

// paths are the alternatives of a path condition; every is set if one of them
// matches every path.
func (c *compiler) paths(paths []policy.Path, a policy.Action) (alternatives []*predicate, every bool) {
	add := func(m *matcherv3.StringMatcher) { alternatives = append(alternatives, single(c.header(":path"), m)) }
	if a == policy.Deny && slices.ContainsFunc(paths, func(p policy.Path) bool { return p.Type != policy.Exact }) {
		add(expression(policy.HiddenDots))
	}
	for _, p := range paths {
		switch {
		case p.Type == policy.Prefix && p.Value == "/":
			return nil, true
		case p.Type == policy.Template:
			add(expression(p.Regex(a)))
			continue
		}
		add(exactly(p.Value))
		add(beginning(p.Value + "?"))
		if p.Type == policy.Prefix {
			for _, text := range p.Beginnings(a) {
				add(beginning(text))
			}
		}
	}
	return alternatives, false
}

// token are the conditions on what the filter for tokens has verified and left
// behind. Having one of the provider is a condition of its own.
func (c *compiler) token(provider string, claims []policy.Claim) []*predicate {
	at := func(path ...string) *xdscorev3.TypedExtensionConfig {
		in := &networkinputsv3.DynamicMetadataInput{Filter: jwtFilter}
		for _, key := range path {
			in.Path = append(in.Path, &networkinputsv3.DynamicMetadataInput_PathSegment{
				Segment: &networkinputsv3.DynamicMetadataInput_PathSegment_Key{Key: key},
			})
		}
		return c.extension("envoy.matching.inputs.dynamic_metadata", in)
	}
	all := []*predicate{c.value(at(provider, "iss"), &envoymatcherv3.ValueMatcher{
		MatchPattern: &envoymatcherv3.ValueMatcher_PresentMatch{PresentMatch: true},
	})}
	for _, claim := range claims {
		var alternatives []*predicate
		for _, v := range claim.Values {
			text := &envoymatcherv3.ValueMatcher{MatchPattern: &envoymatcherv3.ValueMatcher_StringMatch{
				StringMatch: &envoymatcherv3.StringMatcher{MatchPattern: &envoymatcherv3.StringMatcher_Exact{Exact: v}},
			}}
			list := &envoymatcherv3.ValueMatcher{MatchPattern: &envoymatcherv3.ValueMatcher_ListMatch{ListMatch: &envoymatcherv3.ListMatcher{
				MatchPattern: &envoymatcherv3.ListMatcher_OneOf{OneOf: text},
			}}}
			in := append([]string{provider}, claim.Path...)
			alternatives = append(alternatives, c.value(at(in...), text), c.value(at(in...), list))
		}
		if len(alternatives) == 0 { // no value is one of none
			alternatives = []*predicate{c.never()}
		}
		all = append(all, or(alternatives))
	}
	return all
}

func (c *compiler) value(input *xdscorev3.TypedExtensionConfig, m *envoymatcherv3.ValueMatcher) *predicate {
	return &predicate{MatchType: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
		SinglePredicate: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
			Input: input,
			Matcher: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate_CustomMatch{
				CustomMatch: c.extension("envoy.matching.matchers.metadata_matcher", &metadatav3.Metadata{Value: m}),
			},
		},
	}}
}

func not(p *predicate) *predicate {
	return &predicate{MatchType: &matcherv3.Matcher_MatcherList_Predicate_NotMatcher{NotMatcher: p}}
}

func expression(regex string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{
		EngineType: &matcherv3.RegexMatcher_GoogleRe2{GoogleRe2: &matcherv3.RegexMatcher_GoogleRE2{}},
		Regex:      regex,
	}}}
}

func headerValue(p policy.Pattern) *matcherv3.StringMatcher {
	switch {
	case p.At == policy.Whole:
		return exactly(p.Text)
	case p.At == policy.End:
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: p.Text}}
	case p.At == policy.Anywhere:
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Contains{Contains: p.Text}}
	case p.Text != "":
		return beginning(p.Text)
	default: // any value, but there must be one
		return expression(".*")
	}
}

func exactly(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}}
}

func beginning(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: s}}
}

func single(input *xdscorev3.TypedExtensionConfig, m *matcherv3.StringMatcher) *predicate {
	return &predicate{MatchType: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
		SinglePredicate: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
			Input: input,
			Matcher: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate_ValueMatch{
				ValueMatch: m,
			},
		},
	}}
}

// or and and take one element as it is, because Envoy wants two for a list.
func or(list []*predicate) *predicate {
	if len(list) == 1 {
		return list[0]
	}
	return &predicate{MatchType: &matcherv3.Matcher_MatcherList_Predicate_OrMatcher{
		OrMatcher: &matcherv3.Matcher_MatcherList_Predicate_PredicateList{Predicate: list},
	}}
}

func and(list []*predicate) *predicate {
	switch len(list) {
	case 0:
		return nil
	case 1:
		return list[0]
	}
	return &predicate{MatchType: &matcherv3.Matcher_MatcherList_Predicate_AndMatcher{
		AndMatcher: &matcherv3.Matcher_MatcherList_Predicate_PredicateList{Predicate: list},
	}}
}
