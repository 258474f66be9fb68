// Package v1alpha1 holds the API types of group bailiwick.dev, version
// v1alpha1: Tenant, ServiceGrant, ServiceRequest, ClusterServiceGrant and
// AccessPolicy. The same YAML is read from a directory and from Kubernetes.
//
// Invariants:
//
//  1. The markers on these types and the checks of package object say the same:
//     what the API server admits, object accepts, but for what only Go can
//     check (a SPIFFE ID, a duration's range). A test of package object walks
//     the generated schema and holds the two together.
//  2. No absent or empty list ever means "anybody" or "everything": what is
//     wide is written out as all, allTenants or granted.
//  3. Every string has a longest length and every list a largest size.
//
// The deep copies and the manifests in deploy/crds are generated from here.
//
// +kubebuilder:object:generate=true
// +groupName=bailiwick.dev
package v1alpha1
