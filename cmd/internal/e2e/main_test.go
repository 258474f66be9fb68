package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
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
	built.network, err = claimAddresses()
	return err
}

// claimAddresses finds a network 127.N.0.0/16 that no other process of these
// tests is using, and keeps a socket in it as a sign until this process ends.
func claimAddresses() (int, error) {
	for _, i := range rand.Perm(20) {
		network := 31 + i
		if _, err := net.Listen("tcp", fmt.Sprintf("127.%d.0.2:19999", network)); err == nil {
			return network, nil
		}
	}
	return 0, fmt.Errorf("no network of 127.31.0.0/16 to 127.50.0.0/16 is free: does this machine have them on loopback?")
}
