package xds

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"bailiwick.dev/bailiwick/snapshot"
)

// FuzzRequest: what the scan of a request's bytes takes for an ACK is what
// protobuf makes of them, and says nothing else; what it does not take is decoded
// or an error, and never a panic.
func FuzzRequest(f *testing.F) {
	for _, m := range []proto.Message{
		&discoveryv3.DeltaDiscoveryRequest{TypeUrl: snapshot.Route.URL(), ResponseNonce: "17"},
		&discoveryv3.DeltaDiscoveryRequest{TypeUrl: snapshot.Route.URL(), ResponseNonce: "17", ErrorDetail: &status.Status{Code: 3, Message: "no"}},
		&discoveryv3.DeltaDiscoveryRequest{TypeUrl: snapshot.Cluster.URL(), ResourceNamesSubscribe: []string{"*"}, Node: &corev3.Node{Id: "a/b"}},
		&discoveryv3.DeltaDiscoveryRequest{TypeUrl: snapshot.Cluster.URL(), InitialResourceVersions: map[string]string{"a": "1"}, ResourceNamesUnsubscribe: []string{"b"}},
		&discoveryv3.DiscoveryRequest{TypeUrl: snapshot.Endpoint.URL(), ResponseNonce: "3", VersionInfo: "v", ResourceNames: []string{"a", "b"}},
		&discoveryv3.DiscoveryRequest{TypeUrl: snapshot.Endpoint.URL(), ResponseNonce: "3", ErrorDetail: &status.Status{}},
	} {
		raw, err := proto.Marshal(m)
		require.NoError(f, err)
		f.Add(raw)
		f.Add(append(raw, raw...))
		f.Add(raw[:len(raw)-1])
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, mode := range []protocol{delta, state} {
			in := incoming{mode: mode}
			require.NoError(t, newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(raw)}, &in))
			want := &request{}
			var err error
			if mode == delta {
				var m discoveryv3.DeltaDiscoveryRequest
				if err = proto.Unmarshal(raw, &m); err == nil {
					want.fromDelta(&m)
				}
			} else {
				var m discoveryv3.DiscoveryRequest
				if err = proto.Unmarshal(raw, &m); err == nil {
					want.fromState(&m)
				}
			}
			if in.req.ack {
				require.NoError(t, err, "protobuf reads it, too")
			}
			if got := in.req.decode(mode); err != nil || got != nil {
				require.Error(t, got)
				require.Error(t, err)
				continue
			}
			want.size, want.ack = in.req.size, in.req.ack
			require.Equal(t, want, in.req)
		}
	})
}
