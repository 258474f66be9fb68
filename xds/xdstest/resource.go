package xdstest

import (
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"bailiwick.dev/bailiwick/snapshot"
)

// Child names a resource that follows another one.
func Child(t snapshot.Type, name string) snapshot.Child { return snapshot.Child{Type: t, Name: name} }

// Resource makes a small resource of a type. Its content is text, which can be
// found in its bytes as it is.
func Resource(typ snapshot.Type, name, text string, children ...snapshot.Child) *snapshot.Resource {
	r, err := snapshot.NewResource(typ, name, content(typ, name, text), children, nil)
	if err != nil {
		panic(fmt.Sprintf("make a %s for a test: %v", typ, err))
	}
	return r
}

func content(typ snapshot.Type, name, text string) proto.Message {
	switch typ {
	case snapshot.Cluster:
		return &clusterv3.Cluster{
			Name: name, AltStatName: text,
			ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
			EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads()},
		}
	case snapshot.Endpoint:
		return &endpointv3.ClusterLoadAssignment{ClusterName: name, NamedEndpoints: map[string]*endpointv3.Endpoint{text: {Hostname: text}}}
	case snapshot.Secret:
		return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_GenericSecret{GenericSecret: &tlsv3.GenericSecret{
			Secret: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: text}}}}}
	case snapshot.Listener:
		return &listenerv3.Listener{Name: name, StatPrefix: text}
	case snapshot.Extension:
		value, err := anypb.New(wrapperspb.String(text))
		if err != nil {
			panic(fmt.Sprintf("encode a string for a test: %v", err))
		}
		return &corev3.TypedExtensionConfig{Name: name, TypedConfig: value}
	case snapshot.Route:
		return &routev3.RouteConfiguration{Name: name, InternalOnlyHeaders: []string{text}}
	case snapshot.NumTypes:
	}
	panic(fmt.Sprintf("no resource of type %d", typ))
}

func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
	}
}
