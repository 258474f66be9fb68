package snapshot

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"bailiwick.dev/bailiwick/tenancy"
)

// aheadFrom is how many services have to be built at once to be worth more than
// one goroutine.
const aheadFrom = 64

// aheadMost is about how many are noted before they are built.
const aheadMost = 4096

// errand is a service to build ahead of the view that asks for it.
type errand struct {
	spec  *tenancy.ServiceSpec
	old   *builtService
	built *builtService
	// host is how the first view that asks most likely sees its virtual hosts.
	host hostVariant
}

// ahead builds on all cores what views are about to ask for one by one. Builders
// are pure and errands are of different services, so that nothing is shared but
// counters; the publisher's goroutine, which waits, reads the model before and
// files the results after.
func (p *Publisher) ahead(wanted map[tenancy.Key]tenancy.Sight) {
	if len(wanted) < aheadFrom || runtime.GOMAXPROCS(0) < 2 || p.trap != nil {
		return
	}
	errands := make([]errand, 0, len(wanted))
	for key, sight := range wanted {
		spec, old := p.model.Service(key), p.services[key]
		if spec == nil || p.model.Bundle(spec.TrustDomain) == nil || (old != nil && old.spec == spec && !old.faulty) {
			continue
		}
		errands = append(errands, errand{spec: spec, old: old, host: hostVariant{grade: sight.Grade, vips: sight.SameSource}})
	}
	if len(errands) < aheadFrom {
		return
	}
	var next atomic.Int64
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() { // ends when there are no more errands
			for i := next.Add(1) - 1; int(i) < len(errands); i = next.Add(1) - 1 {
				p.run(&errands[i])
			}
		})
	}
	workers.Wait()
	for i := range errands {
		p.services[errands[i].spec.Key] = errands[i].built
	}
	p.stats.ahead.Add(uint64(len(errands)))
}

func (p *Publisher) run(e *errand) {
	e.built = p.makeService(e.spec, e.old)
	for _, b := range e.built.ports {
		if b.spec.Protocol.IsHTTP() {
			p.host(e.spec, b, e.host)
		}
	}
}

// aheadOfBindings builds what the views of proxies need that nobody has open.
func (p *Publisher) aheadOfBindings(proxies map[*proxy]struct{}) {
	wanted := map[tenancy.Key]tenancy.Sight{}
	for px := range proxies {
		w := px.att.Proxy().Workload
		tenant, ok := p.model.Resolve(w)
		key := tenancy.ViewKey{Tenant: tenant, Namespace: w.Namespace}
		if px.final || !ok || p.views[key] != nil || p.held.has(tenant, w.Namespace) {
			continue
		}
		for _, s := range p.model.Visible(key) {
			wanted[s.Service] = s
		}
		if len(wanted) >= aheadMost {
			p.ahead(wanted)
			clear(wanted)
		}
	}
	p.ahead(wanted)
}

// aheadOfFlush builds what the views of tenants that are due need.
func (p *Publisher) aheadOfFlush(now time.Time) {
	touched := 0
	each := func(f func(tenancy.ViewKey, *tenancy.TouchedView)) {
		for tenant, views := range p.pending {
			if due, ok := p.windows[tenant].due(); !ok || due.After(now) {
				continue
			}
			for key, tv := range views {
				if p.views[key] != nil {
					f(key, tv)
				}
			}
		}
	}
	each(func(_ tenancy.ViewKey, tv *tenancy.TouchedView) { touched += len(tv.Services) })
	if touched < aheadFrom {
		return
	}
	wanted := map[tenancy.Key]tenancy.Sight{}
	each(func(key tenancy.ViewKey, tv *tenancy.TouchedView) {
		for svc := range tv.Services {
			if sight, ok := p.model.See(key, svc); ok {
				wanted[svc] = sight
			}
		}
	})
	p.ahead(wanted)
}
