package snapshot

import (
	"time"

	"bailiwick.dev/bailiwick/tenancy"
)

// touch notes what waits for which window.
func (p *Publisher) touch(t *tenancy.Touched, arrived, now time.Time) {
	for key, tv := range t.Views {
		waiting := p.pending[key.Tenant]
		if waiting == nil {
			waiting = map[tenancy.ViewKey]*tenancy.TouchedView{}
			p.pending[key.Tenant] = waiting
		}
		if w := waiting[key]; w == nil {
			waiting[key] = tv
		} else {
			w.Settings = w.Settings || tv.Settings
			for s := range tv.Services {
				if w.Services == nil {
					w.Services = map[tenancy.Key]struct{}{}
				}
				w.Services[s] = struct{}{}
			}
		}
		p.window(key.Tenant, now).touchSince(arrived, now)
	}
	for ns, cause := range t.Workloads {
		for w := range p.workloadsIn[ns] {
			p.touchWorkload(w, cause, arrived, now)
		}
	}
	for selected, cause := range t.Selected {
		for w := range p.workloadsIn[selected.Namespace] {
			if selected.Has(w.key.selection) {
				p.touchWorkload(w, cause, arrived, now)
			}
		}
	}
}

// touchWorkload has a workload's decisions built again in the window of the
// tenant that caused it.
func (p *Publisher) touchWorkload(w *workload, cause string, arrived, now time.Time) {
	if p.urgent[cause] == nil {
		p.urgent[cause] = map[*workload]struct{}{}
	}
	p.urgent[cause][w] = struct{}{}
	if p.urgentWindows[cause] == nil {
		p.urgentWindows[cause] = newWindow(p.gather, p.gather, now)
	}
	p.urgentWindows[cause].touchSince(arrived, now)
}

func (p *Publisher) window(tenant string, now time.Time) *window {
	s := p.model.Settings(tenant)
	quiet, limit := s.Quiet, s.Max
	if quiet == 0 {
		quiet = p.quiet
	}
	if limit == 0 {
		limit = p.max
	}
	w := p.windows[tenant]
	if w == nil {
		w = newWindow(quiet, limit, now)
		p.windows[tenant] = w
	}
	if w.quiet, w.max = quiet, max(quiet, limit); w.told != [2]time.Duration{w.quiet, w.max} {
		w.told = [2]time.Duration{w.quiet, w.max}
		p.stats.windows.Store(tenant, w.told)
	}
	return w
}
