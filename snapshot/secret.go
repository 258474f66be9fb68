package snapshot

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy"
)

const (
	// svidName is the SDS name of a proxy's own certificate.
	svidName = "default"
	// svidDir is below Envoy's working directory; a rename inside it makes
	// Envoy read svidFile again.
	svidDir  = "svid"
	svidFile = "svid/sds.json"
	// sdsCluster is the bootstrap's cluster of the SDS server.
	sdsCluster = "sds"

	tlsSocket       = "envoy.transport_sockets.tls"
	spiffeValidator = "envoy.tls.cert_validator.spiffe"
)

// Bundle makes the Secret with which clients check servers of one trust
// domain. It holds that domain alone: a context with two would accept what the
// other's authorities issue as a second name.
func (b *Builder) Bundle(td string, bundle []byte) (*Resource, error) {
	origins := []tenancy.Ref{{Kind: tenancy.KindTrustBundle, Key: tenancy.Key{Name: td}}}
	return validation(bundleName(td), map[string][]byte{td: bundle}, nil, origins)
}

// inboundSecretName is the Secret that a port's chain checks clients with.
func inboundSecretName(p tenancy.InboundPort) string {
	if p.Protocol == tenancy.ServerFirst {
		return inboundName(p.Port)
	}
	return "inbound"
}

// inboundSecret makes the Secret of a port. RBAC decides at the client's first
// byte, too late for a protocol in which the server speaks first: there the
// certificate itself must be one of those allowed, and only the domains of
// those are trusted.
func inboundSecret(p tenancy.InboundPort, td string, bundles map[string][]byte, origins []tenancy.Ref) (*Resource, error) {
	name := inboundSecretName(p)
	if p.Protocol != tenancy.ServerFirst {
		return validation(name, bundles, nil, origins)
	}
	exact, prefixes := p.Policy.SANs()
	var sans []*tlsv3.SubjectAltNameMatcher
	trusted := map[string][]byte{}
	trust := func(san string) {
		domain, _, _ := strings.Cut(strings.TrimPrefix(san, "spiffe://"), "/")
		if bundle, ok := bundles[domain]; ok {
			trusted[domain] = bundle
		}
	}
	for _, id := range exact {
		trust(id)
		sans = append(sans, sanMatcher(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: id}}))
	}
	for _, prefix := range prefixes {
		trust(prefix)
		sans = append(sans, sanMatcher(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix}}))
	}
	if len(trusted) == 0 { // a validator needs a domain: the own one, of which nobody is allowed
		trusted[td] = bundles[td]
		sans = []*tlsv3.SubjectAltNameMatcher{nobody(td)}
	}
	return validation(name, trusted, sans, origins)
}

// validation makes a Secret that accepts certificates of the given domains,
// each checked with its own bundle, and of those only the given names.
func validation(name string, bundles map[string][]byte, sans []*tlsv3.SubjectAltNameMatcher, origins []tenancy.Ref) (*Resource, error) {
	if len(bundles) == 0 {
		return nil, fmt.Errorf("build secret %q: no trust bundle", name)
	}
	config := &tlsv3.SPIFFECertValidatorConfig{}
	for _, td := range slices.Sorted(maps.Keys(bundles)) {
		if err := checkBundle(bundles[td]); err != nil {
			return nil, fmt.Errorf("build secret %q: bundle of trust domain %q: %w", name, td, err)
		}
		config.TrustDomains = append(config.TrustDomains, &tlsv3.SPIFFECertValidatorConfig_TrustDomain{
			Name: td,
			TrustBundle: &corev3.DataSource{
				Specifier: &corev3.DataSource_InlineString{InlineString: string(bundles[td])},
			},
		})
	}
	var pk packer
	return pk.resource(Secret, name, &tlsv3.Secret{
		Name: name,
		Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			MatchTypedSubjectAltNames: sans,
			CustomValidatorConfig:     pk.extension(spiffeValidator, config),
		}},
	}, nil, origins)
}

// checkBundle reports whether Envoy could load a PEM bundle.
func checkBundle(bundle []byte) error {
	certs := 0
	for rest := bundle; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("holds a %s, want only CERTIFICATE", block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("certificate %d: %w", certs, err)
		}
		certs++
	}
	if certs == 0 {
		return errors.New("holds no certificate")
	}
	return nil
}

// usableBundles leaves out the bundles that Envoy could not load.
func usableBundles(bundles map[string][]byte) (map[string][]byte, error) {
	usable := make(map[string][]byte, len(bundles))
	var errs []error
	for _, td := range slices.Sorted(maps.Keys(bundles)) {
		if err := checkBundle(bundles[td]); err != nil {
			errs = append(errs, fmt.Errorf("trust domain %q is not admitted: its bundle %w", td, err))
			continue
		}
		usable[td] = bundles[td]
	}
	return usable, errors.Join(errs...)
}

