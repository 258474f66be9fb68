package attack

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
	binary  string
	network int // the second number of all Pods' addresses
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "bailiwick-attack-")
	if err == nil {
		built.binary, err = mesh.BuildBailiwick(context.Background(), dir)
	}
	if err == nil {
		built.network, err = claimNetwork()
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

// claimNetwork finds a network 127.N.0.0/16 of nobody else, and keeps a socket
// in it as a sign until this process ends.
func claimNetwork() (int, error) {
	for _, i := range rand.Perm(20) {
		if _, err := net.Listen("tcp", fmt.Sprintf("127.%d.0.2:19999", 31+i)); err == nil {
			return 31 + i, nil
		}
	}
	return 0, fmt.Errorf("no network of 127.31.0.0/16 to 127.50.0.0/16 is free")
}
