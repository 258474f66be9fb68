package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every direct dependency has its reason in the security page, and every reason
// there has its dependency.
func TestEveryDependencyHasItsReason(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	require.NoError(t, err)
	var required []string
	for line := range strings.Lines(string(mod)) {
		if m := regexp.MustCompile(`^(?:require )?\s*([a-z][^\s]*\.[^\s]*/?[^\s]*) v\S+\s*$`).FindStringSubmatch(line); m != nil {
			required = append(required, m[1])
		}
	}
	page, err := os.ReadFile("../../.github/SECURITY.md")
	require.NoError(t, err)
	var reasons []string
	_, list, found := strings.Cut(string(page), "| module | reason |\n|---|---|\n")
	require.True(t, found)
	for line := range strings.Lines(list) {
		m := regexp.MustCompile(`^\| (\S+) \| (\S.*) \|$`).FindStringSubmatch(strings.TrimSpace(line))
		require.NotNil(t, m, "a line without a reason: %s", line)
		reasons = append(reasons, m[1])
	}
	slices.Sort(required)
	slices.Sort(reasons)
	require.NotEmpty(t, required)
	require.Equal(t, required, reasons, "go.mod and the list in .github/SECURITY.md")
}
