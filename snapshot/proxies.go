package snapshot

import (
	"net/netip"
	"slices"
	"time"

	"bailiwick.dev/bailiwick/tenancy"
)

// linger is how long a layer that nobody reads is kept up to date, for the
// proxies that come back.
const linger = 5 * time.Minute

// proxy is one attached stream, as the publisher knows it.
type proxy struct {
	att    *Attachment
	bound  bool
	tenant string
	pod    tenancy.Key
	// at is the Pod that has the connection's address, if that is asked for.
	at   tenancy.Key
	view *view
	// choice is nil where the empty view is served.
	choice   *variant
	near     *near // nil where nothing is near
	workload *workload
	final    bool
	held     bool
}

// nothing is what an identity without a tenant, or a stream on hold, is bound to.
type nothing struct {
	view, listeners, workload *Layer
}

func newNothing() nothing {
	v, l := NewView()
	return nothing{v, l, NewWorkload()}
}

// workloadKey is all that a workload layer depends on besides the model.
type workloadKey struct {
	selection tenancy.Selection
	choice    Variant
	// addresses is set for explicit capture only, where listeners bind them.
	addresses string
}

// workload is one inbound configuration, shared by the Pods of a selection.
type workload struct {
	key       workloadKey
	addresses []netip.Addr
	layer     *Layer
	refs      int
	idle      time.Time
	names     map[Child]struct{}
}

// rebind resolves again the proxies that t concerns, and those that wait for
// their first binding.
func (p *Publisher) rebind(t *tenancy.Touched, now time.Time) {
	again := map[*proxy]struct{}{}
	for ns := range t.Namespaces {
		for px := range p.byNamespace[ns] {
			again[px] = struct{}{}
		}
	}
	for pod := range t.Pods {
		for px := range p.byPod[tenancy.Key{Namespace: pod.Namespace, Name: pod.Name}] {
			again[px] = struct{}{}
		}
	}
	for _, a := range p.waiting {
		if px := p.proxies[a]; px != nil {
			p.enter(px)
			again[px] = struct{}{}
		}
	}
	p.waiting = nil
	p.aheadOfBindings(again)
	for px := range again {
		p.bind(px, now)
	}
}

// enter files a proxy under what may concern it.
func (p *Publisher) enter(px *proxy) {
	w := px.att.Proxy().Workload
	px.pod = tenancy.Key{Namespace: w.Namespace, Name: px.att.Proxy().Pod}
	file(p.byNamespace, w.Namespace, px)
	if px.pod.Name != "" {
		file(p.byPod, px.pod, px)
	}
}

func file[K, V comparable](m map[K]map[V]struct{}, k K, v V) {
	if m[k] == nil {
		m[k] = map[V]struct{}{}
	}
	m[k][v] = struct{}{}
}

func unfile[K, V comparable](m map[K]map[V]struct{}, k K, v V) {
	if delete(m[k], v); len(m[k]) == 0 {
		delete(m, k)
	}
}

func (p *Publisher) detach(a *Attachment, now time.Time) {
	px := p.proxies[a]
	if px == nil {
		return
	}
	delete(p.proxies, a)
	delete(p.retries, px)
	if px.bound {
		unfile(p.byNamespace, px.att.Proxy().Workload.Namespace, px)
		unfile(p.byPod, px.pod, px)
		unfile(p.byPod, px.at, px)
	}
	a.Bind(nil)
	p.release(px, now)
}

// release gives back the layers that px is bound to.
func (p *Publisher) release(px *proxy, now time.Time) {
	if px.choice != nil {
		px.choice.refs--
	}
	if px.near != nil {
		px.near.refs--
	}
	if px.view != nil {
		if px.view.refs--; px.view.refs == 0 {
			px.view.idle = now
		}
	}
	if px.workload != nil {
		if px.workload.refs--; px.workload.refs == 0 {
			px.workload.idle = now
		}
	}
	px.view, px.choice, px.near, px.workload = nil, nil, nil, nil
}

// bind gives px what its identity may have now. Whoever had a tenant and has
// another or none is bound to nothing, for good: that goes out, then the
// connection ends.
func (p *Publisher) bind(px *proxy, now time.Time) {
	if px.final {
		return
	}
	spec := px.att.Proxy()
	tenant, ok := p.model.Resolve(spec.Workload)
	if !ok {
		tenant = ""
	}
	lost := px.bound && px.tenant != "" && tenant != px.tenant
	held := !lost && p.held.has(tenant, spec.Workload.Namespace)
	old := *px
	px.view, px.choice, px.near, px.workload = nil, nil, nil, nil
	px.bound, px.tenant, px.final, px.held = true, tenant, lost, held
	refused := tenant != "" && !lost && !p.comesFromItsPod(px)
	b := &Binding{
		Tenant: tenant, Held: held, Final: lost, Refused: refused,
		View: p.nothing.view, Listeners: p.nothing.listeners, Workload: p.nothing.workload,
	}
	if tenant != "" && !lost && !held && !refused {
		if p.contain("binding", func() { p.fill(px, b, now) }, "workload", spec.Workload.String()) {
			delete(p.retries, px)
		} else {
			// Its client keeps what it has until this works again.
			p.release(px, now)
			b.View, b.Listeners, b.Near, b.Workload, b.Held = p.nothing.view, p.nothing.listeners, nil, p.nothing.workload, true
			p.again(px, now)
		}
	}
	if was := px.att.Binding(); was == nil || *was != *b {
		px.att.Bind(b)
	}
	p.release(&old, now)
}

