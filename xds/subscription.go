package xds

import (
	"hash/maphash"
	"iter"
	"maps"
	"runtime"
	"sync"
	"sync/atomic"
	"weak"
)

// nameSet is an immutable set of resource names. Streams that subscribe to the
// same names hold the same set, so that a stream costs one pointer per type
// and responses can be shared by the set's id. A nil *nameSet is empty.
type nameSet struct {
	id    uint64
	sum   sum
	names map[string]struct{}
}

// sum is a hash of a set that does not depend on the order of its members:
// the sums of two independently seeded hashes, so that adding or taking away a
// name is one step. It finds a set; the set's members are then compared.
type sum [2]uint64

func (s *nameSet) len() int {
	if s == nil {
		return 0
	}
	return len(s.names)
}

func (s *nameSet) has(name string) bool {
	if s == nil {
		return false
	}
	_, ok := s.names[name]
	return ok
}

// key identifies the set among all that are alive, 0 for the empty one.
func (s *nameSet) key() uint64 {
	if s == nil {
		return 0
	}
	return s.id
}

// all yields the members in no order.
func (s *nameSet) all() iter.Seq[string] {
	if s == nil {
		return func(func(string) bool) {}
	}
	return maps.Keys(s.names)
}

// interner finds or makes sets. It holds them weakly: a set goes when the last
// stream or shared body that knows it goes.
type interner struct {
	seeds [2]maphash.Seed
	ids   atomic.Uint64

	mu   sync.Mutex
	sets map[sum][]weak.Pointer[nameSet] // guarded by mu
}

func newInterner() *interner {
	return &interner{
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		sets:  map[sum][]weak.Pointer[nameSet]{},
	}
}

func (in *interner) hash(name string) sum {
	return sum{maphash.String(in.seeds[0], name), maphash.String(in.seeds[1], name)}
}

// hashPair is the contribution of one entry of a map from names to versions to
// the sum of that map.
func (in *interner) hashPair(name, version string) sum {
	pair := [2]string{name, version}
	return sum{maphash.Comparable(in.seeds[0], pair), maphash.Comparable(in.seeds[1], pair)}
}

// change returns base with the names of add, without those of remove.
func (in *interner) change(base *nameSet, add, remove []string) *nameSet {
	if len(add)+len(remove) == 0 {
		return base
	}
	delta := map[string]bool{}
	s := sum{}
	if base != nil {
		s = base.sum
	}
	size := base.len()
	step := func(name string, present bool) {
		was, touched := delta[name]
		if !touched {
			was = base.has(name)
		}
		if was == present {
			return
		}
		delta[name] = present
		h := in.hash(name)
		if present {
			s[0], s[1], size = s[0]+h[0], s[1]+h[1], size+1
		} else {
			s[0], s[1], size = s[0]-h[0], s[1]-h[1], size-1
		}
	}
	for _, name := range remove {
		step(name, false)
	}
	for _, name := range add {
		step(name, true)
	}
	switch {
	case size == 0:
		return nil
	case base != nil && s == base.sum && size == base.len():
		return base
	}
	return in.find(s, size, base, delta)
}

func (in *interner) find(s sum, size int, base *nameSet, delta map[string]bool) *nameSet {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, p := range in.sets[s] {
		if set := p.Value(); set != nil && set.is(size, base, delta) {
			return set
		}
	}
	names := make(map[string]struct{}, size)
	for name := range base.all() {
		names[name] = struct{}{}
	}
	for name, present := range delta {
		if present {
			names[name] = struct{}{}
		} else {
			delete(names, name)
		}
	}
	set := &nameSet{id: in.ids.Add(1), sum: s, names: names}
	in.sets[s] = append(in.sets[s], weak.Make(set))
	runtime.AddCleanup(set, in.forget, s)
	return set
}

// is reports whether s is base with delta applied: of the size that has been
// counted, each change there, and all that was there still there.
func (s *nameSet) is(size int, base *nameSet, delta map[string]bool) bool {
	if len(s.names) != size {
		return false
	}
	for name, present := range delta {
		if s.has(name) != present {
			return false
		}
	}
	for name := range base.all() {
		if _, changed := delta[name]; !changed && !s.has(name) {
			return false
		}
	}
	return true
}

// forget drops what is dead under a sum. The runtime calls it after a set was
// collected.
func (in *interner) forget(s sum) {
	in.mu.Lock()
	defer in.mu.Unlock()
	live := in.sets[s][:0]
	for _, p := range in.sets[s] {
		if p.Value() != nil {
			live = append(live, p)
		}
	}
	if len(live) == 0 {
		delete(in.sets, s)
	} else {
		in.sets[s] = live
	}
}

// size is the number of sets that are remembered.
func (in *interner) size() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := 0
	for _, sets := range in.sets {
		n += len(sets)
	}
	return n
}
