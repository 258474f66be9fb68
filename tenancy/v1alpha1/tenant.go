package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Tenant is one tenant of the mesh, named by the label bailiwick.dev/tenant of
// its namespaces. The platform writes it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=bwt,categories=bailiwick
// +kubebuilder:printcolumn:name="Trust Domain",type=string,JSONPath=`.spec.trustDomain`
// +kubebuilder:printcolumn:name="Suspended",type=boolean,JSONPath=`.spec.suspended`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Degraded",type=string,JSONPath=`.status.conditions[?(@.type=="Degraded")].status`
// +kubebuilder:printcolumn:name="Guarded",type=string,JSONPath=`.status.conditions[?(@.type=="Guarded")].status`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Accepted")].message`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')",message="metadata.name must be a DNS label, because a namespace label holds it"
type Tenant struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec TenantSpec `json:"spec"`
	// +optional
	// +kubebuilder:default={conditions: {{type: "Accepted", status: "Unknown", reason: "Pending", message: "waiting for the server", lastTransitionTime: "1970-01-01T00:00:00Z"}, {type: "Programmed", status: "Unknown", reason: "Pending", message: "waiting for the server", lastTransitionTime: "1970-01-01T00:00:00Z"}}}
	Status TenantStatus `json:"status,omitempty"`
}

// TenantStatus is what the server says of a Tenant, and remembers of it.
type TenantStatus struct {
	Status `json:",inline"`
	// Namespaces are those that the tenant has, and those that it had: their names
	// are nobody else's of the same trust domain, nor a new namespace's, until the
	// certificates of that time have expired. Who holds the Lease writes them, and
	// all replicas read them, so that no restart forgets who had a name.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=4096
	Namespaces []NamespaceHeld `json:"namespaces,omitempty"`
}

// NamespaceHeld is a namespace that a tenant has or had.
type NamespaceHeld struct {
	// Name of the namespace.
	//
	// +required
	Name Name `json:"name"`
	// UID of the Namespace: one that was made again is another.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	UID string `json:"uid,omitempty"`
	// Until is when the last certificate of that time has expired; left out while
	// the tenant has the namespace.
	//
	// +optional
	Until Timestamp `json:"until,omitempty"`
}

// TenantSpec says what a tenant is and how its proxies behave.
//
// +kubebuilder:validation:XValidation:rule="self.trustDomain == oldSelf.trustDomain",message="trustDomain cannot be changed"
type TenantSpec struct {
	// TrustDomain is the SPIFFE trust domain of the tenant's workloads. An SVID
	// of any other domain is not this tenant's, whatever its namespace. It never
	// changes: another domain is another tenant.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^[a-z0-9._-]+$`
	TrustDomain string `json:"trustDomain"`
	// Namespaces that may carry this tenant's label: names, or beginnings of
	// names that end in "-". Left out, the label alone decides.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	Namespaces []NamespacePattern `json:"namespaces,omitempty"`
	// AdminNamespace is the one of the tenant's namespaces whose AccessPolicies
	// may have scope Tenant.
	//
	// +optional
	AdminNamespace Name `json:"adminNamespace,omitempty"`
	// OutboundPolicy says what happens to requests that leave for no visible
	// service: RegistryOnly refuses them, AllowAny passes them on unchanged.
	//
	// +optional
	// +kubebuilder:default=RegistryOnly
	// +kubebuilder:validation:Enum=RegistryOnly;AllowAny
	OutboundPolicy string `json:"outboundPolicy,omitempty"`
	// Visibility says which of the tenant's services each of its namespaces
	// sees: all (Tenant) or its own (Namespace).
	//
	// +optional
	// +kubebuilder:default=Tenant
	// +kubebuilder:validation:Enum=Tenant;Namespace
	Visibility string `json:"visibility,omitempty"`
	// DefaultAction decides requests to workloads that no Allow selects.
	//
	// +optional
	// +kubebuilder:default=Deny
	// +kubebuilder:validation:Enum=Deny;AllowWithinTenant
	DefaultAction string `json:"defaultAction,omitempty"`
	// TLS between the tenant's proxies.
	//
	// +optional
	TLS *TLS `json:"tls,omitempty"`
	// JWT says whose tokens the tenant's policies may speak about.
	//
	// +optional
	JWT *JWT `json:"jwt,omitempty"`
	// Suspended takes everything away from the tenant's workloads, as if none of
	// its namespaces carried the label.
	//
	// +optional
	Suspended bool `json:"suspended,omitempty"`
	// Debounce overrides how changes are gathered before they are sent.
	//
	// +optional
	Debounce *Debounce `json:"debounce,omitempty"`
	// Connections bounds how long what was revoked may live on.
	//
	// +optional
	Connections *Connections `json:"connections,omitempty"`
	// Limits override the server's, one by one.
	//
	// +optional
	Limits *Limits `json:"limits,omitempty"`
}

// TLS says which versions of TLS are accepted between proxies.
type TLS struct {
	// MinimumVersion is the lowest accepted version.
	//
	// +optional
	// +kubebuilder:default="1.3"
	// +kubebuilder:validation:Enum="1.2";"1.3"
	MinimumVersion string `json:"minimumVersion,omitempty"`
	// Peers says what the tenant's PeerTLS objects may go down to: Strict lets
	// nobody in without a certificate, whatever they say.
	//
	// +optional
	// +kubebuilder:default=Strict
	// +kubebuilder:validation:Enum=Strict;Permissive
	Peers string `json:"peers,omitempty"`
	// PlainDestinations says whether services of the tenant may be offered, and
	// services of others and its own called, without mTLS where a ServiceGrant and
	// a ServiceRequest agree on it: Deny or Allow.
	//
	// +optional
	// +kubebuilder:default=Deny
	// +kubebuilder:validation:Enum=Deny;Allow
	PlainDestinations string `json:"plainDestinations,omitempty"`
}

