package attack

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
	binary  string
	network int // the second number of all Pods' addresses
	// claim keeps the network ours until this process ends.
	claim net.Listener
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "bailiwick-attack-")
	if err == nil {
		built.binary, err = mesh.BuildBailiwick(context.Background(), dir)
	}
	if err == nil {
		var network byte
		network, built.claim, err = mesh.ClaimNetwork(context.Background())
		built.network = int(network)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(filepath.Dir(built.binary))
		os.Exit(code)
	}))
}
