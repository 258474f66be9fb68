package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ClusterAccessPolicy is what the platform says of who may call whom. In tier
// Admin a matching Deny refuses before anything else, and else the first Allow
// or Pass by priority decides: Allow admits, Pass leaves it to the tenant. In
// tier Baseline the first match by priority decides where no Allow of the
// tenant selects the Pod. Neither makes visible what the caller may not see:
// only the own tenant and holders of a live grant are ever allowed.
//
// Its name stands in the RBAC, logs and answers of all whom it selects: give it
// one that tells no tenant of another.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=clusteraccesspolicies,shortName=capol,categories=bailiwick
// +kubebuilder:printcolumn:name="Tier",type=string,JSONPath=`.spec.tier`
// +kubebuilder:printcolumn:name="Priority",type=integer,JSONPath=`.spec.priority`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Accepted")].message`
type ClusterAccessPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec ClusterAccessPolicySpec `json:"spec"`
	// +optional
	// +kubebuilder:default={conditions: {{type: "Accepted", status: "Unknown", reason: "Pending", message: "waiting for the server", lastTransitionTime: "1970-01-01T00:00:00Z"}, {type: "Programmed", status: "Unknown", reason: "Pending", message: "waiting for the server", lastTransitionTime: "1970-01-01T00:00:00Z"}}}
	Status Status `json:"status,omitempty"`
}

// ClusterAccessPolicySpec says whose workloads are protected, and how.
type ClusterAccessPolicySpec struct {
	// Tier is before (Admin) or behind (Baseline) what tenants say.
	//
	// +required
	// +kubebuilder:validation:Enum=Admin;Baseline
	Tier string `json:"tier"`
	// Priority orders the policies of a tier, the lowest number first; those of
	// equal priority are in the order of their names.
	//
	// +required
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Priority *int32 `json:"priority"`
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
	// Subjects are the workloads that are called.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Subjects []PolicySubject `json:"subjects"`
	// Rules in their order.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Rules []ClusterAccessRule `json:"rules"`
}

// PolicySubject names workloads by what tenants cannot change: their tenant,
// their namespace, or labels of it that admission guards.
//
// +kubebuilder:validation:XValidation:rule="(has(self.allTenants) ? 1 : 0) + (has(self.tenants) ? 1 : 0) + (has(self.namespaces) ? 1 : 0) + (has(self.namespaceLabels) ? 1 : 0) == 1",message="exactly one of allTenants, tenants, namespaces and namespaceLabels is required"
// +kubebuilder:validation:XValidation:rule="!has(self.allTenants) || self.allTenants",message="allTenants can only be true"
type PolicySubject struct {
	// AllTenants there are, and those to come.
	//
	// +optional
	AllTenants *bool `json:"allTenants,omitempty"`
	// Tenants whose workloads they are.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	Tenants []Name `json:"tenants,omitempty"`
	// Namespaces of tenants.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	Namespaces []Name `json:"namespaces,omitempty"`
	// NamespaceLabels are labels of the Namespace, all of them, whose keys begin
	// with bailiwick.dev/: others are not guarded.
	//
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.startsWith('bailiwick.dev/'))",message="only labels whose keys begin with bailiwick.dev/ are guarded"
	NamespaceLabels map[string]LabelValue `json:"namespaceLabels,omitempty"`
}

// ClusterAccessRule is an AccessRule with an action of its own.
//
// +kubebuilder:validation:XValidation:rule="self.action == 'Deny' || !(has(self.notFrom) || has(self.notPorts) || has(self.notMethods) || has(self.notPaths) || has(self.notHosts))",message="only a Deny may have negations"
type ClusterAccessRule struct {
	// Action is what happens to a request that the rule matches. Pass leaves it
	// to what comes behind the tier; Audit writes it to the access log, whatever
	// becomes of it.
	//
	// +required
	// +kubebuilder:validation:Enum=Allow;Deny;Pass;Audit
	Action string `json:"action"`

	AccessRule `json:",inline"`
}

// ClusterAccessPolicyList is what the API server answers to a list.
//
// +kubebuilder:object:root=true
type ClusterAccessPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ClusterAccessPolicy `json:"items"`
}
