package adsclient

import (
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// references are the resources that a cluster or a listener wants from the same
// ADS stream, without duplicates. What cannot be decoded names nothing.
func references(r Resource) []reference {
	m, err := r.Decode()
	if err != nil {
		return nil
	}
	var out []reference
	walk(m, func(url, name string) {
		if ref := (reference{url, name}); !slices.Contains(out, ref) {
			out = append(out, ref)
		}
	})
	return out
}

// walk finds references in a message and in all that it holds.
func walk(m proto.Message, found func(url, name string)) {
	switch m := m.(type) {
	case *anypb.Any:
		if inner, err := m.UnmarshalNew(); err == nil {
			walk(inner, found)
		}
		return
	case *clusterv3.Cluster:
		if m.GetType() == clusterv3.Cluster_EDS && fromADS(m.GetEdsClusterConfig().GetEdsConfig()) {
			name := m.GetEdsClusterConfig().GetServiceName()
			if name == "" {
				name = m.GetName()
			}
			found(resourcev3.EndpointType, name)
		}
	case *tlsv3.SdsSecretConfig:
		if fromADS(m.GetSdsConfig()) {
			found(resourcev3.SecretType, m.GetName())
		}
	case *hcmv3.Rds:
		if fromADS(m.GetConfigSource()) {
			found(resourcev3.RouteType, m.GetRouteConfigName())
		}
	case *hcmv3.HttpFilter:
		if fromADS(m.GetConfigDiscovery().GetConfigSource()) {
			found(resourcev3.ExtensionConfigType, m.GetName())
		}
	case *listenerv3.Filter:
		if fromADS(m.GetConfigDiscovery().GetConfigSource()) {
			found(resourcev3.ExtensionConfigType, m.GetName())
		}
	case *listenerv3.ListenerFilter:
		if fromADS(m.GetConfigDiscovery().GetConfigSource()) {
			found(resourcev3.ExtensionConfigType, m.GetName())
		}
	}
	descend(m.ProtoReflect(), found)
}

func descend(m protoreflect.Message, found func(url, name string)) {
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.IsMap():
			if field.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, item protoreflect.Value) bool {
					walk(item.Message().Interface(), found)
					return true
				})
			}
		case field.Message() == nil:
		case field.IsList():
			for i := range v.List().Len() {
				walk(v.List().Get(i).Message().Interface(), found)
			}
		default:
			walk(v.Message().Interface(), found)
		}
		return true
	})
}

func fromADS(s *corev3.ConfigSource) bool { return s.GetAds() != nil }
