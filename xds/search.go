package xds

import "slices"

// maxSingles is the size up to which a refused group is tried item by item;
// larger ones are halved.
const maxSingles = 16

// search takes a refused whole apart: items that can only be sent together,
// the virtual hosts of a RouteConfiguration or all clusters of a
// state-of-the-world response. It goes out from what the client has accepted
// and adds what is new in groups, waiting for an answer to each. It does no
// I/O and knows no time.
type search[T any] struct {
	key  func(T) string
	same func(a, b T) bool
	// last reports whether an item is better tried last.
	last func(T) bool

	target  []T
	base    map[string]T // accepted
	refused map[string]T
	groups  [][]T
	// baseDue is true while the base alone is to be tried first: it is the
	// target without what is new, so it also tells what went.
	baseDue bool
	// busy is true while a try is on its way: trying, or the base if that is nil.
	busy   bool
	trying []T
	// stale is true after the target changed.
	stale bool
	// hopeless is true when the base alone was refused.
	hopeless bool
}

// newSearch starts from the accepted items. BaseDue says whether the base in
// the shape of the target is new to the client.
func newSearch[T any](key func(T) string, same func(a, b T) bool, last func(T) bool, target, accepted []T, baseDue bool) *search[T] {
	s := &search[T]{key: key, same: same, last: last, target: target, base: map[string]T{}, refused: map[string]T{}, baseDue: baseDue}
	for _, it := range accepted {
		s.base[key(it)] = it
	}
	s.regroup()
	return s
}

// regroup lists what the target has and the base has not, suspects apart and last.
func (s *search[T]) regroup() {
	s.stale = false
	present := map[string]struct{}{}
	var fresh, suspect []T
	for _, it := range s.target {
		k := s.key(it)
		present[k] = struct{}{}
		if was, ok := s.base[k]; ok && s.same(was, it) {
			continue
		}
		if bad, ok := s.refused[k]; ok && s.same(bad, it) {
			continue
		}
		if s.last(it) {
			suspect = append(suspect, it)
		} else {
			fresh = append(fresh, it)
		}
	}
	for k := range s.base {
		if _, ok := present[k]; !ok {
			delete(s.base, k)
		}
	}
	for k := range s.refused {
		if _, ok := present[k]; !ok {
			delete(s.refused, k)
		}
	}
	s.groups = s.groups[:0]
	if len(suspect) == 0 {
		// All of them together have just been refused.
		s.groups = halve(fresh)
		return
	}
	if len(fresh) > 0 {
		s.groups = append(s.groups, fresh)
	}
	for _, it := range suspect {
		s.groups = append(s.groups, []T{it})
	}
}

// halve splits a refused group into those to try next.
func halve[T any](items []T) [][]T {
	if len(items) <= maxSingles {
		return slices.Collect(slices.Chunk(items, 1))
	}
	mid := len(items) / 2
	return [][]T{items[:mid], items[mid:]}
}

// retarget says that the whole is to be another one now.
func (s *search[T]) retarget(target []T, baseDue bool) {
	s.target, s.stale = target, true
	s.baseDue = s.baseDue || baseDue
}

// next returns what to send now, and false while an answer is awaited or when
// the search is over.
func (s *search[T]) next() ([]T, bool) {
	if s.busy || s.over() {
		return nil, false
	}
	if s.stale {
		s.regroup()
	}
	s.busy, s.trying = true, nil
	if s.baseDue {
		s.baseDue = false
		return s.with(nil), true
	}
	if len(s.groups) == 0 {
		s.busy = false
		return nil, false
	}
	s.trying, s.groups = s.groups[0], s.groups[1:]
	return s.with(s.trying), true
}

// with is the target, each item as it is in group or else as accepted, without
// those that are neither.
func (s *search[T]) with(group []T) []T {
	add := make(map[string]T, len(group))
	for _, it := range group {
		add[s.key(it)] = it
	}
	var out []T
	for _, it := range s.target {
		k := s.key(it)
		if g, ok := add[k]; ok {
			out = append(out, g)
		} else if b, ok := s.base[k]; ok {
			out = append(out, b)
		}
	}
	return out
}

// answer takes the client's answer to the last try and returns the item that
// is now known to be bad, if any.
func (s *search[T]) answer(ok bool) (bad T, found bool) {
	group := s.trying
	s.busy, s.trying = false, nil
	switch {
	case ok:
		for _, it := range group {
			s.base[s.key(it)] = it
		}
	case group == nil:
		s.hopeless = true
	case len(group) == 1:
		s.refused[s.key(group[0])] = group[0]
		return group[0], true
	default:
		s.groups = append(halve(group), s.groups...)
	}
	return bad, false
}

// over reports whether all that can be accepted has been.
func (s *search[T]) over() bool {
	return s.hopeless || (!s.busy && !s.baseDue && !s.stale && len(s.groups) == 0)
}
