package main

import (
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"bailiwick.dev/bailiwick/cmd/internal/capture"
)

// iptablesConfig is what the flags of iptables say.
type iptablesConfig struct {
	rules        capture.Rules
	in, out      []uint
	cidrs        []string
	apply, clean bool
}

func newIptablesCommand() *cobra.Command {
	var c iptablesConfig
	defaults := capture.Default()
	cmd := &cobra.Command{
		Use:   "iptables",
		Short: "Print or set the rules that lead a Pod's traffic through its Envoy",
		Long: `Prints a shell script that leads all TCP traffic of a network namespace through
its Envoy (bootstrap --capture transparent); with --apply, sets the same rules
itself. Both may be repeated: what was there of ours is replaced, other rules are
left alone. Run it once per Pod, in its network namespace and before the
application starts, with CAP_NET_ADMIN.

Envoy must run as the user of --uid, and no application may: its traffic would
escape. UDP is not captured. A port that --exclude-inbound-ports names is reached
without mTLS and without any policy.`,
		Example: `  # What would be done
  bailiwick iptables

  # In a Pod's init container
  bailiwick iptables --apply --exclude-inbound-ports 9090 --exclude-outbound-cidrs 169.254.169.254/32

  # In a network namespace made by hand
  bailiwick iptables | sudo ip netns exec pod sh

  # Take everything away again
  bailiwick iptables --clean --apply`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd) },
	}
	f := cmd.Flags()
	f.Uint32Var(&c.rules.UID, "uid", defaults.UID, "numeric user `ID` that Envoy runs as")
	f.Uint16Var(&c.rules.InboundPort, "inbound-port", defaults.InboundPort, "`PORT` of Envoy's inbound listener")
	f.Uint16Var(&c.rules.OutboundPort, "outbound-port", defaults.OutboundPort, "`PORT` of Envoy's outbound listener")
	f.UintSliceVar(&c.in, "exclude-inbound-ports", nil, "`PORTS` that the application is reached on directly, separated by commas")
	f.UintSliceVar(&c.out, "exclude-outbound-ports", nil, "destination `PORTS` that the application reaches directly, separated by commas")
	f.StringSliceVar(&c.cidrs, "exclude-outbound-cidrs", nil, "destination `CIDRS` that the application reaches directly, separated by commas")
	f.BoolVar(&c.rules.IPv6, "ipv6", defaults.IPv6, "include IPv6")
	f.BoolVar(&c.apply, "apply", false, "run the commands instead of printing them")
	f.BoolVar(&c.clean, "clean", false, "remove the rules instead of setting them")
	return cmd
}

func (c *iptablesConfig) run(cmd *cobra.Command) error {
	rules, err := c.parse()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	switch {
	case c.apply && c.clean:
		return rules.Clean(ctx, capture.Exec())
	case c.apply:
		return rules.Apply(ctx, capture.Exec())
	case c.clean:
		_, err = fmt.Fprint(cmd.OutOrStdout(), rules.CleanScript())
	default:
		_, err = fmt.Fprint(cmd.OutOrStdout(), rules.Script())
	}
	return err
}

func (c *iptablesConfig) parse() (capture.Rules, error) {
	rules := c.rules
	var err error
	if rules.ExcludeInboundPorts, err = parsePorts("--exclude-inbound-ports", c.in); err != nil {
		return rules, err
	}
	if rules.ExcludeOutboundPorts, err = parsePorts("--exclude-outbound-ports", c.out); err != nil {
		return rules, err
	}
	if rules.ExcludeOutboundCIDRs, err = parseCIDRs("--exclude-outbound-cidrs", c.cidrs); err != nil {
		return rules, err
	}
	if err := rules.Check(); err != nil {
		return rules, usagef("%w", err)
	}
	return rules, nil
}

func parseCIDRs(flag string, values []string) ([]netip.Prefix, error) {
	var cidrs []netip.Prefix
	for _, text := range values {
		cidr, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, usagef("%s: %q is not a CIDR such as 10.0.0.0/8", flag, text)
		}
		cidrs = append(cidrs, cidr)
	}
	return cidrs, nil
}

func parsePorts(flag string, values []uint) ([]uint16, error) {
	var ports []uint16
	for _, v := range values {
		if v == 0 || v > 65535 {
			return nil, usagef("%s: %d is not a port", flag, v)
		}
		ports = append(ports, uint16(v))
	}
	return ports, nil
}
