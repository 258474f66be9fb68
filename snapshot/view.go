package snapshot

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"bailiwick.dev/bailiwick/tenancy"
)

// view assembles what one (tenant, namespace) may know. The publisher owns it.
type view struct {
	key   tenancy.ViewKey
	layer *Layer
	// variants are the listeners for each choice that a proxy made.
	variants map[Variant]*variant
	near     nearby
	// refs counts bindings; idle is when the last one went.
	refs int
	idle time.Time

	outbound tenancy.OutboundPolicy
	seen     map[tenancy.Key]*seen
	// hosts holds, per HTTP port, who has a virtual host there.
	hosts map[uint16]map[tenancy.Key]*seen
	// claims holds, per address and port, who claims it; the invalid address
	// stands for a TCP port alone, which explicit capture binds.
	claims map[socket]claimants
	// domains counts services per trust domain, for their bundles.
	domains map[string]int
	// size is what all seen services together cost, excess those left out
	// because that would be over the tenant's limits.
	size   cost
	excess map[tenancy.Key]*seen
	// broken is set after a panic, until the view was made anew.
	broken bool
}

type variant struct {
	layer *Layer
	refs  int
}

type socket struct {
	addr netip.Addr
	port uint16
}

// seen is one visible service with its visible ports.
type seen struct {
	sight tenancy.Sight
	built *builtService
	ports []*builtPort
}

// before orders those who claim one name or address: the nearer grade, then
// the older object, then the name.
func (s *seen) before(o *seen) int {
	a, b := s.built.spec, o.built.spec
	return cmp.Or(cmp.Compare(s.sight.Grade, o.sight.Grade), cmp.Compare(a.Created, b.Created),
		cmp.Compare(a.Key.Namespace, b.Key.Namespace), cmp.Compare(a.Key.Name, b.Key.Name))
}

// work collects what one flush of a view changes.
type work struct {
	set    map[Child]*Resource
	remove map[Child]struct{}
	// assigned are the ports whose assignments are set, by name.
	assigned map[string]assigned
	// ports and sockets whose route or listener must be looked at again.
	ports   map[uint16]struct{}
	sockets map[socket]struct{}
	// partial is set when something could not be built and stays as it was.
	partial bool
}

func newWork() *work {
	return &work{
		set: map[Child]*Resource{}, remove: map[Child]struct{}{}, assigned: map[string]assigned{},
		ports: map[uint16]struct{}{}, sockets: map[socket]struct{}{},
	}
}

func (w *work) put(r *Resource) {
	id := Child{r.Type(), r.Name()}
	delete(w.remove, id)
	w.set[id] = r
}

func (w *work) drop(t Type, name string) {
	id := Child{t, name}
	delete(w.set, id)
	w.remove[id] = struct{}{}
}

func (p *Publisher) newView(key tenancy.ViewKey) *view {
	layer, _ := NewView()
	return &view{
		key: key, layer: layer, variants: map[Variant]*variant{}, near: newNearby(),
		seen: map[tenancy.Key]*seen{}, hosts: map[uint16]map[tenancy.Key]*seen{},
		claims: map[socket]claimants{}, domains: map[string]int{}, excess: map[tenancy.Key]*seen{},
	}
}

// flushView brings a view up to date with the model for the services touched,
// and publishes what differs. It reports whether anything did. If that panics
// the view keeps what it had and is made anew later.
func (p *Publisher) flushView(v *view, touched *tenancy.TouchedView, now time.Time) bool {
	if v.broken {
		return p.remake(v, now)
	}
	return p.tryView(v, touched, now)
}

// tryView is flushView of a view whose state can be believed.
func (p *Publisher) tryView(v *view, touched *tenancy.TouchedView, now time.Time) (changed bool) {
	before := p.stats.panics.Load()
	p.contain("view", func() { changed = p.buildView(v, touched, now) }, "tenant", v.key.Tenant, "namespace", v.key.Namespace)
	if p.stats.panics.Load() == before {
		v.broken = false
		delete(p.retries, v)
		return changed
	}
	v.broken = true
	p.again(v, now)
	return changed
}

