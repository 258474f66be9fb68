package capture

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Names of our chains in the nat table.
const (
	chainIn      = "BW_IN"
	chainInRedir = "BW_IN_REDIR"
	chainOut     = "BW_OUT"
)

// Rules says what is captured. The zero value is not valid; see [Default].
type Rules struct {
	// UID is the user that Envoy runs as; no application may run as it.
	UID uint32
	// InboundPort and OutboundPort are where Envoy's two listeners listen.
	InboundPort, OutboundPort uint16
	// ExcludeInboundPorts reach the application directly, without mTLS and policy.
	ExcludeInboundPorts []uint16
	// ExcludeOutboundPorts and ExcludeOutboundCIDRs are destinations that the
	// application reaches without Envoy.
	ExcludeOutboundPorts []uint16
	ExcludeOutboundCIDRs []netip.Prefix
	// IPv6 includes the rules for IPv6.
	IPv6 bool
}

// Default captures everything, for an Envoy as `bailiwick bootstrap` configures
// it.
func Default() Rules {
	return Rules{UID: 1337, InboundPort: 15006, OutboundPort: 15001, IPv6: true}
}

// Check reports everything that is wrong with the rules.
func (r Rules) Check() error {
	var errs []error
	if r.UID == 0 {
		errs = append(errs, errors.New("Envoy's user must not be 0: everything that runs as root would escape"))
	}
	if r.InboundPort == 0 || r.OutboundPort == 0 || r.InboundPort == r.OutboundPort {
		errs = append(errs, fmt.Errorf("inbound port %d and outbound port %d must be two different ports", r.InboundPort, r.OutboundPort))
	}
	if slices.Contains(r.ExcludeInboundPorts, 0) || slices.Contains(r.ExcludeOutboundPorts, 0) {
		errs = append(errs, errors.New("0 is not a port"))
	}
	for _, cidr := range r.ExcludeOutboundCIDRs {
		switch {
		case !cidr.IsValid() || cidr.Addr().Is4In6():
			errs = append(errs, fmt.Errorf("%s is not a CIDR", cidr))
		case cidr != cidr.Masked():
			errs = append(errs, fmt.Errorf("CIDR %s has bits beyond its prefix: %s is meant, or %s/%d", cidr, cidr.Masked(), cidr.Addr(), cidr.Addr().BitLen()))
		case cidr.Addr().Is6() && !r.IPv6:
			errs = append(errs, fmt.Errorf("CIDR %s is of IPv6, which is turned off", cidr))
		}
	}
	return errors.Join(errs...)
}

// Family is one of the two address families.
type Family struct {
	// Name is IPv4 or IPv6.
	Name string
	// command is the prefix of the tools' names.
	command string
	// local is where REDIRECT sends an outbound connection, source what Envoy's
	// inbound side binds to.
	local, source netip.Prefix
}

// Families of the rules, IPv4 first.
func (r Rules) Families() []Family {
	families := []Family{{
		Name: "IPv4", command: "iptables",
		local: netip.MustParsePrefix("127.0.0.1/32"), source: netip.MustParsePrefix("127.0.0.6/32"),
	}}
	if r.IPv6 {
		families = append(families, Family{
			Name: "IPv6", command: "ip6tables",
			local: netip.MustParsePrefix("::1/128"), source: netip.MustParsePrefix("::6/128"),
		})
	}
	return families
}

// jump is a rule in a chain that is not ours.
type jump struct{ from, to string }

func (j jump) String() string { return j.from + " -p tcp -j " + j.to }

func jumps() []jump {
	return []jump{{"PREROUTING", chainIn}, {"OUTPUT", chainOut}}
}

// chains in an order in which they can be removed: those that jump go first.
func chains() []string { return []string{chainIn, chainOut, chainInRedir} }

