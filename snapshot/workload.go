package snapshot

import (
	"net/netip"
	"time"

	"bailiwick.dev/bailiwick/tenancy"
)

// workloadFor returns the inbound configuration of a selection, building it
// when nobody had it.
func (p *Publisher) workloadFor(sel tenancy.Selection, choice Variant, ips []netip.Addr) *workload {
	choice.Bind = netip.Addr{} // where outbound listeners bind is no matter here
	key := workloadKey{sel, choice, addressesKey(choice, ips)}
	if w := p.workloads[key]; w != nil {
		return w
	}
	w := &workload{key: key, layer: NewWorkload(), names: map[Child]struct{}{}}
	if choice.Explicit {
		w.addresses = ips
	}
	p.workloads[key] = w
	file(p.workloadsIn, sel.Workload.Namespace, w)
	p.buildWorkload(w)
	return w
}

// buildWorkload compiles who may call the workload and publishes what differs.
// What cannot be built is deny-all in what the builder returns, and all ports
// are if that panics.
func (p *Publisher) buildWorkload(w *workload) bool {
	changed := false
	if p.contain("inbound configuration", func() { changed = p.inbound(w) }, "workload", w.key.selection.Workload.String()) {
		delete(p.retries, w)
		return changed
	}
	p.again(w, time.Now())
	return p.closePorts(w)
}

func (p *Publisher) inbound(w *workload) bool {
	spec := p.model.Workload(w.key.selection)
	bundles := make(map[string][]byte, len(spec.TrustDomains))
	for _, td := range spec.TrustDomains {
		if pem := p.model.Bundle(td); pem != nil {
			bundles[td] = pem
		}
	}
	resources, errs := p.builder.Inbound(&spec, w.key.choice, w.addresses, bundles)
	for _, err := range errs {
		p.log.Error("inbound configuration is deny-all in part", "workload", w.key.selection.Workload.String(), "err", err)
	}
	u := Update{Layer: w.layer, Set: resources}
	names := make(map[Child]struct{}, len(resources))
	for _, r := range resources {
		p.stats.built(r.Type())
		names[Child{r.Type(), r.Name()}] = struct{}{}
	}
	for c := range w.names {
		if _, ok := names[c]; !ok {
			u.Remove = append(u.Remove, c)
		}
	}
	w.names = names
	return p.publish(u)
}

// closePorts has everybody refused where it cannot be said who may call.
func (p *Publisher) closePorts(w *workload) bool {
	u := Update{Layer: w.layer}
	for c := range w.names {
		if c.Type == Extension {
			u.Set = append(u.Set, Absent(c.Type, c.Name))
		}
	}
	return p.publish(u)
}

// bundle returns the secret with the authorities of a trust domain, nil when
// there are none.
func (p *Publisher) bundle(domain string) *Resource {
	if r := p.bundles[domain]; r != nil {
		return r
	}
	pem := p.model.Bundle(domain)
	if pem == nil {
		return nil
	}
	p.stats.built(Secret)
	r, err := contained(p, "trust bundle", func() (*Resource, error) { return p.builder.Bundle(domain, pem) })
	if err != nil {
		p.log.Error("trust bundle left as it was", "trust_domain", domain, "err", err)
		return nil
	}
	p.bundles[domain] = r
	return r
}

// touchBundles spreads a changed trust bundle at once. Where a domain's first
// bundle came or its last one went, views look again at all that they see,
// because a service without a bundle cannot be believed and is left out.
func (p *Publisher) touchBundles(t *tenancy.Touched) {
	for domain := range t.Bundles {
		old := p.bundles[domain]
		delete(p.bundles, domain)
		if now := p.bundle(domain); now == nil && p.model.Bundle(domain) != nil {
			p.bundles[domain] = old
			continue
		}
		now := p.bundles[domain]
		for key, v := range p.views {
			switch {
			case (old == nil) != (now == nil):
				p.touchAll(t, key)
			case now != nil && v.domains[domain] > 0:
				p.publish(Update{Layer: v.layer, Set: []*Resource{now}})
			}
		}
		for ns := range p.workloadsIn {
			for w := range p.workloadsIn[ns] {
				p.buildWorkload(w)
			}
		}
	}
}

// touchAll marks every service that a view sees.
func (p *Publisher) touchAll(t *tenancy.Touched, key tenancy.ViewKey) {
	if t.Views == nil {
		t.Views = map[tenancy.ViewKey]*tenancy.TouchedView{}
	}
	tv := t.Views[key]
	if tv == nil {
		tv = &tenancy.TouchedView{}
		t.Views[key] = tv
	}
	if tv.Services == nil {
		tv.Services = map[tenancy.Key]struct{}{}
	}
	for _, s := range p.model.Visible(key) {
		tv.Services[s.Service] = struct{}{}
	}
}
