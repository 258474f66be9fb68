package object

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// jsonKey is a JSON Web Key, as far as we look at it.
type jsonKey struct {
	Type  string `json:"kty"`
	Curve string `json:"crv"`
	X     string `json:"x"`
	Y     string `json:"y"`
	N     string `json:"n"`
	E     string `json:"e"`
	// What only secret keys have.
	D string `json:"d"`
	K string `json:"k"`
}

// keySet checks that a JSON Web Key Set holds public keys, and no secret ones:
// what signs is not for proxies to have. Proxies refuse a set without a good key.
func keySet(p *problems, at *field.Path, s string) {
	var set struct {
		Keys []jsonKey `json:"keys"`
	}
	switch {
	case s == "":
		p.add(at, "required")
		return
	case len(s) > maxJWKS:
		p.add(at, "longer than %d bytes", maxJWKS)
		return
	case json.Unmarshal([]byte(s), &set) != nil || len(set.Keys) == 0:
		p.add(at, "is no JSON Web Key Set with at least one key")
		return
	}
	for i, key := range set.Keys {
		if why := key.fault(); why != "" {
			p.add(at, "key %d: %s", i, why)
		}
	}
}

// fault says what is wrong with a key, "" if nothing is.
func (k jsonKey) fault() string {
	if k.D != "" || k.K != "" {
		return "is secret; only public keys belong here"
	}
	bytes := func(s string) []byte {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			return nil
		}
		return b
	}
	curves := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}
	const leastModulus = 256 // bytes: 2048 bits
	switch k.Type {
	case "EC":
		curve, ok := curves[k.Curve]
		if !ok {
			return "crv is none of P-256, P-384, P-521"
		}
		point := append(append([]byte{4}, bytes(k.X)...), bytes(k.Y)...)
		if _, err := ecdsa.ParseUncompressedPublicKey(curve, point); err != nil {
			return "x and y are no point of " + k.Curve
		}
	case "RSA":
		if len(bytes(k.N)) < leastModulus || len(bytes(k.E)) == 0 {
			return "n and e are no RSA key of at least 2048 bits"
		}
	case "OKP":
		if k.Curve != "Ed25519" || len(bytes(k.X)) != 32 {
			return "x is no Ed25519 key"
		}
	default:
		return "kty is none of RSA, EC, OKP"
	}
	return ""
}
