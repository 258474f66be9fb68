package object

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// kindInfo is what decoding knows of a kind.
type kindInfo struct {
	apiVersion, name string
	kind             tenancy.Kind
	namespaced       bool
	// ours are of group bailiwick.dev, where nulls are refused.
	ours  bool
	empty func() metav1.Object
	// names checks metadata.name.
	names func(string) []string
}

// kinds are all that a directory may hold, but for v1 List.
func kinds() []kindInfo {
	const ours = v1alpha1.Group + "/" + v1alpha1.Version
	label, subdomain := validation.IsDNS1123Label, validation.IsDNS1123Subdomain
	return []kindInfo{
		{"v1", "Namespace", tenancy.KindNamespace, false, false, func() metav1.Object { return &corev1.Namespace{} }, label},
		{"v1", "Service", tenancy.KindService, true, false, func() metav1.Object { return &corev1.Service{} }, label},
		{"v1", "Pod", tenancy.KindPod, true, false, func() metav1.Object { return &corev1.Pod{} }, subdomain},
		{"discovery.k8s.io/v1", "EndpointSlice", tenancy.KindEndpointSlice, true, false, func() metav1.Object { return &discoveryv1.EndpointSlice{} }, subdomain},
		{ours, "Tenant", tenancy.KindTenant, false, true, func() metav1.Object { return &v1alpha1.Tenant{} }, label},
		{ours, "ServiceGrant", tenancy.KindServiceGrant, true, true, func() metav1.Object { return &v1alpha1.ServiceGrant{} }, subdomain},
		{ours, "ServiceRequest", tenancy.KindServiceRequest, true, true, func() metav1.Object { return &v1alpha1.ServiceRequest{} }, subdomain},
		{ours, "ClusterServiceGrant", tenancy.KindClusterServiceGrant, false, true, func() metav1.Object { return &v1alpha1.ClusterServiceGrant{} }, subdomain},
		{ours, "AccessPolicy", tenancy.KindAccessPolicy, true, true, func() metav1.Object { return &v1alpha1.AccessPolicy{} }, subdomain},
		{ours, "ClusterAccessPolicy", tenancy.KindClusterAccessPolicy, false, true, func() metav1.Object { return &v1alpha1.ClusterAccessPolicy{} }, subdomain},
		{ours, "PeerTLS", tenancy.KindPeerTLS, true, true, func() metav1.Object { return &v1alpha1.PeerTLS{} }, subdomain},
	}
}

// KindName is the name of a kind as it stands in YAML; empty for no kind that
// is read from there.
func KindName(kind tenancy.Kind) string {
	for _, k := range kinds() {
		if k.kind == kind {
			return k.name
		}
	}
	return ""
}

// Namespaced reports whether objects of the kind live in a namespace.
func Namespaced(kind tenancy.Kind) bool {
	for _, k := range kinds() {
		if k.kind == kind {
			return k.namespaced
		}
	}
	return false
}

// findKind returns the kind that t says it is of, or reports why it is none.
func findKind(p *problems, t *tree) (kindInfo, bool) {
	apiVersion, name := t.get("apiVersion").text(), t.get("kind").text()
	if name == "" {
		p.add(field.NewPath("kind"), "required")
	}
	if apiVersion == "" {
		p.add(field.NewPath("apiVersion"), "required")
	}
	if name == "" || apiVersion == "" {
		return kindInfo{}, false
	}
	var known []string
	for _, k := range kinds() {
		switch {
		case k.name == name && k.apiVersion == apiVersion:
			return k, true
		case k.name == name:
			p.add(field.NewPath("apiVersion"), "%s is not known of kind %s, expected %s", quote(apiVersion), name, k.apiVersion)
			return kindInfo{}, false
		}
		known = append(known, k.name)
	}
	p.add(field.NewPath("kind"), "%s of %s is not read, only %s and List%s", quote(name), quote(apiVersion), strings.Join(known, ", "), suggest(name, known))
	return kindInfo{}, false
}

// identify reports whether name and namespace are what the kind needs.
func (k kindInfo) identify(p *problems, obj metav1.Object) bool {
	meta := field.NewPath("metadata")
	name, namespace := obj.GetName(), obj.GetNamespace()
	ok := true
	check := func(at *field.Path, value string, errs []string) {
		switch {
		case value == "":
			p.add(at, "required")
		case len(errs) > 0:
			p.add(at, "%s: %s", quote(value), errs[0])
		default:
			return
		}
		ok = false
	}
	check(meta.Child("name"), name, k.names(name))
	switch {
	case k.namespaced:
		check(meta.Child("namespace"), namespace, validation.IsDNS1123Label(namespace))
	case namespace != "":
		p.add(meta.Child("namespace"), "%s is no namespaced kind", k.name)
	}
	return ok
}

// readable is the text of a name if it can be one, else "".
func readable(t *tree) string {
	if s := t.text(); len(validation.IsDNS1123Subdomain(s)) == 0 {
		return s
	}
	return ""
}

// Convert turns a typed object into the Model's: the From function of its
// type. The object is nil if nothing is to be applied; see the invariants of
// the package. A type that is none of ours is an error.
func Convert(obj metav1.Object, opts Options) (out tenancy.Object, errs []FieldError) {
	defer opts.contain(func() {
		out, errs = closed(shape(obj)), []FieldError{{"", "cannot be honoured: reading it failed"}}
	})
	if opts.trap != nil {
		opts.trap(obj)
	}
	switch o := obj.(type) {
	case *corev1.Namespace:
		return data(FromNamespace(o))
	case *corev1.Service:
		return data(FromService(o, opts))
	case *corev1.Pod:
		return data(FromPod(o, opts))
	case *discoveryv1.EndpointSlice:
		return data(FromEndpointSlice(o, opts))
	case *v1alpha1.Tenant:
		return data(FromTenant(o))
	case *v1alpha1.ServiceGrant:
		return FromServiceGrant(o)
	case *v1alpha1.ServiceRequest:
		return FromServiceRequest(o)
	case *v1alpha1.ClusterServiceGrant:
		return FromClusterServiceGrant(o)
	case *v1alpha1.AccessPolicy:
		return FromAccessPolicy(o)
	case *v1alpha1.ClusterAccessPolicy:
		return FromClusterAccessPolicy(o)
	case *v1alpha1.PeerTLS:
		return FromPeerTLS(o)
	}
	return nil, []FieldError{{"kind", "not read"}}
}

// data makes no object of an invalid one.
func data[T tenancy.Object](o T, errs []FieldError) (tenancy.Object, []FieldError) {
	if len(errs) > 0 {
		return nil, errs
	}
	return o, nil
}

// closed is what is left of an object that has errors: nothing of data, and of
// what gives access one that gives none.
func closed(o tenancy.Object) tenancy.Object {
	switch o := o.(type) {
	case *tenancy.ServiceGrant:
		return &tenancy.ServiceGrant{Meta: o.Meta}
	case *tenancy.ServiceRequest:
		return &tenancy.ServiceRequest{Meta: o.Meta}
	case *tenancy.ClusterServiceGrant:
		return &tenancy.ClusterServiceGrant{Meta: o.Meta}
	case *tenancy.AccessPolicy:
		return &tenancy.AccessPolicy{Meta: o.Meta, TenantWide: o.TenantWide, MatchLabels: o.MatchLabels, Action: o.Action, Observe: o.Observe, Invalid: true}
	case *tenancy.ClusterAccessPolicy:
		return closedCluster(o)
	case *tenancy.PeerTLS:
		return &tenancy.PeerTLS{Meta: o.Meta, MatchLabels: o.MatchLabels, Invalid: true}
	}
	return nil
}
