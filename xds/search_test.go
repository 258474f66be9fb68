package xds

import (
	"cmp"
	"fmt"
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
		if s.blind = len(accepted) == 0 && rapid.Bool().Draw(t, "blind"); s.blind {
			s.baseDue = false
			s.regroup()
		}
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
		if most := 2 + maxSingles + 2*len(target); tries > most {
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

// Where it is not known what the client has, one bad item costs it at most the
// chunk that it is in, never all it has.
func TestBlindSearchTakesLittleAway(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 100).Draw(t, "items")
		bad := rapid.IntRange(0, n-1).Draw(t, "bad")
		var target []item
		for i := range n {
			target = append(target, item{fmt.Sprintf("%03d", i), 1})
		}
		s := search0(target, nil, false)
		s.blind = true
		s.regroup()
		chunk := (n + maxSingles - 1) / maxSingles
		for {
			items, ok := s.next()
			if !ok {
				break
			}
			if len(items) < n-chunk {
				t.Fatalf("a set of %d where there are %d", len(items), n)
			}
			s.answer(!slices.Contains(items, target[bad]))
		}
		if got := s.with(nil); len(got) != n-1 || !s.over() {
			t.Fatalf("%d items at the end, over: %v", len(got), s.over())
		}
	})
}

// However the target changes while answers are awaited, what the client took last
// is what the search ends with: nothing that is gone stays with it.
func TestSearchTakesAwayWhatIsGone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gen := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) item {
			return item{rapid.StringMatching(`[a-d]`).Draw(t, "key"), rapid.IntRange(1, 10).Draw(t, "text")}
		}), 0, 4, func(i item) string { return i.key })
		bad := func(i item) bool { return i.text%5 == 0 }
		targets := rapid.SliceOfN(gen, 1, 4).Draw(t, "targets")
		took := slices.DeleteFunc(gen.Draw(t, "accepted"), bad)
		s := search0(targets[0], took, false)
		for targets = targets[1:]; ; {
			items, ok := s.next()
			if len(targets) > 0 && (!ok || rapid.Bool().Draw(t, "now")) {
				s.retarget(targets[0], true)
				targets = targets[1:]
			}
			if ok {
				good := !slices.ContainsFunc(items, bad)
				if good {
					took = items
				}
				s.answer(good)
			} else if s.over() {
				break
			}
		}
		order := func(a, b item) int { return cmp.Compare(a.key, b.key) }
		slices.SortFunc(took, order)
		if got := slices.SortedFunc(slices.Values(s.with(nil)), order); !slices.Equal(took, got) {
			t.Fatalf("the client has %v and should have %v", took, got)
		}
	})
}
