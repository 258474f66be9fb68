package bootstrap

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"bailiwick.dev/bailiwick/identity"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const serverID = "spiffe://mesh.example/ns/bailiwick-system/sa/bailiwick"

func sample() Config {
	return Config{
		Workload: identity.Workload{TrustDomain: "acme.example", Namespace: "acme-shop", ServiceAccount: "web"},
		Pod:      "web-0",
		Servers:  []string{"192.0.2.1:18000", "192.0.2.2:18000"},
		ServerID: spiffeid.RequireFromString(serverID),
		CertFile: "/certs/cert.pem", KeyFile: "/certs/key.pem", TrustBundle: "/bundles/mesh.pem",
		Admin:          netip.MustParseAddrPort("127.0.0.1:15000"),
		MaxConnections: 50000,
	}
}

func TestGolden(t *testing.T) {
	dir := t.TempDir()
	paths, err := Write(dir, sample())
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(dir, SecretFile), filepath.Join(dir, ServerSecretFile), filepath.Join(dir, File)}, paths)
	for _, path := range paths {
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		golden := filepath.Join("testdata", filepath.Base(path))
		if *update {
			require.NoError(t, os.MkdirAll("testdata", 0o755))
			require.NoError(t, os.WriteFile(golden, got, 0o644))
		}
		want, err := os.ReadFile(golden)
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(string(want), string(got)), golden)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*", "*.tmp"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestWriteWithASocketWritesNoSecrets(t *testing.T) {
	c := sample()
	c.CertFile, c.KeyFile, c.TrustBundle, c.SDSSocket = "", "", "", "/run/sds.sock"
	dir := t.TempDir()
	paths, err := Write(dir, c)
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(dir, File)}, paths)
}

func TestCheck(t *testing.T) {
	require.NoError(t, sample().Check())
	for why, spoil := range map[string]func(*Config){
		"not the SPIFFE ID of a workload":  func(c *Config) { c.Workload.Namespace = "" },
		"namespace in":                     func(c *Config) { c.Workload.Namespace = "Shop" },
		"is not the name of a Pod":         func(c *Config) { c.Pod = "a/b" },
		"has no path":                      func(c *Config) { c.ServerID = spiffeid.RequireFromString("spiffe://mesh.example") },
		"SPIFFE ID \"\" has no path":       func(c *Config) { c.ServerID = spiffeid.ID{} },
		"no address of an xDS server":      func(c *Config) { c.Servers = nil },
		"want host:port":                   func(c *Config) { c.Servers = []string{"192.0.2.1"} },
		"\"0\" is not a port":              func(c *Config) { c.Servers = []string{"192.0.2.1:0"} },
		"\"70000\" is not a port":          func(c *Config) { c.Servers = []string{"[::1]:70000"} },
		"neither an IP address nor a host": func(c *Config) { c.Servers = []string{"a_b!:1"} },
		"not from both":                    func(c *Config) { c.SDSSocket = "/run/sds.sock" },
		"not an absolute path":             func(c *Config) { c.CertFile, c.KeyFile, c.TrustBundle, c.SDSSocket = "", "", "", "sds.sock" },
		"as absolute paths":                func(c *Config) { c.TrustBundle = "mesh.pem" },
		"must be in one directory":         func(c *Config) { c.KeyFile = "/keys/key.pem" },
		"for explicit capture only":        func(c *Config) { c.Bind = netip.MustParseAddr("127.0.0.2") },
		"without zone":                     func(c *Config) { c.Explicit, c.App = true, netip.MustParseAddr("fe80::1%eth0") },
		"admin address is missing":         func(c *Config) { c.Admin = netip.AddrPort{} },
		"is not a loopback address":        func(c *Config) { c.Admin = netip.MustParseAddrPort("0.0.0.0:15000") },
		"must be positive":                 func(c *Config) { c.MaxConnections = 0 },
	} {
		c := sample()
		spoil(&c)
		require.ErrorContains(t, c.Check(), why)
		_, err := Build(c)
		require.ErrorContains(t, err, why)
	}
}

func TestMetadata(t *testing.T) {
	c := sample()
	b, err := Build(c)
	require.NoError(t, err)
	require.Equal(t, "acme-shop/web-0", b.GetNode().GetId())
	require.Equal(t, "acme-shop", b.GetNode().GetCluster())
	require.Equal(t, map[string]any{"bailiwick": map[string]any{"capture": "transparent"}}, b.GetNode().GetMetadata().AsMap())

	c.Explicit, c.Bind, c.App = true, netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("::1")
	b, err = Build(c)
	require.NoError(t, err)
	require.Equal(t, map[string]any{"bailiwick": map[string]any{
		"capture": "explicit", "bind_address": "127.0.0.2", "app_address": "::1",
	}}, b.GetNode().GetMetadata().AsMap())
}

func TestArgs(t *testing.T) {
	require.Equal(t, []string{
		"-c", "bootstrap.json", "--concurrency", "2", "--drain-time-s", "90", "--drain-strategy", "immediate",
		"--disable-hot-restart", "--file-flush-interval-msec", "1000",
	}, Process{Concurrency: 2, DrainTime: 90 * time.Second}.Args())
}
