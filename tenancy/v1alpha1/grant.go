package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ServiceGrant offers services of its own namespace to another tenant. It does
// nothing until a ServiceRequest of that tenant takes one of them.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,shortName=sgrant,categories=bailiwick
// +kubebuilder:printcolumn:name="First Tenant",type=string,JSONPath=`.spec.from[0].tenant`
// +kubebuilder:printcolumn:name="First Service",type=string,JSONPath=`.spec.to[0].service`
// +kubebuilder:printcolumn:name="From",type=string,priority=1,JSONPath=`.spec.from`
// +kubebuilder:printcolumn:name="To",type=string,priority=1,JSONPath=`.spec.to`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Resolved",type=string,JSONPath=`.status.conditions[?(@.type=="ResolvedRefs")].status`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Accepted")].message`
// +kubebuilder:printcolumn:name="Unresolved",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="ResolvedRefs")].message`
type ServiceGrant struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec ServiceGrantSpec `json:"spec"`
	// +optional
	// +kubebuilder:default={conditions: {{type: "Accepted", status: "Unknown", reason: "Pending", message: "waiting for the server", lastTransitionTime: "1970-01-01T00:00:00Z"}, {type: "Programmed", status: "Unknown", reason: "Pending", message: "waiting for the server", lastTransitionTime: "1970-01-01T00:00:00Z"}}}
	Status Status `json:"status,omitempty"`
}

// ServiceGrantSpec says who may request what.
type ServiceGrantSpec struct {
	// From are the consumers that may request.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	From []GrantConsumer `json:"from"`
	// To are the services, of the grant's namespace, that they may request.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	To []GrantService `json:"to"`
	// ExpiresAt is when the grant ends, as if it were removed.
	//
	// +optional
	ExpiresAt Timestamp `json:"expiresAt,omitempty"`
}

// GrantConsumer names namespaces of a tenant, or all that it has.
//
// +kubebuilder:validation:XValidation:rule="(has(self.all) && self.all) != has(self.namespaces)",message="exactly one of namespaces and all: true is required"
type GrantConsumer struct {
	// Tenant that may request.
	//
	// +required
	Tenant Name `json:"tenant"`
	// All namespaces of the tenant.
	//
	// +optional
	All bool `json:"all,omitempty"`
	// Namespaces of the tenant.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Namespaces []Name `json:"namespaces,omitempty"`
}

// GrantService names a service of the grant's namespace and its service ports.
//
// +kubebuilder:validation:XValidation:rule="(has(self.all) && self.all) != has(self.ports)",message="exactly one of ports and all: true is required"
type GrantService struct {
	// Service is its name.
	//
	// +required
	Service Name `json:"service"`
	// All ports of the service.
	//
	// +optional
	All bool `json:"all,omitempty"`
	// Ports are service ports, not Pod ports.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Ports []Port `json:"ports,omitempty"`
	// Plain offers the service as one whose Pods have no sidecar: to who requests
	// it as plain too, also within the tenant, and if both Tenants permit it.
	//
	// +optional
	Plain bool `json:"plain,omitempty"`
}

// ServiceGrantList is what the API server answers to a list.
//
// +kubebuilder:object:root=true
type ServiceGrantList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ServiceGrant `json:"items"`
}

// ServiceRequest takes a service that another tenant granted, for the
// request's own namespace.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,shortName=sreq,categories=bailiwick
// +kubebuilder:printcolumn:name="Namespace",type=string,JSONPath=`.spec.to.namespace`
// +kubebuilder:printcolumn:name="Service",type=string,JSONPath=`.spec.to.service`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Resolved",type=string,JSONPath=`.status.conditions[?(@.type=="ResolvedRefs")].status`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Accepted")].message`
// +kubebuilder:printcolumn:name="Unresolved",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="ResolvedRefs")].message`
type ServiceRequest struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec ServiceRequestSpec `json:"spec"`
	// +optional
	// +kubebuilder:default={conditions: {{type: "Accepted", status: "Unknown", reason: "Pending", message: "waiting for the server", lastTransitionTime: "1970-01-01T00:00:00Z"}, {type: "Programmed", status: "Unknown", reason: "Pending", message: "waiting for the server", lastTransitionTime: "1970-01-01T00:00:00Z"}}}
	Status Status `json:"status,omitempty"`
}

