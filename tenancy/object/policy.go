package object

import (
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// FromAccessPolicy reads an AccessPolicy. With errors it is one with Invalid
// set and without rules: its selector is what could be read of it, and so
// selects no less than was meant; an action that is none is Deny, a mode that
// is none Enforce.
func FromAccessPolicy(in *v1alpha1.AccessPolicy) (*tenancy.AccessPolicy, []FieldError) {
	p := &problems{}
	spec := field.NewPath("spec")
	out := &tenancy.AccessPolicy{Meta: metaOf(p, in), Action: tenancy.Deny, Observe: observe(p, spec, in.Spec.Mode)}
	out.Expires = timestamp(p, spec.Child("expiresAt"), in.Spec.ExpiresAt)
	switch in.Spec.Scope {
	case "", "Namespace":
	case "Tenant":
		out.TenantWide = true
	default:
		notOneOf(p, spec.Child("scope"), in.Spec.Scope, "Namespace", "Tenant")
	}
	out.MatchLabels = selector(p, spec.Child("selector"), in.Spec.Selector)
	switch in.Spec.Action {
	case "Allow":
		out.Action = tenancy.Allow
	case "Deny":
	case "Audit":
		out.Action = tenancy.Audit
	default:
		notOneOf(p, spec.Child("action"), in.Spec.Action, "Allow", "Deny", "Audit")
	}
	if at := spec.Child("rules"); required(p, at, in.Spec.Rules, maxList) {
		for i := range in.Spec.Rules {
			out.Rules = append(out.Rules, accessRule(p, at.Index(i), &in.Spec.Rules[i], in.Spec.Action == "Deny"))
		}
	}
	if errs := p.errors(); len(errs) > 0 {
		out.Rules, out.Invalid = nil, true
		return out, errs
	}
	return out, nil
}

func observe(p *problems, spec *field.Path, mode string) bool {
	switch mode {
	case "", "Enforce":
	case "Observe":
		return true
	default:
		notOneOf(p, spec.Child("mode"), mode, "Enforce", "Observe")
	}
	return false
}

// selector reads a selector; labels that cannot be on any Pod are left out, so
// that a wrong selector selects more and not less.
func selector(p *problems, at *field.Path, in *v1alpha1.PodSelector) map[string]string {
	if in == nil {
		p.add(at, "required: {} selects all Pods of the namespace")
		return nil
	}
	at = at.Child("matchLabels")
	if len(in.MatchLabels) > maxMatchLabels {
		p.add(at, "%d labels, at most %d", len(in.MatchLabels), maxMatchLabels)
		return nil
	}
	var out map[string]string
	for _, key := range sortedKeys(in.MatchLabels) {
		value := string(in.MatchLabels[key])
		if errs := content.IsLabelKey(key); len(errs) > 0 {
			p.add(child(at, key), "label key: %s", errs[0])
		} else if errs := content.IsLabelValue(value); len(errs) > 0 {
			p.add(child(at, key), "%s: %s", quote(value), errs[0])
		} else {
			if out == nil {
				out = make(map[string]string)
			}
			out[key] = value
		}
	}
	return out
}

// count is how many of the conditions hold.
func count(conditions ...bool) int {
	n := 0
	for _, c := range conditions {
		if c {
			n++
		}
	}
	return n
}

func accessSources(p *problems, at *field.Path, in []v1alpha1.AccessSource) []tenancy.AccessSource {
	var out []tenancy.AccessSource
	for i := range in {
		out = append(out, accessSource(p, at.Index(i), &in[i]))
	}
	return out
}

func accessSource(p *problems, at *field.Path, in *v1alpha1.AccessSource) tenancy.AccessSource {
	out := tenancy.AccessSource{
		All: value(in.All, false), Granted: value(in.Granted, false), Plaintext: value(in.Plaintext, false),
		SPIFFEID: in.SPIFFEID, SPIFFEIDPrefix: in.SPIFFEIDPrefix,
		Tenant: string(in.Tenant), Namespace: string(in.Namespace), ServiceAccount: string(in.ServiceAccount),
	}
	where := in.Tenant != "" || in.Namespace != "" || in.ServiceAccount != ""
	if count(in.All != nil, in.Granted != nil, in.Plaintext != nil, in.SPIFFEID != "", in.SPIFFEIDPrefix != "", where) != 1 {
		p.add(at, "exactly one of all, granted, plaintext, spiffeID, spiffeIDPrefix and tenant/namespace/serviceAccount is required")
		return out
	}
	switch {
	case in.All != nil && !*in.All:
		p.add(at.Child("all"), "can only be true")
	case in.Granted != nil && !*in.Granted:
		p.add(at.Child("granted"), "can only be true")
	case in.Plaintext != nil && !*in.Plaintext:
		p.add(at.Child("plaintext"), "can only be true")
	case in.SPIFFEID != "":
		if !workloadID(in.SPIFFEID) {
			p.add(at.Child("spiffeID"), "%s is no workload's ID: spiffe://<trust domain>/ns/<namespace>/sa/<account>", quote(in.SPIFFEID))
		}
	case in.SPIFFEIDPrefix != "":
		// With what is left out, a prefix is an ID.
		full := in.SPIFFEIDPrefix + "x"
		if !strings.HasSuffix(in.SPIFFEIDPrefix, "/sa/") || strings.HasSuffix(in.SPIFFEIDPrefix, "/ns/") {
			full += "/sa/x"
		}
		if !strings.HasSuffix(in.SPIFFEIDPrefix, "/") || !workloadID(full) {
			p.add(at.Child("spiffeIDPrefix"), "%s is no beginning of IDs: spiffe://<trust domain>/ns/, or spiffe://<trust domain>/ns/<namespace>/sa/", quote(in.SPIFFEIDPrefix))
		}
	}
	if in.Tenant != "" {
		name(p, at.Child("tenant"), in.Tenant)
	}
	if in.Namespace != "" {
		name(p, at.Child("namespace"), in.Namespace)
	}
	if in.ServiceAccount == "" {
		return out
	}
	if errs := validation.IsDNS1123Subdomain(out.ServiceAccount); len(errs) > 0 {
		p.add(at.Child("serviceAccount"), "%s: %s", quote(out.ServiceAccount), errs[0])
	}
	if in.Namespace == "" {
		p.add(at.Child("serviceAccount"), "needs namespace")
	}
	return out
}

func workloadID(s string) bool {
	id, err := spiffeid.FromString(s)
	if err == nil {
		_, err = identity.ParseWorkload(id)
	}
	return err == nil && len(s) <= maxSPIFFEID
}
