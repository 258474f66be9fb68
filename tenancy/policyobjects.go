package tenancy

// Action is what a policy does to what it matches.
type Action uint8

// Allow lets matching requests in, Deny refuses them before any Allow. Pass,
// of ClusterAccessPolicies alone, ends the judgement of its tier. Audit decides
// nothing: it writes requests to the access log.
const (
	Allow Action = iota
	Deny
	Pass
	Audit
)

// AccessPolicy is a bailiwick.dev AccessPolicy: it decides who may call the
// Pods of its own namespace that it selects.
type AccessPolicy struct {
	Meta
	// TenantWide selects in all namespaces of the tenant. It is honoured in the
	// tenant's admin namespace alone; elsewhere the policy is as if Invalid.
	TenantWide bool
	// MatchLabels selects Pods; empty selects all of them.
	MatchLabels map[string]string
	Action      Action
	// Observe changes no outcome: what would change is logged.
	Observe bool
	Rules   []AccessRule
	// Invalid is set when the object cannot be honoured as written. Then an
	// Allow allows nothing and a Deny denies whatever it selects; a selector
	// that could not be read is left empty and so selects the namespace.
	Invalid bool
}

// AccessRule matches a request if one of Sources, one of Ports and each
// non-empty request field match, and none of the negations.
type AccessRule struct {
	Sources []AccessSource
	// Ports are Pod ports; empty is every port.
	Ports []uint16
	// Methods, Paths, Hosts, Headers and Token are judged on HTTP ports only. On
	// a TCP port a rule with one of them allows nothing, and denies its sources.
	Methods []string
	Paths   []PathMatch
	Hosts   []string
	Headers []HeaderMatch
	Token   *TokenMatch
	// The negations; only rules that deny have them.
	NotSources []AccessSource
	NotPorts   []uint16
	NotMethods []string
	NotPaths   []PathMatch
	NotHosts   []string
}

// AccessSource names callers; exactly one form is used: All (whoever the
// tenant floor lets in), Granted (whoever holds a live grant for the port),
// Plaintext, SPIFFEID, SPIFFEIDPrefix, or Tenant/Namespace/ServiceAccount, each
// narrowing the one before.
type AccessSource struct {
	All     bool
	Granted bool
	// Plaintext are callers without a certificate.
	Plaintext bool
	// SPIFFEID is a whole workload ID, compared exactly.
	SPIFFEID string
	// SPIFFEIDPrefix is spiffe://<domain>/ns/ or spiffe://<domain>/ns/<name>/sa/.
	SPIFFEIDPrefix string
	// Tenant empty is that of the workload that is called.
	Tenant string
	// Namespace empty is every namespace of Tenant (of another tenant: those
	// with a live request for the port).
	Namespace      string
	ServiceAccount string
}

// PathMatch matches a normalised path without its query. A prefix matches
// whole segments: /a matches /a and /a/b, never /ab. In a template {*} is one
// segment, {**} at the end all that is left.
type PathMatch struct {
	Prefix   bool
	Template bool
	Value    string
}

// HeaderMatch matches a request header: Present, or Exact or Prefix on its
// value; exactly one is used.
type HeaderMatch struct {
	Name    string // lower case
	Present bool
	Exact   string
	Prefix  string
}

// TokenMatch matches a verified token of one of the tenant's providers.
type TokenMatch struct {
	Provider string
	// Optional lets requests without a token pass on to other rules.
	Optional bool
	Claims   []ClaimMatch
}

// ClaimMatch matches a claim, at Path through nested objects, that is one of
// Values, or a list that holds one of them.
type ClaimMatch struct {
	Path   []string
	Values []string
}

// ClusterAccessPolicy is a bailiwick.dev ClusterAccessPolicy: what the
// platform says of who may call the Pods of its subjects.
type ClusterAccessPolicy struct {
	Meta
	// Baseline is the tier behind the tenants' policies, else Admin before them.
	Baseline bool
	Priority int
	Observe  bool
	Subjects []Subject
	Rules    []ClusterRule
	// Invalid is set when the object cannot be honoured as written. Then it
	// denies all calls to its subjects, which may have become more, unless all
	// of its rules can be read as allowing, passing or auditing.
	Invalid bool
}

// Subject names workloads that are called; exactly one form is used.
type Subject struct {
	AllTenants bool
	Tenants    []string
	Namespaces []string
	// Labels of the namespace, all of them; guarded ones.
	Labels map[string]string
}

// ClusterRule is one rule with its action.
type ClusterRule struct {
	Action Action
	AccessRule
}

// PeerTLS is a bailiwick.dev PeerTLS: whether Pods of its namespace accept
// callers without a certificate. An invalid one is Strict.
type PeerTLS struct {
	Meta
	MatchLabels map[string]string
	// Ports are Pod ports; empty is every port.
	Ports      []uint16
	Permissive bool
	// Until is when Permissive should have ended, in seconds since the Unix
	// epoch, 0 for no end; EnforceAtEnd ends it then.
	Until        int64
	EnforceAtEnd bool
	Invalid      bool
}