// upstreamTLS is how a proxy calls a service: with its own certificate, and
// believing only the service's accounts.
func (b *Builder) upstreamTLS(pk *packer, s *tenancy.ServiceSpec, p *tenancy.PortSpec) *corev3.TransportSocket {
	pins := make([]*tlsv3.SubjectAltNameMatcher, 0, len(s.Accounts))
	for _, account := range slices.Compact(slices.Sorted(slices.Values(s.Accounts))) {
		id := identity.Workload{TrustDomain: s.TrustDomain, Namespace: s.Key.Namespace, ServiceAccount: account}.String()
		pins = append(pins, sanMatcher(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: id}}))
	}
	if len(pins) == 0 { // an empty list would believe anybody
		pins = append(pins, nobody(s.TrustDomain))
	}
	common := b.commonTLS(s.TLSMinimum13)
	if p.Protocol.IsHTTP() {
		common.AlpnProtocols = []string{"h2"}
	}
	common.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
		CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext:         &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: pins},
			ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: bundleName(s.TrustDomain), SdsConfig: ads()},
		},
	}
	return &corev3.TransportSocket{Name: tlsSocket, ConfigType: &corev3.TransportSocket_TypedConfig{
		TypedConfig: pk.any(&tlsv3.UpstreamTlsContext{
			CommonTlsContext: common,
			Sni:              b.FQDN(s.Key),
			// A resumed session would vouch for a certificate that nobody has
			// looked at since.
			MaxSessionKeys: u32(0),
		}),
	}}
}

// downstreamTLS is how a workload is called: strict mTLS, and no resumption,
// which would skip the check of the certificate.
func (b *Builder) downstreamTLS(pk *packer, p tenancy.InboundPort, min13 bool) *corev3.TransportSocket {
	common := b.commonTLS(min13)
	if p.Protocol.IsHTTP() {
		common.AlpnProtocols = []string{"h2", "http/1.1"}
	}
	common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{
		ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: inboundSecretName(p), SdsConfig: ads()},
	}
	return &corev3.TransportSocket{Name: tlsSocket, ConfigType: &corev3.TransportSocket_TypedConfig{
		TypedConfig: pk.any(&tlsv3.DownstreamTlsContext{
			CommonTlsContext:         common,
			RequireClientCertificate: wrapperspb.Bool(true),
			SessionTicketKeysType: &tlsv3.DownstreamTlsContext_DisableStatelessSessionResumption{
				DisableStatelessSessionResumption: true,
			},
			DisableStatefulSessionResumption: true,
		}),
	}}
}

// commonTLS is what both sides share: the versions and the own certificate.
func (b *Builder) commonTLS(min13 bool) *tlsv3.CommonTlsContext {
	lowest := tlsv3.TlsParameters_TLSv1_2
	if min13 {
		lowest = tlsv3.TlsParameters_TLSv1_3
	}
	return &tlsv3.CommonTlsContext{
		TlsParams: &tlsv3.TlsParameters{
			TlsMinimumProtocolVersion: lowest,
			TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
		},
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: svidName, SdsConfig: b.svidSource()}},
	}
}

func (b *Builder) svidSource() *corev3.ConfigSource {
	if b.svid == SDSSVID {
		return &corev3.ConfigSource{
			ConfigSourceSpecifier: &corev3.ConfigSource_ApiConfigSource{ApiConfigSource: &corev3.ApiConfigSource{
				ApiType:             corev3.ApiConfigSource_GRPC,
				TransportApiVersion: corev3.ApiVersion_V3,
				GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
					EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: sdsCluster},
				}}},
				SetNodeOnFirstMessageOnly: true,
			}},
			InitialFetchTimeout: durationpb.New(fetchTimeout),
			ResourceApiVersion:  corev3.ApiVersion_V3,
		}
	}
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_PathConfigSource{PathConfigSource: &corev3.PathConfigSource{
			Path:             svidFile,
			WatchedDirectory: &corev3.WatchedDirectory{Path: svidDir},
		}},
		ResourceApiVersion: corev3.ApiVersion_V3,
	}
}

// nobody matches no certificate that is ever issued.
func nobody(td string) *tlsv3.SubjectAltNameMatcher {
	return sanMatcher(&matcherv3.StringMatcher{
		MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "spiffe://" + td + "/none"},
	})
}

func sanMatcher(m *matcherv3.StringMatcher) *tlsv3.SubjectAltNameMatcher {
	return &tlsv3.SubjectAltNameMatcher{SanType: tlsv3.SubjectAltNameMatcher_URI, Matcher: m}
}
