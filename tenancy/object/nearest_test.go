package object

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestNearest(t *testing.T) {
	kinds := []string{"AccessPolicy", "ClusterAccessPolicy", "Service", "ServiceGrant", "Pod"}
	for typed, want := range map[string]string{
		"AcessPolicy": "AccessPolicy", "accesspolicy": "AccessPolicy", "ServiceGarnt": "ServiceGrant", "Servcie": "Service", "Pd": "Pod",
		"Secret": "", "": "", "X": "", "ServiceRequest": "",
	} {
		require.Equal(t, want, Nearest(typed, kinds), typed)
	}
	require.Empty(t, Nearest("a", nil))
}

// What is suggested is one of the candidates, whatever their order, and not what
// was typed.
func TestNearestIsACandidate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringMatching(`[a-cA-C]{0,6}`)
		typed, known := word.Draw(t, "typed"), rapid.SliceOfDistinct(word, rapid.ID).Draw(t, "known")
		near := Nearest(typed, known)
		if near != "" {
			require.Contains(t, known, near)
		}
		require.Equal(t, near, Nearest(typed, rapid.Permutation(known).Draw(t, "other order")))
	})
}
