package policy

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// MatchType says how a value is compared.
type MatchType uint8

// Exact compares all of it, Prefix its beginning (of a path: by segment),
// Present asks only whether a header is there, and in a Template of a path {*}
// is one segment and {**} at the end all that is left.
const (
	Exact MatchType = iota
	Prefix
	Present
	Template
)

// Match is a condition on a request: each non-empty field must match. Of
// Methods, Paths and Hosts any one is enough; Headers must all match. The zero
// value matches every request.
type Match struct {
	Methods []string
	Paths   []Path
	// Hosts are lower case and without port.
	Hosts   []string
	Headers []Header
	// Claims of a token of Provider must all match; with a Provider and no
	// claims, having its token does.
	Provider string
	Claims   []Claim
	// The negations: none of these may match. Only rules that deny have them.
	NotMethods []string
	NotPaths   []Path
	NotHosts   []string
}

// Claim matches a claim of a token: the text at Path, or an element of the list
// there, is one of Values.
type Claim struct {
	Path   []string
	Values []string
}

// Path matches a path without its query. As a Prefix, /a matches /a and
// whatever begins with /a/; / matches every path. A Prefix has no trailing
// slash but for / itself. In a Deny rule a segment stands also for itself with
// ;params (in a Prefix, whatever follows those), and a Template for itself with
// a slash behind it, because applications commonly drop both.
type Path struct {
	Type  MatchType // Exact, Prefix or Template
	Value string
}

// Header matches the value of a request header, or its presence.
type Header struct {
	// Name is lower case.
	Name  string
	Type  MatchType
	Value string
}

// Any reports whether m matches every request.
func (m Match) Any() bool {
	return len(m.Methods) == 0 && len(m.Paths) == 0 && len(m.Hosts) == 0 && len(m.Headers) == 0 && m.Provider == "" &&
		len(m.NotMethods) == 0 && len(m.NotPaths) == 0 && len(m.NotHosts) == 0
}

// Matches reports whether r meets m in a rule with action a.
func (m Match) Matches(r Request, a Action) bool {
	path, _, _ := strings.Cut(r.Path, "?")
	host := HostOnly(r.Host)
	onPath := func(paths []Path, a Action) bool {
		return slices.ContainsFunc(paths, func(p Path) bool { return p.matches(path, a) })
	}
	switch {
	case len(m.Methods) > 0 && !slices.Contains(m.Methods, r.Method),
		len(m.Hosts) > 0 && !slices.Contains(m.Hosts, host),
		len(m.Paths) > 0 && !onPath(m.Paths, a),
		slices.Contains(m.NotMethods, r.Method),
		slices.Contains(m.NotHosts, host),
		onPath(m.NotPaths, Allow): // what is taken out of a Deny is taken at its word
		return false
	}
	for _, h := range m.Headers {
		if v, ok := r.Headers[h.Name]; !ok || !h.matches(v, a) {
			return false
		}
	}
	if m.Provider == "" {
		return true
	}
	return r.Token != nil && r.Token.Provider == m.Provider &&
		!slices.ContainsFunc(m.Claims, func(c Claim) bool { return !c.matches(r.Token.Claims) })
}

func (c Claim) matches(claims map[string]any) bool {
	var at any = claims
	for _, name := range c.Path {
		object, ok := at.(map[string]any)
		if !ok {
			return false
		}
		at = object[name]
	}
	is := func(v any) bool {
		s, ok := v.(string)
		return ok && slices.Contains(c.Values, s)
	}
	if list, ok := at.([]any); ok {
		return slices.ContainsFunc(list, is)
	}
	return is(at)
}

const (
	oneSegment = "{*}"
	allTheRest = "{**}"
)

func (p Path) matches(path string, a Action) bool {
	switch {
	case p.Type == Exact:
		return path == p.Value
	case p.Type == Prefix && p.Value == "/":
		return true
	case a == Deny && hidesDots(path):
		return true
	case p.Type == Prefix:
		return p.begins(path, a)
	case !strings.HasPrefix(path, "/") || !strings.HasPrefix(p.Value, "/"):
		return false
	}
	segments := strings.Split(path[1:], "/")
	for i, want := range strings.Split(p.Value[1:], "/") {
		switch {
		case i > 0 && len(segments) == 0:
			return false
		case want == allTheRest:
			return strings.Join(segments, "/") != ""
		}
		got := segments[0]
		if want == oneSegment {
			if got == "" {
				return false
			}
			got = want
		}
		if a == Deny {
			got = withoutParams(got)
		}
		if got != want {
			return false
		}
		segments = segments[1:]
	}
	return len(segments) == 0 || a == Deny && len(segments) == 1 && segments[0] == ""
}

func withoutParams(segment string) string {
	for i := range len(segment) {
		if segment[i] == ';' || strings.HasPrefix(segment[i:], "%3b") || strings.HasPrefix(segment[i:], "%3B") {
			return segment[:i]
		}
	}
	return segment
}

