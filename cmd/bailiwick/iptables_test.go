package main

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/cmd/internal/capture"
)

func TestIptablesPrints(t *testing.T) {
	rules := capture.Default()
	require.Equal(t, rules.Script(), must(t, "iptables"))
	require.Equal(t, rules.CleanScript(), must(t, "iptables", "--clean"))

	rules = capture.Rules{
		UID: 1000, InboundPort: 16, OutboundPort: 11, IPv6: true,
		ExcludeInboundPorts: []uint16{22, 9090}, ExcludeOutboundPorts: []uint16{53, 853},
		ExcludeOutboundCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")},
	}
	require.Equal(t, rules.Script(), must(t, "iptables", "--uid", "1000", "--inbound-port", "16", "--outbound-port", "11",
		"--exclude-inbound-ports", "22,9090", "--exclude-outbound-ports", "53", "--exclude-outbound-ports", "853",
		"--exclude-outbound-cidrs", "10.0.0.0/8,fd00::/8"))
	require.NotContains(t, must(t, "iptables", "--ipv6=false"), "ip6tables")
}

func TestIptablesRefuses(t *testing.T) {
	for why, args := range map[string][]string{
		"70000 is not a port":                   {"--exclude-inbound-ports", "70000"},
		"0 is not a port":                       {"--exclude-outbound-ports", "0"},
		`"10.0.0.0" is not a CIDR`:              {"--exclude-outbound-cidrs", "10.0.0.0"},
		"10.0.0.0/8 is meant":                   {"--exclude-outbound-cidrs", "10.1.2.3/8"},
		"user must not be 0":                    {"--uid", "0"},
		"must be two different ports":           {"--inbound-port", "15001"},
		"is of IPv6, which is turned off":       {"--exclude-outbound-cidrs", "fd00::/8", "--ipv6=false"},
		"invalid argument \"-1\" for \"--uid\"": {"--uid=-1"},
	} {
		r := bailiwick(t, append([]string{"iptables"}, args...)...)
		require.Equal(t, exitUsage, r.code, why)
		require.Contains(t, r.stderr, why)
		require.Empty(t, r.stdout)
	}
}
