package snapshot

import (
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy"
)

// A plain service is called as the application calls it: no TLS of ours, no
// bundle, and HTTP/2 only where the port says so. Any other service without a
// trust domain is nobody's and gets no cluster.
func TestPlainCluster(t *testing.T) {
	b := NewBuilder(BuilderConfig{})
	s := &tenancy.ServiceSpec{Key: tenancy.Key{Namespace: "default", Name: "kubernetes"}, Plain: true}
	for protocol, options := range map[tenancy.Protocol]bool{tenancy.ServerFirst: false, tenancy.HTTP1: false, tenancy.HTTP2: true} {
		p := &tenancy.PortSpec{Port: 443, Protocol: protocol}
		r, err := b.Cluster(s, p)
		require.NoError(t, err)
		require.NoError(t, Check(r))
		msg, err := decode(r)
		require.NoError(t, err)
		c := msg.(*clusterv3.Cluster)
		require.Nil(t, c.GetTransportSocket())
		require.Equal(t, options, len(c.GetTypedExtensionProtocolOptions()) > 0)
		require.Equal(t, []Child{{Endpoint, r.Name()}}, r.Children())
	}
	s.Plain = false
	_, err := b.Cluster(s, &tenancy.PortSpec{Port: 443})
	require.ErrorContains(t, err, "no trust domain")
}
