package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// AccessPolicy decides who may call the Pods of its namespace that it selects.
// A matching Deny refuses; else, if any Allow selects the Pod, one of them has
// to match; else the tenant's default action decides. Whatever a policy says,
// only the own tenant and holders of a live grant ever get so far. What the
// platform says by ClusterAccessPolicies of tier Admin comes before, what it
// says by those of tier Baseline before the default.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,path=accesspolicies,shortName=apol,categories=bailiwick
// +kubebuilder:printcolumn:name="Action",type=string,JSONPath=`.spec.action`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Accepted")].message`
type AccessPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec AccessPolicySpec `json:"spec"`
	// +optional
	// +kubebuilder:default={conditions: {{type: "Accepted", status: "Unknown", reason: "Pending", message: "waiting for the server", lastTransitionTime: "1970-01-01T00:00:00Z"}, {type: "Programmed", status: "Unknown", reason: "Pending", message: "waiting for the server", lastTransitionTime: "1970-01-01T00:00:00Z"}}}
	Status Status `json:"status,omitempty"`
}

// AccessPolicySpec says which Pods are protected, and from or for whom.
//
// +kubebuilder:validation:XValidation:rule="self.action == 'Deny' || !self.rules.exists(r, has(r.notFrom) || has(r.notPorts) || has(r.notMethods) || has(r.notPaths) || has(r.notHosts))",message="only a Deny may have negations"
type AccessPolicySpec struct {
	// Scope is where Selector looks: in the policy's namespace, or in all
	// namespaces of the tenant, which only a policy in the tenant's admin
	// namespace may say.
	//
	// +optional
	// +kubebuilder:default=Namespace
	// +kubebuilder:validation:Enum=Namespace;Tenant
	Scope string `json:"scope,omitempty"`
	// Selector picks Pods within Scope; {} picks all of them.
	//
	// +required
	Selector *PodSelector `json:"selector"`
	// Action is what happens to a request that one of Rules matches. Audit
	// writes it to the access log, whatever becomes of it.
	//
	// +required
	// +kubebuilder:validation:Enum=Allow;Deny;Audit
	Action string `json:"action"`
	// Mode Observe changes no outcome: what it would change is written to the
	// access log.
	//
	// +optional
	// +kubebuilder:default=Enforce
	// +kubebuilder:validation:Enum=Enforce;Observe
	Mode string `json:"mode,omitempty"`
	// ExpiresAt is when the policy ends, as if it were removed.
	//
	// +optional
	ExpiresAt Timestamp `json:"expiresAt,omitempty"`
	// Rules, of which one has to match.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Rules []AccessRule `json:"rules"`
}

// PodSelector picks Pods by their labels.
type PodSelector struct {
	// MatchLabels are labels that a Pod has to carry, all of them.
	//
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	MatchLabels map[string]LabelValue `json:"matchLabels,omitempty"`
}

// LabelValue is the value of a label.
//
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:Pattern=`^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$`
type LabelValue string

// AccessRule matches a request if one of From, one of Ports and one of each
// other list that is given match; of Headers, all have to match.
type AccessRule struct {
	// From are the callers.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	From []AccessSource `json:"from"`
	// NotFrom are callers that the rule is not about, though From names them.
	// Only rules that deny may have it.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	NotFrom []AccessSource `json:"notFrom,omitempty"`
	// Ports are Pod ports, not service ports; left out, the rule is for all.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Ports []Port `json:"ports,omitempty"`
	// Methods of HTTP, in capitals.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Methods []Method `json:"methods,omitempty"`
	// Paths are judged after normalisation and without their query.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Paths []PathMatch `json:"paths,omitempty"`
	// Hosts are host names without a port, compared exactly.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Hosts []Host `json:"hosts,omitempty"`
	// Headers that a request has to carry, all of them.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Headers []HeaderMatch `json:"headers,omitempty"`
	// JWT that the request has to carry, with all these claims.
	//
	// +optional
	JWT *JWTMatch `json:"jwt,omitempty"`
	// NotPorts, NotMethods, NotPaths and NotHosts are what the rule is not
	// about. Only rules that deny may have them.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	NotPorts []Port `json:"notPorts,omitempty"`
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	NotMethods []Method `json:"notMethods,omitempty"`
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	NotPaths []PathMatch `json:"notPaths,omitempty"`
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	NotHosts []Host `json:"notHosts,omitempty"`
}

// JWTMatch is a token of one of the tenant's providers, and what it says.
type JWTMatch struct {
	// Provider is the name of one of the Tenant's jwt.providers.
	//
	// +required
	Provider Name `json:"provider"`
	// Optional lets requests without a token pass on to other rules; left out,
	// every request to the ports of the rule needs a valid one.
	//
	// +optional
	Optional bool `json:"optional,omitempty"`
	// Claims that the token has to have, all of them.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Claims []ClaimMatch `json:"claims"`
}

// ClaimMatch is a claim and what it has to be. A claim that is a list needs one
// element that is so.
type ClaimMatch struct {
	// Path leads to the claim: one name, or several through nested objects.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Path []ClaimName `json:"path"`
	// Values of which it has to be one, all of it.
	//
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Values []ClaimValue `json:"values"`
}

