package guard

import (
	"slices"
	"time"

	"bailiwick.dev/bailiwick/tenancy"
)

// group is what is counted together: a kind, of policies those that only deny, of
// one tenant. What one tenant removes decides about nothing of another's.
type group struct {
	kind tenancy.Kind
	deny bool
	// tenant is "" for what is cluster-scoped or in a namespace of nobody.
	tenant string
}

func (g group) String() string {
	if g.deny {
		return g.kind.String() + " (Deny)"
	}
	return g.kind.String()
}

// all is the group of the same kind over all tenants, by which an accident is
// known that takes a little of everybody.
func (g group) all() group { return group{kind: g.kind, deny: g.deny} }

// members is the state of one group.
type members struct {
	// there are the objects that were passed on and not taken back, with when
	// they came; zero for those of the first load.
	there map[tenancy.Ref]time.Time
	// gone are the removals within the window, by when.
	gone map[tenancy.Ref]time.Time
	held map[tenancy.Ref]time.Time
}

// sum is how many objects of a kind there are, are held and have gone.
type sum struct{ there, held, gone int }

// removal is one of the window.
type removal struct {
	ref tenancy.Ref
	of  group
	at  time.Time
}

// change adds or takes an object of one of a group's sets, and counts it.
func change[V any](set map[tenancy.Ref]V, count *int, ref tenancy.Ref, v V, add bool) {
	_, had := set[ref]
	switch {
	case add && !had:
		*count++
	case !add && had:
		*count--
	}
	if add {
		set[ref] = v
	} else {
		delete(set, ref)
	}
}

func (g *Guard) there(gr group, ref tenancy.Ref, since time.Time, add bool) {
	change(g.kinds[gr].there, &g.sums[gr.all()].there, ref, since, add)
}

func (g *Guard) held(gr group, ref tenancy.Ref, at time.Time, add bool) {
	change(g.kinds[gr].held, &g.sums[gr.all()].held, ref, at, add)
}

func (g *Guard) gone(gr group, ref tenancy.Ref, at time.Time, add bool) {
	change(g.kinds[gr].gone, &g.sums[gr.all()].gone, ref, at, add)
}

// tooMany reports whether, with n removals that are being judged, more has gone
// from a group within the window than may at once.
func (g *Guard) tooMany(k *members, n int) bool {
	return g.exceeds(len(k.gone), sum{len(k.there), len(k.held), len(k.gone)}, n)
}

// exceeds compares what has gone with how many there were when the window began.
func (g *Guard) exceeds(gone int, s sum, n int) bool {
	return gone > max(g.cfg.Floor, int(g.cfg.Share*float64(s.there-s.held+s.gone-n)))
}

// everywhere reports whether too much of a kind has gone over all tenants, even
// without the tenant that lost most: no tenant brings that about alone.
func (g *Guard) everywhere(all group, n int) bool {
	s := *g.sums[all]
	if !g.exceeds(s.gone, s, n) {
		return false
	}
	most := 0
	for gr, k := range g.kinds {
		if gr.all() == all {
			most = max(most, len(k.gone))
		}
	}
	return g.exceeds(s.gone-most, s, n)
}

// forgetOld drops removals from before the window.
func (g *Guard) forgetOld(now time.Time) {
	i := 0
	for ; i < len(g.recent) && now.Sub(g.recent[i].at) >= g.cfg.Window; i++ {
		r := g.recent[i]
		if at, ok := g.kinds[r.of].gone[r.ref]; ok && at.Equal(r.at) { // not back, or gone again since
			g.gone(r.of, r.ref, at, false)
		}
	}
	g.recent = slices.Delete(g.recent, 0, i)
}
