package xds

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"bailiwick.dev/bailiwick/snapshot"
)

// maxSuspects bounds the names per tenant and type that are sent alone. Beyond
// it an arbitrary one is trusted again; what it costs if it is bad once more is
// one batch taken apart.
const maxSuspects = 256

// suspects are the names that failed alone at some proxy of a tenant. They are
// sent in responses of their own, behind their siblings, so that the next bad
// content costs the siblings nothing. It is immutable; nil has none.
type suspects struct {
	revision uint64
	of       [snapshot.NumTypes]map[string]struct{}
}

func (s *suspects) key() uint64 {
	if s == nil {
		return 0
	}
	return s.revision
}

func (s *suspects) has(t snapshot.Type, name string) bool {
	if s == nil {
		return false
	}
	_, ok := s.of[t][name]
	return ok
}

// split groups resources into responses: the trusted ones together, then each
// suspect alone. Secrets, of which there are few, are always alone: Envoy does
// not refuse the same bytes twice, so that one that was refused in company could
// not be found by trying them one by one.
func (s *suspects) split(t snapshot.Type, rs []*snapshot.Resource) [][]*snapshot.Resource {
	if len(rs) == 0 {
		return nil
	}
	if t == snapshot.Secret {
		return slices.Collect(slices.Chunk(rs, 1))
	}
	if s == nil || len(s.of[t]) == 0 {
		return [][]*snapshot.Resource{rs}
	}
	var groups [][]*snapshot.Resource
	var trusted []*snapshot.Resource
	for _, r := range rs {
		if s.has(t, r.Name()) {
			groups = append(groups, []*snapshot.Resource{r})
		} else {
			trusted = append(trusted, r)
		}
	}
	if len(trusted) > 0 {
		groups = append([][]*snapshot.Resource{trusted}, groups...)
	}
	return groups
}

// suspicion keeps the suspects of each tenant apart: a proxy that lies about
// its NACKs changes the batching of its own tenant and nobody else's.
type suspicion struct {
	revisions atomic.Uint64

	mu sync.Mutex
	of map[string]*suspects // by tenant, guarded by mu
}

func newSuspicion() *suspicion { return &suspicion{of: map[string]*suspects{}} }

func (s *suspicion) get(tenant string) *suspects {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of[tenant]
}

// add makes a name a suspect of the tenant.
func (s *suspicion) add(tenant string, t snapshot.Type, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.of[tenant]
	if old.has(t, name) {
		return
	}
	next := &suspects{revision: s.revisions.Add(1)}
	if old != nil {
		next.of = old.of
	}
	names := maps.Clone(next.of[t])
	if names == nil {
		names = map[string]struct{}{}
	}
	for victim := range names {
		if len(names) < maxSuspects {
			break
		}
		delete(names, victim)
	}
	names[name] = struct{}{}
	next.of[t] = names
	s.of[tenant] = next
}