// HiddenDots is an expression for request targets whose path has a dot segment
// with params, such as /a/..;/b. Normalisation leaves it, and where an
// application drops the params it leads anywhere: every Deny of a Prefix or a
// Template matches it.
const HiddenDots = `[^?]*/\.\.?(;|%3[bB])\C*`

func hidesDots(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		if bare := withoutParams(segment); bare != segment && (bare == "." || bare == "..") {
			return true
		}
	}
	return false
}

// Beginnings are what a path may begin with so that the Prefix p matches it in a
// rule with action a, if the path is not p itself.
func (p Path) Beginnings(a Action) []string {
	all := []string{p.Value + "/"}
	// Some applications decode before they look for params.
	params := func(s string) { all = append(all, s+";", s+"%3b", s+"%3B") }
	if a == Deny {
		for i := range len(p.Value) {
			if p.Value[i] == '/' {
				if i > 0 {
					params(p.Value[:i])
				}
				params(p.Value[:i] + "/") // a segment that is gone without its params
			}
		}
		params(p.Value)
	}
	return all
}

func (p Path) begins(path string, a Action) bool {
	return path == p.Value || slices.ContainsFunc(p.Beginnings(a), func(s string) bool { return strings.HasPrefix(path, s) })
}

// Regex is an expression, in RE2's syntax, that a whole path with its query
// meets if and only if the Template p matches it in a rule with action a. It is
// made from the policy's own text, every literal quoted. \C is any byte: a query
// may hold some that are no text, and a dot would not match those.
func (p Path) Regex(a Action) string {
	const query = `(\?\C*)?`
	var b strings.Builder
	for want := range strings.SplitSeq(strings.TrimPrefix(p.Value, "/"), "/") {
		switch want {
		case allTheRest:
			return b.String() + `/[^?]+` + query
		case oneSegment:
			b.WriteString(`/[^/?]+`)
			continue
		}
		b.WriteString("/" + regexp.QuoteMeta(want))
		if a == Deny {
			b.WriteString(`((;|%3[bB])[^/?]*)?`)
		}
	}
	if a == Deny {
		b.WriteString("/?")
	}
	return b.String() + query
}

// MaxRegexSteps is the longest program that a regex may have. Envoy refuses
// those over 100 as RE2 counts, which is within a few of what Go counts.
const MaxRegexSteps = 80

// RegexSteps is how long the program of a regex in RE2's syntax is. \C is
// counted as a dot, because Go does not have it.
func RegexSteps(regex string) (int, error) {
	tree, err := syntax.Parse(strings.ReplaceAll(regex, `\C`, `.`), syntax.Perl)
	if err != nil {
		return 0, fmt.Errorf("parse regex: %w", err)
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return 0, fmt.Errorf("compile regex: %w", err)
	}
	return len(program.Inst), nil
}

func (h Header) matches(value string, a Action) bool {
	return slices.ContainsFunc(h.Patterns(a), func(p Pattern) bool { return p.matches(value) })
}

// Pattern is a comparison with the whole value of a header, in which several
// headers of one name stand behind each other with a comma between them. It
// matches if the value has Text where At says.
type Pattern struct {
	At   Where
	Text string
}

// Where is a place in a value.
type Where uint8

// Whole is all of the value, Anywhere any part of it.
const (
	Whole Where = iota
	Beginning
	End
	Anywhere
)

func (p Pattern) matches(value string) bool {
	switch p.At {
	case Whole:
		return value == p.Text
	case Beginning:
		return strings.HasPrefix(value, p.Text)
	case End:
		return strings.HasSuffix(value, p.Text)
	default:
		return strings.Contains(value, p.Text)
	}
}

// Patterns are the comparisons of which one must match in a rule with action a.
// In a Deny rule each element of a list is judged, so that sending a header
// twice does not get round it; in an Allow rule the value as a whole.
func (h Header) Patterns(a Action) []Pattern {
	v := h.Value
	switch {
	case h.Type == Present || h.Type == Prefix && v == "":
		return []Pattern{{Beginning, ""}}
	case h.Type == Exact && (a == Allow || v == ""):
		return []Pattern{{Whole, v}}
	case h.Type == Exact:
		return []Pattern{
			{Whole, v}, {Beginning, v + ","}, {End, "," + v}, {End, ", " + v}, {Anywhere, "," + v + ","}, {Anywhere, ", " + v + ","},
		}
	case a == Allow:
		return []Pattern{{Beginning, v}}
	default:
		return []Pattern{{Beginning, v}, {Anywhere, "," + v}, {Anywhere, ", " + v}}
	}
}

// HostOnly is an authority in lower case without its port. IPv6 addresses keep
// their brackets.
func HostOnly(authority string) string {
	host := strings.ToLower(authority)
	colon := strings.LastIndexByte(host, ':')
	if colon < 0 || strings.IndexByte(host[colon:], ']') >= 0 {
		return host
	}
	if strings.IndexByte(host[:colon], ':') >= 0 && host[0] != '[' {
		return host // an address without brackets has no port
	}
	return host[:colon]
}
