package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	dfpclusterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	dfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/dynamic_forward_proxy/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

// DefaultJWKSCAFile is where Debian, and Envoy's own images, have the
// authorities that the system trusts.
const DefaultJWKSCAFile = "/etc/ssl/certs/ca-certificates.crt"

// jwksPrefix begins the names of clusters that keys are fetched from.
const jwksPrefix = "jwks-"

const (
	// jwksTimeout is how long a fetch may take, with a retry of its own.
	jwksTimeout = 5 * time.Second
	// jwksRetry is how soon a fetch that failed is tried again.
	jwksRetry = 10 * time.Second
	// jwksSlack is how long before keys would go stale Envoy fetches them again.
	// Its own five seconds, added so that they are fetched when they are due.
	jwksSlack = 5 * time.Second
	// jwksAnswers bounds the fetches that wait: until the first answer each
	// request that has a token asks for itself.
	jwksAnswers     = 64
	jwksConnections = 4
)

// internalRanges are the addresses at which no issuer is that the whole
// Internet knows: of IPv4 what IANA has set aside, of IPv6 all but the global
// unicast block, which leaves out the mapped and translated forms of IPv4 too,
// and of that block what was set aside.
func internalRanges() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
		"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
		"::/3", "4000::/2", "8000::/1", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
	} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// without takes ranges out of ranges.
func without(all, permitted []netip.Prefix) []netip.Prefix {
	for _, p := range permitted {
		var left []netip.Prefix
		for _, r := range all {
			left = append(left, minus(r, p.Masked())...)
		}
		all = left
	}
	return all
}

// minus is what of a range lies outside of another, in halves of it.
func minus(r, p netip.Prefix) []netip.Prefix {
	switch {
	case !r.Overlaps(p):
		return []netip.Prefix{r}
	case p.Bits() <= r.Bits():
		return nil
	}
	low := netip.PrefixFrom(r.Addr(), r.Bits()+1)
	bytes := r.Addr().AsSlice()
	bytes[r.Bits()/8] |= 0x80 >> (r.Bits() % 8)
	addr, _ := netip.AddrFromSlice(bytes)
	return append(minus(low, p), minus(netip.PrefixFrom(addr, low.Bits()), p)...)
}

// refusedAddresses is the filter of what names may resolve to.
func refusedAddresses(permitted []netip.Prefix) *matcherv3.AddressMatcher {
	m := &matcherv3.AddressMatcher{}
	for _, r := range without(internalRanges(), permitted) {
		m.Ranges = append(m.Ranges, &xdscorev3.CidrRange{AddressPrefix: r.Addr().String(), PrefixLen: u32(uint32(r.Bits()))})
	}
	return m
}

func jwksCluster(provider string) string { return jwksPrefix + provider }

// keySources makes the clusters that the keys of these ports' providers are
// fetched from. A proxy that cannot filter addresses gets none.
func (in *inbound) keySources() {
	if !in.v.FiltersAddresses {
		return
	}
	made := map[string]bool{}
	for _, p := range in.served {
		if !in.tokens(p) {
			continue
		}
		for _, provider := range p.Policy.Providers {
			if provider.Fetch.URI == "" || made[provider.Name] {
				continue
			}
			made[provider.Name] = true
			in.keep(in.b.jwksCluster(provider, in.w.Origins))
		}
	}
}

