package policy

import (
	"slices"
	"time"

	"bailiwick.dev/bailiwick/identity"
)

// What Decision.By says where no policy decided.
const (
	// ByMultiSAN refuses a certificate with several URI SANs.
	ByMultiSAN = "multi-san"
	// ByNoToken refuses a request without a verified token where a rule speaks
	// about claims.
	ByNoToken = "no-token"
	// ByTenantFloor refuses whoever is neither of the own tenant nor of a
	// namespace with a live grant for the port.
	ByTenantFloor = "tenant-floor"
	// ByPlaintext refuses a caller without a certificate whom no rule names.
	ByPlaintext = "plaintext"
	// ByDefaultDeny refuses what no policy allowed.
	ByDefaultDeny = "default-deny"
	// ByDefaultAllow admits the own tenant where its Tenant says so and no
	// Allow policy selects the workload.
	ByDefaultAllow = "default-allow"
)

// NamespaceRef names all workloads of a namespace: those whose SPIFFE IDs
// begin with [NamespaceRef.Prefix].
type NamespaceRef struct {
	TrustDomain string
	Namespace   string
}

// Prefix is what the SPIFFE IDs of the namespace begin with; it ends in "/sa/".
func (r NamespaceRef) Prefix() string {
	return identity.NamespacePrefix(r.TrustDomain, r.Namespace)
}

// Floor is whom policies can speak about at all. Everybody else is refused.
type Floor struct {
	// Tenant are the namespaces of the port's own tenant.
	Tenant []NamespaceRef
	// Granted are the namespaces of other tenants with a live grant for a
	// service port that leads to this port.
	Granted []NamespaceRef
}

// Principals are callers; the zero value is nobody.
type Principals struct {
	// All is everybody whom the floor lets in.
	All bool
	// Plaintext are callers without a certificate; nothing else names them.
	Plaintext bool
	// Granted is the granted part of the floor.
	Granted bool
	// IDs are whole SPIFFE IDs.
	IDs []string
	// Namespaces are all workloads of these namespaces.
	Namespaces []NamespaceRef
}

// Nobody reports whether p matches no caller at all.
func (p Principals) Nobody() bool {
	return !p.All && !p.Granted && !p.Plaintext && len(p.IDs) == 0 && len(p.Namespaces) == 0
}

// Action is what a rule does to what it matches. The zero value denies.
type Action uint8

// The actions. Pass, of the platform's tiers alone, ends the judgement of its
// tier. Audit decides nothing.
const (
	Deny Action = iota
	Allow
	Pass
	Audit
)

// Tier is whose rule it is. The zero value is the tenant's.
type Tier uint8

// The tiers. Admin comes before the tenant's rules, Baseline after them.
const (
	TierTenant Tier = iota
	TierAdmin
	TierBaseline
)

// Rule is one rule of one policy, already narrowed to the port it stands in.
type Rule struct {
	// Policy is "<namespace>/<name>", of the platform "*/<name>".
	Policy string
	Tier   Tier
	Action Action
	// Observe rules change no outcome; see [Port.Observed].
	Observe bool
	From    Principals
	// NotFrom are taken from From. Only rules that deny have it.
	NotFrom Principals
	Match   Match
}

// Accounts are the service accounts that Pods of a namespace are known to use.
type Accounts struct {
	Namespace NamespaceRef
	// Names are service account names, sorted.
	Names []string
}

// Port says who may call one Pod port. The Model makes it; it is not changed
// afterwards.
type Port struct {
	Number uint16
	// HTTP ports are judged by request, others by connection.
	HTTP  bool
	Floor Floor
	// Rules of all policies that select the workload and speak about the port.
	// Those of a tier are in the order of their priority; of the tenant's,
	// Denies are judged before Allows.
	Rules []Rule
	// AllowSelected is set if any enforced Allow policy of the tenant selects
	// the workload, whatever port it speaks about: then what no rule allows is
	// denied, and Baseline not asked.
	AllowSelected bool
	// AllowObserved is the first policy by name that would set AllowSelected if
	// it were enforced.
	AllowObserved string
	// Permissive ports accept callers without a certificate.
	Permissive bool
	// Providers are those of the tokens that rules speak about, by name.
	Providers []Provider
	// TokenRequired refuses requests without a verified token, because a rule
	// speaks about claims and does not call them optional.
	TokenRequired bool
	// TokenEnforced refuses requests with a bad token, because an enforced rule
	// speaks about claims.
	TokenEnforced bool
	// AllowWithinTenant admits the own tenant where AllowSelected is not set.
	AllowWithinTenant bool
	// KnownAccounts lets SANs enumerate the namespaces of Partial. Only
	// namespaces of the own tenant are listed: the accounts of others are
	// theirs to know.
	KnownAccounts []Accounts
}

// Request is what an HTTP port judges beside the caller.
type Request struct {
	Method string
	// Path is normalised (dot segments resolved, slashes merged, as the
	// listener does it); a query is ignored.
	Path string
	// Host is the authority; a port is ignored.
	Host string
	// Headers maps lower-case names to values; several values of one name are
	// joined by ",", as the proxy's matcher sees them.
	Headers map[string]string
	// Token is the verified one, nil if there is none.
	Token *Token
}

// Token is a verified token.
type Token struct {
	// Provider is the name of the one that issued it.
	Provider string
	// Claims as in JSON: text, numbers, booleans, lists and objects.
	Claims map[string]any
}

// Decision is what became of a call and by what. The zero value is a refusal.
type Decision struct {
	Allowed bool
	// By is "<namespace>/<policy>" or one of the By constants.
	By string
}

// Provider issues tokens whose claims conditions may speak about.
type Provider struct {
	Name, Issuer string
	// Audiences of which a token must have one.
	Audiences []string
	// JWKS are the issuer's public keys as a JSON Web Key Set; "" where proxies
	// fetch them.
	JWKS  string
	Fetch KeyFetch
}

// KeyFetch says from where proxies fetch public keys. The zero value is nowhere.
type KeyFetch struct {
	// URI is an https address with a host name, Host that name.
	URI, Host string
	// CA are the authorities of that host's certificate (PEM); "" for those that
	// the proxies' system trusts.
	CA string
	// Refresh is how often to fetch.
	Refresh time.Duration
}

// Equal reports whether both are the same provider with the same keys.
func (p Provider) Equal(o Provider) bool {
	return p.Name == o.Name && p.Issuer == o.Issuer && p.JWKS == o.JWKS && p.Fetch == o.Fetch && slices.Equal(p.Audiences, o.Audiences)
}
