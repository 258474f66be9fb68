package updates

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/identity"
)

// serverDomain is the trust domain of the server, which is no tenant's.
const serverDomain = "platform.example"

// patience bounds a test that would else wait for ever; none comes near it.
const patience = 3 * time.Minute

// built is what TestMain makes once for all tests.
var built struct {
	// binary is the path of bailiwick.
	binary string
	// network is the second number of all Pods' addresses.
	network int
	// claim keeps the network ours until this process ends.
	claim net.Listener
}

func TestMain(m *testing.M) {
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(filepath.Dir(built.binary))
		os.Exit(code)
	}))
}

func build() error {
	dir, err := os.MkdirTemp("", "bailiwick-updates-")
	if err != nil {
		return err
	}
	if built.binary, err = mesh.BuildBailiwick(context.Background(), dir); err != nil {
		return err
	}
	network, claim, err := mesh.ClaimNetwork(context.Background())
	built.network, built.claim = int(network), claim
	return err
}

// podAddress is an address of this process's network.
func podAddress(third, fourth byte) netip.Addr {
	return netip.AddrFrom4([4]byte{127, byte(built.network), third, fourth})
}

// pod is one workload with its Envoy.
type pod struct {
	name     string
	workload identity.Workload
	at       mesh.Addresses
	envoy    *mesh.Envoy
	// read are resources of its dump by their text.
	read map[string]proto.Message
}

func newPod(t *testing.T, w identity.Workload, name string, addr netip.Addr) *pod {
	t.Helper()
	at, err := mesh.AddressesOf(addr)
	require.NoError(t, err)
	return &pod{name: name, workload: w, at: at, read: map[string]proto.Message{}}
}

// runEnvoy starts a Pod's Envoy, which ends with the test.
func runEnvoy(ctx context.Context, t *testing.T, p *pod, config mesh.EnvoyConfig) {
	t.Helper()
	config.Workload, config.Pod, config.At = p.workload, p.name, p.at
	config.StatsPrefixes = []string{"cluster.", "listener.", "sds."}
	var err error
	p.envoy, err = mesh.StartEnvoy(ctx, config)
	require.NoError(t, err)
	t.Cleanup(func() {
		p.envoy.Stop()
		if t.Failed() {
			t.Logf("the log of %s's Envoy:\n%s", p.name, p.envoy.LogTail(30))
		}
	})
	require.NoError(t, p.envoy.WaitLive(ctx))
}

// until asks until the answer is nil. What it said last, before the patience
// was over, is the failure.
func until(ctx context.Context, t *testing.T, what string, ask func() error) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := ask()
		if err == nil {
			return
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			require.NoError(t, last, "waited in vain until %s", what)
		case <-tick.C:
		}
	}
}
