package snapshot

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

// anyText is whatever may stand where a name is expected, mostly a name.
func anyText() *rapid.Generator[string] {
	return rapid.OneOf(rapid.StringMatching(`[a-z]([a-z0-9-]{0,8}[a-z0-9])?`), rapid.SampledFrom([]string{
		"", "*", "a*b", "\xff", "a b", "a\nb", strings.Repeat("x", 300), "/", "..", "%CMD%", "(", "spiffe://x/y",
	}))
}

func anyAddr() *rapid.Generator[netip.Addr] {
	return rapid.SampledFrom([]netip.Addr{
		{}, mustAddr("10.0.0.1"), mustAddr("10.0.0.2"), mustAddr("fd00::1"), mustAddr("::ffff:10.0.0.1"), mustAddr("fe80::1%eth0"), mustAddr("0.0.0.0"),
	})
}

func anyPort() *rapid.Generator[uint16] {
	return rapid.OneOf(rapid.SampledFrom([]uint16{0, 80, 8080, outboundPort, inboundPort, 65535}), rapid.Uint16())
}

func anyProtocol() *rapid.Generator[tenancy.Protocol] {
	return rapid.SampledFrom([]tenancy.Protocol{tenancy.ServerFirst, tenancy.ClientFirst, tenancy.HTTP1, tenancy.HTTP2})
}

func anyService(t *rapid.T) *tenancy.ServiceSpec {
	return &tenancy.ServiceSpec{
		Key:          tenancy.Key{Namespace: anyText().Draw(t, "namespace"), Name: anyText().Draw(t, "name")},
		TrustDomain:  anyText().Draw(t, "domain"),
		TLSMinimum13: rapid.Bool().Draw(t, "13"),
		VIPs:         rapid.SliceOfN(anyAddr(), 0, 3).Draw(t, "vips"),
		Accounts:     rapid.SliceOfN(anyText(), 0, 3).Draw(t, "accounts"),
		Ports: []tenancy.PortSpec{{
			Port: anyPort().Draw(t, "port"), Protocol: anyProtocol().Draw(t, "protocol"),
			Endpoints: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) tenancy.EndpointSpec {
				return tenancy.EndpointSpec{
					Address: netip.AddrPortFrom(anyAddr().Draw(t, "ip"), anyPort().Draw(t, "endpoint")),
					Host:    anyText().Draw(t, "host"), Draining: rapid.Bool().Draw(t, "draining"), Zone: anyText().Draw(t, "zone"),
				}
			}), 0, 4).Draw(t, "endpoints"),
		}},
	}
}

func anyPrincipals(t *rapid.T) policy.Principals {
	return policy.Principals{
		All: rapid.Bool().Draw(t, "all"), Granted: rapid.Bool().Draw(t, "granted"),
		IDs:        rapid.SliceOfN(rapid.OneOf(anyText(), rapid.SampledFrom([]string{"spiffe://a/ns/b/sa/c", "spiffe://a/ns/b/sa/d", "spiffe://a/ns/b/sa/c,x"})), 0, 2).Draw(t, "ids"),
		Namespaces: rapid.SliceOfN(anyNamespace(), 0, 2).Draw(t, "namespaces"),
	}
}

func anyNamespace() *rapid.Generator[policy.NamespaceRef] {
	return rapid.Custom(func(t *rapid.T) policy.NamespaceRef {
		return policy.NamespaceRef{TrustDomain: rapid.OneOf(rapid.Just("a"), anyText()).Draw(t, "td"), Namespace: rapid.OneOf(rapid.Just("b"), anyText()).Draw(t, "ns")}
	})
}

func anyMatch(t *rapid.T) policy.Match {
	return policy.Match{
		Methods: rapid.SliceOfN(anyText(), 0, 2).Draw(t, "methods"),
		Paths: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) policy.Path {
			return policy.Path{Type: rapid.SampledFrom([]policy.MatchType{policy.Exact, policy.Prefix}).Draw(t, "type"), Value: rapid.OneOf(anyText(), rapid.SampledFrom([]string{"/", "/a", "/a?b"})).Draw(t, "path")}
		}), 0, 2).Draw(t, "paths"),
		Hosts: rapid.SliceOfN(anyText(), 0, 2).Draw(t, "hosts"),
		Headers: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) policy.Header {
			return policy.Header{Name: anyText().Draw(t, "header"), Type: rapid.SampledFrom([]policy.MatchType{policy.Exact, policy.Prefix, policy.Present}).Draw(t, "type"), Value: anyText().Draw(t, "value")}
		}), 0, 2).Draw(t, "headers"),
	}
}

