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
	// blind is true where it is not known what the client has. As long as the
	// base is empty then, a group is not built up from nothing, which would take
	// from the client all that is not in the try; it is sent but for a chunk.
	blind bool
	// chunks of whole wait to be left out; left is the one that the try on its
	// way does without.
	whole  []T
	chunks [][]T
	left   []T
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
			s.baseDue = true // the client has it, and a try may be refused
		}
	}
	for k := range s.refused {
		if _, ok := present[k]; !ok {
			delete(s.refused, k)
		}
	}
	s.groups, s.whole, s.chunks = s.groups[:0], nil, nil
	if len(suspect) == 0 {
		// All of them together have just been refused.
		s.divide(fresh)
		return
	}
	if len(fresh) > 0 {
		s.groups = append(s.groups, fresh)
	}
	for _, it := range suspect {
		s.groups = append(s.groups, []T{it})
	}
}

// divide puts what a refused group is to be tried as before all other groups.
func (s *search[T]) divide(group []T) {
	if s.blind && len(s.base) == 0 && len(group) > 1 {
		s.whole = group
		s.chunks = slices.Collect(slices.Chunk(group, (len(group)+maxSingles-1)/maxSingles))
		return
	}
	s.groups = append(halve(group), s.groups...)
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
	// An empty base says nothing unless nothing is what is wanted.
	s.baseDue = s.baseDue || baseDue && (len(s.base) > 0 || len(target) == 0)
}

// doubt says that more items are better tried last than were when the groups
// were made. It is called before the answer that told so is taken.
func (s *search[T]) doubt() {
	if s.blind && len(s.base) == 0 {
		s.stale = true
	}
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
	s.busy, s.trying, s.left = true, nil, nil
	if s.baseDue {
		s.baseDue = false
		return s.with(nil), true
	}
	if len(s.chunks) > 0 {
		s.left, s.chunks = s.chunks[0], s.chunks[1:]
		s.trying = s.except(s.whole, s.left)
		return s.with(s.trying), true
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

// except is whole without the items of left.
func (s *search[T]) except(whole, left []T) []T {
	out := make(map[string]struct{}, len(left))
	for _, it := range left {
		out[s.key(it)] = struct{}{}
	}
	return slices.DeleteFunc(slices.Clone(whole), func(it T) bool {
		_, ok := out[s.key(it)]
		return ok
	})
}

// answer takes the client's answer to the last try and returns the item that
// is now known to be bad, if any.
func (s *search[T]) answer(ok bool) (bad T, found bool) {
	group, left := s.trying, s.left
	s.busy, s.trying, s.left = false, nil, nil
	switch {
	case ok:
		for _, it := range group {
			s.base[s.key(it)] = it
		}
		if left != nil {
			// All that is bad is in what was left out.
			s.whole, s.chunks = nil, nil
			s.divide(left)
		}
	case group == nil:
		s.hopeless = true
	case left != nil:
		if len(s.chunks) == 0 {
			s.groups = append(halve(s.whole), s.groups...)
			s.whole = nil
		}
	case len(group) == 1:
		s.refused[s.key(group[0])] = group[0]
		s.settle()
		return group[0], true
	default:
		s.divide(group)
	}
	s.settle()
	return bad, false
}

// settle ends a blind search in which everything was refused: what the client
// has of what is gone goes with the empty set.
func (s *search[T]) settle() {
	if s.blind && len(s.base) == 0 && !s.stale && len(s.chunks)+len(s.groups) == 0 && !s.hopeless {
		s.blind, s.baseDue = false, true
	}
}

// over reports whether all that can be accepted has been.
func (s *search[T]) over() bool {
	return s.hopeless || (!s.busy && !s.baseDue && !s.stale && len(s.chunks) == 0 && len(s.groups) == 0)
}