// ClaimName is the name of a claim.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=256
type ClaimName string

// ClaimValue is the text of a claim.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=1024
type ClaimValue string

// Method is an HTTP method.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:Pattern=`^[A-Z][A-Z-]*$`
type Method string

// Host is a DNS name.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
type Host string

// AccessSource names callers in one of these ways: all, granted, plaintext, a
// SPIFFE ID or the beginning of some, or a tenant, namespace and service account, each narrowing the one before.
//
// +kubebuilder:validation:XValidation:rule="(has(self.all) ? 1 : 0) + (has(self.granted) ? 1 : 0) + (has(self.plaintext) ? 1 : 0) + (has(self.spiffeID) ? 1 : 0) + (has(self.spiffeIDPrefix) ? 1 : 0) + (has(self.tenant) || has(self.namespace) || has(self.serviceAccount) ? 1 : 0) == 1",message="exactly one of all, granted, plaintext, spiffeID, spiffeIDPrefix and tenant/namespace/serviceAccount is required"
// +kubebuilder:validation:XValidation:rule="!has(self.all) || self.all",message="all can only be true"
// +kubebuilder:validation:XValidation:rule="!has(self.granted) || self.granted",message="granted can only be true"
// +kubebuilder:validation:XValidation:rule="!has(self.plaintext) || self.plaintext",message="plaintext can only be true"
// +kubebuilder:validation:XValidation:rule="!has(self.serviceAccount) || has(self.namespace)",message="serviceAccount needs namespace"
type AccessSource struct {
	// All callers that the tenant floor lets in: the own tenant and holders of a
	// live grant for the port.
	//
	// +optional
	All *bool `json:"all,omitempty"`
	// Granted are the holders of a live grant for the port.
	//
	// +optional
	Granted *bool `json:"granted,omitempty"`
	// Plaintext are callers without a certificate, who have no identity. They
	// get to ports that a PeerTLS makes Permissive, and no other source, all
	// included, names them.
	//
	// +optional
	Plaintext *bool `json:"plaintext,omitempty"`
	// SPIFFEID of one workload, spiffe://<trust domain>/ns/<namespace>/sa/<account>.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^spiffe://[a-z0-9._-]+/ns/[a-z0-9]([-a-z0-9]*[a-z0-9])?/sa/[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	SPIFFEID string `json:"spiffeID,omitempty"`
	// SPIFFEIDPrefix is the beginning of IDs, up to a slash: all that the floor
	// lets in of a trust domain, spiffe://<trust domain>/ns/, or of one
	// namespace of it, spiffe://<trust domain>/ns/<namespace>/sa/.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^spiffe://[a-z0-9._-]+/ns/([a-z0-9]([-a-z0-9]*[a-z0-9])?/sa/)?$`
	SPIFFEIDPrefix string `json:"spiffeIDPrefix,omitempty"`
	// Tenant of the callers; left out, that of the workload that is called.
	//
	// +optional
	Tenant Name `json:"tenant,omitempty"`
	// Namespace of the callers; left out, all of the tenant, or of another
	// tenant those that hold a live grant for the port.
	//
	// +optional
	Namespace Name `json:"namespace,omitempty"`
	// ServiceAccount of the callers; left out, all of the namespace.
	//
	// +optional
	ServiceAccount ServiceAccountName `json:"serviceAccount,omitempty"`
}

// PathMatch is a path, the beginning of one by whole segments (/a is the
// beginning of /a and of /a/b, not of /ab), or a template: in /orders/{*}/items
// {*} stands for one segment, and {**} at the end for all that is left, which
// is not nothing.
//
// +kubebuilder:validation:XValidation:rule="(has(self.exact) ? 1 : 0) + (has(self.prefix) ? 1 : 0) + (has(self.template) ? 1 : 0) == 1",message="exactly one of exact, prefix and template is required"
type PathMatch struct {
	// Exact path.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^/[^?#\\\s]*$`
	Exact string `json:"exact,omitempty"`
	// Prefix of whole segments, without a slash at its end (but for / itself).
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^/([^?#\\\s]*[^?#\\\s/])?$`
	Prefix string `json:"prefix,omitempty"`
	// Template of segments, with {*} or {**} in the place of at least one.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^(/[^?#\\\s/]+)+$`
	Template string `json:"template,omitempty"`
}

// HeaderMatch is a request header and what its value has to be.
//
// +kubebuilder:validation:XValidation:rule="(has(self.exact) ? 1 : 0) + (has(self.prefix) ? 1 : 0) + (has(self.present) ? 1 : 0) == 1",message="exactly one of exact, prefix and present is required"
// +kubebuilder:validation:XValidation:rule="!has(self.present) || self.present",message="present can only be true"
type HeaderMatch struct {
	// Name of the header, in any case. The host is not a header here: see hosts.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_.-]+$`
	Name string `json:"name"`
	// Exact value.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Exact string `json:"exact,omitempty"`
	// Prefix of the value.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Prefix string `json:"prefix,omitempty"`
	// Present, whatever its value.
	//
	// +optional
	Present *bool `json:"present,omitempty"`
}

// AccessPolicyList is what the API server answers to a list.
//
// +kubebuilder:object:root=true
type AccessPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []AccessPolicy `json:"items"`
}
