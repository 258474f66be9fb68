package adsclient

import (
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

func sample(t testing.TB) (delta, state []byte) {
	t.Helper()
	value, err := proto.Marshal(&clusterv3.Cluster{Name: "a", AltStatName: "x", ConnectTimeout: durationpb.New(1)})
	require.NoError(t, err)
	a := &anypb.Any{TypeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster", Value: value}
	delta, err = proto.Marshal(&discoveryv3.DeltaDiscoveryResponse{
		TypeUrl: a.GetTypeUrl(), Nonce: "7", SystemVersionInfo: "s", RemovedResources: []string{"b"},
		Resources: []*discoveryv3.Resource{{Name: "a", Version: "v", Resource: a, Aliases: []string{"z"}, Ttl: durationpb.New(5)}},
	})
	require.NoError(t, err)
	state, err = proto.Marshal(&discoveryv3.DiscoveryResponse{TypeUrl: a.GetTypeUrl(), Nonce: "7", VersionInfo: "v", Canary: true, Resources: []*anypb.Any{a}})
	require.NoError(t, err)
	return delta, state
}

func TestScan(t *testing.T) {
	delta, state := sample(t)
	for p, raw := range map[Protocol][]byte{Delta: delta, SotW: state} {
		m, err := scan(raw, p, Full)
		require.NoError(t, err)
		require.Equal(t, []string{"a"}, m.Names())
		require.Equal(t, "v", m.Resources[0].Version)
		require.Equal(t, "7", m.Nonce)
		decoded, err := m.Resources[0].Decode()
		require.NoError(t, err)
		require.Equal(t, "x", decoded.(*clusterv3.Cluster).GetAltStatName())
		_, err = scan(raw[:len(raw)-1], p, Full)
		require.Error(t, err, "half a message is none")
	}
	require.Nil(t, Resource{Any: []byte{0xff}}.Value())
	_, err := Resource{Name: "x", Any: []byte{0xff}}.Decode()
	require.ErrorContains(t, err, `"x"`)
}

// What the scan says of any bytes, protobuf says too.
func FuzzScan(f *testing.F) {
	delta, state := sample(f)
	f.Add(delta)
	f.Add(state)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var d discoveryv3.DeltaDiscoveryResponse
		if m, err := scan(raw, Delta, Full); err == nil && proto.Unmarshal(raw, &d) == nil {
			require.Equal(t, d.GetNonce(), m.Nonce)
			require.Equal(t, d.GetTypeUrl(), m.TypeURL)
			require.Len(t, m.Removed, len(d.GetRemovedResources()))
			require.Len(t, m.Resources, len(d.GetResources()))
			for i, r := range d.GetResources() {
				require.Equal(t, r.GetName(), m.Resources[i].Name)
				require.Equal(t, r.GetVersion(), m.Resources[i].Version)
			}
		}
		for _, detail := range []Detail{Full, Names, Counts} {
			_, _ = scan(raw, SotW, detail) // must not panic
		}
	})
}
