package snapshot

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"

	"bailiwick.dev/bailiwick/tenancy"
)

// Config is what a Publisher needs. Model, Builder and Logger are required.
type Config struct {
	Model   *tenancy.Model
	Builder *Builder
	Logger  *slog.Logger
	// Registerer takes the metrics; nil registers none.
	Registerer prometheus.Registerer
	// Quiet and Max are the debounce of tenants that set none; 0 is
	// DefaultQuiet and DefaultMax.
	Quiet, Max time.Duration
	// Problems, if set, is told what is wrong with objects, and when it no
	// longer is (no problems left). It is called from Run and must not block.
	Problems func(map[tenancy.Ref][]tenancy.Problem)
	// Holdings, if set, is told of each tenant, when that changes, which names it
	// has and had; see tenancy.Holdings. It is called from Run, before Ready is
	// closed for what was loaded first, and must not block.
	Holdings func(map[string][]tenancy.Held)
}

// outboundCache bounds how many outbound listeners are kept encoded for views
// that share them.
const outboundCache = 1 << 16

// Publisher turns events into published layers. Run is the one goroutine that
// owns the model and every layer; all other methods may be called from
// anywhere and never block.
type Publisher struct {
	model    *tenancy.Model
	builder  *Builder
	log      *slog.Logger
	stats    *Stats
	quiet    time.Duration
	max      time.Duration
	gather   time.Duration // how long a flooding tenant's decisions are gathered
	tell     func(map[tenancy.Ref][]tenancy.Problem)
	holdings func(map[string][]tenancy.Held)

	in     *inbox
	ready  chan struct{} // closed once the first complete load was absorbed
	synced bool

	services  map[tenancy.Key]*builtService
	bundles   map[string]*Resource // by trust domain
	outbound  *lru.Cache[listenerKey, *Resource]
	views     map[tenancy.ViewKey]*view
	workloads map[workloadKey]*workload
	proxies   map[*Attachment]*proxy
	// waiting proxies have no binding yet.
	waiting []*Attachment
	// byNamespace and byPod find the proxies that an event concerns.
	byNamespace map[string]map[*proxy]struct{}
	byPod       map[tenancy.Key]map[*proxy]struct{}
	// workloadsIn finds the workload layers of a namespace.
	workloadsIn map[string]map[*workload]struct{}
	held        *hold
	limits      sync.Map // tenant -> tenancy.Limits, for Limits
	nothing     nothing

	// pending is what waits for each tenant's window.
	pending map[string]map[tenancy.ViewKey]*tenancy.TouchedView
	windows map[string]*window
	// urgent are the workloads whose decisions wait, by the tenant that caused it.
	urgent        map[string]map[*workload]struct{}
	urgentWindows map[string]*window
	// since is when the event came that is being published, zero for none.
	since time.Time
	swept time.Time // when idle layers were last looked for
	// retries are the views and proxies that panicked, see contain.go.
	retries map[any]*retry
	trap    trap

	running atomic.Bool
}

// NewPublisher makes a Publisher; it starts nothing.
func NewPublisher(c Config) (*Publisher, error) {
	cache, err := lru.New[listenerKey, *Resource](outboundCache)
	if err != nil {
		return nil, fmt.Errorf("make listener cache: %w", err)
	}
	stats, err := newStats(c.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register publisher metrics: %w", err)
	}
	p := &Publisher{
		model: c.Model, builder: c.Builder, log: c.Logger, stats: stats, tell: c.Problems, holdings: c.Holdings,
		quiet: c.Quiet, max: c.Max, gather: urgentGather,
		in: newInbox(), ready: make(chan struct{}),
		services: map[tenancy.Key]*builtService{}, bundles: map[string]*Resource{}, outbound: cache,
		views: map[tenancy.ViewKey]*view{}, workloads: map[workloadKey]*workload{},
		proxies: map[*Attachment]*proxy{}, byNamespace: map[string]map[*proxy]struct{}{},
		byPod: map[tenancy.Key]map[*proxy]struct{}{}, workloadsIn: map[string]map[*workload]struct{}{},
		held: &hold{}, nothing: newNothing(),
		pending: map[string]map[tenancy.ViewKey]*tenancy.TouchedView{}, windows: map[string]*window{},
		urgent: map[string]map[*workload]struct{}{}, urgentWindows: map[string]*window{},
		retries: map[any]*retry{},
	}
	if p.quiet == 0 {
		p.quiet = DefaultQuiet
	}
	if p.max == 0 {
		p.max = DefaultMax
	}
	return p, nil
}

