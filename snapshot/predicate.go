package snapshot

import (
	"fmt"
	"strings"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	matcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"

	"bailiwick.dev/bailiwick/tenancy/policy"
)

// predicates are conditions on a request, in Envoy's words.
type predicate = matcherv3.Matcher_MatcherList_Predicate

// predicate translates a Match; nil is one that every request meets. The path
// and authority that Envoy compares are the raw ones, with query and port.
func (c *compiler) predicate(m policy.Match, a policy.Action) (*predicate, error) {
	var all []*predicate
	if len(m.Methods) > 0 {
		var alternatives []*predicate
		for _, method := range m.Methods {
			alternatives = append(alternatives, single(c.header(":method"), exactly(method)))
		}
		all = append(all, or(alternatives))
	}
	paths, err := c.paths(m.Paths, a)
	if err != nil {
		return nil, err
	}
	if len(paths) > 0 {
		all = append(all, or(paths))
	}
	if len(m.Hosts) > 0 {
		var alternatives []*predicate
		for _, host := range m.Hosts {
			bare, withPort := exactly(host), beginning(host+":")
			bare.IgnoreCase, withPort.IgnoreCase = true, true
			alternatives = append(alternatives, single(c.header(":authority"), bare), single(c.header(":authority"), withPort))
		}
		all = append(all, or(alternatives))
	}
	for _, h := range m.Headers {
		var alternatives []*predicate
		for _, p := range h.Patterns(a) {
			alternatives = append(alternatives, single(c.header(h.Name), headerValue(p)))
		}
		all = append(all, or(alternatives))
	}
	return and(all), nil
}

// paths are the alternatives of a path condition, none if any of them matches
// every path.
func (c *compiler) paths(paths []policy.Path, a policy.Action) ([]*predicate, error) {
	var alternatives []*predicate
	for _, p := range paths {
		if p.Type == policy.Prefix && p.Value == "/" {
			return nil, nil
		}
		if strings.ContainsAny(p.Value, "?#") {
			return nil, fmt.Errorf("path %q has a query, which paths are compared without", p.Value)
		}
		add := func(m *matcherv3.StringMatcher) { alternatives = append(alternatives, single(c.header(":path"), m)) }
		add(exactly(p.Value))
		add(beginning(p.Value + "?"))
		if p.Type == policy.Prefix {
			add(beginning(p.Value + "/"))
			if a == policy.Deny {
				// Applications commonly drop path parameters.
				add(beginning(p.Value + ";"))
			}
		}
	}
	return alternatives, nil
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
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{
			EngineType: &matcherv3.RegexMatcher_GoogleRe2{GoogleRe2: &matcherv3.RegexMatcher_GoogleRE2{}},
			Regex:      ".*",
		}}}
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
