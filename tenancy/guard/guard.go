package guard

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"bailiwick.dev/bailiwick/tenancy"
)

// Defaults of Config.
const (
	DefaultShare  = 0.5
	DefaultFloor  = 20
	DefaultWindow = 10 * time.Second
)

// Config says what is too much. Next and Logger are required.
type Config struct {
	// Next absorbs what passes. It is called under the guard's lock, in order,
	// and must not block.
	Next func([]tenancy.Event)
	// Share of the objects of a kind that may go within Window, 0 to 1; 1 holds
	// nothing but Tenants. 0 is DefaultShare.
	Share float64
	// Floor is how many objects may go in any case; 0 is DefaultFloor.
	Floor int
	// Window is how long "at once" is; 0 is DefaultWindow.
	Window time.Duration
	Logger *slog.Logger
	// Registerer takes the metric of what is held; nil registers none.
	Registerer prometheus.Registerer
}

// Guard holds accidental removals back. Its methods may be called by anybody.
type Guard struct {
	cfg   Config
	gauge *prometheus.GaugeVec

	mu    sync.Mutex
	kinds map[group]*members // guarded by mu
	// where is the group that a known object was last passed on in; guarded by mu.
	where map[tenancy.Ref]group
	// loaded is set after the first change, which is all that a source has; guarded by mu.
	loaded bool
	// sums are the sizes of groups of the same kind together; recent are the
	// removals in the order in which they leave the window. Guarded by mu.
	sums   map[group]*sum
	recent []removal
	// doubtful are held until the source says whether their removal is meant;
	// guarded by mu.
	doubtful map[tenancy.Ref]struct{}
	// label is the tenant of each namespace that is passed on, labelled how many
	// each tenant has; guarded by mu.
	label    map[tenancy.Key]string
	labelled map[string]int
}

// New makes a Guard; it starts nothing.
func New(c Config) (*Guard, error) {
	if c.Next == nil || c.Logger == nil {
		return nil, fmt.Errorf("guard: Next and Logger are required")
	}
	c.Share = cmp.Or(c.Share, DefaultShare)
	c.Floor = cmp.Or(c.Floor, DefaultFloor)
	c.Window = cmp.Or(c.Window, DefaultWindow)
	g := &Guard{
		cfg: c, kinds: map[group]*members{}, where: map[tenancy.Ref]group{}, sums: map[group]*sum{},
		doubtful: map[tenancy.Ref]struct{}{}, label: map[tenancy.Key]string{}, labelled: map[string]int{},
		gauge: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "bailiwick_removals_held", Help: "Objects that are gone at the source and honoured until that is confirmed.",
		}, []string{"kind"}),
	}
	if c.Registerer != nil {
		if err := c.Registerer.Register(g.gauge); err != nil {
			return nil, fmt.Errorf("register the metric of the guard: %w", err)
		}
	}
	return g, nil
}

// Apply takes the events of one change of a source and passes on what is no
// accident, in the same order but for released Tenants.
func (g *Guard) Apply(events []tenancy.Event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	out := make([]tenancy.Event, 0, len(events))
	removals, held := map[group][]tenancy.Ref{}, map[tenancy.Ref]bool{}
	for _, ev := range events {
		if ev.Object != nil {
			g.present(ev, now)
			continue
		}
		g.sort(ev, removals, held, now)
	}
	g.judge(removals, held, now)
	for _, ev := range events {
		if ev.Object == nil && held[ev.Ref] {
			continue
		}
		if ev.Object == nil {
			g.absent(ev.Ref)
		}
		out = append(out, ev)
	}
	g.loaded = true
	out = append(out, g.unneeded()...)
	g.pass(out)
	g.tell(removals, held)
}

// sort adds a removal to those that are to be judged or, if it waits for an answer
// already, to those that are held.
func (g *Guard) sort(ev tenancy.Event, removals map[group][]tenancy.Ref, held map[tenancy.Ref]bool, now time.Time) {
	gr, guarded := g.groupOf(ev.Ref)
	if !guarded {
		return
	}
	k := g.kinds[gr]
	_, known := k.held[ev.Ref]
	if _, doubted := g.doubtful[ev.Ref]; doubted && !ev.Doubtful { // it is meant
		delete(g.doubtful, ev.Ref)
		g.held(gr, ev.Ref, now, false)
		known = false
	}
	switch {
	case known:
		held[ev.Ref] = true
	case ev.Doubtful:
		held[ev.Ref] = true
		g.doubtful[ev.Ref] = struct{}{}
		g.held(gr, ev.Ref, now, true)
	case gr.kind == tenancy.KindTenant || now.Sub(k.there[ev.Ref]) >= g.cfg.Window:
		removals[gr] = append(removals[gr], ev.Ref)
	default: // what comes and goes within the window is no accident
	}
}

