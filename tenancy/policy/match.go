package policy

import (
	"slices"
	"strings"
)

// MatchType says how a value is compared.
type MatchType uint8

// Exact compares all of it, Prefix its beginning (of a path: by segment), and
// Present asks only whether a header is there.
const (
	Exact MatchType = iota
	Prefix
	Present
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
}

// Path matches a path without its query. As a Prefix, /a matches /a and
// whatever begins with /a/, in a Deny rule also /a;params; / matches every
// path. A Prefix has no trailing slash but for / itself.
type Path struct {
	Type  MatchType // Exact or Prefix
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
	return len(m.Methods) == 0 && len(m.Paths) == 0 && len(m.Hosts) == 0 && len(m.Headers) == 0
}

// Matches reports whether r meets m in a rule with action a.
func (m Match) Matches(r Request, a Action) bool {
	if len(m.Methods) > 0 && !slices.Contains(m.Methods, r.Method) {
		return false
	}
	if len(m.Hosts) > 0 && !slices.Contains(m.Hosts, HostOnly(r.Host)) {
		return false
	}
	path, _, _ := strings.Cut(r.Path, "?")
	if len(m.Paths) > 0 && !slices.ContainsFunc(m.Paths, func(p Path) bool { return p.matches(path, a) }) {
		return false
	}
	for _, h := range m.Headers {
		if v, ok := r.Headers[h.Name]; !ok || !h.matches(v, a) {
			return false
		}
	}
	return true
}

func (p Path) matches(path string, a Action) bool {
	if p.Type == Exact {
		return path == p.Value
	}
	rest, ok := strings.CutPrefix(path, p.Value)
	switch {
	case p.Value == "/":
		return true
	case !ok:
		return false
	case rest == "" || rest[0] == '/':
		return true
	default:
		// Applications commonly drop path parameters: a Deny must hold for them.
		return a == Deny && rest[0] == ';'
	}
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
