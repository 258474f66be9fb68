package tenancy

import (
	"net/netip"
	"strings"
	"time"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

// ViewKey names a view: what the proxies of one namespace of one tenant may
// know. Two namespaces of a tenant have views of their own, because short
// host names and requests differ.
type ViewKey struct {
	Tenant    string
	Namespace string
}

// Grade says by which right a view sees a service; it decides which host
// names lead to it.
type Grade uint8

// OwnNamespace services have the names of all lengths, OwnTenant those from
// name.namespace on, Granted the fully qualified one alone. Where two claim
// one name or address, the lower grade has it.
const (
	OwnNamespace Grade = iota
	OwnTenant
	Granted
)

// Sight is one service as one view sees it.
type Sight struct {
	Service Key
	Grade   Grade
	// Ports are the service ports that the view may know: for Granted those
	// that are both granted and requested.
	Ports PortSet
	// Plain are the ports that are called without mTLS, because the service is
	// nobody's, or because both sides agreed on it and their Tenants permit it.
	Plain PortSet
	// SameSource tells whether the service's virtual IPs mean the same to the
	// view's proxies.
	SameSource bool
}

// ServiceSpec is one service with its endpoints joined to their Pods: all that
// its shared resources are made from. It is immutable; the Model hands out the
// same pointer until the content differs.
type ServiceSpec struct {
	Key Key
	// Plain services have no sidecar and no tenant: the fields about identity are
	// empty, and clients speak to them as the application does.
	Plain       bool
	Tenant      string
	TrustDomain string
	Created     int64
	// TLSMinimum13 is the owning tenant's.
	TLSMinimum13 bool
	// VIPs are the virtual IPs, sorted.
	VIPs []netip.Addr
	// Accounts are the service accounts of all its Pods, ready or not, sorted:
	// what clients pin. Empty means that nobody may be believed.
	Accounts []string
	// Ports in the order of their number, each with its endpoints.
	Ports []PortSpec
	// Origins are the objects it came from: the Service first, then slices.
	Origins []Ref
}

// Headless services have no virtual IP, and their endpoints names of their own.
func (s *ServiceSpec) Headless() bool { return len(s.VIPs) == 0 }

// PortSpec is one service port and what stands behind it.
type PortSpec struct {
	Name     string
	Port     uint16
	Protocol Protocol
	// Hosts are the names of single endpoints, ready or not, sorted; only HTTP
	// ports of headless services have any.
	Hosts []string
	// Endpoints are sorted by address, without duplicates.
	Endpoints []EndpointSpec
	// Nearby are those of Endpoints that clients of a zone or of a node use
	// alone, by that zone or that node; nil where all clients use all. See Near.
	Nearby map[Place][]EndpointSpec
}

// EndpointSpec is one address that has an eligible Pod behind it.
type EndpointSpec struct {
	Address netip.AddrPort
	// Draining endpoints are serving but terminating: no new connections.
	Draining bool
	Zone     string
	// Host is the one of the port's Hosts that leads here, "" for none.
	Host string
}

// TenantSettings are what the builders and windows read of a Tenant.
type TenantSettings struct {
	Name        string
	TrustDomain string
	Outbound    OutboundPolicy
	// Quiet and Max are 0 where the server's default holds.
	Quiet, Max time.Duration
	Limits     Limits
}

// Selection is what selects a workload layer: the workload, the Pod ports that
// services lead to, the policies that select the Pod, and its probes with the
// node that they come from. Pods with equal Selections share their inbound
// configuration. It is comparable, and valid as long as the Model lives.
type Selection struct {
	Workload identity.Workload
	// Class is the canonical text of ports and policies.
	Class string
}

// WorkloadSpec is all that an inbound configuration is made from.
type WorkloadSpec struct {
	Workload identity.Workload
	Tenant   string
	// Ports in the order of their number.
	Ports []InboundPort
	// TrustDomains are those whose workloads may call any of the ports, the
	// own one always among them; sorted.
	TrustDomains []string
	TLSMinimum13 bool
	// Tokens is set if the tenant's policies may speak about tokens.
	Tokens bool
	// MaxConnectionAge bounds TCP connections, MaxStreamAge HTTP streams;
	// 0 is no bound.
	MaxConnectionAge, MaxStreamAge time.Duration
	// Probes are admitted without TLS from ProbeSources alone; both are sorted.
	Probes       []Probe
	ProbeSources []netip.Addr
	// Origins are the objects it came from.
	Origins []Ref
}

// InboundPort is one Pod port that at least one service leads to.
type InboundPort struct {
	Port uint16
	// Protocol is HTTP only if all services that lead here say so.
	Protocol Protocol
	// Policy decides who may call it.
	Policy policy.Port
	// Plaintext is set if callers without a certificate get an answer; whether
	// they get in is for Policy to say.
	Plaintext bool
}

// TouchedView says what to look at again in an open view.
type TouchedView struct {
	// Services whose visibility or shared resources may have changed.
	Services map[Key]struct{}
	// Settings is set when the tenant's settings may have changed.
	Settings bool
}

// Touched is what events changed since it was last taken. It may name too
// much, never too little: equal outputs end the change later.
type Touched struct {
	// Services whose ServiceSpec may have changed.
	Services map[Key]struct{}
	// Views that are open and may look different now.
	Views map[ViewKey]*TouchedView
	// Namespaces whose streams must be resolved again: their tenant, its trust
	// domain or its suspension may have changed.
	Namespaces map[string]struct{}
	// Pods (by namespace and name) whose Selection or Place may have changed.
	Pods map[Key]struct{}
	// Workloads maps namespaces whose WorkloadSpecs may have changed to the
	// tenant that caused it ("" for the platform), which pays the builds.
	Workloads map[string]string
	// Selected are the same as Workloads, but for only those whose Selections
	// name a policy.
	Selected map[Selected]string
	// Bundles are the trust domains whose bundle changed.
	Bundles map[string]struct{}
}

// Empty reports whether nothing was touched.
func (t *Touched) Empty() bool {
	return len(t.Services) == 0 && len(t.Views) == 0 && len(t.Namespaces) == 0 &&
		len(t.Pods) == 0 && len(t.Workloads) == 0 && len(t.Selected) == 0 && len(t.Bundles) == 0
}

// Selected names the workloads of a namespace that one policy selects.
type Selected struct {
	Namespace string
	// Policy is its name in Selections.
	Policy string
}

// Has reports whether a selection may be of one of these workloads.
func (s Selected) Has(sel Selection) bool {
	return sel.Workload.Namespace == s.Namespace && strings.Contains(sel.Class, `"`+s.Policy+`"`)
}

// Problem is something wrong with one object, for its status. Its texts name
// only things of the object's own tenant, and never tell whether a thing of
// another tenant exists.
type Problem struct {
	// Reason is a stable CamelCase word.
	Reason string
	// Field is the path below the object, empty where it is about all of it.
	Field   string
	Message string
}
