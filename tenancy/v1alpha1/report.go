package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ProxyReport is what one server tells its replicas of the proxies that are
// connected to it. Servers write it, in their own namespace, and nobody else has
// to read it: it names things of all tenants.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Namespaced,shortName=bwreport,categories=bailiwick
// +kubebuilder:printcolumn:name="Proxies",type=integer,JSONPath=`.proxies`
// +kubebuilder:printcolumn:name="Lacking",type=integer,JSONPath=`.lacking`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ProxyReport struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Proxies that are connected.
	//
	// +required
	// +kubebuilder:validation:Minimum=0
	Proxies int32 `json:"proxies"`
	// Lacking are those of them that have not acknowledged something for a while,
	// or refused it.
	//
	// +required
	// +kubebuilder:validation:Minimum=0
	Lacking int32 `json:"lacking"`
	// Report is all that there is to say, as JSON: exceptions only.
	//
	// +required
	// +kubebuilder:validation:MaxLength=1048576
	Report string `json:"report"`
}

// ProxyReportList is what the API server answers to a list.
//
// +kubebuilder:object:root=true
type ProxyReportList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ProxyReport `json:"items"`
}
