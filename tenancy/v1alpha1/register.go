package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Group and Version are what the kinds of this package carry as apiVersion,
// joined by a slash.
const (
	Group   = "bailiwick.dev"
	Version = "v1alpha1"
)

// TenantLabel is the Namespace label whose value names the tenant that the
// namespace belongs to.
const TenantLabel = Group + "/tenant"

// GroupVersion returns bailiwick.dev/v1alpha1.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: Group, Version: Version}
}

// AddToScheme registers the kinds of this package, as clients and informers
// need them. The error is always nil; the signature is the customary one.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion(),
		&Tenant{}, &TenantList{},
		&ServiceGrant{}, &ServiceGrantList{},
		&ServiceRequest{}, &ServiceRequestList{},
		&ClusterServiceGrant{}, &ClusterServiceGrantList{},
		&AccessPolicy{}, &AccessPolicyList{},
		&ClusterAccessPolicy{}, &ClusterAccessPolicyList{},
		&PeerTLS{}, &PeerTLSList{},
		&ProxyReport{}, &ProxyReportList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion())
	return nil
}
