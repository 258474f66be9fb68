package xds

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

type item struct {
	key  string
	text int
}

func search0(target, accepted []item, baseDue bool) *search[item] {
	return newSearch(func(i item) string { return i.key }, func(a, b item) bool { return a == b }, func(i item) bool { return i.text%7 == 3 }, target, accepted, baseDue)
}

// Whatever is bad, the search ends with all that is good accepted, all that is
// bad kept as it was or left out, and no more tries than halving needs.
func TestSearchFindsExactlyTheBadItems(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gen := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) item {
			return item{rapid.StringMatching(`[a-z]{1,2}`).Draw(t, "key"), rapid.IntRange(1, 20).Draw(t, "text")}
		}), 0, 60, func(i item) string { return i.key })
		accepted, target := gen.Draw(t, "accepted"), gen.Draw(t, "target")
		bad := func(i item) bool { return i.text%5 == 0 }
		accepted = slices.DeleteFunc(accepted, bad)
		s := search0(target, accepted, rapid.Bool().Draw(t, "base due"))
		tries := 0
		for {
			items, ok := s.next()
			if !ok {
				break
			}
			tries++
			s.answer(!slices.ContainsFunc(items, bad))
		}
		if !s.over() {
			t.Fatal("neither a try nor the end")
		}
		if most := 2 + 2*len(target); tries > most {
			t.Fatalf("%d tries for %d items", tries, len(target))
		}
		was := map[string]item{}
		for _, i := range accepted {
			was[i.key] = i
		}
		var want []item
		for _, i := range target {
			if !bad(i) {
				want = append(want, i)
			} else if w, ok := was[i.key]; ok {
				want = append(want, w)
			}
		}
		if got := s.with(nil); !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

func TestSearchGivesUpWhenTheBaseIsRefused(t *testing.T) {
	s := search0([]item{{"a", 1}}, nil, true)
	items, ok := s.next()
	require.True(t, ok)
	require.Empty(t, items)
	_, again := s.next()
	require.False(t, again, "an answer is awaited")
	s.answer(false)
	require.True(t, s.over())
	require.True(t, s.hopeless)
}
