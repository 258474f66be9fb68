package object

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// The sizes of lists, as the markers of package v1alpha1 have them.
const (
	maxNamespacePatterns = 256
	maxGrantTenants      = 256
	maxList              = 64
	maxMethods           = 16
	maxHeaders           = 16
	maxMatchLabels       = 16
	maxPathLength        = 1024
	maxValueLength       = 1024
	maxHeaderName        = 128
	maxTrustDomain       = 255
	maxLimit             = 1_000_000_000
	maxSPIFFEID          = 512
	maxClaims            = 16
	maxClaimPath         = 8
	maxClaimName         = 256
	maxProviders         = 16
	maxAudiences         = 16
	maxIssuer            = 512
	maxJWKS              = 65536
	maxPriority          = 1000
)

// FromTenant reads a Tenant; nil if there are errors.
func FromTenant(in *v1alpha1.Tenant) (*tenancy.Tenant, []FieldError) {
	p := &problems{}
	spec := field.NewPath("spec")
	out := &tenancy.Tenant{
		Meta: metaOf(p, in), TrustDomain: in.Spec.TrustDomain, Suspended: in.Spec.Suspended, TLSMinimum13: true,
	}
	trustDomain(p, spec.Child("trustDomain"), in.Spec.TrustDomain)
	out.Namespaces = namespacePatterns(p, spec.Child("namespaces"), in.Spec.Namespaces)
	switch in.Spec.OutboundPolicy {
	case "", "RegistryOnly":
	case "AllowAny":
		out.Outbound = tenancy.AllowAny
	default:
		notOneOf(p, spec.Child("outboundPolicy"), in.Spec.OutboundPolicy, "RegistryOnly", "AllowAny")
	}
	switch in.Spec.Visibility {
	case "", "Tenant":
	case "Namespace":
		out.Visibility = tenancy.VisibleInNamespace
	default:
		notOneOf(p, spec.Child("visibility"), in.Spec.Visibility, "Tenant", "Namespace")
	}
	switch in.Spec.DefaultAction {
	case "", "Deny":
	case "AllowWithinTenant":
		out.DefaultAction = tenancy.AllowWithinTenant
	default:
		notOneOf(p, spec.Child("defaultAction"), in.Spec.DefaultAction, "Deny", "AllowWithinTenant")
	}
	if in.Spec.TLS != nil {
		tlsOf(p, spec.Child("tls"), in.Spec.TLS, out)
	}
	if in.Spec.AdminNamespace != "" {
		name(p, spec.Child("adminNamespace"), in.Spec.AdminNamespace)
		out.AdminNamespace = string(in.Spec.AdminNamespace)
	}
	if in.Spec.JWT != nil {
		out.Providers = providers(p, spec.Child("jwt", "providers"), in.Spec.JWT.Providers)
	}
	pace(p, spec, in, out)
	if l := in.Spec.Limits; l != nil {
		out.Limits = limits(p, spec.Child("limits"), l)
	}
	return result(out, p)
}

// tlsOf reads what is agreed with whoever calls, and is called.
func tlsOf(p *problems, at *field.Path, in *v1alpha1.TLS, out *tenancy.Tenant) {
	switch in.MinimumVersion {
	case "", "1.3":
	case "1.2":
		out.TLSMinimum13 = false
	default:
		notOneOf(p, at.Child("minimumVersion"), in.MinimumVersion, "1.2", "1.3")
	}
	switch in.Peers {
	case "", "Strict":
	case "Permissive":
		out.Permissive = true
	default:
		notOneOf(p, at.Child("peers"), in.Peers, "Strict", "Permissive")
	}
	switch in.PlainDestinations {
	case "", "Deny":
	case "Allow":
		out.Plain = true
	default:
		notOneOf(p, at.Child("plainDestinations"), in.PlainDestinations, "Deny", "Allow")
	}
}

// pace reads how fast things go and end.
func pace(p *problems, spec *field.Path, in *v1alpha1.Tenant, out *tenancy.Tenant) {
	if d := in.Spec.Debounce; d != nil {
		at := spec.Child("debounce")
		out.Quiet = duration(p, at.Child("quiet"), d.Quiet, time.Millisecond, time.Minute)
		out.Max = duration(p, at.Child("max"), d.Max, time.Millisecond, time.Minute)
		if out.Quiet > 0 && out.Max > 0 && out.Quiet > out.Max {
			p.add(at.Child("quiet"), "longer than max")
		}
	}
	if c := in.Spec.Connections; c != nil {
		at := spec.Child("connections")
		out.MaxConnectionAge = duration(p, at.Child("maxConnectionAge"), c.MaxConnectionAge, time.Second, 720*time.Hour)
		out.MaxStreamAge = duration(p, at.Child("maxStreamAge"), c.MaxStreamAge, time.Second, 720*time.Hour)
	}
}

