package main

import (
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"

	"bailiwick.dev/bailiwick/snapshot"
)

// fanoutName is the one resource of the fan-out.
const fanoutName = "one"

// assignment is a ClusterLoadAssignment of about size bytes, another one for
// each round and of the same length.
func assignment(size, round int) *endpointv3.ClusterLoadAssignment {
	group := &endpointv3.LocalityLbEndpoints{}
	cla := &endpointv3.ClusterLoadAssignment{ClusterName: fanoutName, Endpoints: []*endpointv3.LocalityLbEndpoints{group}}
	one := 0
	for n := 0; n == 0 || n*one+12 < size; n++ {
		host := fmt.Sprintf("10.%03d.%03d.%03d", round%2+100, n>>8&127+100, n&127+100)
		group.LbEndpoints = append(group.LbEndpoints, &endpointv3.LbEndpoint{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: &corev3.Address{
				Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
					Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: podPort},
				}},
			}}},
		})
		if n == 0 {
			one = proto.Size(group)
		}
	}
	return cla
}

// oneStore shows one view with one assignment to everybody.
type oneStore struct {
	size, round int
	binding     *snapshot.Binding
}

func newOneStore(size int) (*oneStore, error) {
	view, listeners := snapshot.NewView()
	o := &oneStore{size: size, binding: &snapshot.Binding{
		Tenant: "one", View: view, Listeners: listeners, Workload: snapshot.NewWorkload(),
	}}
	first, err := o.next()
	if err != nil {
		return nil, err
	}
	o.publish(first)
	return o, nil
}

// Attach implements xds.Store. It is the only writer of attachments, and
// publishing does not look at them before the streams are there.
func (o *oneStore) Attach(p snapshot.Proxy) *snapshot.Attachment {
	a := snapshot.NewAttachment(p, func(a *snapshot.Attachment) { a.Bind(nil) })
	a.Bind(o.binding)
	return a
}

func (o *oneStore) next() (*snapshot.Resource, error) {
	o.round++
	return snapshot.NewResource(snapshot.Endpoint, fanoutName, assignment(o.size, o.round), nil, nil)
}

func (o *oneStore) publish(r *snapshot.Resource) {
	snapshot.Publish(snapshot.Update{Layer: o.binding.View, Set: []*snapshot.Resource{r}})
}
