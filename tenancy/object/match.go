package object

import (
	"strings"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// accessRule reads a rule; only one that denies may have negations, because in
// any other they let in whoever is not thought of.
func accessRule(p *problems, at *field.Path, in *v1alpha1.AccessRule, denies bool) tenancy.AccessRule {
	var out tenancy.AccessRule
	if from := at.Child("from"); required(p, from, in.From, maxList) {
		out.Sources = accessSources(p, from, in.From)
	}
	if in.Ports != nil {
		out.Ports = portList(p, at.Child("ports"), in.Ports)
	}
	out.Methods = methods(p, at.Child("methods"), in.Methods)
	out.Paths = paths(p, at.Child("paths"), in.Paths)
	out.Hosts = hosts(p, at.Child("hosts"), in.Hosts)
	if list := at.Child("headers"); in.Headers != nil && size(p, list, len(in.Headers), maxHeaders) {
		for i := range in.Headers {
			out.Headers = append(out.Headers, headerMatch(p, list.Index(i), &in.Headers[i]))
		}
	}
	if in.JWT != nil {
		out.Token = tokenMatch(p, at.Child("jwt"), in.JWT)
	}
	negations(p, at, in, denies, &out)
	return out
}

func negations(p *problems, at *field.Path, in *v1alpha1.AccessRule, denies bool, out *tenancy.AccessRule) {
	for _, n := range []struct {
		name  string
		given bool
	}{
		{"notFrom", in.NotFrom != nil}, {"notPorts", in.NotPorts != nil}, {"notMethods", in.NotMethods != nil},
		{"notPaths", in.NotPaths != nil}, {"notHosts", in.NotHosts != nil},
	} {
		if n.given && !denies {
			p.add(at.Child(n.name), "only a rule that denies may have it: elsewhere it lets in whoever is not thought of")
		}
	}
	if list := at.Child("notFrom"); in.NotFrom != nil && size(p, list, len(in.NotFrom), maxList) {
		out.NotSources = accessSources(p, list, in.NotFrom)
	}
	if in.NotPorts != nil {
		out.NotPorts = portList(p, at.Child("notPorts"), in.NotPorts)
	}
	out.NotMethods = methods(p, at.Child("notMethods"), in.NotMethods)
	out.NotPaths = paths(p, at.Child("notPaths"), in.NotPaths)
	out.NotHosts = hosts(p, at.Child("notHosts"), in.NotHosts)
}

func methods(p *problems, list *field.Path, in []v1alpha1.Method) []string {
	if in == nil || !size(p, list, len(in), maxMethods) {
		return nil
	}
	var out []string
	seen := make(map[v1alpha1.Method]bool)
	for i, m := range in {
		method(p, list.Index(i), string(m))
		unique(p, list.Index(i), seen, m)
		out = append(out, string(m))
	}
	return out
}

func paths(p *problems, list *field.Path, in []v1alpha1.PathMatch) []tenancy.PathMatch {
	if in == nil || !size(p, list, len(in), maxList) {
		return nil
	}
	var out []tenancy.PathMatch
	for i := range in {
		out = append(out, pathMatch(p, list.Index(i), &in[i]))
	}
	return out
}

func hosts(p *problems, list *field.Path, in []v1alpha1.Host) []string {
	if in == nil || !size(p, list, len(in), maxList) {
		return nil
	}
	var out []string
	seen := make(map[v1alpha1.Host]bool)
	for i, h := range in {
		if errs := validation.IsDNS1123Subdomain(string(h)); len(errs) > 0 {
			p.add(list.Index(i), "%s is no host name: lower case, without port or wildcard", quote(string(h)))
		}
		unique(p, list.Index(i), seen, h)
		out = append(out, string(h))
	}
	return out
}

func tokenMatch(p *problems, at *field.Path, in *v1alpha1.JWTMatch) *tenancy.TokenMatch {
	name(p, at.Child("provider"), in.Provider)
	out := &tenancy.TokenMatch{Provider: string(in.Provider), Optional: in.Optional}
	list := at.Child("claims")
	if !required(p, list, in.Claims, maxClaims) {
		return out
	}
	for i, c := range in.Claims {
		var claim tenancy.ClaimMatch
		if path := list.Index(i).Child("path"); required(p, path, c.Path, maxClaimPath) {
			for n, segment := range c.Path {
				text(p, path.Index(n), string(segment), maxClaimName)
				claim.Path = append(claim.Path, string(segment))
			}
		}
		if values := list.Index(i).Child("values"); required(p, values, c.Values, maxList) {
			claim.Values = texts64(p, values, c.Values)
		}
		out.Claims = append(out.Claims, claim)
	}
	return out
}

// texts64 reads a set of texts.
func texts64(p *problems, list *field.Path, in []v1alpha1.ClaimValue) []string {
	var out []string
	seen := make(map[v1alpha1.ClaimValue]bool)
	for i, v := range in {
		text(p, list.Index(i), string(v), maxValueLength)
		unique(p, list.Index(i), seen, v)
		out = append(out, string(v))
	}
	return out
}

// text checks a text that may not be empty.
func text(p *problems, at *field.Path, s string, most int) {
	switch {
	case s == "":
		p.add(at, "required")
	case len(s) > most:
		p.add(at, "longer than %d bytes", most)
	case !utf8.ValidString(s) || strings.ContainsAny(s, "\x00\r\n"):
		p.add(at, "%s: a text of one line in UTF-8", quote(s))
	}
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
	if count(in.Exact != "", in.Prefix != "", in.Template != "") != 1 {
		p.add(at, "exactly one of exact, prefix and template is required")
		return tenancy.PathMatch{}
	}
	if in.Template != "" {
		template(p, at.Child("template"), in.Template)
		return tenancy.PathMatch{Template: true, Value: in.Template}
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

// template checks a path with {*} and {**} in the place of segments.
func template(p *problems, at *field.Path, s string) {
	segments := strings.Split(s, "/")
	holes := 0
	for i, segment := range segments {
		switch {
		case segment == "{*}":
			holes++
		case segment == "{**}" && i == len(segments)-1:
			holes++
		case strings.ContainsAny(segment, "{}*"):
			p.add(at, "%s: {*} stands for one whole segment, {**} for all that is left and only at the end", quote(s))
			return
		}
	}
	if holes == 0 {
		p.add(at, "%s: without {*} or {**} it is an exact path", quote(s))
		return
	}
	normalPath(p, at, strings.NewReplacer("{*}", "x", "{**}", "x").Replace(s))
	expression := policy.Path{Type: policy.Template, Value: s}.Regex(policy.Deny)
	if steps, err := policy.RegexSteps(expression); err != nil || steps > policy.MaxRegexSteps {
		p.add(at, "%s: too long for a template, which costs proxies more than a path", quote(s))
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
