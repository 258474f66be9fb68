package snapshot

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"bailiwick.dev/bailiwick/tenancy"
)

// Type is an xDS resource type that we serve.
type Type uint8

// The types, in the order in which a flush writes additions and changes
// (Secret stands twice there: behind the clusters and behind the listeners).
const (
	Cluster Type = iota
	Endpoint
	Secret
	Listener
	Extension
	Route
	NumTypes
)

var typeURLs = [NumTypes]string{
	Cluster:   resourcev3.ClusterType,
	Endpoint:  resourcev3.EndpointType,
	Secret:    resourcev3.SecretType,
	Listener:  resourcev3.ListenerType,
	Extension: resourcev3.ExtensionConfigType,
	Route:     resourcev3.RouteType,
}

var typeNames = [NumTypes]string{
	Cluster: "cluster", Endpoint: "endpoint", Secret: "secret",
	Listener: "listener", Extension: "extension", Route: "route",
}

// URL is the type URL as it stands in requests and responses.
func (t Type) URL() string { return typeURLs[t] }

// String is a short lower-case word, for logs and metric labels.
func (t Type) String() string {
	if t >= NumTypes {
		return "unknown"
	}
	return typeNames[t]
}

// TypeOf returns the Type of a type URL, and false for one that we do not serve.
func TypeOf(url string) (Type, bool) {
	for t, u := range typeURLs {
		if u == url {
			return Type(t), true
		}
	}
	return NumTypes, false
}

// Child names a resource that must follow its parent in the same flush,
// unasked: a cluster's CLA and trust bundle, a listener's secrets, RBAC
// extensions and RouteConfiguration.
type Child struct {
	Type Type
	Name string
}

// Part is an encoded piece of a composite resource: a virtual host or a filter
// chain, framed as the repeated field it stands in. It is the unit of check,
// of last good and of quarantine, and immutable.
type Part struct {
	// Key is unique within its composite and stable over content changes.
	Key string
	// Origins are the objects that it came from.
	Origins []tenancy.Ref
	frame   []byte
}

// NewPart encodes msg as one element of the repeated field of its composite.
func NewPart(key string, field protowire.Number, msg proto.Message, origins []tenancy.Ref) (*Part, error) {
	body, err := marshal(msg)
	if err != nil {
		return nil, fmt.Errorf("encode part %q: %w", key, err)
	}
	frame := protowire.AppendTag(make([]byte, 0, len(body)+12), field, protowire.BytesType)
	frame = protowire.AppendBytes(frame, body)
	return &Part{Key: key, Origins: origins, frame: frame}, nil
}

// Equal reports whether both parts have the same bytes.
func (p *Part) Equal(o *Part) bool { return p == o || string(p.frame) == string(o.frame) }

// Resource is one xDS resource, encoded once and immutable from then on. Its
// bytes are shared by all who see it.
type Resource struct {
	typ     Type
	name    string
	version string
	// frame is field 2 of a DeltaDiscoveryResponse with its tag: a Resource
	// whose own field 2, the Any, stands last. As both messages number the
	// field alike, the tail from anyAt on is field 2 of a DiscoveryResponse.
	frame []byte
	anyAt int
	// Children follow this resource in the same flush.
	children []Child
	origins  []tenancy.Ref
	// head, parts and tail are set for composites.
	parts      []*Part
	head, tail []byte
}

// NewResource encodes msg deterministically. Children and origins are kept.
func NewResource(t Type, name string, msg proto.Message, children []Child, origins []tenancy.Ref) (*Resource, error) {
	value, err := marshal(msg)
	if err != nil {
		return nil, fmt.Errorf("encode %s %q: %w", t, name, err)
	}
	return encode(&Resource{typ: t, name: name, children: children, origins: origins}, value), nil
}

// Assemble puts a composite together: the fields of head, the parts in the
// given order, the fields of tail. Head and tail are messages of the
// resource's type without the repeated field that the parts stand in.
func Assemble(t Type, name string, head proto.Message, parts []*Part, tail proto.Message, children []Child, origins []tenancy.Ref) (*Resource, error) {
	h, err := marshal(head)
	if err != nil {
		return nil, fmt.Errorf("encode head of %s %q: %w", t, name, err)
	}
	var tl []byte
	if tail != nil {
		if tl, err = marshal(tail); err != nil {
			return nil, fmt.Errorf("encode tail of %s %q: %w", t, name, err)
		}
	}
	return compose(&Resource{typ: t, name: name, children: children, origins: origins, head: h, tail: tl, parts: parts}), nil
}

