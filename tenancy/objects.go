package tenancy

import (
	"cmp"
	"net/netip"
	"time"

	"bailiwick.dev/bailiwick/tenancy/policy"
)

// Kind names one of the object kinds that the Model understands. Its zero
// value is no kind.
type Kind uint8

// The kinds. Namespace, Service, EndpointSlice and Pod are the fields that we
// read of the Kubernetes kinds of that name; the others are of group
// bailiwick.dev, but for TrustBundle, which comes from the identity source, and
// Holdings, which is what stands in the status of a Tenant.
const (
	KindNamespace Kind = iota + 1
	KindService
	KindEndpointSlice
	KindPod
	KindTenant
	KindServiceGrant
	KindServiceRequest
	KindClusterServiceGrant
	KindAccessPolicy
	KindTrustBundle
	KindClusterAccessPolicy
	KindPeerTLS
	KindHoldings
)

// Key names an object among those of its kind. Source tells where it was
// read (several clusters may feed one Model); Namespace is empty for
// cluster-scoped kinds. Namespaces are unique over sources.
type Key struct {
	Source    string
	Namespace string
	Name      string
}

// Ref names an object of any kind.
type Ref struct {
	Kind Kind
	Key  Key
}

// Event says that the object Ref is now as given; a nil Object says that it is
// gone. Sources make Events through package object and hand them to the one
// goroutine that owns the Model.
type Event struct {
	Ref    Ref
	Object Object
	// Generation is metadata.generation, for the object's status alone: the
	// Model does not look at it. 0 where the source has none (files).
	Generation int64
	// Doubtful is set with a removal of which the source cannot say yet whether it
	// is meant, or comes with the end of the whole kind. Another event follows if it
	// is meant. Only package guard looks at it.
	Doubtful bool
}

// Object is one of the object types of this package, held by pointer and
// never changed after it was put into an Event.
type Object interface{ isObject() }

// Meta is what the Model reads of every object's metadata.
type Meta struct {
	// Created orders objects where the first one wins (limits, conflicts);
	// seconds since the Unix epoch, 0 where the source does not know.
	Created int64
	// UID is metadata.uid; empty where the source has none (files).
	UID string
	// Expires is when the object ends, in seconds since the Unix epoch; 0 is
	// never. Only grants, requests and policies have it.
	Expires int64
}

// Namespace is a Kubernetes Namespace.
type Namespace struct {
	Meta
	// Tenant is the value of the label bailiwick.dev/tenant, empty without it.
	Tenant string
	// Labels are the others whose keys begin with bailiwick.dev/: those that
	// admission guards.
	Labels map[string]string
}

// Protocol says how a service port is carried.
type Protocol uint8

// The protocols. ServerFirst, where the application may speak before the client
// has, works for every TCP port; ClientFirst is what those get that do not say,
// because there callers are judged by RBAC, and may be without a certificate.
const (
	ServerFirst Protocol = iota
	ClientFirst
	HTTP1
	HTTP2
)

// IsHTTP reports whether p is routed and judged by request.
func (p Protocol) IsHTTP() bool { return p == HTTP1 || p == HTTP2 }

// Service is a Kubernetes Service. External names and external IPs are not
// kept: they are refused in package object.
type Service struct {
	Meta
	// ClusterIPs are spec.clusterIPs, empty for a headless service.
	ClusterIPs []netip.Addr
	// PublishNotReady is spec.publishNotReadyAddresses.
	PublishNotReady bool
	// Traffic is spec.trafficDistribution.
	Traffic Traffic
	// Ports in the order of their number; UDP and SCTP ports are left out.
	Ports []ServicePort
}

// ServicePort is one TCP port of a Service.
type ServicePort struct {
	// Name is unique within the service, "" if it has one port only. It joins
	// the port with the EndpointSlices' ports.
	Name     string
	Port     uint16
	Protocol Protocol
}

// EndpointSlice is a discovery.k8s.io/v1 EndpointSlice of an IP address type.
type EndpointSlice struct {
	Meta
	// Service is the label kubernetes.io/service-name.
	Service string
	Ports   []SlicePort
	// Endpoints in the order of the object.
	Endpoints []Endpoint
}

// SlicePort is one TCP port of an EndpointSlice: the Pod port behind the
// service port of that name.
type SlicePort struct {
	Name string
	Port uint16
}

// Endpoint is one endpoint of a slice, with the API's defaults applied: nil
// ready is true, nil serving is ready, nil terminating is false.
type Endpoint struct {
	Addresses   []netip.Addr
	Ready       bool
	Serving     bool
	Terminating bool
	// PodName and PodUID are targetRef where it is a Pod.
	PodName string
	PodUID  string
	// Hostname is by what name it is known below a headless service's.
	Hostname string
	// Zone and Node are where it runs, as far as the slice says.
	Zone, Node string
	// Hints say for whom it is meant, nil for everybody.
	Hints *Hints
}

// Hints are hints.forZones and hints.forNodes by name, never both empty.
type Hints struct{ Zones, Nodes []string }

// Traffic is which endpoints the clients of a Service prefer.
type Traffic uint8

// The preferences. SameZone has the older name PreferClose as well; a client that
// has no endpoint on its node is where SameNode means SameZone.
const (
	AnyEndpoint Traffic = iota
	SameZone
	SameNode
)

