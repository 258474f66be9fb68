package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes. They are part of the command line's promise: a script may tell its
// own mistake from a failure.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	// exitDenied and exitUnknown are answers of explain, exitDenied also one of
	// preview: the change changes who may call whom.
	exitDenied  = 3
	exitUnknown = 4
)

// exitCode ends a command that has said all there is to say with a code of its own.
type exitCode int

// Error implements error; nobody gets to read it.
func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// newRootCommand returns the whole command line. Each subcommand is one line
// here and one file.
func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "bailiwick",
		Short: "A tenant-scoping xDS management server for Envoy",
		Long: `Bailiwick is an xDS management server for meshes that several tenants share.
Every Envoy is given exactly what its tenant may know, and admits exactly whom
its tenant's policies allow.

Exit codes: 0 success, 1 failure, 2 a mistake in the command line; explain and
preview have more.`,
		Example: `  # A throw-away CA, a workload's certificate and its Envoy configuration
  bailiwick ca init --dir ca --trust-domain acme.example
  bailiwick ca issue --dir ca --spiffe-id spiffe://acme.example/ns/shop/sa/web --out web
  bailiwick bootstrap --help`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          knownSubcommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.CompletionOptions.HiddenDefaultCmd = false
	root.AddCommand(newCACommand())
	root.AddCommand(newBootstrapCommand())
	root.AddCommand(newIptablesCommand())
	root.AddCommand(newInjectCommand())
	root.AddCommand(newSidecarCommand())
	root.AddCommand(newServeCommand())
	root.AddCommand(newValidateCommand())
	root.AddCommand(newExplainCommand())
	root.AddCommand(newMatrixCommand())
	root.AddCommand(newSizeCommand())
	root.AddCommand(newPreviewCommand())
	root.AddCommand(newStatusCommand())
	root.AddCommand(newProxiesCommand())
	root.AddCommand(newDumpCommand())
	root.AddCommand(newConfirmCommand())
	root.AddCommand(newWhoamiCommand())
	return root
}

// execute runs the command line and returns the exit code. The error, if any,
// has been written to standard error, once.
func execute(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	markRunErrors(root)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	var code exitCode
	if errors.As(err, &code) {
		return int(code)
	}
	fmt.Fprintf(root.ErrOrStderr(), "bailiwick: %v\n", err)
	var lost unknownError
	if errors.As(err, &lost) {
		return exitUnknown
	}
	// What cobra itself found wrong never got as far as a command's RunE.
	var ran runError
	var usage usageError
	if errors.As(err, &ran) && !errors.As(err, &usage) {
		return exitFailed
	}
	fmt.Fprintf(root.ErrOrStderr(), "Run '%s --help' for usage.\n", cmd.CommandPath())
	return exitUsage
}

// runError marks what a command returned, as opposed to what cobra found wrong
// with the command line.
type runError struct{ error }

func (e runError) Unwrap() error { return e.error }

func markRunErrors(cmd *cobra.Command) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if err := run(cmd, args); err != nil {
				return runError{err}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		markRunErrors(sub)
	}
}

// usageError is a mistake in the command line that a command found itself.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// usagef is for what a command finds wrong with its flags: exit code 2 and a
// pointer to its help.
func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// requireFlags fails unless each of these flags was given.
func requireFlags(cmd *cobra.Command, names ...string) error {
	var missing []string
	for _, name := range names {
		if !cmd.Flags().Changed(name) {
			missing = append(missing, "--"+name)
		}
	}
	if len(missing) > 0 {
		return usagef("missing %s", strings.Join(missing, ", "))
	}
	return nil
}

// knownSubcommand is the Args of commands that only hold others.
func knownSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	cmd.SuggestionsMinimumDistance = 2 // two letters swapped
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = fmt.Sprintf(" (did you mean %s?)", strings.Join(near, " or "))
	}
	return usagef("unknown command %q for %q%s", args[0], cmd.CommandPath(), hint)
}

// version is what the Go toolchain stamped into the binary.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return cmp.Or(info.Main.Version, "(devel)") + " " + info.GoVersion
}
