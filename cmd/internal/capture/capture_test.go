package capture

import (
	"context"
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func full() Rules {
	r := Default()
	r.ExcludeInboundPorts = []uint16{9090, 22, 9090}
	r.ExcludeOutboundPorts = []uint16{53}
	r.ExcludeOutboundCIDRs = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	return r
}

func TestScriptGolden(t *testing.T) {
	v4 := Default()
	v4.IPv6 = false
	for name, text := range map[string]string{
		"default.sh": Default().Script(), "full.sh": full().Script(), "ipv4.sh": v4.Script(), "clean.sh": Default().CleanScript(),
	} {
		path := filepath.Join("testdata", name)
		if *update {
			require.NoError(t, os.MkdirAll("testdata", 0o755))
			require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		}
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(string(want), text), name)
	}
}

func TestCheck(t *testing.T) {
	require.NoError(t, full().Check())
	for why, spoil := range map[string]func(*Rules){
		"must not be 0":              func(r *Rules) { r.UID = 0 },
		"two different ports":        func(r *Rules) { r.InboundPort = r.OutboundPort },
		"0 is not a port":            func(r *Rules) { r.ExcludeInboundPorts = []uint16{0} },
		"10.1.2.0/24 is meant":       func(r *Rules) { r.ExcludeOutboundCIDRs = []netip.Prefix{netip.MustParsePrefix("10.1.2.3/24")} },
		"which is turned off":        func(r *Rules) { r.IPv6 = false },
		"not a CIDR":                 func(r *Rules) { r.ExcludeOutboundCIDRs = []netip.Prefix{{}} },
		"::ffff:10.0.0.0/104 is not": func(r *Rules) { r.ExcludeOutboundCIDRs = []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")} },
	} {
		r := full()
		spoil(&r)
		require.ErrorContains(t, r.Check(), why)
	}
}

func TestCleanInputOfNothing(t *testing.T) {
	require.Empty(t, cleanInput("-P PREROUTING ACCEPT\n-N OTHER\n-A PREROUTING -j OTHER\n"))
}

// namespace makes a network namespace of its own and returns a Runner in it.
func namespace(t *testing.T) Runner {
	t.Helper()
	if os.Getuid() != 0 {
		unavailable(t, "needs root")
	}
	for _, tool := range []string{"ip", "iptables", "iptables-restore", "iptables-save", "ip6tables", "sh"} {
		if _, err := exec.LookPath(tool); err != nil {
			require.NotEqual(t, "true", os.Getenv("CI"), "CI must have "+tool)
			unavailable(t, "needs "+tool)
		}
	}
	name := "bwtest-" + strconv.Itoa(os.Getpid()) + "-" + strings.ToLower(t.Name()[len("Test"):])
	host := Exec()
	if _, err := host(t.Context(), "", "ip", "netns", "add", name); err != nil {
		unavailable(t, "needs network namespaces: "+err.Error())
	}
	t.Cleanup(func() {
		_, err := host(context.Background(), "", "ip", "netns", "del", name)
		require.NoError(t, err)
	})
	run := Exec("ip", "netns", "exec", name)
	must(t, run, "", "ip", "link", "set", "lo", "up")
	return run
}

// unavailable skips loudly; CI has to have it, unless it does not run as root.
func unavailable(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" && os.Getuid() == 0 {
		t.Fatal("the rules were not tried on a kernel: " + why)
	}
	t.Skip("SKIPPED, the rules were not tried on a kernel: " + why)
}

func must(t *testing.T, run Runner, stdin string, command ...string) string {
	t.Helper()
	out, err := run(t.Context(), stdin, command...)
	require.NoError(t, err)
	return out
}

// saved is what iptables-save shows of the nat table, without comments and
// counters.
func saved(t *testing.T, run Runner, command string) []string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(must(t, run, "", command, "-t", "nat")) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, strings.Split(line, " [")[0])
		}
	}
	return lines
}

// ours are the lines that our rules must have become.
func ours(r Rules, f Family) []string {
	var lines []string
	for _, rule := range r.rules(f) {
		rule = strings.ReplaceAll(rule, "--dport", "-m tcp --dport")
		lines = append(lines, "-A "+rule)
	}
	for _, jump := range jumps() {
		lines = append(lines, "-A "+jump.String())
	}
	return lines
}

func TestApply(t *testing.T) {
	run := namespace(t)
	pristine := saved(t, run, "iptables-save")
	// Somebody else's rules must survive everything.
	must(t, run, "", "iptables", "-t", "nat", "-N", "OTHER")
	must(t, run, "", "iptables", "-t", "nat", "-A", "OUTPUT", "-j", "OTHER")
	before := saved(t, run, "iptables-save")
	require.NotEqual(t, pristine, before)

	r := full()
	require.NoError(t, r.Apply(t.Context(), run))
	first4, first6 := saved(t, run, "iptables-save"), saved(t, run, "ip6tables-save")
	families := r.Families()
	requireRules(t, first4, ours(r, families[0]), "-A OUTPUT -j OTHER")
	requireRules(t, first6, ours(r, families[1]))
	require.Contains(t, must(t, run, "", "ip", "-6", "addr", "show", "dev", "lo"), "::6/128")

	require.NoError(t, r.Apply(t.Context(), run))
	require.Equal(t, first4, saved(t, run, "iptables-save"))
	require.Equal(t, first6, saved(t, run, "ip6tables-save"))

	// The printed script does the same on top of it, and so do other settings.
	must(t, run, r.Script(), "sh")
	require.ElementsMatch(t, first4, saved(t, run, "iptables-save"))
	must(t, run, Default().Script(), "sh")
	requireRules(t, saved(t, run, "iptables-save"), ours(Default(), families[0]), "-A OUTPUT -j OTHER")
	require.NoError(t, r.Apply(t.Context(), run))
	require.ElementsMatch(t, first4, saved(t, run, "iptables-save"))

	for range 2 {
		require.NoError(t, r.Clean(t.Context(), run))
		require.Equal(t, before, saved(t, run, "iptables-save"))
	}
	require.NotContains(t, must(t, run, "", "ip", "-6", "addr", "show", "dev", "lo"), "::6/128")
	require.NoError(t, r.Apply(t.Context(), run))
	must(t, run, r.CleanScript(), "sh")
	must(t, run, r.CleanScript(), "sh")
	require.Equal(t, before, saved(t, run, "iptables-save"))
}

// requireRules compares the rules chain by chain: the order between chains means
// nothing.
func requireRules(t *testing.T, got, want []string, others ...string) {
	t.Helper()
	byChain := func(lines []string) map[string][]string {
		m := make(map[string][]string)
		for _, line := range lines {
			if fields := strings.Fields(line); fields[0] == "-A" && !slices.Contains(others, line) {
				m[fields[1]] = append(m[fields[1]], line)
			}
		}
		return m
	}
	require.Empty(t, cmp.Diff(byChain(want), byChain(got)))
	for _, other := range others {
		require.Contains(t, got, other)
	}
}

func TestApplySaysWhatIsMissing(t *testing.T) {
	failing := func(context.Context, string, ...string) (string, error) { return "", exec.ErrNotFound }
	err := Default().Apply(t.Context(), failing)
	require.ErrorIs(t, err, exec.ErrNotFound)
	require.ErrorContains(t, err, "CAP_NET_ADMIN")
	require.ErrorIs(t, Default().Clean(t.Context(), failing), exec.ErrNotFound)
}
