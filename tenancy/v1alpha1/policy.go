package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// AccessPolicy decides who may call the Pods of its namespace that it selects.
// A matching Deny refuses; else, if any Allow selects the Pod, one of them has
// to match; else the tenant's default action decides. Whatever a policy says,
// only the own tenant and holders of a live grant ever get so far.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,path=accesspolicies,shortName=apol,categories=bailiwick
// +kubebuilder:printcolumn:name="Action",type=string,JSONPath=`.spec.action`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
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
type AccessPolicySpec struct {
	// Selector picks Pods of the policy's namespace; {} picks all of them.
	//
	// +required
	Selector *PodSelector `json:"selector"`
	// Action is what happens to a request that one of Rules matches.
	//
	// +required
	// +kubebuilder:validation:Enum=Allow;Deny
	Action string `json:"action"`
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
}

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

// AccessSource names callers in one of four ways: all, granted, a SPIFFE ID,
// or a tenant, namespace and service account, each narrowing the one before.
//
// +kubebuilder:validation:XValidation:rule="(has(self.all) ? 1 : 0) + (has(self.granted) ? 1 : 0) + (has(self.spiffeID) ? 1 : 0) + (has(self.tenant) || has(self.namespace) || has(self.serviceAccount) ? 1 : 0) == 1",message="exactly one of all, granted, spiffeID and tenant/namespace/serviceAccount is required"
// +kubebuilder:validation:XValidation:rule="!has(self.all) || self.all",message="all can only be true"
// +kubebuilder:validation:XValidation:rule="!has(self.granted) || self.granted",message="granted can only be true"
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
	// SPIFFEID of one workload, spiffe://<trust domain>/ns/<namespace>/sa/<account>.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^spiffe://[a-z0-9._-]+/ns/[a-z0-9]([-a-z0-9]*[a-z0-9])?/sa/[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	SPIFFEID string `json:"spiffeID,omitempty"`
	// Tenant of the callers; left out, the policy's own.
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

// PathMatch is a path, or the beginning of one by whole segments: /a is the
// beginning of /a and of /a/b, not of /ab.
//
// +kubebuilder:validation:XValidation:rule="has(self.exact) != has(self.prefix)",message="exactly one of exact and prefix is required"
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
