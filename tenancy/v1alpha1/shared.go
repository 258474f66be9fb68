package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Name is a DNS label: what tenants, namespaces and services are called.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
type Name string

// NamespacePattern is a namespace's name or, ending in "-", the beginning of
// the names of several namespaces.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:Pattern=`^[a-z0-9][-a-z0-9]*$`
type NamespacePattern string

// ServiceAccountName is a DNS subdomain: what service accounts are called.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
type ServiceAccountName string

// Port is a TCP port number.
//
// +kubebuilder:validation:Minimum=1
// +kubebuilder:validation:Maximum=65535
type Port int32

// Timestamp is a point in time as RFC 3339 has it, such as
// 2027-01-31T12:00:00Z.
//
// +kubebuilder:validation:MaxLength=40
// +kubebuilder:validation:Format=date-time
// +kubebuilder:validation:Pattern=`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})$`
type Timestamp string

// The condition types of every kind of this package.
const (
	// ConditionAccepted is true if the object is valid as written.
	ConditionAccepted = "Accepted"
	// ConditionResolvedRefs is true if what the object refers to is available
	// to it. Kinds that refer to nothing do not have it.
	ConditionResolvedRefs = "ResolvedRefs"
	// ConditionDegraded is true on a Tenant whose limits leave something out. Other
	// kinds do not have it.
	ConditionDegraded = "Degraded"
	// ConditionProgrammed is true if no connected proxy of the object's own
	// tenant lacks what follows from the object.
	ConditionProgrammed = "Programmed"
)

// Status is what the server says of an object.
type Status struct {
	// Conditions are Accepted (valid as written), ResolvedRefs (what it refers to
	// is available), Programmed (no connected proxy of the own tenant lacks what
	// follows from it) and, of a Tenant, Degraded (its limits leave something
	// out), each with the generation that it speaks of.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
