package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"bailiwick.dev/bailiwick/cmd/internal/inject"
	"bailiwick.dev/bailiwick/xds/bootstrap/envoytest"
)

func injectArgs(file string, more ...string) []string {
	return append([]string{
		"inject", "-f", file, "--trust-domain", "acme.example", "--xds-address", "127.0.0.1:18000,127.0.0.1:18001",
		"--server-id", "spiffe://mesh.example/ns/bailiwick-system/sa/bailiwick", "--init-image", "init:1", "--proxy-image", "proxy:1",
	}, more...)
}

// What the kubelet would run in an injected Pod is what this program and Envoy
// take.
func TestInjectedCommandsRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pod.yaml")
	require.NoError(t, os.WriteFile(file, []byte(`apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop, annotations: {bailiwick.dev/exclude-inbound-ports: "22"}}
spec: {containers: [{name: web, image: web}]}
`), 0o600))
	for driver, more := range map[string][]string{
		inject.SPIRE:       nil,
		inject.CertManager: {"--trust-bundle-configmap", "mesh/ca.pem", "--ipv6=false"},
	} {
		printed := must(t, injectArgs(file, append(more, "--svid", driver)...)...)
		var pod corev1.Pod
		require.NoError(t, yaml.UnmarshalStrict([]byte(printed), &pod))
		containers := pod.Spec.InitContainers
		require.Len(t, containers, 3)

		rules := strings.Fields(strings.Replace(strings.Join(containers[0].Args, " "), " --apply", "", 1))
		require.Contains(t, must(t, rules...), "--dport 22 -j RETURN")

		require.Equal(t, []string{"bailiwick"}, containers[1].Command)
		out := t.TempDir()
		vars := strings.NewReplacer("$(POD_NAME)", "web-0", "$(POD_NAMESPACE)", "shop", "$(POD_SERVICE_ACCOUNT)", "web", "--out=/var/run/bailiwick/envoy", "--out="+out)
		var args []string
		for _, arg := range containers[1].Args {
			args = append(args, vars.Replace(arg))
		}
		r := bailiwick(t, args...)
		require.Equal(t, exitOK, r.code, r.stderr)
		if driver == inject.SPIRE {
			require.Contains(t, envoytest.Validate(t, out, containers[2].Args...), "OK")
		}
		for _, command := range [][]string{containers[2].StartupProbe.Exec.Command, containers[2].Lifecycle.PreStop.Exec.Command} {
			require.Equal(t, "bailiwick", command[0])
			require.NotEqual(t, exitUsage, bailiwick(t, command[1:]...).code, command)
		}
	}
}

func TestInjectRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pod.yaml")
	require.NoError(t, os.WriteFile(file, []byte("kind: Pod\nmetadata: {name: a}\nspec: {hostNetwork: true, containers: [{name: a}]}\n"), 0o600))
	r := bailiwick(t, injectArgs(file)...)
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.stderr, "pod.yaml: document 1: Pod a: spec.hostNetwork")
	require.Empty(t, r.stdout)
	for why, args := range map[string][]string{
		"missing --filename": {"inject"},
		"--trust-domain":     injectArgs(file, "--trust-domain", "A B"),
		"--server-id":        injectArgs(file, "--server-id", "x"),
		"--proxy-cpu":        injectArgs(file, "--proxy-cpu", "x"),
		"--proxy-memory":     injectArgs(file, "--proxy-memory", "x"),
		"is neither":         injectArgs(file, "--svid", "x"),
		"not a port":         injectArgs(file, "--xds-address", "a:0"),
		"at least 64Mi":      injectArgs(file, "--proxy-memory", "1"),
	} {
		r := bailiwick(t, args...)
		require.Equal(t, exitUsage, r.code, why)
		require.Contains(t, r.stderr, why)
	}
}
