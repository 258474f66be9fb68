package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// onNode is set in the process that runs on the node.
const onNode = "BAILIWICK_TEST_ON_NODE"

// unavailable says why there is no node, "" if this process runs on it.
var unavailable string

// TestMain starts this program again in a network namespace of its own, and runs
// the tests there.
func TestMain(m *testing.M) {
	if os.Getenv(onNode) != "" {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "bring the node's loopback interface up: %v: %s\n", err, out)
			os.Exit(1)
		}
		goleak.VerifyTestMain(m)
		return
	}
	if unavailable = missing(); unavailable != "" {
		os.Exit(m.Run())
	}
	os.Exit(again())
}

// missing says what this machine lacks.
func missing() string {
	if os.Getuid() != 0 {
		return "needs root"
	}
	for _, tool := range []string{"ip", "iptables", "iptables-restore", "ip6tables", "ip6tables-restore", "sh", "setpriv"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "needs " + tool
		}
	}
	probe := exec.Command("true")
	probe.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := probe.Run(); err != nil {
		return fmt.Sprintf("needs network namespaces: %v", err)
	}
	return ""
}

// again runs this program on the node and returns its exit code. The node is
// gone when the program is, and the program when this one is.
func again() int {
	// A child is killed when the thread that made it ends.
	runtime.LockOSThread()
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), onNode+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	// Ctrl-C and go test's own time limit reach the child as well, which says
	// more about it than this process could.
	signal.Ignore(os.Interrupt)
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode()
	default:
		fmt.Fprintf(os.Stderr, "run the tests in a network namespace: %v\n", err)
		return 1
	}
}

// needNode skips a test where there is no node, loudly; CI has to have one,
// unless it does not run as root.
func needNode(t *testing.T) {
	t.Helper()
	if unavailable == "" {
		return
	}
	if os.Getenv("CI") == "true" && os.Getuid() == 0 {
		t.Fatalf("transparent capture was not tried: %s", unavailable)
	}
	t.Skipf("SKIPPED, transparent capture was not tried: %s", unavailable)
}