func (p *Publisher) buildView(v *view, touched *tenancy.TouchedView, now time.Time) bool {
	w, depends := newWork(), v.near.depends()
	if touched.Settings {
		p.viewSettings(v, w)
	}
	for key := range touched.Services {
		p.lookAgain(v, key, w)
	}
	p.fit(v, w)
	p.model.NoteView(v.key, len(v.excess))
	p.stats.views.Store(v.key, v.size)
	p.routes(v, w)
	if v.broken {
		w.leftovers(v.layer)
	}
	updates := []Update{w.update(v.layer)}
	for choice, vr := range v.variants {
		lw := p.listeners(v, choice, w, touched.Settings)
		if v.broken {
			lw.leftovers(vr.layer)
		}
		updates = append(updates, lw.update(vr.layer))
	}
	return p.publishNear(v, w, depends, updates, now)
}

func (w *work) update(l *Layer) Update {
	u := Update{Layer: l}
	for _, r := range w.set {
		u.Set = append(u.Set, r)
	}
	for c := range w.remove {
		u.Remove = append(u.Remove, c)
	}
	return u
}

// viewSettings applies the tenant's settings: what stands in every view.
func (p *Publisher) viewSettings(v *view, w *work) {
	settings := p.model.Settings(v.key.Tenant)
	v.outbound = settings.Outbound
	p.limits.Store(v.key.Tenant, settings.Limits)
	static, err := contained(p, "static clusters", func() ([]*Resource, error) { return p.builder.StaticClusters(v.outbound) })
	if err != nil {
		w.partial = true
		p.log.Error("static clusters left as they were", "tenant", v.key.Tenant, "err", err)
		return
	}
	w.drop(Cluster, passthroughCluster)
	for _, r := range static {
		w.put(r)
	}
	for port := range v.hosts {
		w.ports[port] = struct{}{}
	}
}

// lookAgain replaces what a service contributes to the view.
func (p *Publisher) lookAgain(v *view, key tenancy.Key, w *work) {
	old, now := v.seen[key], p.look(v, key)
	delete(v.excess, key)
	if old != nil && now != nil && sameClaims(old, now) {
		v.weigh(old, -1)
		v.weigh(now, 1)
		v.file(key, now)
		w.putPorts(now)
		return
	}
	if old != nil {
		p.withdraw(v, key, old, w)
	}
	if now != nil {
		p.contribute(v, key, now, w)
	}
}

// sockets are the addresses that a port of s claims in the view: every virtual
// IP, for HTTP as names of its virtual host, for TCP as listeners, where there is
// none those of the endpoints; and for TCP the port alone.
func (s *seen) sockets(b *builtPort) []socket {
	var out []socket
	if s.sight.SameSource {
		for _, ip := range s.built.spec.VIPs {
			out = append(out, socket{ip, b.spec.Port})
		}
		for _, e := range s.singles(b) {
			out = append(out, socket{e.Address.Addr(), e.Address.Port()})
		}
	}
	if !b.spec.Protocol.IsHTTP() {
		out = append(out, socket{port: b.spec.Port})
	}
	return out
}

// file enters a service under everything that it claims.
func (v *view) file(key tenancy.Key, s *seen) {
	v.seen[key] = s
	for _, b := range s.ports {
		if b.spec.Protocol.IsHTTP() {
			claim(v.hosts, b.spec.Port, key, s)
		}
		for _, sock := range s.sockets(b) {
			c := v.claims[sock]
			c.put(key, s)
			v.claims[sock] = c
		}
	}
}

// mark notes which routes and listeners a service has a part in.
func (s *seen) mark(w *work) {
	for _, b := range s.ports {
		w.ports[b.spec.Port] = struct{}{}
		for _, sock := range s.sockets(b) {
			w.sockets[sock] = struct{}{}
		}
	}
}

