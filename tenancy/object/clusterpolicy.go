package object

import (
	"strings"

	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// guardedPrefix begins the keys of the namespace labels that admission guards.
const guardedPrefix = v1alpha1.Group + "/"

// FromClusterAccessPolicy reads a ClusterAccessPolicy. With errors it is one
// with Invalid set, whose subjects are all tenants if they could not be read,
// and whose rules say no more than their actions: one that is none is Deny.
func FromClusterAccessPolicy(in *v1alpha1.ClusterAccessPolicy) (*tenancy.ClusterAccessPolicy, []FieldError) {
	p := &problems{}
	spec := field.NewPath("spec")
	out := &tenancy.ClusterAccessPolicy{Meta: metaOf(p, in), Observe: observe(p, spec, in.Spec.Mode)}
	out.Expires = timestamp(p, spec.Child("expiresAt"), in.Spec.ExpiresAt)
	switch in.Spec.Tier {
	case "Admin":
	case "Baseline":
		out.Baseline = true
	default:
		notOneOf(p, spec.Child("tier"), in.Spec.Tier, "Admin", "Baseline")
	}
	switch n := in.Spec.Priority; {
	case n == nil:
		p.add(spec.Child("priority"), "required")
	case *n < 0 || *n > maxPriority:
		p.add(spec.Child("priority"), "%d is out of range: 0 to %d", *n, maxPriority)
	default:
		out.Priority = int(*n)
	}
	before := len(p.list)
	if at := spec.Child("subjects"); required(p, at, in.Spec.Subjects, maxList) {
		for i := range in.Spec.Subjects {
			out.Subjects = append(out.Subjects, subject(p, at.Index(i), &in.Spec.Subjects[i]))
		}
	}
	if len(p.list) > before {
		out.Subjects = []tenancy.Subject{{AllTenants: true}}
	}
	if at := spec.Child("rules"); required(p, at, in.Spec.Rules, maxList) {
		for i := range in.Spec.Rules {
			rule := &in.Spec.Rules[i]
			out.Rules = append(out.Rules, tenancy.ClusterRule{
				Action:     clusterAction(p, at.Index(i).Child("action"), rule.Action),
				AccessRule: accessRule(p, at.Index(i), &rule.AccessRule, rule.Action == "Deny"),
			})
		}
	}
	if errs := p.errors(); len(errs) > 0 {
		return closedCluster(out), errs
	}
	return out, nil
}

// closedCluster is what is left of a ClusterAccessPolicy with errors.
func closedCluster(o *tenancy.ClusterAccessPolicy) *tenancy.ClusterAccessPolicy {
	out := &tenancy.ClusterAccessPolicy{
		Meta: o.Meta, Baseline: o.Baseline, Priority: o.Priority, Observe: o.Observe, Subjects: o.Subjects, Invalid: true,
	}
	for _, rule := range o.Rules {
		out.Rules = append(out.Rules, tenancy.ClusterRule{Action: rule.Action})
	}
	return out
}

func clusterAction(p *problems, at *field.Path, action string) tenancy.Action {
	switch action {
	case "Allow":
		return tenancy.Allow
	case "Deny":
	case "Pass":
		return tenancy.Pass
	case "Audit":
		return tenancy.Audit
	default:
		notOneOf(p, at, action, "Allow", "Deny", "Pass", "Audit")
	}
	return tenancy.Deny
}

func subject(p *problems, at *field.Path, in *v1alpha1.PolicySubject) tenancy.Subject {
	out := tenancy.Subject{AllTenants: value(in.AllTenants, false)}
	if count(in.AllTenants != nil, in.Tenants != nil, in.Namespaces != nil, in.NamespaceLabels != nil) != 1 {
		p.add(at, "exactly one of allTenants, tenants, namespaces and namespaceLabels is required")
		return out
	}
	if in.AllTenants != nil && !*in.AllTenants {
		p.add(at.Child("allTenants"), "can only be true")
	}
	if list := at.Child("tenants"); in.Tenants != nil && size(p, list, len(in.Tenants), maxGrantTenants) {
		out.Tenants = names(p, list, in.Tenants)
	}
	if list := at.Child("namespaces"); in.Namespaces != nil && size(p, list, len(in.Namespaces), maxGrantTenants) {
		out.Namespaces = names(p, list, in.Namespaces)
	}
	if list := at.Child("namespaceLabels"); in.NamespaceLabels != nil && size(p, list, len(in.NamespaceLabels), maxMatchLabels) {
		out.Labels = guardedLabels(p, list, in.NamespaceLabels)
	}
	return out
}

func guardedLabels(p *problems, at *field.Path, in map[string]v1alpha1.LabelValue) map[string]string {
	out := make(map[string]string, len(in))
	for _, key := range sortedKeys(in) {
		value := string(in[key])
		if errs := content.IsLabelKey(key); len(errs) > 0 {
			p.add(child(at, key), "label key: %s", errs[0])
		} else if !strings.HasPrefix(key, guardedPrefix) {
			p.add(child(at, key), "only labels whose keys begin with %s are guarded", guardedPrefix)
		} else if errs := content.IsLabelValue(value); len(errs) > 0 {
			p.add(child(at, key), "%s: %s", quote(value), errs[0])
		}
		out[key] = value
	}
	return out
}

// FromPeerTLS reads a PeerTLS. With errors it is Strict, with a selector that
// is no narrower than what was meant, and for all ports.
func FromPeerTLS(in *v1alpha1.PeerTLS) (*tenancy.PeerTLS, []FieldError) {
	p := &problems{}
	spec := field.NewPath("spec")
	out := &tenancy.PeerTLS{Meta: metaOf(p, in)}
	out.MatchLabels = selector(p, spec.Child("selector"), in.Spec.Selector)
	if in.Spec.Ports != nil {
		out.Ports = portList(p, spec.Child("ports"), in.Spec.Ports)
	}
	switch in.Spec.Mode {
	case "Strict":
		if in.Spec.Until != "" || in.Spec.EnforceAtEnd {
			p.add(spec, "until and enforceAtEnd are for mode Permissive only")
		}
	case "Permissive":
		out.Permissive = true
	default:
		notOneOf(p, spec.Child("mode"), in.Spec.Mode, "Strict", "Permissive")
	}
	out.Until = timestamp(p, spec.Child("until"), in.Spec.Until)
	out.EnforceAtEnd = in.Spec.EnforceAtEnd
	if in.Spec.EnforceAtEnd && in.Spec.Until == "" {
		p.add(spec.Child("enforceAtEnd"), "needs until")
	}
	if errs := p.errors(); len(errs) > 0 {
		return &tenancy.PeerTLS{Meta: out.Meta, MatchLabels: out.MatchLabels, Invalid: true}, errs
	}
	return out, nil
}
