package adsclient_test

import (
	"slices"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/xds/adsclient"
	"bailiwick.dev/bailiwick/xds/xdstest"
)

func packed(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	require.NoError(t, err)
	return a
}

var ads = &corev3.ConfigSource{ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}

func resource(t *testing.T, typ snapshot.Type, name string, m proto.Message) *snapshot.Resource {
	t.Helper()
	r, err := snapshot.NewResource(typ, name, m, nil, nil)
	require.NoError(t, err)
	return r
}

// secured is a cluster that needs its assignment and the bundle of its trust
// domain from ADS, and a certificate from elsewhere.
func secured(t *testing.T, name, stat string) *snapshot.Resource {
	t.Helper()
	return resource(t, snapshot.Cluster, name, &clusterv3.Cluster{
		Name: name, AltStatName: stat,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads},
		TransportSocket: &corev3.TransportSocket{Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed(t, &tlsv3.UpstreamTlsContext{
			CommonTlsContext: &tlsv3.CommonTlsContext{
				TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: "default", SdsConfig: &corev3.ConfigSource{
					ConfigSourceSpecifier: &corev3.ConfigSource_PathConfigSource{PathConfigSource: &corev3.PathConfigSource{Path: "svid/sds.json"}}}}},
				ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
					ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: "bundle/td", SdsConfig: ads}}},
			}})}},
	})
}

func listener(t *testing.T, name, route string) *snapshot.Resource {
	t.Helper()
	hcm := packed(t, &hcmv3.HttpConnectionManager{
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: ads, RouteConfigName: route}},
		HttpFilters: []*hcmv3.HttpFilter{{Name: "rbac-http-80", ConfigType: &hcmv3.HttpFilter_ConfigDiscovery{
			ConfigDiscovery: &corev3.ExtensionConfigSource{ConfigSource: ads}}}},
	})
	return resource(t, snapshot.Listener, name, &listenerv3.Listener{Name: name, FilterChains: []*listenerv3.FilterChain{{
		Filters: []*listenerv3.Filter{
			{Name: "rbac-tcp-80", ConfigType: &listenerv3.Filter_ConfigDiscovery{ConfigDiscovery: &corev3.ExtensionConfigSource{ConfigSource: ads}}},
			{Name: "hcm", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: hcm}},
		},
		TransportSocket: &corev3.TransportSocket{Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed(t, &tlsv3.DownstreamTlsContext{
			CommonTlsContext: &tlsv3.CommonTlsContext{ValidationContextType: &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{
				ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: "inbound", SdsConfig: ads}}},
		})}},
	}}})
}

// asked is a delta request in short.
type asked struct {
	url                    string
	subscribe, unsubscribe []string
	nonce                  string
}

func (f *fake) next() asked {
	r := <-f.delta
	return asked{r.GetTypeUrl(), r.GetResourceNamesSubscribe(), r.GetResourceNamesUnsubscribe(), r.GetResponseNonce()}
}

func TestFollowLikeEnvoy(t *testing.T) {
	f := newFake(t)
	config := f.config(adsclient.Delta)
	config.Follow = adsclient.FollowLikeEnvoy
	c := f.dial(config)
	require.Equal(t, asked{url: clusters}, f.next())

	f.respond("c1", clusters, nil, secured(t, "a", "1"))
	require.Equal(t, asked{url: endpoints, subscribe: []string{"a"}}, f.next())
	require.Equal(t, asked{url: secrets, subscribe: []string{"bundle/td"}}, f.next())
	require.Equal(t, asked{url: clusters, nonce: "c1"}, f.next(), "at the start an ACK is not withheld")
	f.respond("e1", endpoints, nil, assignment("a", "1"))
	require.Equal(t, asked{url: endpoints, nonce: "e1"}, f.next())
	require.Empty(t, f.delta, "no listeners while the bundle is missing")
	f.respond("s1", secrets, nil, xdstest.Resource(snapshot.Secret, "bundle/td", "pem"))
	require.Equal(t, asked{url: secrets, nonce: "s1"}, f.next())
	require.Equal(t, asked{url: listeners}, f.next())

	f.respond("l1", listeners, nil, listener(t, "in", "http-80"))
	require.Equal(t, asked{url: secrets, subscribe: []string{"inbound"}}, f.next())
	require.Equal(t, asked{url: routes, subscribe: []string{"http-80"}}, f.next())
	require.Equal(t, asked{url: rbac, subscribe: []string{"rbac-http-80", "rbac-tcp-80"}}, f.next())
	require.Equal(t, asked{url: listeners, nonce: "l1"}, f.next())

	// A change withholds the ACK until the assignment follows, the same or not.
	f.respond("c2", clusters, nil, secured(t, "a", "2"))
	f.respond("c3", clusters, nil, secured(t, "a", "2"))
	f.respond("s2", secrets, nil, xdstest.Resource(snapshot.Secret, "bundle/td", "new"))
	require.Equal(t, asked{url: secrets, nonce: "s2"}, f.next())
	f.respond("e2", endpoints, nil, assignment("a", "1"))
	require.Equal(t, asked{url: endpoints, nonce: "e2"}, f.next())
	require.Equal(t, asked{url: clusters, nonce: "c2"}, f.next())
	require.Equal(t, asked{url: clusters, nonce: "c3"}, f.next())

	// What is gone is not subscribed any more.
	f.respond("l2", listeners, nil, listener(t, "in", "http-81"))
	require.Equal(t, asked{url: routes, subscribe: []string{"http-81"}, unsubscribe: []string{"http-80"}}, f.next())
	require.Equal(t, asked{url: listeners, nonce: "l2"}, f.next())
	f.respond("c4", clusters, []string{"a"})
	require.Equal(t, asked{url: endpoints, unsubscribe: []string{"a"}}, f.next())
	require.Equal(t, asked{url: secrets, unsubscribe: []string{"bundle/td"}}, f.next())
	require.Equal(t, asked{url: clusters, nonce: "c4"}, f.next())
	require.Empty(t, c.Names(endpoints))
}

