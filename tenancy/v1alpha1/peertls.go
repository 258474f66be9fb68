package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PeerTLS says whether Pods of its namespace accept callers without a
// certificate. Without one of these objects, nobody does. What several say of
// one port of a Pod is as strict as the strictest of them.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,path=peertls,shortName=ptls,categories=bailiwick
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Until",type=string,JSONPath=`.spec.until`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Accepted")].message`
type PeerTLS struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec PeerTLSSpec `json:"spec"`
	// +optional
	// +kubebuilder:default={conditions: {{type: "Accepted", status: "Unknown", reason: "Pending", message: "waiting for the server", lastTransitionTime: "1970-01-01T00:00:00Z"}, {type: "Programmed", status: "Unknown", reason: "Pending", message: "waiting for the server", lastTransitionTime: "1970-01-01T00:00:00Z"}}}
	Status Status `json:"status,omitempty"`
}

// PeerTLSSpec says what is accepted where.
//
// +kubebuilder:validation:XValidation:rule="self.mode == 'Permissive' || !(has(self.until) || has(self.enforceAtEnd))",message="only Permissive ends"
// +kubebuilder:validation:XValidation:rule="!has(self.enforceAtEnd) || has(self.until)",message="enforceAtEnd needs until"
type PeerTLSSpec struct {
	// Selector picks Pods of the namespace; {} picks all of them.
	//
	// +required
	Selector *PodSelector `json:"selector"`
	// Ports are Pod ports; left out, all of them.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Ports []Port `json:"ports,omitempty"`
	// Mode Strict accepts callers with a certificate only. Permissive accepts
	// others too, to whom only rules apply that name plaintext.
	//
	// +required
	// +kubebuilder:validation:Enum=Strict;Permissive
	Mode string `json:"mode"`
	// Until is when Permissive should have ended: from then on the object is
	// reported as Overdue.
	//
	// +optional
	Until Timestamp `json:"until,omitempty"`
	// EnforceAtEnd makes it Strict at that time.
	//
	// +optional
	EnforceAtEnd bool `json:"enforceAtEnd,omitempty"`
}

// PeerTLSList is what the API server answers to a list.
//
// +kubebuilder:object:root=true
type PeerTLSList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []PeerTLS `json:"items"`
}