func anyPolicy(t *rapid.T) policy.Port {
	return policy.Port{
		Floor: policy.Floor{
			Tenant:  rapid.SliceOfN(anyNamespace(), 0, 2).Draw(t, "tenant"),
			Granted: rapid.SliceOfN(anyNamespace(), 0, 2).Draw(t, "granted"),
		},
		Rules: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) policy.Rule {
			return policy.Rule{
				Policy: rapid.OneOf(rapid.Just("ns/p"), anyText()).Draw(t, "policy"), Action: rapid.SampledFrom([]policy.Action{policy.Allow, policy.Deny}).Draw(t, "action"),
				From: anyPrincipals(t), Match: anyMatch(t),
			}
		}), 0, 3).Draw(t, "rules"),
		AllowSelected: rapid.Bool().Draw(t, "selected"), AllowWithinTenant: rapid.Bool().Draw(t, "within"),
	}
}

// accept requires that what was built is valid and that it is built again in
// the same bytes.
func accept(t *rapid.T, build func() (*Resource, error)) {
	r, err := build()
	again, errAgain := build()
	if err != nil {
		require.EqualError(t, errAgain, err.Error())
		return
	}
	require.NoError(t, Check(r))
	require.NoError(t, errAgain)
	require.Equal(t, r.Version(), again.Version())
}

func TestWhateverIsBuiltIsValidAndDeterministic(t *testing.T) {
	bundle := fixedBundle(t)
	rapid.Check(t, func(t *rapid.T) {
		b := NewBuilder(BuilderConfig{ClusterDomain: anyText().Draw(t, "cluster domain")})
		s := anyService(t)
		p := &s.Ports[0]
		accept(t, func() (*Resource, error) { return b.Cluster(s, p) })
		accept(t, func() (*Resource, error) { return b.Endpoints(s, p) })
		accept(t, func() (*Resource, error) { return b.HTTPListener(p.Port, Variant{}) })
		v := Variant{Explicit: rapid.Bool().Draw(t, "explicit"), Bind: anyAddr().Draw(t, "bind"), App: anyAddr().Draw(t, "app")}
		accept(t, func() (*Resource, error) { return b.HTTPListener(p.Port, v) })
		accept(t, func() (*Resource, error) { return b.TCPListener(v.Bind, p.Port, s.Key.Name, v, nil) })
		accept(t, func() (*Resource, error) { return b.Bundle(s.TrustDomain, bundle) })
		var hosts []*Part
		for _, grade := range []tenancy.Grade{tenancy.OwnNamespace, tenancy.OwnTenant} {
			if h, err := b.VirtualHost(s, p, grade, true); err == nil {
				hosts = append(hosts, h.Part)
			}
			if h, err := b.EndpointHost(s, p, grade, anyText().Draw(t, "endpoint host")); err == nil {
				hosts = append(hosts, h.Part)
			}
		}
		accept(t, func() (*Resource, error) { return b.RouteConfiguration(p.Port, hosts, tenancy.AllowAny) })

		w := &tenancy.WorkloadSpec{
			Workload:     identity.Workload{TrustDomain: "a", Namespace: "b", ServiceAccount: "c"},
			TrustDomains: rapid.SliceOfN(rapid.OneOf(rapid.Just("a"), anyText()), 0, 2).Draw(t, "domains"),
			Ports: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) tenancy.InboundPort {
				return tenancy.InboundPort{Port: anyPort().Draw(t, "pod port"), Protocol: anyProtocol().Draw(t, "protocol"), Policy: anyPolicy(t)}
			}), 0, 3).Draw(t, "ports"),
		}
		bundles := map[string][]byte{"a": bundle, s.TrustDomain: bundle}
		ips := rapid.SliceOfN(anyAddr(), 0, 2).Draw(t, "ips")
		out, _ := b.Inbound(w, v, ips, bundles)
		again, _ := b.Inbound(w, v, ips, bundles)
		require.Len(t, again, len(out))
		for i, r := range out {
			require.NoError(t, Check(r))
			require.Equal(t, r.Version(), again[i].Version())
		}
		for _, p := range w.Ports {
			if p.Port == 0 || !v.Explicit && (p.Port == outboundPort || p.Port == inboundPort) {
				continue
			}
			// However broken its policy, a served port has a decision.
			require.True(t, slices.ContainsFunc(out, func(r *Resource) bool {
				return r.Type() == Extension && strings.HasSuffix(r.Name(), "-"+portText(p.Port))
			}))
		}
	})
}
