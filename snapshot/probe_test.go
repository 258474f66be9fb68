package snapshot

import (
	"net/netip"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy"
)

// Probes are answered at the ports where the proxy is, from the node alone, and
// without a node not at all. At a real Envoy it is the end-to-end tests that ask.
func TestProbeChains(t *testing.T) {
	w := workloadSpec(t)
	w.Probes = []tenancy.Probe{{Port: 8080, GRPC: true}, {Port: 8080, Path: "/ready"}, {Port: 9999, Path: "/"}, {Port: inboundPort, Path: "/"}}
	b := NewBuilder(BuilderConfig{})
	build := func(v Variant) (chains map[string]*listenerv3.FilterChainMatch, clusters []string) {
		chains = map[string]*listenerv3.FilterChainMatch{}
		for _, r := range inboundOf(t, b, w, v, []netip.Addr{mustAddr("10.0.0.1")}) {
			msg, err := decode(r)
			require.NoError(t, err)
			if l, ok := msg.(*listenerv3.Listener); ok {
				for _, c := range l.GetFilterChains() {
					if c.GetTransportSocket() == nil {
						chains[c.GetName()] = c.GetFilterChainMatch()
					}
				}
			}
			if r.Type() == Cluster {
				clusters = append(clusters, r.Name())
			}
		}
		return chains, clusters
	}
	explicit := Variant{Explicit: true, Bind: mustAddr("127.0.0.1"), App: mustAddr("127.0.0.1")}
	for _, v := range []Variant{{}, explicit} {
		chains, _ := build(v)
		require.NotContains(t, chains, "probe-8080", "no node, no probes")
	}
	w.ProbeSources = []netip.Addr{mustAddr("10.9.0.1"), mustAddr("fd09::1")}
	chains, clusters := build(Variant{})
	require.Contains(t, chains, "probe-9999")
	require.NotContains(t, chains, "probe-15006")
	match := chains["probe-8080"]
	require.EqualValues(t, 8080, match.GetDestinationPort().GetValue())
	require.Equal(t, "raw_buffer", match.GetTransportProtocol())
	require.Len(t, match.GetSourcePrefixRanges(), 2)
	require.EqualValues(t, 128, match.GetSourcePrefixRanges()[1].GetPrefixLen().GetValue())
	require.Subset(t, clusters, []string{inboundHTTP1, inboundHTTP2})

	b = NewBuilder(BuilderConfig{ProbeSources: []netip.Prefix{netip.MustParsePrefix("10.244.3.1/16")}})
	chains, _ = build(Variant{})
	require.Len(t, chains["probe-8080"].GetSourcePrefixRanges(), 3)
	require.Equal(t, "10.244.0.0", chains["probe-8080"].GetSourcePrefixRanges()[2].GetAddressPrefix())

	chains, clusters = build(explicit)
	require.Nil(t, chains["probe-8080"].GetDestinationPort())
	require.NotContains(t, chains, "probe-9999", "the application's own")
	require.Subset(t, clusters, []string{"inbound-8080-http-probe", "inbound-8080-grpc-probe"})
}
