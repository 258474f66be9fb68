// Package tokentest signs JSON Web Tokens for tests (RFC 7515, ES256).
package tokentest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Issuer signs tokens with a key of its own, whose kid is "k".
type Issuer struct {
	t   testing.TB
	key *ecdsa.PrivateKey
	// always are the claims that a token has unless they are changed.
	always map[string]any
}

// New makes an Issuer, whose tokens have these claims and end in an hour.
func New(t testing.TB, always map[string]any) Issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return Issuer{t, key, always}
}

// Encode is base64url without padding.
func Encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// Part is a header or claims as they stand in a token.
func (i Issuer) Part(v any) string { return Encode([]byte(i.text(v))) }

func (i Issuer) text(v any) string {
	text, err := json.Marshal(v)
	require.NoError(i.t, err)
	return string(text)
}

// JWK is the public key (RFC 7517).
func (i Issuer) JWK() map[string]any {
	point, err := i.key.PublicKey.Bytes()
	require.NoError(i.t, err)
	return map[string]any{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "k", "x": Encode(point[1:33]), "y": Encode(point[33:])}
}

// JWKS is the set that has the public key alone.
func (i Issuer) JWKS() string { return i.text(map[string]any{"keys": []any{i.JWK()}}) }

// Token is one with the claims of all tokens and these, which go before them.
func (i Issuer) Token(claims map[string]any) string {
	all := map[string]any{"exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(all, i.always)
	maps.Copy(all, claims)
	return i.Signed(map[string]any{"alg": "ES256", "kid": "k"}, all)
}

// Signed is a token of exactly that header and those claims.
func (i Issuer) Signed(header, claims map[string]any) string {
	text := i.Part(header) + "." + i.Part(claims)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, i.key, sum[:])
	require.NoError(i.t, err)
	return text + "." + Encode(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}
