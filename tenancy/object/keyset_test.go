package object

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func TestKeySets(t *testing.T) {
	const good = `{"keys":[{"kty":"EC","crv":"P-256","x":"QJ4hhY70VjHl4GT7GQRbNsg6cQ00ozAguUjp-Pz5zqk","y":"PgB2VM17xKMtua7jOl7t9oeBOTCSpONiuaCoFDwsfyg"}]}`
	for set, want := range map[string]string{
		good: "", "": "required", "x": "no JSON Web Key Set", `{"keys":[]}`: "at least one key", `{"keys":[{}]}`: "kty is none",
		strings.Replace(good, `"kty"`, `"d":"AA","kty"`, 1): "is secret",
		`{"keys":[{"kty":"oct","k":"AA"}]}`:                 "is secret",
		strings.Replace(good, `"y":"`, `"y":"A`, 1):         "no point of P-256",
		strings.Replace(good, "P-256", "P-192", 1):          "crv is none of",
		`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`:    "at least 2048 bits",
		`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA"}]}`: "no Ed25519 key",
		strings.Repeat("x", maxJWKS+1):                      "longer than",
	} {
		p := &problems{}
		keySet(p, field.NewPath("jwks"), set)
		if want == "" {
			require.Empty(t, p.errors(), set)
			continue
		}
		require.Len(t, p.errors(), 1, set)
		require.Contains(t, p.errors()[0].Message, want, set)
	}
}

// TestClosed: what is left of policies that cannot be honoured.
func TestPoliciesThatCannotBeHonouredRefuse(t *testing.T) {
	for doc, want := range map[string]string{
		"spec: {selector: {}, action: Allow, rules: [{from: [{all: true}], notMethods: [GET]}]}":                                             "spec.rules[0].notMethods: only a rule that denies",
		"spec: {selector: {}, action: Deny, rules: [{from: [{all: true}], paths: [{template: /a/b}]}]}":                                      "spec.rules[0].paths[0].template: \"/a/b\": without {*}",
		"spec: {selector: {}, action: Deny, rules: [{from: [{all: true}], paths: [{template: \"/a/{**}/b\"}]}]}":                             "spec.rules[0].paths[0].template: ",
		"spec: {selector: {}, action: Deny, rules: [{from: [{all: true}], paths: [{template: \"/a/x{*}\"}]}]}":                               "spec.rules[0].paths[0].template: ",
		"spec: {selector: {}, action: Deny, rules: [{from: [{all: true}], paths: [{template: \"/{*}/" + strings.Repeat("a", 200) + "\"}]}]}": "spec.rules[0].paths[0].template: ",
		"spec: {selector: {}, action: Deny, expiresAt: tomorrow, rules: [{from: [{all: true}]}]}":                                            "spec.expiresAt: \"tomorrow\" is no time",
		"spec: {selector: {}, action: Deny, mode: Dry, rules: [{from: [{all: true}]}]}":                                                      "spec.mode: \"Dry\" is none of Enforce, Observe",
		"spec: {selector: {}, action: Deny, rules: [{from: [{spiffeIDPrefix: \"spiffe://td/ns/a\"}]}]}":                                      "spec.rules[0].from[0].spiffeIDPrefix: ",
		"spec: {selector: {}, action: Deny, rules: [{from: [{spiffeIDPrefix: \"spiffe://td/ns/a/\"}]}]}":                                     "spec.rules[0].from[0].spiffeIDPrefix: ",
		"spec: {selector: {}, action: Deny, rules: [{from: [{all: true}], jwt: {provider: p, claims: []}}]}":                                 "spec.rules[0].jwt.claims: is empty",
	} {
		got := DecodeAll("f.yaml", []byte(ours+"kind: AccessPolicy\n"+head+doc+"\n"), Options{})
		require.Len(t, got.Entries, 1)
		require.Len(t, texts(got), 1, doc)
		require.True(t, strings.HasPrefix(texts(got)[0], want), "%q", texts(got))
		require.Equal(t, closed(got.Entries[0].Object), got.Entries[0].Object)
	}
	cluster := ours + "kind: ClusterAccessPolicy\nmetadata: {name: x}\n"
	got := DecodeAll("f.yaml", []byte(cluster+"spec: {tier: Admin, priority: 1, subjects: [{namespaceLabels: {team: a}}], rules: [{action: Deny, from: [{all: true}]}]}\n"), Options{})
	require.Len(t, texts(got), 1)
	require.Contains(t, texts(got)[0], "only labels whose keys begin with bailiwick.dev/ are guarded")
}
