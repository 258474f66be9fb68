package snapshot

import "bailiwick.dev/bailiwick/tenancy"

// claimants are those who claim one address and port, most often one alone.
type claimants struct {
	one  *seen
	more map[tenancy.Key]*seen
}

// first returns who has what all of them claim, nil if nobody does.
func (c claimants) first() *seen {
	best := c.one
	for _, s := range c.more {
		if s.before(best) < 0 {
			best = s
		}
	}
	return best
}

func (c *claimants) put(key tenancy.Key, s *seen) {
	switch {
	case c.one == nil || c.one.built.spec.Key == key:
		c.one = s
	case c.more == nil:
		c.more = map[tenancy.Key]*seen{key: s}
	default:
		c.more[key] = s
	}
}

func (c *claimants) drop(key tenancy.Key) {
	delete(c.more, key)
	if c.one == nil || c.one.built.spec.Key != key {
		return
	}
	c.one = nil
	for key, s := range c.more {
		c.one = s
		delete(c.more, key)
		break
	}
}

func claim[K comparable](m map[K]map[tenancy.Key]*seen, k K, key tenancy.Key, s *seen) {
	if m[k] == nil {
		m[k] = map[tenancy.Key]*seen{}
	}
	m[k][key] = s
}

func unclaim[K comparable](m map[K]map[tenancy.Key]*seen, k K, key tenancy.Key) {
	if delete(m[k], key); len(m[k]) == 0 {
		delete(m, k)
	}
}