// Recompose returns the composite r with other parts. It is how a stream that
// refused r gets what it accepts.
func (r *Resource) Recompose(parts []*Part) *Resource {
	return compose(&Resource{
		typ: r.typ, name: r.name, children: r.children, origins: r.origins,
		head: r.head, tail: r.tail, parts: parts,
	})
}

func compose(r *Resource) *Resource {
	size := len(r.head) + len(r.tail)
	for _, p := range r.parts {
		size += len(p.frame)
	}
	value := append(make([]byte, 0, size), r.head...)
	for _, p := range r.parts {
		value = append(value, p.frame...)
	}
	return encode(r, append(value, r.tail...))
}

// Field numbers of envoy.service.discovery.v3.Resource and google.protobuf.Any.
const (
	fieldResources       = 2 // DeltaDiscoveryResponse.resources, DiscoveryResponse.resources
	fieldResourceName    = 3
	fieldResourceVersion = 1
	fieldResourceAny     = 2
	fieldAnyTypeURL      = 1
	fieldAnyValue        = 2
)

func encode(r *Resource, value []byte) *Resource {
	r.version = contentVersion(value)
	anySize := protowire.SizeTag(fieldAnyTypeURL) + protowire.SizeBytes(len(r.typ.URL())) +
		protowire.SizeTag(fieldAnyValue) + protowire.SizeBytes(len(value))
	size := protowire.SizeTag(fieldResourceName) + protowire.SizeBytes(len(r.name)) +
		protowire.SizeTag(fieldResourceVersion) + protowire.SizeBytes(len(r.version)) +
		protowire.SizeTag(fieldResourceAny) + protowire.SizeBytes(anySize)

	b := make([]byte, 0, protowire.SizeTag(fieldResources)+protowire.SizeBytes(size))
	b = protowire.AppendTag(b, fieldResources, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b = protowire.AppendTag(b, fieldResourceName, protowire.BytesType)
	b = protowire.AppendString(b, r.name)
	b = protowire.AppendTag(b, fieldResourceVersion, protowire.BytesType)
	b = protowire.AppendString(b, r.version)
	r.anyAt = len(b)
	b = protowire.AppendTag(b, fieldResourceAny, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(anySize))
	b = protowire.AppendTag(b, fieldAnyTypeURL, protowire.BytesType)
	b = protowire.AppendString(b, r.typ.URL())
	b = protowire.AppendTag(b, fieldAnyValue, protowire.BytesType)
	r.frame = protowire.AppendBytes(b, value)
	return r
}

// contentVersion is 128 bits of the SHA-256 of the encoded resource: the same
// on every replica and after every restart, and telling nothing else.
func contentVersion(value []byte) string {
	sum := sha256.Sum256(value)
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

func marshal(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// Type of the resource.
func (r *Resource) Type() Type { return r.typ }

// Name of the resource, unique among those of its type in a layer.
func (r *Resource) Name() string { return r.name }

// Version is a hash of the content, 22 characters.
func (r *Resource) Version() string { return r.version }

// DeltaFrame is the resource as one `resources` field of a
// DeltaDiscoveryResponse, tag included. Callers must not change it.
func (r *Resource) DeltaFrame() []byte { return r.frame }

// StateFrame is the resource as one `resources` field of a DiscoveryResponse,
// tag included. Callers must not change it.
func (r *Resource) StateFrame() []byte { return r.frame[r.anyAt:] }

// Children are the resources that must follow this one in the same flush.
func (r *Resource) Children() []Child { return r.children }

// Origins are the objects that the resource was made from, for logs and dumps
// of the platform.
func (r *Resource) Origins() []tenancy.Ref { return r.origins }

// Parts are the pieces of a composite in their order, nil for other resources.
func (r *Resource) Parts() []*Part { return r.parts }

// Value decodes the resource, for dumps and tests.
func (r *Resource) Value() []byte {
	// frame ends with the Any's value: skip its type URL.
	b := r.frame[r.anyAt:]
	_, _, n := protowire.ConsumeTag(b)
	b = b[n:]
	_, n = protowire.ConsumeVarint(b)
	b = b[n:]
	_, _, n = protowire.ConsumeTag(b)
	b = b[n:]
	_, n = protowire.ConsumeBytes(b)
	b = b[n:]
	_, _, n = protowire.ConsumeTag(b)
	b = b[n:]
	value, _ := protowire.ConsumeBytes(b)
	return value
}
