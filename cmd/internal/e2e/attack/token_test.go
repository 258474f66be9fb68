package attack

import (
	"crypto"
	"crypto/hmac"
	"fmt"
	"maps"
	"net/http"
	"time"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/identity/tokentest"
)

// tokenConfusion calls orders of globex-shop, which asks for a token of globex's
// issuer; acme has an issuer of the same name with a key of its own.
func tokenConfusion(w *world) {
	good, evil := tokentest.New(w.t, nil), tokentest.New(w.t, nil)
	w.renew(nil, func(w *world) {
		provider := "  jwt: {providers: [{name: idp, issuer: https://idp.example, audiences: [orders], jwks: '%s'}]}\n"
		w.replace(tenantsFile, "  trustDomain: globex.example\n", "  trustDomain: globex.example\n"+fmt.Sprintf(provider, good.JWKS()))
		w.replace(tenantsFile, "  trustDomain: acme.example\n", "  trustDomain: acme.example\n"+fmt.Sprintf(provider, evil.JWKS()))
		w.replace("tenants/globex/policy-granted.yaml", "    methods: [GET]\n", "    methods: [GET]\n    jwt: {provider: idp, claims: [{path: [role], values: [admin]}]}\n")
	})
	to := w.sidecar(globexOrders, 8080)
	cert := w.certificate("acme.example", acmeWeb, identity.IssueOptions{})
	head := map[string]any{"alg": "ES256", "kid": "k"}
	claims := map[string]any{"iss": "https://idp.example", "aud": "orders", "role": "admin", "exp": time.Now().Add(time.Hour).Unix()}
	with := func(of map[string]any, key string, value any) map[string]any {
		out := maps.Clone(of)
		if out[key] = value; value == nil {
			delete(out, key)
		}
		return out
	}
	token := good.Signed(head, claims)
	ask := func(lines ...string) int {
		status, _ := w.raw(cert, to, 8080, get("/", lines...))
		return status
	}
	w.until("the good token is good", func() error {
		if got := ask("Authorization: Bearer " + token); got != http.StatusOK {
			return fmt.Errorf("%d", got)
		}
		return nil
	})
	// A key that is public is no secret to sign with.
	mac := hmac.New(crypto.SHA256.New, []byte(good.JWKS()))
	text := good.Part(with(head, "alg", "HS256")) + "." + good.Part(claims)
	_, _ = mac.Write([]byte(text))
	for name, bad := range map[string]string{
		"of the issuer of that name at acme": evil.Signed(head, claims),
		"with its key inside":                evil.Signed(with(head, "jwk", evil.JWK()), claims),
		"with the place of its key inside":   evil.Signed(with(head, "jku", "http://169.254.169.254/keys"), claims),
		"of a key that is not there":         good.Signed(with(head, "kid", "../k"), claims),
		"signed with the public key":         text + "." + tokentest.Encode(mac.Sum(nil)),
		"not signed":                         good.Part(with(head, "alg", "none")) + "." + good.Part(claims) + ".",
		"signed for other claims":            good.Part(head) + "." + good.Part(with(claims, "role", "admin2")) + token[len(token)-87:],
		"of another issuer":                  good.Signed(head, with(claims, "iss", "https://idp.example/")),
		"of none":                            good.Signed(head, with(claims, "iss", nil)),
		"for somebody else":                  good.Signed(head, with(claims, "aud", "payments")),
		"for nobody":                         good.Signed(head, with(claims, "aud", nil)),
		"from tomorrow":                      good.Signed(head, with(claims, "nbf", time.Now().Add(24*time.Hour).Unix())),
		"from yesterday":                     good.Signed(head, with(claims, "exp", time.Now().Add(-time.Hour).Unix())),
		"of somebody else":                   good.Signed(head, with(claims, "role", "user")),
		"with a claim that looks like it":    good.Signed(head, with(claims, "role", "admin\x00")),
		"of nothing":                         "",
		"of no token":                        "x.y.z",
	} {
		require.Contains(w.t, []int{0, 400, 401, 403}, ask("Authorization: Bearer "+bad), name)
	}
	for name, lines := range map[string][]string{
		"none":                {},
		"in another header":   {"X-Authorization: Bearer " + token},
		"in a cookie":         {"Cookie: token=" + token + "; Authorization=" + token},
		"said to be verified": {"x-jwt-payload: " + good.Part(claims), "x-envoy-jwt: " + token},
		"behind a bad one":    {"Authorization: Bearer " + evil.Signed(head, claims), "Authorization: Bearer " + token},
		"before a bad one":    {"Authorization: Bearer " + token, "Authorization: Bearer " + evil.Signed(head, claims)},
	} {
		require.Contains(w.t, []int{0, 400, 401, 403}, ask(lines...), name)
	}
	status, _ := w.raw(cert, to, 8080, get("/?access_token="+token))
	require.Equal(w.t, http.StatusUnauthorized, status, "in the query")
	// It makes up for nothing else: another method, and a caller without the grant.
	status, _ = w.raw(cert, to, 8080, "POST / HTTP/1.1\r\nHost: o\r\nAuthorization: Bearer "+token+"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	require.Equal(w.t, http.StatusForbidden, status)
	stranger := w.certificate("acme.example", acmeInside, identity.IssueOptions{})
	status, _ = w.raw(stranger, to, 8080, get("/", "Authorization: Bearer "+token))
	require.Equal(w.t, http.StatusForbidden, status)
}
