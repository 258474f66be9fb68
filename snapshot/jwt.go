package snapshot

import (
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	"google.golang.org/protobuf/types/known/emptypb"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

const (
	// jwtFilter is the filter that verifies tokens, and the name under which it
	// leaves what they say.
	jwtFilter = "envoy.filters.http.jwt_authn"
	jwtPrefix = "jwt-http-"
)

// jwtName is the name of a port's extension that verifies tokens.
func jwtName(p tenancy.InboundPort) string { return jwtPrefix + portText(p.Port) }

// jwtSource is where the filter finds its configuration; until it is there, no
// token is good.
func jwtSource(pk *packer) *corev3.ExtensionConfigSource {
	none := noToken()
	return &corev3.ExtensionConfigSource{
		ConfigSource:                     ads(),
		DefaultConfig:                    pk.any(none),
		ApplyDefaultConfigWithoutWarming: true,
		TypeUrls:                         []string{typeURL(none)},
	}
}

// JWT makes the extension that verifies tokens for the rules of a port. What a
// verified one says is left under the provider's name, for RBAC to judge. With
// no rule about claims everything passes. Where rules ask for a token, a request
// without one is refused; where they only observe, even one with a bad one
// passes. Keys that a proxy of this variant cannot fetch safely are nowhere.
func JWT(p tenancy.InboundPort, v Variant, origins []tenancy.Ref) (*Resource, error) {
	name := jwtName(p)
	var pk packer
	config := &jwtv3.JwtAuthentication{}
	if providers := p.Policy.Providers; len(providers) > 0 {
		config.Providers = map[string]*jwtv3.JwtProvider{}
		var any []*jwtv3.JwtRequirement
		for _, provider := range providers {
			config.Providers[provider.Name] = tokensOf(provider, v)
			any = append(any, &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_ProviderName{ProviderName: provider.Name}})
		}
		switch {
		case p.Policy.TokenRequired:
		case p.Policy.TokenEnforced:
			any = append(any, &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_AllowMissing{AllowMissing: &emptypb.Empty{}}})
		default:
			any = append(any, &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_AllowMissingOrFailed{AllowMissingOrFailed: &emptypb.Empty{}}})
		}
		require := any[0]
		if len(any) > 1 {
			require = &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_RequiresAny{RequiresAny: &jwtv3.JwtRequirementOrList{Requirements: any}}}
		}
		config.Rules = []*jwtv3.RequirementRule{requires(require)}
	}
	r, err := pk.resource(Extension, name, &corev3.TypedExtensionConfig{Name: name, TypedConfig: pk.any(config)}, nil, origins)
	if err != nil {
		return nil, fmt.Errorf("compile %q: %w", name, err)
	}
	return r, nil
}

func tokensOf(provider policy.Provider, v Variant) *jwtv3.JwtProvider {
	out := &jwtv3.JwtProvider{
		Issuer: provider.Issuer, Audiences: provider.Audiences, Forward: true,
		// Only there: by default a query parameter would do as well, and be logged.
		FromHeaders:       []*jwtv3.JwtHeader{{Name: "authorization", ValuePrefix: "Bearer "}},
		PayloadInMetadata: provider.Name,
	}
	switch {
	case provider.Fetch.URI == "":
		out.JwksSourceSpecifier = &jwtv3.JwtProvider_LocalJwks{LocalJwks: &corev3.DataSource{
			Specifier: &corev3.DataSource_InlineString{InlineString: provider.JWKS},
		}}
	case v.FiltersAddresses:
		out.JwksSourceSpecifier = &jwtv3.JwtProvider_RemoteJwks{RemoteJwks: remoteKeys(provider)}
	default:
		out.JwksSourceSpecifier = &jwtv3.JwtProvider_RemoteJwks{RemoteJwks: nowhere()}
	}
	return out
}

func requires(r *jwtv3.JwtRequirement) *jwtv3.RequirementRule {
	return &jwtv3.RequirementRule{
		Match:           &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		RequirementType: &jwtv3.RequirementRule_Requires{Requires: r},
	}
}

// noToken accepts no request, because the keys of its issuer are nowhere to be
// had. Envoy takes no empty set of keys.
func noToken() *jwtv3.JwtAuthentication {
	const nobody = "nobody"
	return &jwtv3.JwtAuthentication{
		Providers: map[string]*jwtv3.JwtProvider{nobody: {
			Issuer:              nobody,
			JwksSourceSpecifier: &jwtv3.JwtProvider_RemoteJwks{RemoteJwks: nowhere()},
		}},
		Rules: []*jwtv3.RequirementRule{requires(&jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_ProviderName{ProviderName: nobody}})},
	}
}