func TestReconnectWhileAClusterWarms(t *testing.T) {
	f := newFake(t)
	config := f.config(adsclient.Delta)
	config.Follow = adsclient.FollowLikeEnvoy
	c := f.dial(config)
	f.next()
	f.respond("1", clusters, nil, cluster("a", "1"))
	f.next()
	f.next()
	f.respond("2", endpoints, nil, assignment("a", "1"))
	f.next()
	require.Equal(t, asked{url: listeners}, f.next())
	f.respond("3", clusters, nil, cluster("b", "1"))
	require.Equal(t, asked{url: endpoints, subscribe: []string{"b"}}, f.next())

	require.NoError(t, c.Reconnect(t.Context(), adsclient.Reconnection{}))
	first := <-f.delta
	require.Equal(t, endpoints, first.GetTypeUrl(), "clusters are not asked for")
	require.Equal(t, []string{"a", "b"}, first.GetResourceNamesSubscribe())
	require.Equal(t, map[string]string{"a": assignment("a", "1").Version()}, first.GetInitialResourceVersions())
	require.Equal(t, asked{url: listeners}, f.next())
	f.respond("1", endpoints, []string{"b"})
	require.Equal(t, asked{url: endpoints, nonce: "1"}, f.next())
	late := <-f.delta
	require.Equal(t, clusters, late.GetTypeUrl(), "warm: told that there is none")
	require.Equal(t, map[string]string{"a": cluster("a", "1").Version(), "b": cluster("b", "1").Version()}, late.GetInitialResourceVersions(), "what was applied, its ACK withheld or not")
}

func TestStateOfTheWorldGivesOneLateAnswer(t *testing.T) {
	f := newFake(t)
	config := f.config(adsclient.SotW)
	config.Follow = adsclient.FollowLikeEnvoy
	config.OnResponse = func(m *adsclient.Message) adsclient.Verdict {
		if m.Nonce == "c2" {
			return adsclient.Nack("b is bad", "b")
		}
		return adsclient.Ack()
	}
	c := f.dial(config)
	next := func() *discoveryv3.DiscoveryRequest { return <-f.state }
	require.Equal(t, clusters, next().GetTypeUrl())
	f.whole("c1", "v1", clusters)
	require.Equal(t, "c1", next().GetResponseNonce())
	require.Equal(t, listeners, next().GetTypeUrl())
	f.whole("c2", "v2", clusters, cluster("a", "1"), cluster("b", "1"))
	require.Equal(t, []string{"a"}, next().GetResourceNames(), "what was refused names nothing")
	f.whole("c3", "v3", clusters, cluster("a", "1"), cluster("d", "1"))
	require.Equal(t, []string{"a", "d"}, next().GetResourceNames())
	f.whole("e1", "1", endpoints, assignment("a", "1"), assignment("d", "1"))
	require.Equal(t, "e1", next().GetResponseNonce())
	answer := next()
	require.Equal(t, []string{clusters, "c3", "v3"}, []string{answer.GetTypeUrl(), answer.GetResponseNonce(), answer.GetVersionInfo()})
	require.Equal(t, "b is bad", answer.GetErrorDetail().GetMessage())
	require.Equal(t, []string{"a", "d"}, slices.Sorted(slices.Values(c.Names(endpoints))))
}