// ServiceRequestSpec says what is requested.
type ServiceRequestSpec struct {
	// To is the service.
	//
	// +required
	To RequestedService `json:"to"`
	// ExpiresAt is when the request ends, as if it were removed.
	//
	// +optional
	ExpiresAt Timestamp `json:"expiresAt,omitempty"`
}

// RequestedService names a service that is requested.
type RequestedService struct {
	NamespacedService `json:",inline"`
	// Plain accepts that it is called without mTLS, because its Pods have no
	// sidecar: if it is granted as plain too, and both Tenants permit it. If not,
	// it is called with mTLS as ever.
	//
	// +optional
	Plain bool `json:"plain,omitempty"`
}

// NamespacedService names a service anywhere, and its service ports.
//
// +kubebuilder:validation:XValidation:rule="(has(self.all) && self.all) != has(self.ports)",message="exactly one of ports and all: true is required"
type NamespacedService struct {
	// Namespace of the service.
	//
	// +required
	Namespace Name `json:"namespace"`
	// Service is its name.
	//
	// +required
	Service Name `json:"service"`
	// All ports of the service.
	//
	// +optional
	All bool `json:"all,omitempty"`
	// Ports are service ports, not Pod ports.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Ports []Port `json:"ports,omitempty"`
}

// ServiceRequestList is what the API server answers to a list.
//
// +kubebuilder:object:root=true
type ServiceRequestList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ServiceRequest `json:"items"`
}

// ClusterServiceGrant shows services to tenants that need not request them.
// The platform writes it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=csgrant,categories=bailiwick
// +kubebuilder:printcolumn:name="Tenants",type=string,JSONPath=`.spec.tenants`
// +kubebuilder:printcolumn:name="All Tenants",type=boolean,JSONPath=`.spec.allTenants`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Resolved",type=string,JSONPath=`.status.conditions[?(@.type=="ResolvedRefs")].status`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Accepted")].message`
// +kubebuilder:printcolumn:name="Unresolved",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="ResolvedRefs")].message`
type ClusterServiceGrant struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec ClusterServiceGrantSpec `json:"spec"`
	// +optional
	// +kubebuilder:default={conditions: {{type: "Accepted", status: "Unknown", reason: "Pending", message: "waiting for the server", lastTransitionTime: "1970-01-01T00:00:00Z"}, {type: "Programmed", status: "Unknown", reason: "Pending", message: "waiting for the server", lastTransitionTime: "1970-01-01T00:00:00Z"}}}
	Status Status `json:"status,omitempty"`
}

// ClusterServiceGrantSpec says who sees what.
//
// +kubebuilder:validation:XValidation:rule="(has(self.allTenants) && self.allTenants) != has(self.tenants)",message="exactly one of tenants and allTenants: true is required"
type ClusterServiceGrantSpec struct {
	// AllTenants there are, and those to come.
	//
	// +optional
	AllTenants bool `json:"allTenants,omitempty"`
	// Tenants that see the services.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	Tenants []Name `json:"tenants,omitempty"`
	// To are the services.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	To []ClusterGrantService `json:"to"`
	// ExpiresAt is when the grant ends, as if it were removed.
	//
	// +optional
	ExpiresAt Timestamp `json:"expiresAt,omitempty"`
}

// ClusterGrantService names a service that a cluster grant shows.
type ClusterGrantService struct {
	NamespacedService `json:",inline"`
	// Plain services have no sidecar, such as default/kubernetes: proxies reach
	// whatever address their EndpointSlices have, without mTLS, and whoever sees
	// them may call them as far as we are concerned. It is for services of
	// namespaces that no tenant has; of others it shows nothing.
	//
	// +optional
	Plain bool `json:"plain,omitempty"`
}

// ClusterServiceGrantList is what the API server answers to a list.
//
// +kubebuilder:object:root=true
type ClusterServiceGrantList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ClusterServiceGrant `json:"items"`
}