// Apply hands in events of a source. Events of one object must come in order.
func (p *Publisher) Apply(events []tenancy.Event) { p.in.apply(events, time.Now()) }

// Synced says that the first complete load has been handed in. Before it
// nothing is built and no stream is bound.
func (p *Publisher) Synced() { p.in.put(func() { p.in.synced = true }) }

// SetStale says whether the source cannot be followed now. While it cannot, ends
// of objects are put off, because a renewal may be on its way.
func (p *Publisher) SetStale(stale bool) {
	p.in.put(func() { p.in.calls = append(p.in.calls, func() { p.model.SetStale(stale) }) })
}

// Hold names the tenants and the namespaces whose streams must wait in silence,
// because something of theirs could not be read since the start; it replaces
// what was held before.
func (p *Publisher) Hold(tenants, namespaces []string) {
	h := &hold{tenants: set(tenants), namespaces: set(namespaces)}
	p.in.put(func() { p.in.held = h })
}

// Limits are those of a tenant with a stream, the defaults for any other.
func (p *Publisher) Limits(tenant string) tenancy.Limits {
	if l, ok := p.limits.Load(tenant); ok {
		return l.(tenancy.Limits)
	}
	return tenancy.DefaultLimits()
}

// Ready is closed once the first complete load was absorbed.
func (p *Publisher) Ready() <-chan struct{} { return p.ready }

// Stats are the counts of work done.
func (p *Publisher) Stats() *Stats { return p.stats }

// Attach makes the attachment of a stream. Its Wake fires when it is bound.
func (p *Publisher) Attach(proxy Proxy) *Attachment {
	a := NewAttachment(proxy, func(a *Attachment) {
		p.in.put(func() { p.in.detached = append(p.in.detached, a) })
	})
	p.in.put(func() { p.in.attached = append(p.in.attached, a) })
	return a
}

// Run absorbs, builds and publishes until ctx ends, which is no error. It may
// be called once.
func (p *Publisher) Run(ctx context.Context) error {
	if p.running.Swap(true) {
		return fmt.Errorf("publisher runs already")
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.in.signal:
		case <-timer.C:
		}
		now := time.Now()
		b := p.in.take()
		p.absorb(b, now)
		if p.synced {
			p.flush(now)
		}
		for _, call := range b.calls {
			p.contain("call", call)
		}
		timer.Stop()
		if next, ok := p.next(); ok {
			timer.Reset(time.Until(next))
		}
	}
}

// absorb applies a batch to the model and notes what it touched.
func (p *Publisher) absorb(b batch, now time.Time) {
	p.since = now
	if len(b.events) > 0 {
		p.since = b.since
	}
	arrived := p.since
	p.contain("clock", func() { p.model.Tick(now) })
	for _, ev := range b.events {
		p.apply(ev)
	}
	p.stats.events.Add(uint64(len(b.events)))
	touched := p.model.TakeTouched()
	p.reportProblems()
	p.contain("report of holdings", p.reportHoldings)
	if b.synced && !p.synced {
		p.synced = true
		close(p.ready)
	}
	p.forgetServices(&touched)
	p.touchBundles(&touched)
	p.touch(&touched, arrived, now)
	p.since = time.Time{} // what follows is asked for by clients
	if b.held != nil {
		p.hold(b.held, now)
	}
	for _, a := range b.attached {
		p.proxies[a] = &proxy{att: a}
		p.waiting = append(p.waiting, a)
	}
	for _, a := range b.detached {
		p.detach(a, now)
	}
	if p.synced {
		p.rebind(&touched, now)
	}
}

