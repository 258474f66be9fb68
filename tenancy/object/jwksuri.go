package object

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"net/url"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"bailiwick.dev/bailiwick/tenancy/policy"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

const (
	maxJWKSURI         = 512
	maxJWKSCA          = 65536
	defaultJWKSRefresh = 5 * time.Minute
	leastJWKSRefresh   = 10 * time.Second
	mostJWKSRefresh    = 24 * time.Hour
)

// publicKeys reads where a provider's keys are: in the object, or where proxies
// fetch them.
func publicKeys(p *problems, at *field.Path, in *v1alpha1.JWTProvider) policy.KeyFetch {
	if count(in.JWKS != "", in.JWKSURI != "") != 1 {
		p.add(at, "exactly one of jwks and jwksUri is required")
		return policy.KeyFetch{}
	}
	if in.JWKS != "" {
		keySet(p, at.Child("jwks"), in.JWKS)
		for _, only := range []struct{ name, value string }{{"jwksCA", in.JWKSCA}, {"jwksRefresh", string(in.JWKSRefresh)}} {
			if only.value != "" {
				p.add(at.Child(only.name), "belongs to jwksUri, and the keys are given here")
			}
		}
		return policy.KeyFetch{}
	}
	out := policy.KeyFetch{URI: in.JWKSURI, CA: in.JWKSCA, Refresh: defaultJWKSRefresh}
	out.Host = httpsHost(p, at.Child("jwksUri"), in.JWKSURI)
	if in.JWKSCA != "" {
		authorities(p, at.Child("jwksCA"), in.JWKSCA)
	}
	if in.JWKSRefresh != "" {
		out.Refresh = duration(p, at.Child("jwksRefresh"), in.JWKSRefresh, leastJWKSRefresh, mostJWKSRefresh)
	}
	return out
}

// httpsHost checks an address that proxies are to fetch from, and returns its
// host name. A literal address is refused in every spelling that a resolver
// takes for one: what proxies may reach is decided by what names resolve to.
func httpsHost(p *problems, at *field.Path, s string) string {
	why := ""
	u, err := url.Parse(s)
	switch {
	case len(s) > maxJWKSURI:
		why = "longer than 512 bytes"
	case err != nil || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		why = "is no URI"
	case !strings.HasPrefix(s, "https://"):
		why = "has to begin with https://: keys that come unprotected are anybody's"
	case u.User != nil || u.Fragment != "" || strings.Contains(s, "#"):
		why = "has to be without user and fragment"
	case len(validation.IsDNS1123Subdomain(u.Hostname())) > 0 || !namesHost(u.Hostname()):
		why = "has to name its host in lower case: no IP address, no number"
	case strings.HasSuffix(u.Host, ":"), u.Port() != "" && !validPort(u.Port()):
		why = "has a port out of range: 1 to 65535"
	case u.Path == "" && u.RawQuery != "":
		why = "has a query without a path"
	}
	if why != "" {
		p.add(at, "%s: %s", quote(s), why)
		return ""
	}
	return u.Hostname()
}

// namesHost tells names from numbers: the last label of a name begins with a
// letter, which that of no spelling of an address does.
func namesHost(host string) bool {
	last := host[strings.LastIndexByte(host, '.')+1:]
	return last != "" && last[0] >= 'a' && last[0] <= 'z'
}

func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// authorities checks that a text holds certificates, and nothing else: proxies
// refuse what they cannot read.
func authorities(p *problems, at *field.Path, s string) {
	if len(s) > maxJWKSCA {
		p.add(at, "longer than %d bytes", maxJWKSCA)
		return
	}
	rest := []byte(s)
	for n := 0; ; n++ {
		block, after := pem.Decode(rest)
		if block == nil {
			if n == 0 || len(bytes.TrimSpace(rest)) > 0 {
				p.add(at, "is not PEM with certificates alone")
			}
			return
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil || block.Type != "CERTIFICATE" {
			p.add(at, "block %d is no certificate", n)
			return
		}
		rest = after
	}
}
