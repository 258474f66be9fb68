package object

import (
	"runtime/debug"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// contain, deferred, turns a panic into what instead does: whatever a tenant
// writes, reading it ends nothing but the reading of that.
func (o *Options) contain(instead func()) {
	r := recover()
	if r == nil {
		return
	}
	if o.Panicked != nil {
		o.Panicked(r, debug.Stack())
	}
	instead()
}

// shape is an object of which nothing is known but its kind and, of a policy,
// what it does: for closed.
func shape(obj metav1.Object) tenancy.Object {
	switch o := obj.(type) {
	case *v1alpha1.ServiceGrant:
		return &tenancy.ServiceGrant{}
	case *v1alpha1.ServiceRequest:
		return &tenancy.ServiceRequest{}
	case *v1alpha1.ClusterServiceGrant:
		return &tenancy.ClusterServiceGrant{}
	case *v1alpha1.AccessPolicy:
		out := &tenancy.AccessPolicy{}
		if o.Spec.Action == "Deny" {
			out.Action = tenancy.Deny
		}
		return out
	}
	return nil
}
