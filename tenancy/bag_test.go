package tenancy

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestABagIsAMapOfCounts(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var b bag[int]
		want := map[int]int{}
		for range rapid.IntRange(0, 30).Draw(rt, "steps") {
			v, n := rapid.IntRange(0, 4).Draw(rt, "value"), rapid.IntRange(0, 2).Draw(rt, "count")
			if b.set(v, n); n == 0 {
				delete(want, v)
			} else {
				want[v] = n
			}
			require.Equal(rt, len(want) == 0, b.empty())
			require.Equal(rt, slices.Sorted(maps.Keys(want)), slices.Sorted(b.all()))
			for v := range 5 {
				require.Equal(rt, want[v], b.count(v))
			}
		}
	})
}
