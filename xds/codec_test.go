package xds

import (
	"bytes"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/snapshot"
)

// What is taken for an ACK is decoded to the same, and says nothing else.
func TestAnAckIsNothingElse(t *testing.T) {
	acks := 0
	rapid.Check(t, func(rt *rapid.T) {
		m := &discoveryv3.DeltaDiscoveryRequest{
			TypeUrl:       rapid.SampledFrom([]string{"", "x", snapshot.Route.URL(), snapshot.Endpoint.URL()}).Draw(rt, "url"),
			ResponseNonce: rapid.SampledFrom([]string{"", "1", "184", "x", "1\u00a0"}).Draw(rt, "nonce"),
		}
		switch rapid.IntRange(0, 8).Draw(rt, "besides") {
		case 0:
			m.ResourceNamesSubscribe = []string{"a"}
		case 1:
			m.ResourceNamesUnsubscribe = []string{"a"}
		case 2:
			m.InitialResourceVersions = map[string]string{"a": "1"}
		case 3:
			m.ErrorDetail = &status.Status{}
		}
		raw, err := proto.Marshal(m)
		require.NoError(rt, err)
		if rapid.Bool().Draw(rt, "twice") {
			raw = append(raw, raw...)
		}
		in := incoming{mode: delta}
		require.NoError(rt, newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(raw[:len(raw)/2]), mem.SliceBuffer(raw[len(raw)/2:])}, &in))
		var same discoveryv3.DeltaDiscoveryRequest
		require.NoError(rt, proto.Unmarshal(raw, &same))
		require.NoError(rt, in.req.decode(delta))
		want := &request{}
		want.fromDelta(&same)
		want.size, want.ack = in.req.size, in.req.ack
		require.Equal(rt, want, in.req)
		if in.req.ack {
			acks++
			require.Empty(rt, want.subscribe)
			require.Nil(rt, want.failed)
		}
	})
	require.Positive(t, acks)
}

// The same in the state of the world, where an ACK has names and a version.
func TestStateRequestsAreReadAsTheyAre(t *testing.T) {
	acks := 0
	rapid.Check(t, func(rt *rapid.T) {
		m := &discoveryv3.DiscoveryRequest{
			TypeUrl:       rapid.SampledFrom([]string{"", "x", snapshot.Route.URL(), snapshot.Endpoint.URL()}).Draw(rt, "url"),
			ResponseNonce: rapid.SampledFrom([]string{"", "1", "184", "x", "1\u00a0"}).Draw(rt, "nonce"),
			VersionInfo:   rapid.SampledFrom([]string{"", "v"}).Draw(rt, "version"),
			ResourceNames: rapid.SliceOfN(rapid.SampledFrom([]string{"", "a", "b", "*"}), 0, 3).Draw(rt, "names"),
		}
		switch rapid.IntRange(0, 8).Draw(rt, "besides") {
		case 0:
			m.ErrorDetail = &status.Status{}
		case 1:
			m.Node = &corev3.Node{}
		}
		raw, err := proto.Marshal(m)
		require.NoError(rt, err)
		if rapid.Bool().Draw(rt, "twice") {
			raw = append(raw, raw...)
		}
		in := incoming{mode: state}
		require.NoError(rt, newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(raw[:len(raw)/2]), mem.SliceBuffer(raw[len(raw)/2:])}, &in))
		var same discoveryv3.DiscoveryRequest
		require.NoError(rt, proto.Unmarshal(raw, &same))
		require.NoError(rt, in.req.decode(state))
		want := &request{}
		want.fromState(&same)
		want.size, want.ack = in.req.size, in.req.ack
		require.Equal(rt, want, in.req)
		if in.req.ack {
			acks++
			require.Nil(rt, want.failed)
			require.Nil(rt, want.node)
		}
	})
	require.Positive(t, acks)
}

// What no decoder takes is no ACK, and an error of the stream.
func TestRequestsThatAreNoMessages(t *testing.T) {
	for _, mode := range []protocol{delta, state} {
		for _, raw := range [][]byte{{0xff}, {2<<3 | 2, 200}, {5<<3 | 2, 1, 0xff}, bytes.Repeat([]byte{0x0a}, 1000)} {
			in := incoming{mode: mode}
			require.NoError(t, newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(raw)}, &in))
			require.False(t, in.req.ack)
			require.Error(t, in.req.decode(mode))
		}
	}
}

// An ACK that nothing waits for is cheap: it looks at no layer.
func TestAnAckIsReadWithoutAllocatingMuch(t *testing.T) {
	raw, err := proto.Marshal(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: snapshot.Endpoint.URL(), ResponseNonce: "17"})
	require.NoError(t, err)
	data := mem.BufferSlice{mem.SliceBuffer(raw)}
	c := newCodec()
	in := incoming{mode: delta}
	n := testing.AllocsPerRun(100, func() { require.NoError(t, c.Unmarshal(data, &in)) })
	require.LessOrEqual(t, n, 2.0, "the request and its nonce")
}
