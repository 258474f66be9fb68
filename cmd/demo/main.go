package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// errDiffers says that something was not as the policies say; what it was has
// been printed.
var errDiffers = errors.New("something was not as the policies say: see the lines marked !")

// options are the demo's flags.
type options struct {
	// dir is the directory of objects to copy and serve, bailiwick the program.
	dir, bailiwick string
	// envoy is a path; empty or missing shows visibility without Envoy.
	envoy string
	// once ends the demo after the changes.
	once bool
	// keep leaves the working directory in place.
	keep bool
	// patience bounds the start, and each wait for a change.
	patience time.Duration
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is main with its outside as arguments; it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.dir, "dir", "deploy/demo", "directory of objects to copy and serve")
	flags.StringVar(&o.bailiwick, "bailiwick", "bin/bailiwick", "the program, as make build makes it")
	flags.StringVar(&o.envoy, "envoy", os.Getenv("ENVOY"), "Envoy's binary (default $ENVOY)")
	flags.BoolVar(&o.once, "once", false, "end after the changes instead of waiting for Ctrl-C")
	flags.BoolVar(&o.keep, "keep", false, "leave certificates, configurations and logs in place")
	flags.DurationVar(&o.patience, "patience", time.Minute, "how long the start, and each change, may take")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	out := newPrinter(stdout)
	err := play(ctx, &o, out)
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil && !errors.Is(err, errDiffers):
		fmt.Fprintln(stderr, "demo: interrupted before everything was shown")
		return 130
	}
	fmt.Fprintln(stderr, "demo:", err)
	return 1
}