// apply contains a panic of the model to the event that caused it.
func (p *Publisher) apply(ev tenancy.Event) {
	p.contain("model", func() { p.model.Apply(ev) }, "kind", ev.Ref.Kind.String(), "namespace", ev.Ref.Key.Namespace, "name", ev.Ref.Key.Name)
}

func (p *Publisher) reportProblems() {
	var problems map[tenancy.Ref][]tenancy.Problem
	p.contain("problems", func() { problems = p.model.TakeProblems() })
	p.contain("usage", func() { p.stats.used(p.model.TakeUsage()) })
	if len(problems) == 0 {
		return
	}
	for ref, list := range problems {
		for _, pr := range list {
			p.log.Warn("object has a problem", "kind", ref.Kind.String(), "namespace", ref.Key.Namespace, "name", ref.Key.Name,
				"reason", pr.Reason, "field", pr.Field, "message", pr.Message)
		}
	}
	if p.tell != nil {
		p.contain("report of problems", func() { p.tell(problems) })
	}
}

func (p *Publisher) reportHoldings() {
	if changed := p.model.TakeHoldings(); len(changed) > 0 && p.holdings != nil {
		p.holdings(changed)
	}
}

// forgetServices drops built resources of services that are no more.
func (p *Publisher) forgetServices(t *tenancy.Touched) {
	for key := range t.Services {
		if p.services[key] != nil && p.model.Service(key) == nil {
			delete(p.services, key)
		}
	}
}

// flush builds whatever is due: decisions before the views that go with them.
func (p *Publisher) flush(now time.Time) {
	for cause, w := range p.urgentWindows {
		if due, ok := w.due(); ok && !due.After(now) {
			p.flushUrgent(cause, w)
		}
	}
	type entry struct {
		tenant string
		due    time.Time
	}
	var list []entry
	for tenant := range p.pending {
		if due, ok := p.windows[tenant].due(); ok && !due.After(now) {
			list = append(list, entry{tenant, due})
		}
	}
	slices.SortFunc(list, func(a, b entry) int {
		if c := a.due.Compare(b.due); c != 0 {
			return c
		}
		return strings.Compare(a.tenant, b.tenant)
	})
	p.aheadOfFlush(now)
	for _, e := range list {
		p.flushTenant(e.tenant, now)
	}
	p.retry(now)
	p.sweep(now)
	p.reportProblems() // of limits that views are over, too
}

func (p *Publisher) flushUrgent(cause string, w *window) {
	changed := false
	p.since = w.since
	defer func() { p.since = time.Time{} }()
	for wl := range p.urgent[cause] {
		if p.workloads[wl.key] == wl { // it may have been idle, and left
			changed = p.buildWorkload(wl) || changed
		}
	}
	delete(p.urgent, cause)
	w.built(changed)
}

func (p *Publisher) flushTenant(tenant string, now time.Time) {
	changed := false
	w := p.windows[tenant]
	p.since = w.since
	defer func() { p.since = time.Time{} }()
	p.stats.window(w, now)
	for key, tv := range p.pending[tenant] {
		if v := p.views[key]; v != nil {
			changed = p.flushView(v, tv, now) || changed
		}
	}
	delete(p.pending, tenant)
	w.built(changed)
	p.stats.merged.Add(uint64(w.merged))
	w.merged = 0
}

// publish contains what the store is told, and counts it.
func (p *Publisher) publish(updates ...Update) bool {
	if !PublishSince(p.since, updates...) {
		return false
	}
	p.stats.publications.Add(1)
	return true
}

// next is when something is due again.
func (p *Publisher) next() (time.Time, bool) {
	var first time.Time
	consider := func(t time.Time, ok bool) {
		if ok && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	expiry := p.model.NextExpiry()
	consider(expiry, !expiry.IsZero())
	if p.synced {
		for tenant := range p.pending {
			consider(p.windows[tenant].due())
		}
		for cause := range p.urgent {
			consider(p.urgentWindows[cause].due())
		}
		consider(p.nextSweep())
		for _, r := range p.retries {
			consider(r.at, true)
		}
	}
	return first, !first.IsZero()
}