// judge adds to held which of the removals are.
func (g *Guard) judge(removals map[group][]tenancy.Ref, held map[tenancy.Ref]bool, now time.Time) {
	hold := func(gr group, ref tenancy.Ref) {
		held[ref] = true
		g.held(gr, ref, now, true)
	}
	g.forgetOld(now)
	more := map[group]int{}
	for gr, refs := range removals {
		more[gr.all()] += len(refs)
		for _, ref := range refs {
			g.gone(gr, ref, now, true)
			g.recent = append(g.recent, removal{ref, gr, now})
		}
	}
	everywhere := map[group]bool{}
	for all, n := range more {
		everywhere[all] = g.everywhere(all, n)
	}
	for gr, refs := range removals {
		if gr.kind != tenancy.KindTenant && (everywhere[gr.all()] || g.tooMany(g.kinds[gr], len(refs))) {
			for _, ref := range refs {
				hold(gr, ref)
			}
		}
	}
	// Namespaces that are to go take their labels with them.
	for _, ref := range removals[group{kind: tenancy.KindNamespace}] {
		if !held[ref] {
			g.unlabel(ref.Key)
		}
	}
	for _, ref := range removals[group{kind: tenancy.KindTenant}] {
		if g.labelled[ref.Key.Name] > 0 {
			hold(group{kind: tenancy.KindTenant}, ref)
		}
	}
}

func (g *Guard) pass(events []tenancy.Event) {
	if len(events) > 0 {
		g.cfg.Next(events)
	}
}

// tell says once per change what is held because of it.
func (g *Guard) tell(removals map[group][]tenancy.Ref, held map[tenancy.Ref]bool) {
	for gr, refs := range removals {
		if slices.ContainsFunc(refs, func(r tenancy.Ref) bool { return held[r] }) {
			first := slices.MinFunc(refs, compare)
			g.cfg.Logger.Error("removal held: objects are gone at the source, stay honoured, and wait to be confirmed",
				"kind", gr.String(), "objects", len(refs), "first", first.Key.Namespace+"/"+first.Key.Name, "held_in_all", len(g.kinds[gr].held))
		}
	}
	g.measure()
}

// measure sets the metric, by kind alone: what a tenant has is not for everybody.
func (g *Guard) measure() {
	sum := map[string]int{}
	for gr, k := range g.kinds {
		sum[gr.String()] += len(k.held)
	}
	for kind, n := range sum {
		g.gauge.WithLabelValues(kind).Set(float64(n))
	}
}

func compare(a, b tenancy.Ref) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Key.Namespace, b.Key.Namespace),
		cmp.Compare(a.Key.Name, b.Key.Name), cmp.Compare(a.Key.Source, b.Key.Source))
}

// groupOf says in which group an object is that is known, and whether its
// removal may be held.
func (g *Guard) groupOf(ref tenancy.Ref) (group, bool) {
	gr, there := g.where[ref]
	return gr, there
}

// owner is the tenant whose object it is by the labels that were passed on.
func (g *Guard) owner(ref tenancy.Ref) string {
	return g.label[tenancy.Key{Source: ref.Key.Source, Name: ref.Key.Namespace}]
}

// guardedAs is the group of an object, if its removal is not a revocation.
func guardedAs(ev tenancy.Event) (group, bool) {
	switch ev.Ref.Kind {
	case tenancy.KindTenant, tenancy.KindNamespace, tenancy.KindService, tenancy.KindEndpointSlice, tenancy.KindPod:
		return group{kind: ev.Ref.Kind}, true
	case tenancy.KindAccessPolicy:
		p, ok := ev.Object.(*tenancy.AccessPolicy)
		return group{kind: ev.Ref.Kind, deny: true}, ok && p.Action == tenancy.Deny
	case tenancy.KindClusterAccessPolicy:
		// One that also allows is one that may be taken back.
		p, ok := ev.Object.(*tenancy.ClusterAccessPolicy)
		allows := func(r tenancy.ClusterRule) bool { return r.Action != tenancy.Deny }
		return group{kind: ev.Ref.Kind, deny: true}, ok && !p.Invalid && !slices.ContainsFunc(p.Rules, allows)
	}
	return group{}, false
}

