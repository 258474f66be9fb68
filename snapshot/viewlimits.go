package snapshot

import (
	"cmp"
	"maps"
	"slices"

	"bailiwick.dev/bailiwick/tenancy"
)

// cost is what services take of a view's limits.
type cost struct{ resources, bytes int }

func (c *cost) add(o cost) { c.resources += o.resources; c.bytes += o.bytes }

func (c cost) fits(l tenancy.Limits) bool {
	return c.resources <= l.ViewResources && c.bytes <= l.ViewBytes
}

// endpointHostBytes is about what the virtual host or the listener of one endpoint
// takes. It is counted, because of these a service may have as many as Pods.
const endpointHostBytes = 512

// cost of a seen service: its clusters and endpoints, and the virtual hosts and
// listeners of single endpoints.
func (s *seen) cost() cost {
	var c cost
	for _, b := range s.ports {
		c.resources += 2
		c.bytes += len(b.cluster.frame) + len(b.claims.frame) + (len(b.spec.Hosts)+len(s.singles(b)))*endpointHostBytes
	}
	return c
}

// fit leaves out what is over the tenant's limits: the youngest services
// first, by name where they are of one age. It costs nothing while the view
// fits. Limits touch only what is visible; who may call is decided elsewhere.
func (p *Publisher) fit(v *view, w *work) {
	limits := p.model.Settings(v.key.Tenant).Limits
	if len(v.excess) == 0 && v.size.fits(limits) {
		return
	}
	all := maps.Clone(v.seen)
	maps.Copy(all, v.excess)
	keys := slices.SortedFunc(maps.Keys(all), func(a, b tenancy.Key) int {
		return cmp.Or(cmp.Compare(all[a].built.spec.Created, all[b].built.spec.Created),
			cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	var total cost
	left := 0
	for _, key := range keys {
		s := all[key]
		with := total
		with.add(s.cost())
		_, out := v.excess[key]
		switch fits := left == 0 && with.fits(limits); {
		case fits && out:
			delete(v.excess, key)
			p.contribute(v, key, s, w)
			total = with
		case fits:
			total = with
		case out:
			left++
		default:
			p.withdraw(v, key, s, w)
			v.excess[key] = s
			left++
		}
	}
	p.stats.overLimit.Add(uint64(left))
	if left > 0 {
		p.log.Warn("view is over its tenant's limits: the youngest services are left out",
			"tenant", v.key.Tenant, "namespace", v.key.Namespace, "left_out", left,
			"max_resources", limits.ViewResources, "max_bytes", limits.ViewBytes)
	}
}
