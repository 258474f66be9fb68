package snapshot

import (
	"fmt"
	"regexp"
	"strings"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// DefaultIdentityHeader carries the caller's SPIFFE ID to the application
// unless configured otherwise.
const DefaultIdentityHeader = "x-tenant-identity"

// spellings is an expression for every name that an application may take for a
// header: many make no difference between dashes and underscores.
func spellings(header string) string {
	parts := strings.FieldsFunc(header, func(r rune) bool { return r == '-' || r == '_' })
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return "(?i)" + strings.Join(parts, "[-_]")
}

// CheckIdentityHeader reports why a name cannot be that of the header: it has
// to be words of lower-case letters and digits with dashes between them, and
// none that HTTP or Envoy uses.
func CheckIdentityHeader(name string) error {
	if !regexp.MustCompile(`^x(-[a-z0-9]+)+$`).MatchString(name) || len(name) > 40 ||
		strings.HasPrefix(name, "x-envoy-") || strings.HasPrefix(name, "x-forwarded-") || name == "x-request-id" {
		return fmt.Errorf("%q cannot be the identity header: x- and words of lower-case letters and digits, at most 40, such as %s", name, DefaultIdentityHeader)
	}
	return nil
}

// proxyControls are the beginnings of headers that steer Envoy's router
// (retries, timeouts, names of statistics); a caller has no business with those
// of another workload.
func proxyControls() []string {
	return []string{
		"x-envoy-retry-", "x-envoy-max-retries", "x-envoy-retriable-", "x-envoy-upstream-", "x-envoy-hedge-",
		"x-envoy-force-trace", "x-envoy-decorator-operation", "x-envoy-internal", "x-envoy-ip-tags",
	}
}

// identityHeader removes what a caller claims to be before it says who it is: with
// a mere overwrite a claim would survive where there is no URI SAN.
func (b *Builder) identityHeader(pk *packer) *corev3.TypedExtensionConfig {
	remove := func(m *matcherv3.StringMatcher) *mutationv3.HeaderMutation {
		return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_RemoveOnMatch_{
			RemoveOnMatch: &mutationv3.HeaderMutation_RemoveOnMatch{KeyMatcher: m},
		}}
	}
	mutations := []*mutationv3.HeaderMutation{remove(&matcherv3.StringMatcher{
		MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: spellings(b.identity)}},
	})}
	for _, prefix := range proxyControls() {
		mutations = append(mutations, remove(&matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix}, IgnoreCase: true,
		}))
	}
	mutations = append(mutations, &mutationv3.HeaderMutation{
		Action: &mutationv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: b.identity, Value: "%DOWNSTREAM_PEER_URI_SAN%"},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}},
	})
	return pk.extension("envoy.http.early_header_mutation.header_mutation", &headermutationv3.HeaderMutation{Mutations: mutations})
}
