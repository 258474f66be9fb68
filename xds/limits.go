package xds

import (
	"sync"
	"time"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy"
)

// gate counts the open streams per tenant and per identity.
type gate struct {
	limits func(tenant string) tenancy.Limits
	most   int // streams in all, 0 for no bound
	// over counts a limit that was hit, and makes the error that says so.
	over func(tenant, limit, format string, args ...any) error

	mu      sync.Mutex
	open    int                       // guarded by mu
	tenants map[string]int            // guarded by mu
	ids     map[identity.Workload]int // of streams with a tenant, guarded by mu
	waiting map[identity.Workload]int // of streams whose tenant is not known yet, guarded by mu
}

func newGate(limits func(string) tenancy.Limits, most int) *gate {
	return &gate{limits: limits, most: most, tenants: map[string]int{}, ids: map[identity.Workload]int{}, waiting: map[identity.Workload]int{}}
}

// ticket is one stream's place. Its methods are called by whoever has the
// stream.
type ticket struct {
	gate   *gate
	who    identity.Workload
	tenant string
	inside bool
	gone   bool
}

// wait lets a stream in whose tenant is not known yet. Those are bounded by
// the default limits, because there is no tenant to ask.
func (g *gate) wait(who identity.Workload) (*ticket, error) {
	most := g.limits("").StreamsPerID
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.most > 0 && g.open >= g.most {
		return nil, g.over("", "maxStreams", "this server has as many streams as it takes: connect to another")
	}
	if g.waiting[who] >= most {
		return nil, g.over("", "streamsPerID", "%d streams of %s wait to be served, which is the limit", most, who)
	}
	g.open++
	g.waiting[who]++
	return &ticket{gate: g, who: who}, nil
}

// enter counts the stream as the tenant's, or refuses it.
func (t *ticket) enter(tenant string) error {
	l := t.gate.limits(tenant)
	t.gate.mu.Lock()
	defer t.gate.mu.Unlock()
	t.leave()
	t.tenant, t.inside = tenant, true
	t.gate.tenants[tenant]++
	t.gate.ids[t.who]++
	switch {
	case t.gate.tenants[tenant] > l.Streams:
		return t.gate.over(tenant, "streams", "the tenant has %d streams open, which is its limit at this server", l.Streams)
	case t.gate.ids[t.who] > l.StreamsPerID:
		return t.gate.over(tenant, "streamsPerID", "%s has %d streams open, which is the limit at this server", t.who, l.StreamsPerID)
	}
	return nil
}

// leave takes the stream out of whatever it is counted in. The caller holds
// the lock.
func (t *ticket) leave() {
	if t.inside {
		decrement(t.gate.tenants, t.tenant)
		decrement(t.gate.ids, t.who)
	} else {
		decrement(t.gate.waiting, t.who)
	}
}

// release gives the place back. It is idempotent.
func (t *ticket) release() {
	if t == nil || t.gone {
		return
	}
	t.gate.mu.Lock()
	defer t.gate.mu.Unlock()
	t.leave()
	t.gate.open--
	t.gone = true
}

func decrement[K comparable](m map[K]int, k K) {
	if m[k]--; m[k] <= 0 {
		delete(m, k)
	}
}

// streams is the number of open streams per tenant.
func (g *gate) streams() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make(map[string]int, len(g.tenants))
	for t, n := range g.tenants {
		out[t] = n
	}
	return out
}

// burstSeconds is how many seconds' worth of requests may come at once: what
// an Envoy sends after a long time of silence.
const burstSeconds = 10

// bucket is a token bucket over requests.
type bucket struct {
	tokens float64
	at     time.Time
}

// take reports whether one more request is within perSecond.
func (b *bucket) take(perSecond int, now time.Time) bool {
	most := float64(perSecond * burstSeconds)
	if b.at.IsZero() {
		b.tokens = most
	} else {
		b.tokens = min(most, b.tokens+now.Sub(b.at).Seconds()*float64(perSecond))
	}
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// limits are those of the stream's tenant.
func (s *stream) limits() tenancy.Limits { return s.srv.gate.limits(s.tenant) }

// admit checks a request against the limits of the tenant.
func (s *stream) admit(req *request, now time.Time) error {
	l := s.limits()
	if !s.budget.take(l.RequestsPerSecond, now) {
		return s.srv.metrics.over(s.tenant, "requestsPerSecond", "more than %d requests per second", l.RequestsPerSecond)
	}
	if req.size > l.RequestBytes {
		return s.srv.metrics.over(s.tenant, "requestBytes", "a request of %d bytes, more than %d", req.size, l.RequestBytes)
	}
	return nil
}
