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
// selects no less than was meant; an action that is neither is Deny.
func FromAccessPolicy(in *v1alpha1.AccessPolicy) (*tenancy.AccessPolicy, []FieldError) {
	p := &problems{}
	spec := field.NewPath("spec")
	out := &tenancy.AccessPolicy{Meta: metaOf(p, in), Action: tenancy.Deny}
	out.MatchLabels = selector(p, spec.Child("selector"), in.Spec.Selector)
	switch in.Spec.Action {
	case "Allow":
		out.Action = tenancy.Allow
	case "Deny":
	default:
		notOneOf(p, spec.Child("action"), in.Spec.Action, "Allow", "Deny")
	}
	if at := spec.Child("rules"); required(p, at, in.Spec.Rules, maxList) {
		for i := range in.Spec.Rules {
			out.Rules = append(out.Rules, accessRule(p, at.Index(i), &in.Spec.Rules[i]))
		}
	}
	if errs := p.errors(); len(errs) > 0 {
		out.Rules, out.Invalid = nil, true
		return out, errs
	}
	return out, nil
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

func accessRule(p *problems, at *field.Path, in *v1alpha1.AccessRule) tenancy.AccessRule {
	var out tenancy.AccessRule
	if from := at.Child("from"); required(p, from, in.From, maxList) {
		for i := range in.From {
			out.Sources = append(out.Sources, accessSource(p, from.Index(i), &in.From[i]))
		}
	}
	if in.Ports != nil {
		out.Ports = portList(p, at.Child("ports"), in.Ports)
	}
	if list := at.Child("methods"); in.Methods != nil && size(p, list, len(in.Methods), maxMethods) {
		seen := make(map[v1alpha1.Method]bool)
		for i, m := range in.Methods {
			method(p, list.Index(i), string(m))
			unique(p, list.Index(i), seen, m)
			out.Methods = append(out.Methods, string(m))
		}
	}
	if list := at.Child("paths"); in.Paths != nil && size(p, list, len(in.Paths), maxList) {
		for i := range in.Paths {
			out.Paths = append(out.Paths, pathMatch(p, list.Index(i), &in.Paths[i]))
		}
	}
	if list := at.Child("hosts"); in.Hosts != nil && size(p, list, len(in.Hosts), maxList) {
		seen := make(map[v1alpha1.Host]bool)
		for i, h := range in.Hosts {
			if errs := validation.IsDNS1123Subdomain(string(h)); len(errs) > 0 {
				p.add(list.Index(i), "%s is no host name: lower case, without port or wildcard", quote(string(h)))
			}
			unique(p, list.Index(i), seen, h)
			out.Hosts = append(out.Hosts, string(h))
		}
	}
	if list := at.Child("headers"); in.Headers != nil && size(p, list, len(in.Headers), maxHeaders) {
		for i := range in.Headers {
			out.Headers = append(out.Headers, headerMatch(p, list.Index(i), &in.Headers[i]))
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

func accessSource(p *problems, at *field.Path, in *v1alpha1.AccessSource) tenancy.AccessSource {
	out := tenancy.AccessSource{
		All: value(in.All, false), Granted: value(in.Granted, false), SPIFFEID: in.SPIFFEID,
		Tenant: string(in.Tenant), Namespace: string(in.Namespace), ServiceAccount: string(in.ServiceAccount),
	}
	where := in.Tenant != "" || in.Namespace != "" || in.ServiceAccount != ""
	if count(in.All != nil, in.Granted != nil, in.SPIFFEID != "", where) != 1 {
		p.add(at, "exactly one of all, granted, spiffeID and tenant/namespace/serviceAccount is required")
		return out
	}
	switch {
	case in.All != nil && !*in.All:
		p.add(at.Child("all"), "can only be true")
	case in.Granted != nil && !*in.Granted:
		p.add(at.Child("granted"), "can only be true")
	case in.SPIFFEID != "":
		id, err := spiffeid.FromString(in.SPIFFEID)
		if err == nil {
			_, err = identity.ParseWorkload(id)
		}
		if err != nil || len(in.SPIFFEID) > 512 {
			p.add(at.Child("spiffeID"), "%s is no workload's ID: spiffe://<trust domain>/ns/<namespace>/sa/<account>", quote(in.SPIFFEID))
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

func method(p *problems, at *field.Path, m string) {
	ok := len(m) >= 1 && len(m) <= 32 && m[0] != '-'
	for _, c := range []byte(m) {
		ok = ok && (c >= 'A' && c <= 'Z' || c == '-')
	}
	if !ok {
		p.add(at, "%s is no HTTP method: capital letters", quote(m))
	}
}

func pathMatch(p *problems, at *field.Path, in *v1alpha1.PathMatch) tenancy.PathMatch {
	if count(in.Exact != "", in.Prefix != "") != 1 {
		p.add(at, "exactly one of exact and prefix is required")
		return tenancy.PathMatch{}
	}
	if in.Exact != "" {
		normalPath(p, at.Child("exact"), in.Exact)
		return tenancy.PathMatch{Value: in.Exact}
	}
	normalPath(p, at.Child("prefix"), in.Prefix)
	if in.Prefix != "/" && strings.HasSuffix(in.Prefix, "/") {
		p.add(at.Child("prefix"), "%s: leave out the slash at the end, a prefix is of whole segments", quote(in.Prefix))
	}
	return tenancy.PathMatch{Prefix: true, Value: in.Prefix}
}

// normalPath checks that a path is one that normalisation leaves as it is: a
// Deny of any other would never match.
func normalPath(p *problems, at *field.Path, s string) {
	why := ""
	switch {
	case len(s) > maxPathLength:
		why = "longer than 1024 bytes"
	case s[0] != '/':
		why = "has to begin with a slash"
	case strings.Contains(s, "//"):
		why = "slashes are merged before paths are judged"
	case strings.ContainsAny(s, "?#"):
		why = "paths are judged without query and fragment"
	}
	for segment := range strings.SplitSeq(s, "/") {
		if segment == "." || segment == ".." {
			why = "dot segments are resolved before paths are judged"
		}
	}
	for i := 0; i < len(s) && why == ""; i++ {
		switch c := s[i]; {
		case c <= ' ' || c >= 0x7f || c == '\\':
			why = "blanks, backslashes and bytes beyond ASCII have to be percent-encoded"
		case c == '%':
			why = escaped(s[i+1:])
		}
	}
	if why != "" {
		p.add(at, "%s: %s", quote(s), why)
	}
}

// escaped says what is wrong with a percent-encoded byte.
func escaped(rest string) string {
	const hex = "0123456789ABCDEF"
	if len(rest) < 2 || !strings.Contains(hex, rest[:1]) || !strings.Contains(hex, rest[1:2]) {
		return "% has to be followed by two digits of 0-9A-F"
	}
	c := byte(strings.Index(hex, rest[:1])<<4 | strings.Index(hex, rest[1:2]))
	switch {
	case c == '/' || c == '\\':
		return "escaped slashes are refused before paths are judged"
	case c == 0:
		return "%00 is refused before paths are judged"
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~", c) >= 0:
		return "letters, digits and -._~ are decoded before paths are judged"
	}
	return ""
}

func headerMatch(p *problems, at *field.Path, in *v1alpha1.HeaderMatch) tenancy.HeaderMatch {
	out := tenancy.HeaderMatch{
		Name: strings.ToLower(in.Name), Exact: in.Exact, Prefix: in.Prefix, Present: value(in.Present, false),
	}
	ok := in.Name != "" && len(in.Name) <= maxHeaderName
	for _, c := range []byte(out.Name) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("-_.", c) >= 0)
	}
	switch {
	case in.Name == "":
		p.add(at.Child("name"), "required")
	case !ok:
		p.add(at.Child("name"), "%s is no header name: letters, digits and -_., at most %d", quote(in.Name), maxHeaderName)
	case out.Name == "host":
		p.add(at.Child("name"), "the host is judged by hosts")
	}
	if count(in.Exact != "", in.Prefix != "", in.Present != nil) != 1 {
		p.add(at, "exactly one of exact, prefix and present is required")
	}
	if in.Present != nil && !*in.Present {
		p.add(at.Child("present"), "can only be true")
	}
	headerValue(p, at.Child("exact"), in.Exact)
	headerValue(p, at.Child("prefix"), in.Prefix)
	return out
}

func headerValue(p *problems, at *field.Path, s string) {
	if len(s) > maxValueLength {
		p.add(at, "longer than %d bytes", maxValueLength)
	}
	for _, c := range []byte(s) {
		if c < ' ' || c >= 0x7f {
			p.add(at, "%s: printable ASCII only", quote(s))
			return
		}
	}
}
