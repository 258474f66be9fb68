package snapshot

import (
	"slices"

	"bailiwick.dev/bailiwick/tenancy"
)

// look returns a service as the view sees it, nil if it does not.
func (p *Publisher) look(v *view, key tenancy.Key) *seen {
	sight, ok := p.model.See(v.key, key)
	if !ok {
		return nil
	}
	spec := p.model.Service(key)
	if spec == nil || !spec.Plain && p.model.Bundle(spec.TrustDomain) == nil {
		return nil
	}
	now := &seen{sight: sight, built: p.service(spec)}
	for i := range spec.Ports {
		port := spec.Ports[i].Port
		built := now.built.ports[port]
		if built == nil || !sight.Ports.Has(port) {
			continue
		}
		if !spec.Plain && sight.Plain.Has(port) {
			built = p.openly(spec, built)
		}
		now.ports = append(now.ports, built)
	}
	return now
}

// sameClaims reports whether both claim the same names, addresses and bundle,
// so that only clusters and endpoints may differ.
func sameClaims(a, b *seen) bool {
	x, y := a.built.spec, b.built.spec
	return a.sight.Grade == b.sight.Grade && a.sight.SameSource == b.sight.SameSource &&
		x.Created == y.Created && x.TrustDomain == y.TrustDomain && slices.Equal(x.VIPs, y.VIPs) &&
		slices.EqualFunc(a.ports, b.ports, func(p, q *builtPort) bool {
			return p.spec.Port == q.spec.Port && p.spec.Protocol == q.spec.Protocol && slices.Equal(p.spec.Hosts, q.spec.Hosts) && sameSingles(a, b, p, q)
		})
}
