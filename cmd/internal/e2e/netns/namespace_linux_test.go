package netns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The node's addresses, on the bridge that joins all Pods.
var (
	node4 = netip.MustParseAddr("10.77.0.1")
	node6 = netip.MustParseAddr("fd77::1")
)

// namespace is a network namespace that lives as long as its file is open or
// something runs in it.
type namespace struct {
	name string
	file *os.File
	// home is the node's.
	home *os.File
}

func currentNamespace() (*os.File, error) {
	return os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
}

// newNamespace makes an empty one.
func newNamespace(t *testing.T, name string) *namespace {
	t.Helper()
	n := &namespace{name: name}
	runtime.LockOSThread()
	var err error
	n.home, err = currentNamespace()
	require.NoError(t, err)
	t.Cleanup(func() { _ = n.home.Close() })
	require.NoError(t, unix.Unshare(unix.CLONE_NEWNET))
	n.file, err = currentNamespace()
	require.NoError(t, err)
	t.Cleanup(func() { _ = n.file.Close() })
	require.NoError(t, unix.Setns(int(n.home.Fd()), unix.CLONE_NEWNET))
	runtime.UnlockOSThread()
	return n
}

// do calls f on a thread that is inside: sockets that f itself makes belong
// there, and so do processes that it starts, for good. The calling thread comes
// back, so nothing that f leaves behind may be tied to it.
func (n *namespace) do(f func() error) (err error) {
	runtime.LockOSThread()
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter the network namespace of %s: %w", n.name, err)
	}
	defer func() {
		if back := unix.Setns(int(n.home.Fd()), unix.CLONE_NEWNET); back != nil {
			// The thread stays locked, and ends with its goroutine.
			err = fmt.Errorf("leave the network namespace of %s: %w", n.name, back)
			return
		}
		runtime.UnlockOSThread()
	}()
	return f()
}

// dial connects to an IP address and port from inside.
func (n *namespace) dial(ctx context.Context, to netip.AddrPort) (conn net.Conn, err error) {
	err = n.do(func() error {
		conn, err = (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", to.String())
		return err
	})
	return conn, err
}

// run runs a command inside, with this standard input, and returns its output.
func (n *namespace) run(t *testing.T, stdin string, command ...string) string {
	t.Helper()
	var out []byte
	require.NoError(t, n.do(func() error {
		cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
		cmd.Stdin = strings.NewReader(stdin)
		var err error
		if out, err = cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, out)
		}
		return nil
	}))
	return string(out)
}

// buildBridge makes the network that the Pods are going to be on.
func buildBridge(t *testing.T) {
	t.Helper()
	ip(t, fmt.Sprintf(`
link add pods type bridge forward_delay 0
addr add %s/24 dev pods
addr add %s/64 dev pods nodad
link set pods up`, node4, node6))
	// Whatever made the node goes with the process; this is for the next test.
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "link", "del", "pods").CombinedOutput(); err != nil {
			t.Errorf("remove the bridge: %v: %s", err, out)
		}
	})
}

// join puts a namespace on the bridge with these addresses. Everything else is
// routed into an interface that swallows it.
func (n *namespace) join(t *testing.T, ip4, ip6 netip.Addr) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "ip", "link", "add", "to-"+n.name, "master", "pods", "up",
		"type", "veth", "peer", "name", "eth0", "netns", "/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{n.file}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, n.do(func() error {
		ip(t, fmt.Sprintf(`
link set lo up
addr add %s/24 dev eth0
addr add %s/64 dev eth0 nodad
link set eth0 up
link add nowhere arp off up type veth peer name nobody
link set nobody up
route add default dev nowhere src %s
route add ::/0 dev nowhere src %s metric 1`, ip4, ip6, ip4, ip6))
		return nil
	}))
}

// ip runs commands of ip(8), one per line, in the namespace of this thread.
func ip(t *testing.T, commands string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.TrimSpace(commands) + "\n")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}
