package snapshot

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"bailiwick.dev/bailiwick/tenancy"
)

// SVIDSource says where proxies get their own certificate from.
type SVIDSource uint8

// FileSVID is file SDS at svid/sds.json below Envoy's working directory,
// SDSSVID the gRPC SDS server behind the bootstrap's cluster "sds".
const (
	FileSVID SVIDSource = iota
	SDSSVID
)

// DefaultClusterDomain ends the names of services unless configured otherwise.
const DefaultClusterDomain = "cluster.local"

// fetchTimeout is how long Envoy waits for a resource that the server owes it
// before it goes on without. Never 0: that waits for ever.
const fetchTimeout = 2 * time.Second

// BuilderConfig is what is the same for all resources of a mesh.
type BuilderConfig struct {
	// ClusterDomain ends all service names; DefaultClusterDomain if empty.
	ClusterDomain string
	ProxySVID     SVIDSource
	// IdentityHeader is DefaultIdentityHeader if empty; see CheckIdentityHeader.
	IdentityHeader string
	// ProbeSources are where kubelets ask from, beside the address of each Pod's
	// node: some networks give their connections to Pods another one.
	ProbeSources []netip.Prefix
	// JWKSCAFile is where proxies have the authorities that their system trusts;
	// DefaultJWKSCAFile if empty.
	JWKSCAFile string
	// JWKSAddresses are ranges that issuers' public keys may be fetched from
	// although they are set aside for private use.
	JWKSAddresses []netip.Prefix
}

// Builder makes resources. Its methods are pure functions of their arguments
// and its configuration: equal inputs give equal bytes. It is immutable and
// safe for concurrent use. Whatever it returns has passed Check.
type Builder struct {
	domain    string
	svid      SVIDSource
	identity  string
	kubelet   []netip.Prefix
	systemCAs string
	keysAt    []netip.Prefix
}

// NewBuilder returns a Builder.
func NewBuilder(c BuilderConfig) *Builder {
	if c.ClusterDomain == "" {
		c.ClusterDomain = DefaultClusterDomain
	}
	if c.IdentityHeader == "" {
		c.IdentityHeader = DefaultIdentityHeader
	}
	kubelet := make([]netip.Prefix, 0, len(c.ProbeSources))
	for _, p := range c.ProbeSources {
		kubelet = append(kubelet, p.Masked())
	}
	if c.JWKSCAFile == "" {
		c.JWKSCAFile = DefaultJWKSCAFile
	}
	return &Builder{
		domain: c.ClusterDomain, svid: c.ProxySVID, identity: c.IdentityHeader, kubelet: kubelet,
		systemCAs: c.JWKSCAFile, keysAt: slices.Clone(c.JWKSAddresses),
	}
}

// FQDN is the fully qualified name of a service.
func (b *Builder) FQDN(k tenancy.Key) string {
	return k.Name + "." + k.Namespace + ".svc." + b.domain
}

// ClusterName is the name of a service port's Cluster and
// ClusterLoadAssignment, and the key of its virtual host.
func (b *Builder) ClusterName(k tenancy.Key, port uint16) string {
	return b.FQDN(k) + ":" + portText(port)
}

// ListenerName is the name of an outbound listener.
func ListenerName(addr netip.Addr, port uint16) string {
	return addr.Unmap().String() + "_" + portText(port)
}

// RouteName is the name of the RouteConfiguration of an HTTP port.
func RouteName(port uint16) string { return "http-" + portText(port) }

// bundleName is the name of the Secret that holds one trust domain's bundle.
func bundleName(td string) string { return "bundle/" + td }

func portText(port uint16) string { return strconv.Itoa(int(port)) }

// serviceRef is the origin of what is made from a service without its endpoints.
func serviceRef(k tenancy.Key) []tenancy.Ref {
	return []tenancy.Ref{{Kind: tenancy.KindService, Key: k}}
}

// packer packs messages into Any and keeps the first error, so that builders
// read as the message that they make.
type packer struct{ err error }

// any encodes m deterministically; anypb.New would shuffle maps.
func (p *packer) any(m proto.Message) *anypb.Any {
	value, err := marshal(m)
	if err != nil {
		if p.err == nil {
			p.err = fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
		}
		return &anypb.Any{}
	}
	return &anypb.Any{TypeUrl: typeURL(m), Value: value}
}

func (p *packer) extension(name string, m proto.Message) *corev3.TypedExtensionConfig {
	return &corev3.TypedExtensionConfig{Name: name, TypedConfig: p.any(m)}
}

// resource checks msg and encodes it, unless packing has failed already.
func (p *packer) resource(t Type, name string, msg proto.Message, children []Child, origins []tenancy.Ref) (*Resource, error) {
	if err := p.check(msg); err != nil {
		return nil, fmt.Errorf("build %s %q: %w", t, name, err)
	}
	return NewResource(t, name, msg, children, origins)
}

func (p *packer) check(msg proto.Message) error {
	if p.err != nil {
		return p.err
	}
	return checkMessage(msg)
}

// typeURL is the type URL of a message, as Any and type_urls have it.
func typeURL(m proto.Message) string {
	return "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName())
}

// ads is where Envoy finds what is on the stream it already has.
func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		InitialFetchTimeout:   durationpb.New(fetchTimeout),
		ResourceApiVersion:    corev3.ApiVersion_V3,
	}
}

func address(addr netip.Addr, port uint16) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: socketAddress(addr, port)}}
}

func socketAddress(addr netip.Addr, port uint16) *corev3.SocketAddress {
	return &corev3.SocketAddress{
		Address:       addr.Unmap().String(),
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
	}
}

func u32(n uint32) *wrapperspb.UInt32Value { return wrapperspb.UInt32(n) }
