package identity

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/util/validation"
)

// ErrNotWorkload is returned for a SPIFFE ID that is well-formed but does not
// name a workload: it has no path, or a path of another form than
// /ns/<namespace>/sa/<account>.
var ErrNotWorkload = errors.New("not the SPIFFE ID of a workload")

// maxTrustDomain is the longest trust domain name that the SPIFFE ID
// specification (section 2.1) allows. The parser of go-spiffe does not check it.
const maxTrustDomain = 255

// Workload is who a verified peer is. It is comparable and may be a map key.
// Values that come from [ParseWorkload] are valid; the zero value is nobody.
type Workload struct {
	TrustDomain    string
	Namespace      string
	ServiceAccount string
}

// ParseWorkload reads a workload from a SPIFFE ID of exactly the form
// spiffe://<trust domain>/ns/<namespace>/sa/<account>, where the namespace is a
// DNS-1123 label and the account a DNS-1123 subdomain, as Kubernetes requires
// of both. Any other ID is an error that wraps [ErrNotWorkload].
func ParseWorkload(id spiffeid.ID) (Workload, error) {
	td := id.TrustDomain().Name()
	if td == "" || len(td) > maxTrustDomain {
		return Workload{}, fmt.Errorf("%w: trust domain of %q is empty or longer than %d", ErrNotWorkload, shorten(id.String()), maxTrustDomain)
	}
	parts := strings.Split(id.Path(), "/")
	if len(parts) != 5 || parts[0] != "" || parts[1] != "ns" || parts[3] != "sa" {
		return Workload{}, fmt.Errorf("%w: %q, want spiffe://<trust domain>/ns/<namespace>/sa/<account>", ErrNotWorkload, shorten(id.String()))
	}
	if errs := validation.IsDNS1123Label(parts[2]); len(errs) > 0 {
		return Workload{}, fmt.Errorf("%w: namespace in %q: %s", ErrNotWorkload, shorten(id.String()), errs[0])
	}
	if errs := validation.IsDNS1123Subdomain(parts[4]); len(errs) > 0 {
		return Workload{}, fmt.Errorf("%w: service account in %q: %s", ErrNotWorkload, shorten(id.String()), errs[0])
	}
	return Workload{TrustDomain: td, Namespace: parts[2], ServiceAccount: parts[4]}, nil
}

// ID is the workload's SPIFFE ID. It is the zero ID if a field could not be part
// of one, which cannot be for a value that [ParseWorkload] returned.
func (w Workload) ID() spiffeid.ID {
	td, err := spiffeid.TrustDomainFromString(w.TrustDomain)
	if err != nil {
		return spiffeid.ID{}
	}
	id, err := spiffeid.FromSegments(td, "ns", w.Namespace, "sa", w.ServiceAccount)
	if err != nil {
		return spiffeid.ID{}
	}
	return id
}

// String is the SPIFFE ID as text, as it stands in certificates, pins and RBAC
// principals.
func (w Workload) String() string {
	return NamespacePrefix(w.TrustDomain, w.Namespace) + w.ServiceAccount
}

// NamespacePrefix is what the SPIFFE IDs of all service accounts of a namespace
// begin with, and no other ID: it ends in "/", so that the prefix of "shop" does
// not match "shop-admin".
func NamespacePrefix(trustDomain, namespace string) string {
	return "spiffe://" + trustDomain + "/ns/" + namespace + "/sa/"
}

// shorten bounds what a hostile ID adds to an error and thereby to a log line.
func shorten(s string) string {
	const most = 300
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}
