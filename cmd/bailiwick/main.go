// Command bailiwick is a tenant-scoping xDS management server for Envoy, with
// the tools around it. See `bailiwick --help`.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// The first signal asks for an orderly end; from then on the second one has
	// its usual effect.
	context.AfterFunc(ctx, stop)
	os.Exit(execute(ctx, newRootCommand(), os.Args[1:]))
}
