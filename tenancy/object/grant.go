package object

import (
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// FromServiceGrant reads a ServiceGrant. With errors it is one that grants
// nothing: what was granted before ends.
func FromServiceGrant(in *v1alpha1.ServiceGrant) (*tenancy.ServiceGrant, []FieldError) {
	p := &problems{}
	spec := field.NewPath("spec")
	out := &tenancy.ServiceGrant{Meta: metaOf(p, in)}
	out.Expires = timestamp(p, spec.Child("expiresAt"), in.Spec.ExpiresAt)
	if at := spec.Child("from"); required(p, at, in.Spec.From, maxList) {
		for i, from := range in.Spec.From {
			out.From = append(out.From, grantFrom(p, at.Index(i), from))
		}
	}
	if at := spec.Child("to"); required(p, at, in.Spec.To, maxList) {
		for i, to := range in.Spec.To {
			name(p, at.Index(i).Child("service"), to.Service)
			out.To = append(out.To, tenancy.GrantTo{
				Service: string(to.Service), Ports: portSet(p, at.Index(i), to.All, to.Ports), Plain: to.Plain,
			})
		}
	}
	if errs := p.errors(); len(errs) > 0 {
		return &tenancy.ServiceGrant{Meta: out.Meta}, errs
	}
	return out, nil
}

func grantFrom(p *problems, at *field.Path, in v1alpha1.GrantConsumer) tenancy.GrantFrom {
	name(p, at.Child("tenant"), in.Tenant)
	out := tenancy.GrantFrom{Tenant: string(in.Tenant), All: in.All}
	if in.All == (in.Namespaces != nil) {
		p.add(at, "exactly one of namespaces and all: true is required")
		return out
	}
	if in.All || !size(p, at.Child("namespaces"), len(in.Namespaces), maxList) {
		return out
	}
	out.Namespaces = names(p, at.Child("namespaces"), in.Namespaces)
	return out
}

// FromServiceRequest reads a ServiceRequest. With errors it is one that
// requests nothing.
func FromServiceRequest(in *v1alpha1.ServiceRequest) (*tenancy.ServiceRequest, []FieldError) {
	p := &problems{}
	to := namespacedService(p, field.NewPath("spec", "to"), in.Spec.To.NamespacedService)
	out := &tenancy.ServiceRequest{Meta: metaOf(p, in)}
	out.Expires = timestamp(p, field.NewPath("spec", "expiresAt"), in.Spec.ExpiresAt)
	if errs := p.errors(); len(errs) > 0 {
		return out, errs
	}
	out.Namespace, out.Service, out.Ports, out.Plain = to.Namespace, to.Service, to.Ports, in.Spec.To.Plain
	return out, nil
}

// FromClusterServiceGrant reads a ClusterServiceGrant. With errors it is one
// that grants nothing.
func FromClusterServiceGrant(in *v1alpha1.ClusterServiceGrant) (*tenancy.ClusterServiceGrant, []FieldError) {
	p := &problems{}
	spec := field.NewPath("spec")
	out := &tenancy.ClusterServiceGrant{Meta: metaOf(p, in), AllTenants: in.Spec.AllTenants}
	out.Expires = timestamp(p, spec.Child("expiresAt"), in.Spec.ExpiresAt)
	switch at := spec.Child("tenants"); {
	case in.Spec.AllTenants == (in.Spec.Tenants != nil):
		p.add(spec, "exactly one of tenants and allTenants: true is required")
	case !in.Spec.AllTenants && size(p, at, len(in.Spec.Tenants), maxGrantTenants):
		out.Tenants = names(p, at, in.Spec.Tenants)
	}
	if at := spec.Child("to"); required(p, at, in.Spec.To, maxList) {
		for i, to := range in.Spec.To {
			one := namespacedService(p, at.Index(i), to.NamespacedService)
			one.Plain = to.Plain
			out.To = append(out.To, one)
		}
	}
	if errs := p.errors(); len(errs) > 0 {
		return &tenancy.ClusterServiceGrant{Meta: out.Meta}, errs
	}
	return out, nil
}

func namespacedService(p *problems, at *field.Path, in v1alpha1.NamespacedService) tenancy.ClusterGrantTo {
	name(p, at.Child("namespace"), in.Namespace)
	name(p, at.Child("service"), in.Service)
	return tenancy.ClusterGrantTo{
		Namespace: string(in.Namespace), Service: string(in.Service), Ports: portSet(p, at, in.All, in.Ports),
	}
}

// portSet reads service ports: all or those listed, never neither.
func portSet(p *problems, at *field.Path, all bool, ports []v1alpha1.Port) tenancy.PortSet {
	if all == (ports != nil) {
		p.add(at, "exactly one of ports and all: true is required")
		return tenancy.PortSet{}
	}
	if all {
		return tenancy.PortSet{All: true}
	}
	return tenancy.PortSet{Ports: portList(p, at.Child("ports"), ports)}
}

// portList reads a list of ports that is not left out.
func portList(p *problems, at *field.Path, in []v1alpha1.Port) []uint16 {
	if !size(p, at, len(in), maxList) {
		return nil
	}
	out := make([]uint16, 0, len(in))
	seen := make(map[v1alpha1.Port]bool)
	for i, port := range in {
		if number, ok := portNumber(p, at.Index(i), int32(port)); ok {
			unique(p, at.Index(i), seen, port)
			out = append(out, number)
		}
	}
	return out
}

// name checks a required DNS label.
func name(p *problems, at *field.Path, in v1alpha1.Name) {
	if in == "" {
		p.add(at, "required")
	} else if errs := validation.IsDNS1123Label(string(in)); len(errs) > 0 {
		p.add(at, "%s: %s", quote(string(in)), errs[0])
	}
}

func names(p *problems, at *field.Path, in []v1alpha1.Name) []string {
	out := make([]string, 0, len(in))
	seen := make(map[v1alpha1.Name]bool)
	for i, n := range in {
		name(p, at.Index(i), n)
		unique(p, at.Index(i), seen, n)
		out = append(out, string(n))
	}
	return out
}
