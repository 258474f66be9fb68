package snapshot

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"bailiwick.dev/bailiwick/tenancy/policy"
)

// Absent is what a proxy that asked for a name gets where there is nothing for
// it, because Envoy keeps what it has (or waits) when told that it is gone: an
// empty ClusterLoadAssignment, an empty RouteConfiguration, an RBAC extension
// of the kind that the name says which denies everything. It is nil where
// nothing is to be sent: for the other types, and for names that are none of
// ours.
func Absent(t Type, name string) *Resource {
	if name == "" {
		return nil
	}
	var pk packer
	var r *Resource
	var err error
	switch t {
	case Endpoint:
		r, err = pk.resource(t, name, &endpointv3.ClusterLoadAssignment{ClusterName: name}, nil, nil)
	case Route:
		r, err = pk.resource(t, name, &routev3.RouteConfiguration{Name: name}, nil, nil)
	case Extension:
		var kind rbacKind
		switch {
		case strings.HasPrefix(name, jwtPrefix):
			r, err = pk.resource(t, name, &corev3.TypedExtensionConfig{Name: name, TypedConfig: pk.any(noToken())}, nil, nil)
			if err != nil {
				return nil
			}
			return r
		case strings.HasPrefix(name, rbacHTTPPrefix):
			kind = rbacHTTP
		case strings.HasPrefix(name, rbacTCPPrefix):
			kind = rbacTCP
		default:
			return nil
		}
		config := pk.any(denyAll(&pk, kind, policy.ByTenantFloor))
		r, err = pk.resource(t, name, &corev3.TypedExtensionConfig{Name: name, TypedConfig: config}, nil, nil)
	}
	if err != nil {
		return nil // a name that no resource can have
	}
	return r
}
