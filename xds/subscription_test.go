package xds

import (
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }

func TestSetsOfEqualContentAreOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := newInterner()
		names := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}), 0, 6)
		a, b := (*nameSet)(nil), (*nameSet)(nil)
		model := [2]map[string]bool{{}, {}}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			i := rapid.IntRange(0, 1).Draw(t, "which")
			add, remove := names.Draw(t, "add"), names.Draw(t, "remove")
			for _, n := range remove {
				delete(model[i], n)
			}
			for _, n := range add {
				model[i][n] = true
			}
			if i == 0 {
				a = in.change(a, add, remove)
			} else {
				b = in.change(b, add, remove)
			}
			if want, got := keys(model[0]), slices.Sorted(a.all()); !slices.Equal(want, got) {
				t.Fatalf("set is %v, not %v", got, want)
			}
			if equal := slices.Equal(keys(model[0]), keys(model[1])); equal != (a == b) {
				t.Fatalf("%v and %v: one set is %v", keys(model[0]), keys(model[1]), a == b)
			}
		}
		runtime.KeepAlive(b)
	})
}

func TestSetsThatHashAlikeAreTwo(t *testing.T) {
	in := newInterner()
	a := in.change(nil, []string{"a", "b"}, nil)
	// Pretend that another set has the sum of {a, b}.
	base := in.change(nil, []string{"x"}, nil)
	forged := in.find(a.sum, 2, base, map[string]bool{"y": true})
	require.NotEqual(t, a.id, forged.id)
	require.True(t, forged.has("x") && forged.has("y") && !forged.has("a"))
}

func TestSetsAreFreed(t *testing.T) {
	in := newInterner()
	s := in.change(nil, []string{"a"}, nil)
	require.Equal(t, 1, in.size())
	runtime.KeepAlive(s)
	s = nil
	_ = s
	// The collector is a process of its own.
	require.Eventually(t, func() bool { runtime.GC(); return in.size() == 0 }, 10*time.Second, time.Millisecond)
}
