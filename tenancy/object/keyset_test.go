package object

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// authority is a certificate in PEM, as a YAML string has it.
const authority = `-----BEGIN CERTIFICATE-----\nMIIBMjCB5aADAgECAhRA6dW4eXWjtPsCmlmvYKtR6YB4FTAFBgMrZXAwDjEMMAoG\nA1UEAwwDaWRwMCAXDTI2MTEyNTAxMjcwMVoYDzIxMjYxMTAxMDEyNzAxWjAOMQww\nCgYDVQQDDANpZHAwKjAFBgMrZXADIQCYVBpUdIEkXDVICM60EZYyDQAGGd34p10D\nKZjJLqULd6NTMFEwHQYDVR0OBBYEFIS+WrGS4K17p6Cx0h8VypZsLXunMB8GA1Ud\nIwQYMBaAFIS+WrGS4K17p6Cx0h8VypZsLXunMA8GA1UdEwEB/wQFMAMBAf8wBQYD\nK2VwA0EAZCj+dHY6TUkbwaQszaVbPRb0S5+iX53Ev6LKDO/diMJXxAN7PlSdpWfH\nA+hNiT2MnYOIP8tJIhWEdgqb+oo3Cw==\n-----END CERTIFICATE-----\n`

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

// TestFetchedKeys: proxies are told to fetch from hosts with a name, over TLS.
func TestFetchedKeys(t *testing.T) {
	const sets = "exactly one of jwks and jwksUri is required"
	for provider, want := range map[string]string{
		`jwksUri: "https://idp.example"`: "", `jwksUri: "https://idp.example:443/a/b?c=%20"`: "", `jwksUri: "https://localhost/k", jwksRefresh: 10s`: "",
		``: sets, `jwks: x, jwksUri: "https://idp.example/k"`: sets,
		`jwks: x, jwksRefresh: 1m`:                                       "jwks: is no JSON Web Key Set", // and more
		`jwksUri: "http://idp.example/k"`:                                "has to begin with https://",
		`jwksUri: "HTTPS://idp.example/k"`:                               "has to begin with https://",
		`jwksUri: "https://u:p@idp.example/k"`:                           "without user and fragment",
		`jwksUri: "https://idp.example/k#f"`:                             "without user and fragment",
		`jwksUri: "https://idp.example/k#"`:                              "without user and fragment",
		`jwksUri: "https://169.254.169.254/k"`:                           "has to name its host",
		`jwksUri: "https://[::1]/k"`:                                     "has to name its host",
		`jwksUri: "https://[::ffff:a00:1]/k"`:                            "has to name its host",
		`jwksUri: "https://2130706433/k"`:                                "has to name its host",
		`jwksUri: "https://0x7f000001/k"`:                                "has to name its host",
		`jwksUri: "https://127.1/k"`:                                     "has to name its host",
		`jwksUri: "https://a.0x7f/k"`:                                    "has to name its host",
		`jwksUri: "https://IDP.example/k"`:                               "has to name its host",
		`jwksUri: "https://idp.example./k"`:                              "has to name its host",
		`jwksUri: "https://idp_x.example/k"`:                             "has to name its host",
		`jwksUri: "https:///k"`:                                          "has to name its host",
		`jwksUri: "https://idp.example:0/k"`:                             "has a port out of range",
		`jwksUri: "https://idp.example:65536/"`:                          "has a port out of range",
		`jwksUri: "https://idp.example:/k"`:                              "has a port out of range",
		`jwksUri: "https://idp.example?a"`:                               "has a query without a path",
		`jwksUri: "https://idp.example/k k"`:                             "is no URI",
		`jwksUri: "https://idp.example/ü"`:                               "is no URI",
		`jwksUri: "https://idp.example/k", jwksRefresh: 9s`:              "out of range: 10s to 24h0m0s",
		`jwksUri: "https://idp.example/k", jwksRefresh: 25h`:             "out of range: 10s to 24h0m0s",
		`jwksUri: "https://idp.example/k", jwksCA: x`:                    "is not PEM with certificates alone",
		`jwksUri: "https://idp.example/k", jwksCA: "` + authority + `x"`: "is not PEM with certificates alone",
		`jwksUri: "https://idp.example/k", jwksCA: "` + strings.ReplaceAll(authority, "CERTIFICATE", "PRIVATE KEY") + `"`: "block 0 is no certificate",
	} {
		doc := ours + "kind: Tenant\nmetadata: {name: x}\nspec: {trustDomain: x.example, jwt: {providers: [{name: idp, issuer: i, audiences: [a], " + provider + "}]}}\n"
		got := DecodeAll("f.yaml", []byte(doc), Options{})
		if want == "" {
			require.Empty(t, texts(got), provider)
			continue
		}
		require.NotEmpty(t, texts(got), provider)
		require.Contains(t, texts(got)[0], "spec.jwt.providers[0]", provider)
		require.Contains(t, texts(got)[0], want, provider)
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
