package updates

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"

	"bailiwick.dev/bailiwick/snapshot"
)

// contents are the resources of a proxy by type and name.
type contents map[snapshot.Child]proto.Message

// configDump is what is read of Envoy's /config_dump.
type configDump struct {
	Configs []struct {
		Clusters []struct {
			Cluster json.RawMessage `json:"cluster"`
		} `json:"dynamic_active_clusters"`
		Endpoints []struct {
			Config json.RawMessage `json:"endpoint_config"`
		} `json:"dynamic_endpoint_configs"`
		Listeners []struct {
			Active struct {
				Listener json.RawMessage `json:"listener"`
			} `json:"active_state"`
		} `json:"dynamic_listeners"`
		Routes []struct {
			Config json.RawMessage `json:"route_config"`
		} `json:"dynamic_route_configs"`
		Secrets []struct {
			Name   string          `json:"name"`
			Secret json.RawMessage `json:"secret"`
		} `json:"dynamic_active_secrets"`
		Filters []struct {
			Filter json.RawMessage `json:"ecds_filter"`
		} `json:"ecds_filters"`
	} `json:"configs"`
}

// contentsOf is what a Pod's Envoy has in use.
func contentsOf(ctx context.Context, p *pod) (contents, error) {
	raw, err := p.envoy.Admin(ctx, "/config_dump?include_eds")
	if err != nil {
		return nil, err
	}
	var dump configDump
	if err := json.Unmarshal(raw, &dump); err != nil {
		return nil, fmt.Errorf("read a configuration dump: %w", err)
	}
	var all []json.RawMessage
	for _, c := range dump.Configs {
		for _, e := range c.Clusters {
			all = append(all, e.Cluster)
		}
		for _, e := range c.Endpoints {
			all = append(all, e.Config)
		}
		for _, e := range c.Listeners {
			all = append(all, e.Active.Listener)
		}
		for _, e := range c.Routes {
			all = append(all, e.Config)
		}
		for _, e := range c.Secrets {
			// The proxy's own certificate and the server's authorities are from files.
			if e.Name != "default" && !strings.HasPrefix(e.Name, "spiffe://") {
				all = append(all, e.Secret)
			}
		}
		for _, e := range c.Filters {
			all = append(all, e.Filter)
		}
	}
	found := contents{}
	for _, text := range all {
		if len(text) == 0 {
			continue // a listener that has never been in use
		}
		m, err := p.message(string(text))
		if err != nil {
			return nil, err
		}
		found.add(m)
	}
	return found, nil
}

// message reads a resource of the dump, once for each of its forms.
func (p *pod) message(text string) (proto.Message, error) {
	if m := p.read[text]; m != nil {
		return m, nil
	}
	var packed anypb.Any
	if err := protojson.Unmarshal([]byte(text), &packed); err != nil {
		return nil, fmt.Errorf("read %.200s: %w", text, err)
	}
	m, err := packed.UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("read %.200s: %w", text, err)
	}
	p.read[text] = m
	return m, nil
}

// add puts a resource in; assignments without an endpoint are none.
func (c contents) add(m proto.Message) {
	switch m := m.(type) {
	case *clusterv3.Cluster:
		c[snapshot.Child{Type: snapshot.Cluster, Name: m.GetName()}] = m
	case *endpointv3.ClusterLoadAssignment:
		// The addresses of the application stand in their clusters.
		if m = essence(m); len(m.GetEndpoints()) > 0 && !strings.HasPrefix(m.GetClusterName(), "inbound-") {
			c[snapshot.Child{Type: snapshot.Endpoint, Name: m.GetClusterName()}] = m
		}
	case *listenerv3.Listener:
		c[snapshot.Child{Type: snapshot.Listener, Name: m.GetName()}] = m
	case *routev3.RouteConfiguration:
		c[snapshot.Child{Type: snapshot.Route, Name: m.GetName()}] = m
	case *tlsv3.Secret:
		c[snapshot.Child{Type: snapshot.Secret, Name: m.GetName()}] = m
	case *corev3.TypedExtensionConfig:
		c[snapshot.Child{Type: snapshot.Extension, Name: m.GetName()}] = m
	}
}

// essence is an assignment without what Envoy adds to it.
func essence(m *endpointv3.ClusterLoadAssignment) *endpointv3.ClusterLoadAssignment {
	out := &endpointv3.ClusterLoadAssignment{ClusterName: m.GetClusterName()}
	for _, l := range m.GetEndpoints() {
		zone := &endpointv3.LocalityLbEndpoints{Locality: &corev3.Locality{Zone: l.GetLocality().GetZone()}}
		for _, e := range l.GetLbEndpoints() {
			zone.LbEndpoints = append(zone.LbEndpoints, &endpointv3.LbEndpoint{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: e.GetEndpoint().GetAddress()}},
			})
		}
		out.Endpoints = append(out.Endpoints, zone)
	}
	return out
}

// decoded is what resources say.
func decoded(rs map[snapshot.Child]*snapshot.Resource) (contents, error) {
	found := contents{}
	for _, r := range rs {
		packed := &anypb.Any{TypeUrl: r.Type().URL(), Value: r.Value()}
		m, err := packed.UnmarshalNew()
		if err != nil {
			return nil, fmt.Errorf("decode %s %q: %w", r.Type(), r.Name(), err)
		}
		found.add(m)
	}
	return found, nil
}

// unequal says how two messages differ; it finds out when it is asked, as most
// are thrown away.
type unequal struct {
	of        snapshot.Child
	want, got proto.Message
}

func (u unequal) Error() string {
	return fmt.Sprintf("%s %q (-want +got): %.2000s", u.of.Type, u.of.Name, cmp.Diff(u.want, u.got, protocmp.Transform()))
}

// differs says how what is there is not what is wanted; nil if it is the same.
func differs(want, got contents) error {
	keys := slices.Collect(maps.Keys(want))
	for k := range got {
		if want[k] == nil {
			keys = append(keys, k)
		}
	}
	var errs []error
	for _, k := range keys {
		switch w, g := want[k], got[k]; {
		case w == nil:
			errs = append(errs, fmt.Errorf("%s %q is still there", k.Type, k.Name))
		case g == nil:
			errs = append(errs, fmt.Errorf("%s %q is missing", k.Type, k.Name))
		case !proto.Equal(w, g):
			errs = append(errs, unequal{k, w, g})
		}
	}
	return errors.Join(errs...)
}