// present notes an object that is there.
func (g *Guard) present(ev tenancy.Event, now time.Time) {
	if ns, ok := ev.Object.(*tenancy.Namespace); ok {
		g.unlabel(ev.Ref.Key)
		if ns.Tenant != "" {
			g.label[ev.Ref.Key] = ns.Tenant
			g.labelled[ns.Tenant]++
		}
	}
	was, known := g.groupOf(ev.Ref)
	gr, guarded := guardedAs(ev)
	gr.tenant = g.owner(ev.Ref)
	if known && (!guarded || was != gr) { // a Deny that became an Allow, a namespace of another tenant
		g.forget(was, ev.Ref)
	}
	if !guarded {
		return
	}
	k := g.kinds[gr]
	if k == nil {
		k = &members{there: map[tenancy.Ref]time.Time{}, gone: map[tenancy.Ref]time.Time{}, held: map[tenancy.Ref]time.Time{}}
		g.kinds[gr] = k
		if g.sums[gr.all()] == nil {
			g.sums[gr.all()] = &sum{}
		}
	}
	since, already := k.there[ev.Ref]
	if !already && g.loaded {
		since = now
		if _, back := k.gone[ev.Ref]; back {
			since = time.Time{}
		}
	}
	g.there(gr, ev.Ref, since, true)
	g.where[ev.Ref] = gr
	g.gone(gr, ev.Ref, time.Time{}, false) // what is back has not gone
	if _, was := k.held[ev.Ref]; was {
		g.held(gr, ev.Ref, time.Time{}, false)
		delete(g.doubtful, ev.Ref)
		g.cfg.Logger.Info("an object whose removal was held is back", "kind", gr.String(), "namespace", ev.Ref.Key.Namespace, "name", ev.Ref.Key.Name, "held_in_all", len(k.held))
		g.measure()
	}
}

// absent notes an object whose removal is passed on.
func (g *Guard) absent(ref tenancy.Ref) {
	if gr, ok := g.groupOf(ref); ok {
		g.forget(gr, ref)
	}
}

func (g *Guard) forget(gr group, ref tenancy.Ref) {
	g.there(gr, ref, time.Time{}, false)
	g.held(gr, ref, time.Time{}, false)
	delete(g.where, ref)
	delete(g.doubtful, ref)
	if gr.kind == tenancy.KindNamespace {
		g.unlabel(ref.Key)
	}
}

func (g *Guard) unlabel(namespace tenancy.Key) {
	if t, ok := g.label[namespace]; ok {
		delete(g.label, namespace)
		if g.labelled[t]--; g.labelled[t] == 0 {
			delete(g.labelled, t)
		}
	}
}

// unneeded releases Tenants that no namespace belongs to any more.
func (g *Guard) unneeded() []tenancy.Event {
	k := g.kinds[group{kind: tenancy.KindTenant}]
	if k == nil {
		return nil
	}
	var out []tenancy.Event
	for ref := range k.held {
		if g.labelled[ref.Key.Name] == 0 {
			out = append(out, tenancy.Event{Ref: ref})
			g.forget(group{kind: tenancy.KindTenant}, ref)
		}
	}
	slices.SortFunc(out, func(a, b tenancy.Event) int { return compare(a.Ref, b.Ref) })
	return out
}

// Held is an object that is gone at its source and honoured nevertheless.
type Held struct {
	Kind      string    `json:"kind"`
	Namespace string    `json:"namespace,omitempty"`
	Name      string    `json:"name"`
	Since     time.Time `json:"since"`
}

// Held lists what is held, sorted by kind, namespace and name.
func (g *Guard) Held() []Held {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := []Held{}
	for gr, k := range g.kinds {
		for ref, since := range k.held {
			out = append(out, Held{gr.String(), ref.Key.Namespace, ref.Key.Name, since.UTC()})
		}
	}
	slices.SortFunc(out, func(a, b Held) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// Confirm removes what has been held since before a time and returns how many
// objects that were.
func (g *Guard) Confirm(before time.Time) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []tenancy.Event
	for _, k := range g.kinds {
		for ref, since := range k.held {
			if since.Before(before) {
				out = append(out, tenancy.Event{Ref: ref})
			}
		}
	}
	slices.SortFunc(out, func(a, b tenancy.Event) int { return compare(a.Ref, b.Ref) })
	for _, ev := range out {
		g.absent(ev.Ref)
	}
	if len(out) > 0 {
		g.cfg.Logger.Info("removal confirmed: held objects are honoured no longer", "objects", len(out))
	}
	gone := append(out, g.unneeded()...)
	g.pass(gone)
	g.tell(nil, nil)
	return len(gone)
}