// JWT are the issuers of tokens that policies of the tenant may speak about.
type JWT struct {
	// Providers of tokens.
	//
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Providers []JWTProvider `json:"providers"`
}

// JWTProvider issues tokens.
//
// +kubebuilder:validation:XValidation:rule="has(self.jwks) != has(self.jwksUri)",message="exactly one of jwks and jwksUri is required"
// +kubebuilder:validation:XValidation:rule="has(self.jwksUri) || !has(self.jwksCA) && !has(self.jwksRefresh)",message="jwksCA and jwksRefresh belong to jwksUri"
type JWTProvider struct {
	// Name that rules use.
	//
	// +required
	Name Name `json:"name"`
	// Issuer is what the claim iss has to be.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Issuer string `json:"issuer"`
	// Audiences of which the claim aud has to have one: a token that was made
	// for somebody else is none.
	//
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Audiences []ClaimValue `json:"audiences"`
	// JWKS are the issuer's public keys, a JSON Web Key Set.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	JWKS string `json:"jwks,omitempty"`
	// JWKSURI is where proxies fetch the keys instead: https, and a host name.
	// Until they have them no token is good. What the name resolves to has to be
	// a public address, or one that the server permits.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^https://[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(/[!-~]*)?$`
	JWKSURI string `json:"jwksUri,omitempty"`
	// JWKSCA are the authorities of the certificate at that address (PEM);
	// left out, those that the proxies' system trusts.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	JWKSCA string `json:"jwksCA,omitempty"`
	// JWKSRefresh is how often they are fetched, between 10s and 24h; 5m if left
	// out.
	//
	// +optional
	JWKSRefresh Duration `json:"jwksRefresh,omitempty"`
}

// Duration is a time span such as 100ms, 1.5s or 1h30m.
//
// +kubebuilder:validation:MinLength=2
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
type Duration string

// Debounce says how changes are gathered: until none came for Quiet, at most
// for Max.
//
// +kubebuilder:validation:XValidation:rule="!has(self.quiet) || !has(self.max) || duration(self.quiet) <= duration(self.max)",message="quiet must not be longer than max"
type Debounce struct {
	// Quiet is between 1ms and 1m.
	//
	// +optional
	Quiet Duration `json:"quiet,omitempty"`
	// Max is between 1ms and 1m.
	//
	// +optional
	Max Duration `json:"max,omitempty"`
}

// Connections bounds the age of TCP connections and of HTTP streams: those
// that are open are judged once, when they begin.
type Connections struct {
	// MaxConnectionAge of a TCP connection, between 1s and 720h.
	//
	// +optional
	MaxConnectionAge Duration `json:"maxConnectionAge,omitempty"`
	// MaxStreamAge of an HTTP request and its answer, between 1s and 720h.
	//
	// +optional
	MaxStreamAge Duration `json:"maxStreamAge,omitempty"`
}

// Limit is the largest number of something.
//
// +kubebuilder:validation:Minimum=1
// +kubebuilder:validation:Maximum=1000000000
type Limit int32

// Limits bound what one tenant may cost; the server has a default for each.
type Limits struct {
	// Services of the tenant.
	// +optional
	Services Limit `json:"services,omitempty"`
	// Policies that allow, of the tenant; no limit drops a Deny.
	// +optional
	Policies Limit `json:"policies,omitempty"`
	// PoliciesPerWorkload are the policies that allow and select one workload.
	// Younger ones still select it, and allow nothing there.
	// +optional
	PoliciesPerWorkload Limit `json:"policiesPerWorkload,omitempty"`
	// Grants are the tenant's ServiceGrants.
	// +optional
	Grants Limit `json:"grants,omitempty"`
	// Requests are the tenant's ServiceRequests.
	// +optional
	Requests Limit `json:"requests,omitempty"`
	// Endpoints of one service port.
	// +optional
	Endpoints Limit `json:"endpoints,omitempty"`
	// ViewResources that one namespace's proxies are given.
	// +optional
	ViewResources Limit `json:"viewResources,omitempty"`
	// ViewBytes of those resources.
	// +optional
	ViewBytes Limit `json:"viewBytes,omitempty"`
	// Streams of the tenant at one server.
	// +optional
	Streams Limit `json:"streams,omitempty"`
	// StreamsPerID of one SPIFFE ID at one server.
	// +optional
	StreamsPerID Limit `json:"streamsPerID,omitempty"`
	// RequestsPerSecond on one stream.
	// +optional
	RequestsPerSecond Limit `json:"requestsPerSecond,omitempty"`
	// SubscribedNames of one stream and type.
	// +optional
	SubscribedNames Limit `json:"subscribedNames,omitempty"`
	// RequestBytes of one request.
	// +optional
	RequestBytes Limit `json:"requestBytes,omitempty"`
}

// TenantList is what the API server answers to a list.
//
// +kubebuilder:object:root=true
type TenantList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Tenant `json:"items"`
}
