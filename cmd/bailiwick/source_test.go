package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const kubeconfigText = `apiVersion: v1
kind: Config
current-context: one
clusters: [{name: c, cluster: {server: "https://one.example:6443"}}, {name: d, cluster: {server: "https://two.example:6443"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: one, context: {cluster: c, user: u}}, {name: two, context: {cluster: d, user: u}}]
`

// TestSourceFlags: exactly one source, and a word about what is wrong.
func TestSourceFlags(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	file := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, os.WriteFile(file, []byte(kubeconfigText), 0o600))
	for _, c := range []struct {
		flags sourceFlags
		want  string
	}{
		{sourceFlags{}, "no source"},
		{sourceFlags{configDir: "d", kubeconfig: "k"}, "exclude each other"},
		{sourceFlags{configDir: "d", inCluster: true}, "exclude each other"},
		{sourceFlags{kubeconfig: "k", inCluster: true}, "exclude each other"},
		{sourceFlags{inCluster: true, context: "x"}, "--context chooses a context of a --kubeconfig"},
		{sourceFlags{configDir: "d", context: "x"}, "--context chooses a context of a --kubeconfig"},
	} {
		require.ErrorContains(t, c.flags.check(), c.want)
	}
	for _, c := range []struct {
		flags sourceFlags
		want  string
	}{
		{sourceFlags{inCluster: true}, "no Pod of a cluster"},
		{sourceFlags{kubeconfig: "/nowhere"}, "read --kubeconfig"},
		{sourceFlags{kubeconfig: file, context: "three"}, "has no such context"},
	} {
		require.NoError(t, c.flags.check())
		_, err := c.flags.rest()
		require.ErrorContains(t, err, c.want)
	}
	for context, host := range map[string]string{"": "https://one.example:6443", "two": "https://two.example:6443"} {
		flags := sourceFlags{kubeconfig: file, context: context}
		config, err := flags.rest()
		require.NoError(t, err)
		require.Equal(t, host, config.Host)
	}
}