// rules are the contents of our chains, each as the arguments of -A.
func (r Rules) rules(f Family) []string {
	uid := strconv.FormatUint(uint64(r.UID), 10)
	var rules []string
	add := func(chain, format string, args ...any) {
		rules = append(rules, chain+" "+fmt.Sprintf(format, args...))
	}
	for _, port := range unique(r.ExcludeInboundPorts) {
		add(chainIn, "-p tcp --dport %d -j RETURN", port)
	}
	add(chainIn, "-p tcp -j %s", chainInRedir)
	add(chainInRedir, "-p tcp -j REDIRECT --to-ports %d", r.InboundPort)
	// Envoy's inbound side to the application.
	add(chainOut, "-s %s -o lo -j RETURN", f.source)
	// The Pod to itself: Envoy's outbound side to its inbound side.
	add(chainOut, "! -d %s -o lo -p tcp -m owner --uid-owner %s -j %s", f.local, uid, chainInRedir)
	// The application to itself.
	add(chainOut, "-o lo -m owner ! --uid-owner %s -j RETURN", uid)
	// Envoy to others.
	add(chainOut, "-m owner --uid-owner %s -j RETURN", uid)
	add(chainOut, "-d %s -j RETURN", f.local)
	for _, port := range unique(r.ExcludeOutboundPorts) {
		add(chainOut, "-p tcp --dport %d -j RETURN", port)
	}
	for _, cidr := range r.ExcludeOutboundCIDRs {
		if cidr.Addr().Is4() == f.local.Addr().Is4() {
			add(chainOut, "-d %s -j RETURN", cidr)
		}
	}
	add(chainOut, "-p tcp -j REDIRECT --to-ports %d", r.OutboundPort)
	return rules
}

// unique keeps the first of each, in order.
func unique(ports []uint16) []uint16 {
	var out []uint16
	for _, port := range ports {
		if !slices.Contains(out, port) {
			out = append(out, port)
		}
	}
	return out
}

// restoreInput is the input of iptables-restore --noflush that makes the rules
// be there exactly once. current is the output of iptables -t nat -S.
//
// Declaring a chain empties it; a jump that is there already is taken out first.
func (r Rules) restoreInput(f Family, current string) string {
	var b strings.Builder
	b.WriteString("*nat\n")
	for _, chain := range chains() {
		fmt.Fprintf(&b, ":%s - [0:0]\n", chain)
	}
	for _, line := range strayJumps(current) {
		fmt.Fprintf(&b, "-D %s\n", line)
	}
	for _, rule := range r.rules(f) {
		fmt.Fprintf(&b, "-A %s\n", rule)
	}
	for _, jump := range jumps() {
		fmt.Fprintf(&b, "-A %s\n", jump)
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

// cleanInput is the input of iptables-restore --noflush that takes everything of
// ours away, and "" if there is nothing.
func cleanInput(current string) string {
	var b strings.Builder
	b.WriteString("*nat\n")
	empty := true
	for _, line := range strayJumps(current) {
		fmt.Fprintf(&b, "-D %s\n", line)
		empty = false
	}
	var present []string
	for _, chain := range chains() {
		if slices.Contains(strings.Split(current, "\n"), "-N "+chain) {
			present = append(present, chain)
		}
	}
	for _, verb := range []string{"-F", "-X"} {
		for _, chain := range present {
			fmt.Fprintf(&b, "%s %s\n", verb, chain)
			empty = false
		}
	}
	if empty {
		return ""
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

// strayJumps are the rules of other chains that lead into ours, as the arguments
// of -A and -D.
func strayJumps(current string) []string {
	var found []string
	for line := range strings.Lines(current) {
		rule, ok := strings.CutPrefix(strings.TrimSpace(line), "-A ")
		if !ok {
			continue
		}
		fields := strings.Fields(rule)
		if slices.Contains(chains(), fields[0]) {
			continue
		}
		if i := slices.Index(fields, "-j"); i >= 0 && i+1 < len(fields) && slices.Contains(chains(), fields[i+1]) {
			found = append(found, rule)
		}
	}
	return found
}
