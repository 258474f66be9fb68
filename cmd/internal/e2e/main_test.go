package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
)

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
	dir, err := os.MkdirTemp("", "bailiwick-e2e-")
	if err != nil {
		return err
	}
	// One test runs it as nobody.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if built.binary, err = mesh.BuildBailiwick(context.Background(), dir); err != nil {
		return err
	}
	network, claim, err := mesh.ClaimNetwork(context.Background())
	built.network, built.claim = int(network), claim
	return err
}
