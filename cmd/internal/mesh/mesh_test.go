package mesh

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/xds/bootstrap/envoytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testContext ends, and thereby every process, when the test does.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func anyPort() netip.AddrPort { return netip.MustParseAddrPort("127.0.0.1:0") }

func TestAddressesOf(t *testing.T) {
	at, err := AddressesOf(netip.MustParseAddr("127.1.2.3"))
	require.NoError(t, err)
	require.Equal(t, "127.201.2.3", at.Bind.String())
	require.Equal(t, "127.101.2.3", at.App.String())
	for _, bad := range []string{"127.0.0.1", "10.0.0.1", "127.55.0.1", "::1", "::ffff:127.1.2.3"} {
		_, err := AddressesOf(netip.MustParseAddr(bad))
		require.Error(t, err, bad)
	}
}

func TestEchoAnswersWhatItSaw(t *testing.T) {
	for name, make := range map[string]func(netip.Addr) *http.Client{"HTTP/1.1": Through, "HTTP/2.0": ThroughH2C} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			echo, err := StartEcho(ctx, "shop/cart", anyPort())
			require.NoError(t, err)
			defer echo.Stop()
			client := make(echo.Addr.Addr())
			defer client.CloseIdleConnections()
			// The name leads nowhere: the client dials the bind address instead.
			url := fmt.Sprintf("http://cart.shop.invalid:%d/a?b=c", echo.Addr.Port())
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, http.NoBody)
			require.NoError(t, err)
			req.Header.Set(PeerHeader, "spiffe://acme.example/ns/a/sa/b")
			resp, err := client.Do(req)
			require.NoError(t, err)
			defer resp.Body.Close()
			var got Answer
			require.NoError(t, json.NewDecoder(resp.Body).Decode(&got))
			require.Equal(t, "shop/cart", got.Workload)
			require.Equal(t, "spiffe://acme.example/ns/a/sa/b", got.Peer)
			require.Equal(t, "POST", got.Method)
			require.Equal(t, "/a?b=c", got.Path)
			require.Equal(t, fmt.Sprintf("cart.shop.invalid:%d", echo.Addr.Port()), got.Host)
			require.Equal(t, name, got.Protocol)
		})
	}
}

func TestTCPEchoSpeaksFirstIfItHasABanner(t *testing.T) {
	ctx := testContext(t)
	for _, banner := range []string{"", "220 hello\n"} {
		echo, err := StartTCPEcho(ctx, banner, anyPort())
		require.NoError(t, err)
		conn, err := net.Dial("tcp", echo.Addr.String())
		require.NoError(t, err)
		r := bufio.NewReader(conn)
		if banner != "" {
			line, err := r.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, banner, line)
		}
		_, err = io.WriteString(conn, "ping\n")
		require.NoError(t, err)
		line, err := r.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "ping\n", line)
		echo.Stop()
		_, err = r.ReadByte()
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, conn.Close())
	}
}

func TestAProcessEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(testContext(t))
	p, err := startProcess(ctx, "sleeper", t.TempDir(), []string{"sleep", "600"})
	require.NoError(t, err)
	require.True(t, p.running())
	cancel()
	<-p.done
	require.ErrorIs(t, syscall.Kill(p.cmd.Process.Pid, 0), syscall.ESRCH)
}

func TestKillEndsAProcessThatIgnoresTerm(t *testing.T) {
	dir := t.TempDir()
	p, err := startProcess(testContext(t), "stubborn", dir, []string{"sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"})
	require.NoError(t, err)
	require.NoError(t, p.wait(testContext(t), "is up", func(context.Context) error {
		if p.tail(1) != "up" {
			return fmt.Errorf("it said %q", p.tail(1))
		}
		return nil
	}))
	p.kill()
	require.False(t, p.running())
}

func TestWaitTellsWhatTheProcessSaid(t *testing.T) {
	p, err := startProcess(testContext(t), "broken", t.TempDir(), []string{"sh", "-c", "echo cannot bind; exit 3"})
	require.NoError(t, err)
	err = p.wait(testContext(t), "is ready", func(context.Context) error { return fmt.Errorf("not ready") })
	require.ErrorContains(t, err, "cannot bind")
	require.ErrorContains(t, err, "exit status 3")
}

