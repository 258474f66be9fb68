package main

import (
	"bytes"
	"context"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// result is what one run of the command line left.
type result struct {
	code           int
	stdout, stderr string
}

// bailiwick runs the command line as main does.
func bailiwick(t *testing.T, args ...string) result {
	t.Helper()
	return execution(t, newRootCommand(), args...)
}

func execution(t *testing.T, root *cobra.Command, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	code := execute(context.Background(), root, args)
	return result{code, stdout.String(), stderr.String()}
}

// must runs a command line that has to succeed, silently on standard error.
func must(t *testing.T, args ...string) string {
	t.Helper()
	r := bailiwick(t, args...)
	require.Equal(t, exitOK, r.code, r.stderr)
	require.Empty(t, r.stderr)
	return r.stdout
}
