package tenancy

import (
	"cmp"
	"net/netip"
	"slices"
)

func (m *Model) makeService(sp *space, name string) *service {
	s := sp.services[name]
	if s == nil {
		s = &service{entry: entry{space: sp, name: name}, slices: map[string]*slice{}}
		s.state = s
		put(&sp.services, name, s)
	}
	return s
}

func (m *Model) sweepService(s *service) {
	if s.obj == nil && len(s.slices) == 0 {
		delete(s.space.services, s.name)
	}
}

func (m *Model) applyService(sp *space, name string, obj *Service) {
	if obj == nil && sp.services[name] == nil {
		return
	}
	s := m.makeService(sp, name)
	old := s.obj
	if same(old, obj) {
		return
	}
	// Creation time decides who is within the limit.
	leads := old == nil || obj == nil || old.Created != obj.Created || !slices.Equal(old.Ports, obj.Ports)
	m.touchService(s)
	if leads {
		m.touchLeads(s)
	}
	s.obj = obj
	m.rank(&s.entry)
	m.touchService(s)
	if leads {
		m.touchLeads(s)
	}
	m.check(s.ref())
	if obj == nil {
		s.spec, s.excess = nil, 0
		m.noteOverfull(s)
	}
	m.sweepService(s)
}

// applySlice joins a slice's endpoints to their Pods. As long as its service,
// its ports and the Pods stay, only the service is touched.
func (m *Model) applySlice(sp *space, name string, obj *EndpointSlice) {
	sl := sp.slices[name]
	if sl == nil {
		if obj == nil {
			return
		}
		sl = &slice{space: sp, name: name}
		put(&sp.slices, name, sl)
	}
	if same(sl.obj, obj) {
		return
	}
	old := sl.obj
	elsewhere := old == nil || obj == nil || old.Service != obj.Service
	var places map[*pod]Place
	if old != nil && obj != nil && !slices.EqualFunc(old.Endpoints, obj.Endpoints, samePlace) {
		places = sl.places()
	}
	if elsewhere || !slices.Equal(old.Ports, obj.Ports) {
		m.setPods(sl, nil) // the Pods get other ports: all of them are touched
	}
	if old == nil || obj == nil || !slices.EqualFunc(old.Endpoints, obj.Endpoints, sameAddress) {
		sl.forget()
		sl.obj = obj
		sl.remember()
	}
	sl.obj = obj
	was := sl.service
	if elsewhere {
		m.relink(sl)
	}
	m.rejoin(sl)
	if places != nil {
		m.touchPlaces(sl, places)
	}
	if was != nil && was != sl.service {
		m.touchService(was)
		m.sweepService(was)
	}
	if sl.service != nil {
		m.touchService(sl.service)
	} else {
		delete(sp.slices, name)
	}
	m.check(sp.ref(KindEndpointSlice, name))
}

func sameAddress(a, b Endpoint) bool { return slices.Equal(a.Addresses, b.Addresses) }

// relink files the slice under the service that it names.
func (m *Model) relink(sl *slice) {
	if sl.service != nil {
		delete(sl.service.slices, sl.name)
		m.checkGrantsFor(sl.service)
	}
	sl.service = nil
	if sl.obj != nil {
		sl.service = m.makeService(sl.space, sl.obj.Service)
		sl.service.slices[sl.name] = sl
		m.checkGrantsFor(sl.service)
	}
}

// address is the one that counts: Kubernetes gives those after the first no
// meaning.
func (e *Endpoint) address() (netip.Addr, bool) {
	if len(e.Addresses) == 0 {
		return netip.Addr{}, false
	}
	return e.Addresses[0], true
}

func (sl *slice) remember() {
	if sl.obj == nil {
		return
	}
	for i := range sl.obj.Endpoints {
		if a, ok := sl.obj.Endpoints[i].address(); ok {
			include(&sl.space.endpoints, a, sl)
		}
	}
}

func (sl *slice) forget() {
	if sl.obj == nil {
		return
	}
	for i := range sl.obj.Endpoints {
		if a, ok := sl.obj.Endpoints[i].address(); ok {
			exclude(sl.space.endpoints, a, sl)
		}
	}
}

// rejoin finds the Pods behind the slice's endpoints anew and reports whether
// they changed.
func (m *Model) rejoin(sl *slice) bool {
	var pods []*pod
	if sl.obj != nil {
		pods = make([]*pod, len(sl.obj.Endpoints))
		for i := range sl.obj.Endpoints {
			m.steps++
			pods[i] = sl.space.podOf(&sl.obj.Endpoints[i])
		}
	}
	changed := !slices.Equal(pods, sl.pods)
	if changed {
		m.setPods(sl, pods)
	}
	m.wait(sl)
	return changed
}