func TestDirectShowsAnyCertificate(t *testing.T) {
	dir := t.TempDir()
	ca, err := NewCA(dir, "acme.example", "globex.example")
	require.NoError(t, err)
	server := "spiffe://acme.example/ns/a/sa/server"
	require.NoError(t, ca.WriteSVID(dir, server))
	info, err := os.Stat(filepath.Join(dir, KeyFile))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, CertFile), filepath.Join(dir, KeyFile))
	require.NoError(t, err)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13,
	})
	require.NoError(t, err)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, uri := range r.TLS.PeerCertificates[0].URIs {
			fmt.Fprintln(w, uri)
		}
	})}
	go srv.Serve(listener) //nolint:errcheck // ends with the Close below
	defer srv.Close()

	// Two names, of two trust domains: not what an honest authority issues.
	cert, err := ca.Certificate("spiffe://globex.example/ns/g/sa/x", identity.IssueOptions{ExtraURIs: []string{server}})
	require.NoError(t, err)
	addr := listener.Addr().(*net.TCPAddr).AddrPort()
	client := Direct(addr, cert, ca.Roots("acme.example"), nil)
	defer client.CloseIdleConnections()
	resp, err := client.Get("https://orders.acme-shop:8080/")
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "spiffe://globex.example/ns/g/sa/x\n"+server+"\n", string(body))

	_, err = DialDirect(testContext(t), addr, cert, ca.Roots("globex.example"), nil)
	require.ErrorContains(t, err, "the server's certificate")
}

func TestParseDump(t *testing.T) {
	raw, err := os.ReadFile("testdata/config_dump.json")
	require.NoError(t, err)
	dump, err := ParseDump(raw)
	require.NoError(t, err)
	require.Equal(t, []string{"orders.acme-shop.svc.cluster.local:8080"}, dump.Clusters)
	require.Equal(t, []string{"late.acme-shop.svc.cluster.local:8080"}, dump.Warming)
	require.Equal(t, map[string][]string{"orders.acme-shop.svc.cluster.local:8080": {"127.1.0.2:8080", "127.1.0.3:8080"}}, dump.Endpoints)
	require.Equal(t, []string{"127.65.0.2_8080"}, dump.Listeners)
	require.Equal(t, map[string]string{"inbound_8080": "cannot bind"}, dump.ListenerErrors)
	require.Equal(t, map[string][]string{"http-8080": {"orders", "orders:8080"}}, dump.Routes)
	require.Equal(t, []string{"bundle/acme.example"}, dump.Secrets)
	require.Equal(t, []string{"rbac-http-8080"}, dump.Extensions)
}

// Without a server an Envoy is LIVE with nothing, once its waits are over. What
// it does with one is what the end-to-end tests show.
func TestEnvoyRunsAndEnds(t *testing.T) {
	binary := envoytest.Binary(t)
	ctx := testContext(t)
	dir := t.TempDir()
	ca, err := NewCA(filepath.Join(dir, "ca"), "acme.example")
	require.NoError(t, err)
	nobody, err := FreePort(ctx, netip.MustParseAddr("127.0.0.1"))
	require.NoError(t, err)
	at, err := AddressesOf(netip.MustParseAddr("127.54.9.1"))
	require.NoError(t, err)
	envoy, err := StartEnvoy(ctx, EnvoyConfig{
		Binary: binary, Dir: filepath.Join(dir, "envoy"), CA: ca, At: at,
		Workload: identity.Workload{TrustDomain: "acme.example", Namespace: "acme-shop", ServiceAccount: "orders"}, Pod: "orders-0",
		XDS: []netip.AddrPort{nobody}, ServerID: "spiffe://acme.example" + ServerWorkload,
	})
	require.NoError(t, err)
	require.NoError(t, envoy.WaitLive(ctx), envoy.LogTail(20))
	dump, err := envoy.ConfigDump(ctx)
	require.NoError(t, err)
	require.Empty(t, dump.Clusters)
	require.Contains(t, string(dump.Raw), "acme-shop/orders-0")
	stats, err := envoy.Stats(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 1, stats["server.live"])
	version, err := envoy.Version(ctx)
	require.NoError(t, err)
	require.Regexp(t, `^\d+\.\d+\.\d+$`, version)
	envoy.Stop()
	require.False(t, envoy.Running())
	require.ErrorIs(t, syscall.Kill(envoy.proc.cmd.Process.Pid, 0), syscall.ESRCH)
}