// providers reads the issuers of tokens, sorted by name.
func providers(p *problems, list *field.Path, in []v1alpha1.JWTProvider) []policy.Provider {
	if !required(p, list, in, maxProviders) {
		return nil
	}
	var out []policy.Provider
	seen, issuers := make(map[v1alpha1.Name]bool), make(map[string]bool)
	for i, one := range in {
		at := list.Index(i)
		name(p, at.Child("name"), one.Name)
		unique(p, at.Child("name"), seen, one.Name)
		text(p, at.Child("issuer"), one.Issuer, maxIssuer)
		unique(p, at.Child("issuer"), issuers, one.Issuer)
		made := policy.Provider{Name: string(one.Name), Issuer: one.Issuer, JWKS: one.JWKS}
		made.Fetch = publicKeys(p, at, &one)
		if required(p, at.Child("audiences"), one.Audiences, maxAudiences) {
			made.Audiences = texts64(p, at.Child("audiences"), one.Audiences)
		}
		out = append(out, made)
	}
	slices.SortFunc(out, func(a, b policy.Provider) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// timestamp reads a point in time as seconds since the Unix epoch; empty is 0.
func timestamp(p *problems, at *field.Path, in v1alpha1.Timestamp) int64 {
	if in == "" {
		return 0
	}
	t, err := time.Parse(time.RFC3339, string(in))
	if err != nil || strings.Contains(string(in), ".") || t.Unix() <= 0 {
		p.add(at, "%s is no time such as 2027-01-31T12:00:00Z", quote(string(in)))
		return 0
	}
	return t.Unix()
}

func trustDomain(p *problems, at *field.Path, name string) {
	if name == "" {
		p.add(at, "required")
		return
	}
	td, err := spiffeid.TrustDomainFromString(name)
	if err != nil || td.Name() != name || len(name) > maxTrustDomain {
		p.add(at, "%s is no trust domain: lower case letters, digits, dots, dashes and underscores, at most %d", quote(name), maxTrustDomain)
	}
}

func namespacePatterns(p *problems, at *field.Path, in []v1alpha1.NamespacePattern) []string {
	if in == nil {
		return nil
	}
	if !size(p, at, len(in), maxNamespacePatterns) {
		return nil
	}
	out := make([]string, 0, len(in))
	seen := make(map[v1alpha1.NamespacePattern]bool)
	for i, pattern := range in {
		// The beginning of names ends in "-": with one more letter it is a name.
		name := string(pattern)
		if strings.HasSuffix(name, "-") && len(name) < validation.DNS1123LabelMaxLength {
			name += "x"
		}
		if errs := validation.IsDNS1123Label(name); len(errs) > 0 {
			p.add(at.Index(i), "%s is neither a namespace's name nor the beginning of one that ends in a dash", quote(string(pattern)))
		}
		unique(p, at.Index(i), seen, pattern)
		out = append(out, string(pattern))
	}
	return out
}

func limits(p *problems, at *field.Path, in *v1alpha1.Limits) tenancy.Limits {
	limit := func(name string, n v1alpha1.Limit) int {
		// Zero is a field that is left out: a written one is refused by Decode.
		if n < 0 || n > maxLimit {
			p.add(at.Child(name), "%d is out of range: 1 to %d", n, maxLimit)
		}
		return int(n)
	}
	return tenancy.Limits{
		Services: limit("services", in.Services), Policies: limit("policies", in.Policies),
		PoliciesPerWorkload: limit("policiesPerWorkload", in.PoliciesPerWorkload),
		Grants:              limit("grants", in.Grants), Requests: limit("requests", in.Requests),
		Endpoints: limit("endpoints", in.Endpoints), ViewResources: limit("viewResources", in.ViewResources),
		ViewBytes: limit("viewBytes", in.ViewBytes), Streams: limit("streams", in.Streams),
		StreamsPerID: limit("streamsPerID", in.StreamsPerID), RequestsPerSecond: limit("requestsPerSecond", in.RequestsPerSecond),
		SubscribedNames: limit("subscribedNames", in.SubscribedNames), RequestBytes: limit("requestBytes", in.RequestBytes),
	}
}

// duration reads a time span; empty is 0.
func duration(p *problems, at *field.Path, in v1alpha1.Duration, least, most time.Duration) time.Duration {
	if in == "" {
		return 0
	}
	d, err := time.ParseDuration(string(in))
	switch {
	case err != nil || !regexp.MustCompile(`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`).MatchString(string(in)):
		p.add(at, "%s is no time span such as 100ms, 1.5s or 1h30m", quote(string(in)))
	case d < least || d > most:
		p.add(at, "%s is out of range: %s to %s", quote(string(in)), least, most)
	default:
		return d
	}
	return 0
}

func notOneOf(p *problems, at *field.Path, got string, want ...string) {
	if got == "" {
		p.add(at, "required: one of %s", strings.Join(want, ", "))
		return
	}
	p.add(at, "%s is none of %s%s", quote(got), strings.Join(want, ", "), suggest(got, want))
}

// size checks the length of a list that is not left out.
func size(p *problems, at *field.Path, n, most int) bool {
	switch {
	case n == 0:
		p.add(at, "is empty: nothing is ever meant by an empty list")
	case n > most:
		p.add(at, "%d items, at most %d", n, most)
	default:
		return true
	}
	return false
}

// required checks the length of a list that may not be left out.
func required[T any](p *problems, at *field.Path, list []T, most int) bool {
	if list == nil {
		p.add(at, "required")
		return false
	}
	return size(p, at, len(list), most)
}

func unique[T comparable](p *problems, at *field.Path, seen map[T]bool, value T) {
	if seen[value] {
		p.add(at, "%s is given twice", quote(fmt.Sprint(value)))
	}
	seen[value] = true
}