// comesFromItsPod reports whether the connection of px, which has a tenant,
// comes from where it may: from anywhere if that is not asked for, else from an
// address of a Pod of the workload. A stolen SVID is then of use only in there.
func (p *Publisher) comesFromItsPod(px *proxy) bool {
	spec := px.att.Proxy()
	if !spec.Address.IsValid() {
		return true
	}
	name, ok := p.model.PodAt(spec.Workload, spec.Address)
	at := tenancy.Key{Namespace: spec.Workload.Namespace, Name: name}
	if at != px.at {
		if px.at != px.pod {
			unfile(p.byPod, px.at, px)
		}
		px.at = at
	}
	if ok {
		file(p.byPod, at, px)
	}
	return ok
}

// fill finds or builds the layers of px.
func (p *Publisher) fill(px *proxy, b *Binding, now time.Time) {
	spec := px.att.Proxy()
	if sel, ips, ok := p.model.Select(px.pod, spec.Workload); ok {
		px.workload = p.workloadFor(sel, spec.Variant, ips)
		px.workload.refs++
		b.Workload = px.workload.layer
	}
	px.view = p.viewFor(tenancy.ViewKey{Tenant: px.tenant, Namespace: spec.Workload.Namespace}, now)
	px.view.refs++
	outbound := spec.Variant
	outbound.App, outbound.FiltersAddresses = netip.Addr{}, false // matters of the inbound side alone
	px.choice = px.view.variants[outbound]
	if px.choice == nil {
		px.choice = p.newVariant(px.view, outbound)
		px.view.variants[outbound] = px.choice
	}
	px.choice.refs++
	b.View, b.Listeners = px.view.layer, px.choice.layer
	if px.near = p.nearFor(px.view, p.model.Place(px.pod, spec.Workload)); px.near != nil {
		px.near.refs++
		b.Near = px.near.layer
	}
}

// viewFor returns the view of that key, building it when nobody had it open.
func (p *Publisher) viewFor(key tenancy.ViewKey, now time.Time) *view {
	if v := p.views[key]; v != nil {
		return v
	}
	v := p.newView(key)
	p.views[key] = v
	p.model.OpenView(key)
	p.flushView(v, p.allOf(key), now)
	return v
}

// allOf is all that a view has to look at.
func (p *Publisher) allOf(key tenancy.ViewKey) *tenancy.TouchedView {
	all := &tenancy.TouchedView{Services: map[tenancy.Key]struct{}{}, Settings: true}
	for _, s := range p.model.Visible(key) {
		all.Services[s.Service] = struct{}{}
	}
	return all
}

// hold is whose streams wait in silence. It is immutable.
type hold struct{ tenants, namespaces map[string]struct{} }

func set(names []string) map[string]struct{} {
	m := make(map[string]struct{}, len(names))
	for _, n := range names {
		m[n] = struct{}{}
	}
	return m
}

func (h *hold) has(tenant, namespace string) bool {
	_, t := h.tenants[tenant]
	_, n := h.namespaces[namespace]
	return t || n
}

// hold replaces whose streams wait.
func (p *Publisher) hold(h *hold, now time.Time) {
	p.held = h
	for _, px := range p.proxies {
		if px.bound && px.held != h.has(px.tenant, px.att.Proxy().Workload.Namespace) {
			p.bind(px, now)
		}
	}
}

// sweep drops the layers that nobody has read for long enough.
func (p *Publisher) sweep(now time.Time) {
	if due, ok := p.nextSweep(); !ok || due.After(now) {
		return
	}
	p.swept = now
	for key, v := range p.views {
		if v.refs == 0 && !v.idle.Add(linger).After(now) {
			delete(p.views, key)
			delete(p.retries, v)
			p.model.NoteView(key, 0)
			p.model.CloseView(key)
			p.stats.views.Delete(key)
			continue
		}
		for choice, vr := range v.variants {
			if vr.refs == 0 {
				delete(v.variants, choice)
			}
		}
		v.near.sweep()
	}
	for key, w := range p.workloads {
		if w.refs == 0 && !w.idle.Add(linger).After(now) {
			delete(p.workloads, key)
			delete(p.retries, w)
			unfile(p.workloadsIn, key.selection.Workload.Namespace, w)
		}
	}
}

// nextSweep is when to sweep again: once per linger, while there is anything.
func (p *Publisher) nextSweep() (time.Time, bool) {
	if len(p.views) == 0 && len(p.workloads) == 0 {
		return time.Time{}, false
	}
	return p.swept.Add(linger), true
}

// addressesKey is a comparable form of the addresses that explicit capture binds.
func addressesKey(v Variant, ips []netip.Addr) string {
	if !v.Explicit {
		return ""
	}
	var b []byte
	for _, ip := range slices.Sorted(slices.Values(addrStrings(ips))) {
		b = append(append(b, ip...), ' ')
	}
	return string(b)
}

func addrStrings(ips []netip.Addr) []string {
	out := make([]string, len(ips))
	for i, ip := range ips {
		out[i] = ip.String()
	}
	return out
}
