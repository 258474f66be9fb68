package snapshot

import (
	"github.com/prometheus/client_golang/prometheus"

	"bailiwick.dev/bailiwick/tenancy"
)

// limitGauge reports how much of their limits tenants use, and what is left out
// because of them, when it is asked. Tenants that have nothing have no series.
type limitGauge struct {
	stats          *Stats
	usage, leftOut *prometheus.Desc
}

func newLimitGauge(s *Stats) limitGauge {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("bailiwick_snapshot_limit_"+name, help, []string{"tenant", "limit"}, nil)
	}
	return limitGauge{
		s, desc("usage", "What a tenant has of what its limits bound, what is over the limit included; of views, the largest."),
		desc("left_out", "Objects that a tenant's limits leave out now, or leave something of out."),
	}
}

// Describe is of prometheus.Collector, as is Collect.
func (g limitGauge) Describe(ch chan<- *prometheus.Desc) { ch <- g.usage; ch <- g.leftOut }

// Collect may be called from anywhere.
func (g limitGauge) Collect(ch chan<- prometheus.Metric) {
	largest := map[string]cost{}
	g.stats.views.Range(func(key, size any) bool {
		tenant, c := key.(tenancy.ViewKey).Tenant, size.(cost)
		largest[tenant] = cost{max(largest[tenant].resources, c.resources), max(largest[tenant].bytes, c.bytes)}
		return true
	})
	tell := func(desc *prometheus.Desc, tenant string, values map[string]int) {
		for limit, n := range values {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(n), tenant, limit)
		}
	}
	for tenant, c := range largest {
		tell(g.usage, tenant, map[string]int{"viewResources": c.resources, "viewBytes": c.bytes})
	}
	g.stats.usage.Range(func(key, value any) bool {
		u := value.(tenancy.Usage)
		tell(g.usage, key.(string), map[string]int{"services": u.Services, "policies": u.Policies, "grants": u.Grants, "requests": u.Requests})
		tell(g.leftOut, key.(string), map[string]int{
			"services": u.LeftOut.Services, "policies": u.LeftOut.Policies, "grants": u.LeftOut.Grants, "requests": u.LeftOut.Requests,
			"endpoints": u.LeftOut.Endpoints, "policiesPerWorkload": u.LeftOut.PoliciesPerWorkload, "view": u.LeftOut.ViewServices,
		})
		return true
	})
}

// used notes the usage of tenants.
func (s *Stats) used(changed map[string]tenancy.Usage) {
	for tenant, u := range changed {
		if u == (tenancy.Usage{}) {
			s.usage.Delete(tenant)
		} else {
			s.usage.Store(tenant, u)
		}
	}
}
