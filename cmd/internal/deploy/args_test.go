package deploy

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
)

// Whatever the values, the server knows every argument that it is given.
func TestArgumentsAreKnown(t *testing.T) {
	binary, err := mesh.BuildBailiwick(t.Context(), t.TempDir())
	require.NoError(t, err)
	for _, settings := range [][]string{
		nil,
		{"identity.source=certManager", "trustDomains={acme.example,globex.example}", "proxySVID=file"},
		{"identity.source=secret", "logLevel=debug", "probeSources={10.244.0.0/16,fd00::/64}", "args={--debounce-max=2s}"},
	} {
		text, err := render(t, settings...)
		require.NoError(t, err, text)
		args := deployment(t, text).Spec.Template.Spec.Containers[0].Args
		out, err := exec.CommandContext(t.Context(), binary, append(args, "--help")...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "Usage:")
	}
	for why, setting := range map[string]string{"identity.source must be": "identity.source=other", "trustDomains: at least one": "trustDomains=null"} {
		text, err := render(t, setting)
		require.Error(t, err)
		require.Contains(t, text, why)
	}
}