// withdraw takes back all that a service contributed; what contribute puts
// back under the same name afterwards is no change.
func (p *Publisher) withdraw(v *view, key tenancy.Key, old *seen, w *work) {
	delete(v.seen, key)
	v.weigh(old, -1)
	old.mark(w)
	for _, b := range old.ports {
		w.drop(Cluster, b.cluster.Name())
		w.drop(Endpoint, b.claims.Name())
		if b.spec.Protocol.IsHTTP() {
			unclaim(v.hosts, b.spec.Port, key)
		}
		for _, sock := range old.sockets(b) {
			c := v.claims[sock]
			if c.drop(key); c.one == nil {
				delete(v.claims, sock)
			} else {
				v.claims[sock] = c
			}
		}
	}
	domain := old.built.spec.TrustDomain
	if old.built.spec.Plain {
		return
	}
	if v.domains[domain]--; v.domains[domain] == 0 {
		delete(v.domains, domain)
		w.drop(Secret, bundleName(domain))
	}
}

func (p *Publisher) contribute(v *view, key tenancy.Key, now *seen, w *work) {
	v.file(key, now)
	v.weigh(now, 1)
	now.mark(w)
	w.putPorts(now)
	domain := now.built.spec.TrustDomain
	if now.built.spec.Plain {
		return
	}
	if v.domains[domain]++; v.domains[domain] == 1 {
		if r := p.bundle(domain); r != nil {
			w.put(r)
		}
	}
}

// routes puts together the RouteConfigurations of the ports marked.
func (p *Publisher) routes(v *view, w *work) {
	for sock := range w.sockets {
		// Who owns an address decides which virtual host has it as a name.
		if len(v.hosts[sock.port]) > 0 {
			w.ports[sock.port] = struct{}{}
		}
	}
	for port := range w.ports {
		if len(v.hosts[port]) == 0 {
			w.drop(Route, RouteName(port))
			continue
		}
		parts := p.virtualHosts(v, port)
		p.stats.built(Route)
		r, err := contained(p, "routes", func() (*Resource, error) { return p.builder.RouteConfiguration(port, parts, v.outbound) })
		if err != nil {
			w.partial = true
			p.log.Error("routes left as they were", "tenant", v.key.Tenant, "namespace", v.key.Namespace, "port", port, "err", err)
			continue
		}
		w.put(r)
	}
}

// virtualHosts are those of a port in the order in which they have names that
// several claim: what the own namespace's endpoints are called, for that is how
// names resolve there, then services, then other endpoints.
func (p *Publisher) virtualHosts(v *view, port uint16) []*Part {
	var own, services, others []*Part
	for _, s := range sorted(v.hosts[port]) {
		b := s.built.ports[port]
		vips := s.sight.SameSource && v.owns(s, b)
		if h := p.host(s.built.spec, b, hostVariant{grade: s.sight.Grade, vips: vips}); h != nil {
			services = append(services, h.Part)
		}
		for _, name := range b.spec.Hosts {
			h := p.host(s.built.spec, b, hostVariant{grade: s.sight.Grade, endpoint: name})
			switch {
			case h == nil:
			case s.sight.Grade == tenancy.OwnNamespace:
				own = append(own, h.Part)
			default:
				others = append(others, h.Part)
			}
		}
	}
	return slices.Concat(own, services, others)
}

// owns reports whether s is the first to claim every virtual IP of its port.
func (v *view) owns(s *seen, b *builtPort) bool {
	for _, sock := range s.sockets(b) {
		if sock.addr.IsValid() && v.claims[sock].first() != s {
			return false
		}
	}
	return true
}

func sorted(m map[tenancy.Key]*seen) []*seen {
	out := make([]*seen, 0, len(m))
	for _, s := range m {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *seen) int {
		x, y := a.built.spec.Key, b.built.spec.Key
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
	})
	return out
}