// setPods puts other Pods behind a slice and touches those that came or went.
func (m *Model) setPods(sl *slice, pods []*pod) {
	delta := map[*pod]int{}
	for _, p := range pods {
		delta[p]++
	}
	for _, p := range sl.pods {
		delta[p]--
	}
	delete(delta, nil)
	sl.pods = pods
	for p, n := range delta {
		had := p.slices.count(sl)
		if n == 0 {
			continue
		}
		if had == 0 || had+n == 0 {
			m.touchPod(p)
		}
		p.slices.set(sl, had+n)
		if had == 0 || had+n == 0 {
			m.touchPod(p)
		}
	}
}

// podOf is the Pod behind an endpoint, nil if there is none that may be: it
// must be eligible, have the address, and be the one that the endpoint names
// as far as both sides tell. Of several the one with that UID, then the
// youngest counts.
func (sp *space) podOf(e *Endpoint) *pod {
	a, ok := e.address()
	if !ok {
		return nil
	}
	var found *pod
	for p := range sp.addresses[a].all() {
		switch {
		case e.PodUID != "" && p.obj.UID != "":
			if e.PodUID != p.obj.UID {
				continue
			}
		case e.PodName != "" && e.PodName != p.name:
			continue
		}
		if found == nil || p.precedes(found, e) {
			found = p
		}
	}
	return found
}

func (p *pod) precedes(o *pod, e *Endpoint) bool {
	exact := func(p *pod) int {
		if e.PodUID != "" && p.obj.UID == e.PodUID {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(exact(p), exact(o)), cmp.Compare(o.obj.Created, p.obj.Created), cmp.Compare(p.name, o.name)) < 0
}

func eligible(p *Pod) bool { return p != nil && !p.HostNetwork && !p.Finished }

func (m *Model) applyPod(sp *space, name string, obj *Pod) {
	p := sp.pods[name]
	if p == nil {
		if obj == nil {
			return
		}
		p = &pod{space: sp, name: name}
		put(&sp.pods, name, p)
	}
	old := p.obj
	if same(old, obj) {
		return
	}
	m.touchPod(p)
	accounts := len(sp.accounts)
	joins := map[*slice]struct{}{}
	sp.unfilePod(p, joins)
	if p.obj = obj; obj == nil {
		delete(sp.pods, name)
	}
	fewer := len(sp.accounts)
	sp.filePod(p, joins)
	if account(old) != account(obj) && (fewer != accounts || len(sp.accounts) != fewer) {
		m.touchAccounts(sp)
	}
	if joinsAlike(old, obj) {
		clear(joins)
	}
	for sl := range joins {
		m.check(sp.ref(KindEndpointSlice, sl.name))
		if m.rejoin(sl) {
			m.touchService(sl.service)
		}
	}
	for sl := range sp.waiting[name] {
		m.check(sp.ref(KindEndpointSlice, sl.name))
	}
	if old != nil && obj != nil && old.ServiceAccount != obj.ServiceAccount {
		for sl := range p.slices.all() {
			m.touchService(sl.service)
		}
	}
	m.touchPod(p)
}

// account is the service account that a Pod counts for, "" for none.
func account(p *Pod) string {
	if !eligible(p) {
		return ""
	}
	return p.ServiceAccount
}

// joinsAlike reports whether endpoints join both in the same way.
func joinsAlike(a, b *Pod) bool {
	return a != nil && b != nil && a.UID == b.UID && a.Created == b.Created &&
		eligible(a) == eligible(b) && slices.Equal(a.IPs, b.IPs)
}

// unfilePod takes p out of the indexes, filePod puts it in. Both note the
// slices that name one of its addresses.
func (sp *space) unfilePod(p *pod, joins map[*slice]struct{}) {
	if p.obj == nil {
		return
	}
	for _, a := range p.obj.IPs {
		sp.joined(a, joins)
	}
	if !eligible(p.obj) {
		return
	}
	for _, a := range p.obj.IPs {
		exclude(sp.addresses, a, p)
	}
	if sp.accounts[p.obj.ServiceAccount]--; sp.accounts[p.obj.ServiceAccount] == 0 {
		delete(sp.accounts, p.obj.ServiceAccount)
	}
}

func (sp *space) filePod(p *pod, joins map[*slice]struct{}) {
	if p.obj == nil {
		return
	}
	for _, a := range p.obj.IPs {
		sp.joined(a, joins)
	}
	if !eligible(p.obj) {
		return
	}
	for _, a := range p.obj.IPs {
		include(&sp.addresses, a, p)
	}
	if sp.accounts == nil {
		sp.accounts = map[string]int{}
	}
	sp.accounts[p.obj.ServiceAccount]++
}

// joined notes the slices that name an address.
func (sp *space) joined(a netip.Addr, joins map[*slice]struct{}) {
	for sl := range sp.endpoints[a].all() {
		joins[sl] = struct{}{}
	}
}