// Pod is a Kubernetes Pod.
type Pod struct {
	Meta
	ServiceAccount string
	Labels         map[string]string
	IPs            []netip.Addr
	// HostNetwork and Finished Pods are never an endpoint and never selected.
	HostNetwork bool
	Finished    bool
	// Probes are what the kubelet asks of the Pod over HTTP and gRPC, sorted and
	// without duplicates, and HostIPs where it asks from: the Pod's node.
	Probes  []Probe
	HostIPs []netip.Addr
}

// Probe is one question of the kubelet to a Pod, without TLS: a GET of Path, or
// a gRPC health check.
type Probe struct {
	Port uint16 `json:"port"`
	GRPC bool   `json:"grpc,omitempty"`
	// Path is the request's target, with its query; empty for gRPC.
	Path string `json:"path,omitempty"`
}

// Compare orders probes by port, kind and path.
func (p Probe) Compare(o Probe) int {
	kind := 0
	if p.GRPC != o.GRPC {
		kind = 1
		if o.GRPC {
			kind = -1
		}
	}
	return cmp.Or(cmp.Compare(p.Port, o.Port), kind, cmp.Compare(p.Path, o.Path))
}

// OutboundPolicy says where a tenant's proxies send what no visible service
// claims.
type OutboundPolicy uint8

// RegistryOnly refuses it, AllowAny passes it through to its original address.
const (
	RegistryOnly OutboundPolicy = iota
	AllowAny
)

// Visibility says which of its own tenant's services a namespace sees.
type Visibility uint8

// VisibleInTenant shows all of them, VisibleInNamespace only its own.
const (
	VisibleInTenant Visibility = iota
	VisibleInNamespace
)

// DefaultAction decides what no policy decided.
type DefaultAction uint8

// DefaultDeny refuses, AllowWithinTenant lets the own tenant's workloads in.
const (
	DefaultDeny DefaultAction = iota
	AllowWithinTenant
)

// Tenant is a bailiwick.dev Tenant.
type Tenant struct {
	Meta
	// TrustDomain is required; only SVIDs of that domain are this tenant's.
	TrustDomain string
	// Namespaces the tenant may own: exact names, or prefixes ending in "-".
	// Nil leaves it to the label alone.
	Namespaces []string
	// AdminNamespace is the one whose policies may have scope Tenant.
	AdminNamespace string
	// Permissive permits PeerTLS objects that accept plaintext.
	Permissive bool
	// Plain permits that services without a sidecar are offered, and called, by
	// those who agree on it.
	Plain bool
	// Providers of tokens, sorted by name.
	Providers     []policy.Provider
	Outbound      OutboundPolicy
	Visibility    Visibility
	DefaultAction DefaultAction
	// TLSMinimum13 asks for TLS 1.3 between sidecars; else 1.2 is accepted.
	TLSMinimum13 bool
	// Suspended takes everything away, as if no namespace carried the label.
	Suspended bool
	// Quiet and Max are this tenant's debounce; 0 is the server's default.
	Quiet, Max time.Duration
	// MaxConnectionAge bounds TCP connections, MaxStreamAge HTTP streams, so
	// that what was revoked ends; 0 is no bound.
	MaxConnectionAge, MaxStreamAge time.Duration
	// Limits override the server's; zero fields keep the default.
	Limits Limits
}

// PortSet names service ports: All, or those listed. The zero value is none.
type PortSet struct {
	All   bool
	Ports []uint16
}

// Has reports whether port is in the set.
func (s PortSet) Has(port uint16) bool {
	if s.All {
		return true
	}
	for _, p := range s.Ports {
		if p == port {
			return true
		}
	}
	return false
}

// ServiceGrant offers services of its own namespace to other tenants. It is
// inert until a ServiceRequest of the other side takes it.
type ServiceGrant struct {
	Meta
	From []GrantFrom
	To   []GrantTo
}

// GrantFrom names a consumer: namespaces of a tenant, or all of them.
type GrantFrom struct {
	Tenant     string
	All        bool
	Namespaces []string
}

// GrantTo names a service of the grant's namespace and its service ports.
type GrantTo struct {
	Service string
	Ports   PortSet
	// Plain offers it as what has no sidecar.
	Plain bool
}

// ServiceRequest takes a granted service for its own namespace.
type ServiceRequest struct {
	Meta
	Namespace string
	Service   string
	Ports     PortSet
	// Plain takes it without mTLS, if it is offered so.
	Plain bool
}

// ClusterServiceGrant shows services to tenants without any request.
type ClusterServiceGrant struct {
	Meta
	AllTenants bool
	Tenants    []string
	To         []ClusterGrantTo
}

// ClusterGrantTo names a service and its service ports.
type ClusterGrantTo struct {
	Namespace string
	Service   string
	Ports     PortSet
	// Plain services have no sidecar: no tenant has their namespace.
	Plain bool
}

// TrustBundle holds the X.509 authorities of the trust domain that its Key's
// Name gives.
type TrustBundle struct {
	// PEM holds the certificates, sorted, so that equal bundles are equal bytes.
	PEM []byte
}

func (*Namespace) isObject()           {}
func (*Service) isObject()             {}
func (*EndpointSlice) isObject()       {}
func (*Pod) isObject()                 {}
func (*Tenant) isObject()              {}
func (*ServiceGrant) isObject()        {}
func (*ServiceRequest) isObject()      {}
func (*ClusterServiceGrant) isObject() {}
func (*AccessPolicy) isObject()        {}
func (*ClusterAccessPolicy) isObject() {}
func (*PeerTLS) isObject()             {}
func (*TrustBundle) isObject()         {}
func (*Holdings) isObject()            {}
