package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		args   []string
		code   int
		stderr string
	}{
		{nil, exitOK, ""},
		{[]string{"--help"}, exitOK, ""},
		{[]string{"--version"}, exitOK, ""},
		{[]string{"completion", "bash"}, exitOK, ""},
		{[]string{"iptabels"}, exitUsage, `unknown command "iptabels" for "bailiwick" (did you mean iptables?)`},
		{[]string{"ca", "inti"}, exitUsage, `unknown command "inti" for "bailiwick ca" (did you mean init?)`},
		{[]string{"--nonsense"}, exitUsage, "unknown flag: --nonsense"},
		{[]string{"iptables", "--nonsense"}, exitUsage, "unknown flag: --nonsense"},
		{[]string{"iptables", "--uid", "x"}, exitUsage, "invalid argument"},
		{[]string{"iptables", "extra"}, exitUsage, `unknown command "extra" for "bailiwick iptables"`},
		{[]string{"ca", "init"}, exitUsage, "missing --dir, --trust-domain"},
		{[]string{"ca", "issue", "--dir", "/nonexistent", "--spiffe-id", "spiffe://a/b", "--out", "x"}, exitFailed, "bailiwick ca init"},
	} {
		r := bailiwick(t, c.args...)
		require.Equal(t, c.code, r.code, c.args)
		if c.stderr == "" {
			require.Empty(t, r.stderr, c.args)
			require.NotEmpty(t, r.stdout, c.args)
			continue
		}
		require.Contains(t, r.stderr, c.stderr, c.args)
		require.Equal(t, 1, strings.Count(r.stderr, "bailiwick: "), "the error is said once: %s", r.stderr)
		require.Equal(t, c.code == exitUsage, strings.Contains(r.stderr, "--help' for usage"), c.args)
		require.Empty(t, r.stdout, c.args)
	}
}

func TestExecuteTellsMistakesFromFailures(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
	}{
		{nil, exitOK},
		{errors.New("broken"), exitFailed},
		{usagef("wrong"), exitUsage},
		{fmt.Errorf("outer: %w", usagef("wrong")), exitUsage},
	} {
		root := &cobra.Command{Use: "x", SilenceErrors: true, SilenceUsage: true}
		root.AddCommand(&cobra.Command{Use: "y", RunE: func(*cobra.Command, []string) error { return c.err }})
		require.Equal(t, c.code, execution(t, root, "y").code)
	}
}

// Every command explains itself.
func TestHelpIsComplete(t *testing.T) {
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Name() == "completion" || cmd.Name() == "help" {
			return
		}
		path := cmd.CommandPath()
		require.NotEmpty(t, cmd.Short, path)
		require.NotEmpty(t, cmd.Long, path)
		require.NotEmpty(t, cmd.Example, path)
		require.Contains(t, cmd.Example, "bailiwick", path)
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newRootCommand())
}