// jwksCluster dials the host that a fetch names, if that resolves to an address
// that it may be at, and believes it by its certificate.
func (b *Builder) jwksCluster(provider policy.Provider, origins []tenancy.Ref) (*Resource, error) {
	var pk packer
	dns := &dfpv3.DnsCacheConfig{
		DnsLookupFamily:       clusterv3.Cluster_ALL,
		DnsFailureRefreshRate: &clusterv3.Cluster_RefreshRate{BaseInterval: durationpb.New(2 * time.Second), MaxInterval: durationpb.New(jwksRetry)},
		MaxHosts:              u32(64),
		ResolvedAddressFilter: refusedAddresses(b.keysAt),
	}
	// Caches of one name are one cache, and Envoy refuses two that differ.
	settings, err := marshal(dns)
	if err != nil {
		return nil, fmt.Errorf("build cluster for the keys of %q: %w", provider.Name, err)
	}
	sum := sha256.Sum256(settings)
	dns.Name = jwksPrefix + hex.EncodeToString(sum[:8])
	c := &clusterv3.Cluster{
		Name:           jwksCluster(provider.Name),
		ConnectTimeout: durationpb.New(connectTimeout),
		LbPolicy:       clusterv3.Cluster_CLUSTER_PROVIDED,
		ClusterDiscoveryType: &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{
			Name: "envoy.clusters.dynamic_forward_proxy",
			TypedConfig: pk.any(&dfpclusterv3.ClusterConfig{
				ClusterImplementationSpecifier: &dfpclusterv3.ClusterConfig_DnsCacheConfig{DnsCacheConfig: dns},
			}),
		}},
		CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
			MaxConnections: u32(jwksConnections), MaxPendingRequests: u32(jwksAnswers), MaxRequests: u32(jwksAnswers), MaxRetries: u32(jwksConnections),
		}}},
		// What has been read and not yet looked at.
		PerConnectionBufferLimitBytes: u32(65536),
		TransportSocket:               b.publicTLS(&pk, provider.Fetch),
	}
	options := &httpv3.HttpProtocolOptions{
		UpstreamHttpProtocolOptions: &corev3.UpstreamHttpProtocolOptions{AutoSni: true, AutoSanValidation: true},
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{HttpProtocolOptions: &corev3.Http1ProtocolOptions{}},
		}},
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{IdleTimeout: durationpb.New(jwksTimeout)},
	}
	c.TypedExtensionProtocolOptions = map[string]*anypb.Any{httpOptionsKey: pk.any(options)}
	return pk.resource(Cluster, c.Name, c, nil, origins)
}

// publicTLS believes one host of the Internet by its name.
func (b *Builder) publicTLS(pk *packer, fetch policy.KeyFetch) *corev3.TransportSocket {
	ca := &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: b.systemCAs}}
	if fetch.CA != "" {
		ca = &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: fetch.CA}}
	}
	return &corev3.TransportSocket{Name: tlsSocket, ConfigType: &corev3.TransportSocket_TypedConfig{
		TypedConfig: pk.any(&tlsv3.UpstreamTlsContext{
			Sni:            fetch.Host,
			MaxSessionKeys: u32(0), // what resumes shows no certificate
			CommonTlsContext: &tlsv3.CommonTlsContext{
				TlsParams: &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3},
				ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
					TrustedCa: ca,
					MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{
						SanType: tlsv3.SubjectAltNameMatcher_DNS,
						Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: fetch.Host}},
					}},
				}},
			},
		}),
	}}
}

// remoteKeys has a filter fetch keys, before any request needs them and again
// when they are due. No listener waits for it, and while it fails the keys that
// it had stay good.
func remoteKeys(provider policy.Provider) *jwtv3.RemoteJwks {
	return &jwtv3.RemoteJwks{
		HttpUri: &corev3.HttpUri{
			Uri: provider.Fetch.URI, Timeout: durationpb.New(jwksTimeout),
			HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: jwksCluster(provider.Name)},
		},
		CacheDuration: durationpb.New(provider.Fetch.Refresh + jwksSlack),
		AsyncFetch:    &jwtv3.JwksAsyncFetch{FastListener: true, FailedRefetchDuration: durationpb.New(jwksRetry)},
		RetryPolicy: &corev3.RetryPolicy{
			NumRetries: wrapperspb.UInt32(1),
			// The longest interval is also how long Envoy lets one try take.
			RetryBackOff: &corev3.BackoffStrategy{BaseInterval: durationpb.New(100 * time.Millisecond), MaxInterval: durationpb.New(jwksTimeout / 2)},
		},
	}
}

// nowhere is a set of keys that cannot be had: Envoy takes no empty set.
func nowhere() *jwtv3.RemoteJwks {
	return &jwtv3.RemoteJwks{HttpUri: &corev3.HttpUri{
		Uri: "https://nobody.invalid/", Timeout: durationpb.New(time.Second),
		HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: blackholeCluster},
	}}
}
