package tenancy

import "iter"

// bag counts values. Most of what it is used for is one value: a Pod is behind
// one slice, an address belongs to one Pod; a map for each would be most of the
// model's memory. The zero bag is empty.
type bag[V comparable] struct {
	one  V
	n    int // of one; 0 where there is none
	rest map[V]int
}

// count is how often v is in b.
func (b *bag[V]) count(v V) int {
	if b.n > 0 && b.one == v {
		return b.n
	}
	return b.rest[v]
}

// set makes v be in b n times.
func (b *bag[V]) set(v V, n int) {
	_, among := b.rest[v]
	switch {
	case n > 0 && !among && (b.n == 0 || b.one == v):
		b.one, b.n = v, n
	case n > 0:
		if b.rest == nil {
			b.rest = map[V]int{}
		}
		b.rest[v] = n
	case among:
		if delete(b.rest, v); len(b.rest) == 0 {
			b.rest = nil
		}
	case b.one == v:
		var none V
		b.one, b.n = none, 0
	}
}

// all yields each value once, in no order.
func (b bag[V]) all() iter.Seq[V] {
	return func(yield func(V) bool) {
		if b.n > 0 && !yield(b.one) {
			return
		}
		for v := range b.rest {
			if !yield(v) {
				return
			}
		}
	}
}

func (b *bag[V]) empty() bool { return b.n == 0 && len(b.rest) == 0 }

// include adds v to the bag that m holds under k, if it is not in there.
func include[K, V comparable](m *map[K]bag[V], k K, v V) {
	if *m == nil {
		*m = map[K]bag[V]{}
	}
	b := (*m)[k]
	b.set(v, 1)
	(*m)[k] = b
}

// exclude is the opposite of include; it leaves no empty bag behind.
func exclude[K, V comparable](m map[K]bag[V], k K, v V) {
	b, ok := m[k]
	if !ok {
		return
	}
	if b.set(v, 0); b.empty() {
		delete(m, k)
	} else {
		m[k] = b
	}
}
