package object

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bailiwick.dev/bailiwick/tenancy"
)

// KindInfo says what a kind is called where it is stored.
type KindInfo struct {
	Kind tenancy.Kind
	// APIVersion and Name are as in YAML.
	APIVersion, Name string
	// Resource is the name in URLs, such as accesspolicies.
	Resource   string
	Namespaced bool
	// Ours are of group bailiwick.dev.
	Ours bool
}

// Kinds are all that is read, in a fixed order: what a source of any sort has to
// follow.
func Kinds() []KindInfo {
	var out []KindInfo
	for _, k := range kinds() {
		out = append(out, KindInfo{k.kind, k.apiVersion, k.name, Resource(k.name), k.namespaced, k.ours})
	}
	return out
}

// Resource is what URLs and CRDs call a kind: the plural in lower case, which for
// names that end in s, such as PeerTLS, is the name itself.
func Resource(name string) string {
	name = strings.ToLower(name)
	switch {
	case strings.HasSuffix(name, "s"):
		return name
	case strings.HasSuffix(name, "y"):
		return strings.TrimSuffix(name, "y") + "ies"
	}
	return name + "s"
}

// Identify says what is wrong with the name and namespace of an object of that
// kind, as [Decode] would.
func Identify(kind tenancy.Kind, obj metav1.Object) []FieldError {
	for _, k := range kinds() {
		if k.kind == kind {
			p := &problems{}
			k.identify(p, obj)
			return p.errors()
		}
	}
	return []FieldError{{"kind", "not read"}}
}
