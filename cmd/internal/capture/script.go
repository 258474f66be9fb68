package capture

import (
	"fmt"
	"strings"
)

// Script is a POSIX shell script that does what [Rules.Apply] does. It may be run
// again, and stops at the first command that fails.
func (r Rules) Script() string {
	var b strings.Builder
	b.WriteString("set -e\n")
	for _, f := range r.Families() {
		fmt.Fprintf(&b, "\n# %s\n", f.Name)
		for _, jump := range jumps() {
			fmt.Fprintf(&b, "while %s -w -t nat -D %s 2>/dev/null; do :; done\n", f.command, jump)
		}
		fmt.Fprintf(&b, "%s-restore -w --noflush <<'EOF'\n%sEOF\n", f.command, r.restoreInput(f, ""))
	}
	if r.IPv6 {
		fmt.Fprintf(&b, "%s\n", strings.Join(addressCommand("replace"), " "))
	}
	return b.String()
}

// CleanScript is a POSIX shell script that takes everything away again.
func (r Rules) CleanScript() string {
	var b strings.Builder
	for _, f := range r.Families() {
		fmt.Fprintf(&b, "# %s\n", f.Name)
		for _, jump := range jumps() {
			fmt.Fprintf(&b, "while %s -w -t nat -D %s 2>/dev/null; do :; done\n", f.command, jump)
		}
		for _, verb := range []string{"-F", "-X"} {
			for _, chain := range chains() {
				fmt.Fprintf(&b, "%s -w -t nat %s %s 2>/dev/null || :\n", f.command, verb, chain)
			}
		}
	}
	if r.IPv6 {
		fmt.Fprintf(&b, "%s 2>/dev/null || :\n", strings.Join(addressCommand("del"), " "))
	}
	return b.String()
}

// addressCommand gives the loopback interface the address that Envoy's inbound
// side binds to, or takes it away. Without duplicate address detection it can be
// used at once.
func addressCommand(verb string) []string {
	command := []string{"ip", "-6", "addr", verb, "::6/128", "dev", "lo"}
	if verb != "del" {
		command = append(command, "nodad")
	}
	return command
}
