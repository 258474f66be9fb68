package snapshot

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/tenancy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// counts are what an event costs, apart from time.
type counts struct {
	builds       [NumTypes]uint64
	publications uint64
	woken        int
}

func (r *running) count(watch []*Attachment, events ...tenancy.Event) counts {
	r.t.Helper()
	r.settle()
	for _, a := range watch {
		drain(a)
	}
	before := r.snapshotCounts()
	r.Apply(events)
	r.settle()
	after := r.snapshotCounts()
	c := counts{publications: after.publications - before.publications}
	for t := range NumTypes {
		c.builds[t] = after.builds[t] - before.builds[t]
	}
	for _, a := range watch {
		if drain(a) {
			c.woken++
		}
	}
	return c
}

func (r *running) snapshotCounts() counts {
	c := counts{publications: r.Stats().Publications()}
	for t := range NumTypes {
		c.builds[t] = r.Stats().Builds(t)
	}
	return c
}

func drain(a *Attachment) bool {
	select {
	case <-a.Wake():
		return true
	default:
		return false
	}
}

func TestCostOfAnEventDoesNotGrowWithTheMesh(t *testing.T) {
	cost := func(m mesh) map[string]counts {
		r := start(t, m.events())
		var watch []*Attachment
		for i := range m.tenants {
			watch = append(watch, r.connect(i, 0))
		}
		return map[string]counts{
			"endpoint":       r.count(watch, slice(0, 1, false)),
			"policy":         r.count(watch, gone(tenancy.KindAccessPolicy, nsName(0), serviceName(0))),
			"service gone":   r.count(watch, gone(tenancy.KindService, nsName(0), serviceName(2))),
			"service added":  r.count(watch, service(0, 2, 80)),
			"equal":          r.count(watch, slice(0, 1, false)),
			"other tenant's": r.count(watch[1:], slice(0, 1, true)),
		}
	}
	small, large := cost(mesh{tenants: 3, services: 4}), cost(mesh{tenants: 60, services: 4})
	require.Equal(t, small, large)

	endpoint := counts{publications: 1, woken: 1}
	endpoint.builds[Endpoint] = 1
	require.Equal(t, endpoint, small["endpoint"], "an endpoint change encodes one resource and wakes one tenant")
	require.Equal(t, counts{}, small["equal"], "an equal object costs nothing")
	require.Zero(t, small["other tenant's"].woken)
}

func TestEndpointOfASharedServiceIsEncodedOnceForAllTenants(t *testing.T) {
	const tenants = 40
	events := append(mesh{tenants: tenants, services: 2}.events(),
		put(tenancy.KindClusterServiceGrant, "", "dns", &tenancy.ClusterServiceGrant{
			AllTenants: true,
			To:         []tenancy.ClusterGrantTo{{Namespace: nsName(0), Service: serviceName(1), Ports: tenancy.PortSet{All: true}}},
		}))
	r := start(t, events)
	var watch []*Attachment
	for i := range tenants {
		watch = append(watch, r.connect(i, 0))
	}
	c := r.count(watch, slice(0, 1, false))
	require.Equal(t, tenants, c.woken)
	require.EqualValues(t, 1, c.builds[Endpoint])
	require.Zero(t, c.builds[Cluster]+c.builds[Route]+c.builds[Listener])
}

func TestWhatAViewDoesNotSeeChangesNothingOfIt(t *testing.T) {
	m := mesh{tenants: 2, services: 2}
	r := start(t, m.events())
	b := r.connect(1, 0)
	before := contents(b)
	churn := []tenancy.Event{
		slice(0, 0, false), service(0, 5, 81), gone(tenancy.KindService, nsName(0), serviceName(1)),
		put(tenancy.KindNamespace, "", "ns9", &tenancy.Namespace{Tenant: tenantName(0)}),
		put(tenancy.KindServiceGrant, nsName(0), "offer", &tenancy.ServiceGrant{
			From: []tenancy.GrantFrom{{Tenant: tenantName(1), All: true}},
			To:   []tenancy.GrantTo{{Service: serviceName(0), Ports: tenancy.PortSet{All: true}}},
		}),
		gone(tenancy.KindTenant, "", tenantName(0)),
	}
	for _, ev := range churn {
		c := r.count([]*Attachment{b}, ev)
		require.Zero(t, c.woken, "woken by %+v", ev.Ref)
	}
	require.Equal(t, before, contents(b))
}

func TestLosingTheTenantIsTheEmptyViewForGood(t *testing.T) {
	r := start(t, mesh{tenants: 2, services: 1}.events())
	a := r.connect(0, 0)
	require.NotEmpty(t, contents(a))
	r.Apply([]tenancy.Event{put(tenancy.KindNamespace, "", nsName(0), &tenancy.Namespace{})})
	r.settle()
	require.Empty(t, contents(a))
	require.True(t, a.Binding().Final)
	r.Apply([]tenancy.Event{put(tenancy.KindNamespace, "", nsName(0), &tenancy.Namespace{Tenant: tenantName(0)})})
	r.settle()
	require.True(t, a.Binding().Final, "the connection ends; a new one is served again")
	require.NotEmpty(t, contents(r.connect(0, 0)))
}

func TestAnIdentityWithoutATenantIsServedOnceItHasOne(t *testing.T) {
	events := mesh{tenants: 1, services: 1}.events()
	r := start(t, slices.DeleteFunc(events, func(ev tenancy.Event) bool { return ev.Ref.Kind == tenancy.KindTenant }))
	a := r.connect(0, 0)
	require.Empty(t, contents(a))
	require.False(t, a.Binding().Final)
	r.Apply([]tenancy.Event{put(tenancy.KindTenant, "", tenantName(0), &tenancy.Tenant{TrustDomain: "mesh.example"})})
	r.settle()
	require.NotEmpty(t, contents(a))
}

func TestAForeignTrustDomainGetsNothing(t *testing.T) {
	r := start(t, mesh{tenants: 1, services: 1}.events())
	w := workloadOf(0, 0)
	w.TrustDomain = "other.example"
	a := r.Attach(Proxy{Workload: w, Pod: serviceName(0)})
	<-a.Wake()
	require.Empty(t, contents(a))
}

func TestHeldTenantsWaitAndOthersAreServed(t *testing.T) {
	p := newPublisher(t)
	p.Hold([]string{tenantName(0)}, nil)
	r := startWith(t, p, mesh{tenants: 2, services: 1}.events())
	a, b := r.connect(0, 0), r.connect(1, 0)
	require.True(t, a.Binding().Held)
	require.False(t, b.Binding().Held)
	require.NotEmpty(t, contents(b))
	r.Hold(nil, nil)
	r.settle()
	require.False(t, a.Binding().Held)
	require.NotEmpty(t, contents(a))
}

func TestThePodMayArriveAfterItsProxy(t *testing.T) {
	m := mesh{tenants: 1, services: 2}
	events := slices.DeleteFunc(m.events(), func(ev tenancy.Event) bool {
		return ev.Ref == ref(tenancy.KindPod, nsName(0), serviceName(1))
	})
	r := start(t, events)
	a := r.connect(0, 1)
	inbound := Child{Listener, "virtual-inbound"}
	require.NotContains(t, contents(a), inbound)
	r.Apply(m.events())
	r.settle()
	require.Contains(t, contents(a), inbound)
}

func TestReplicasOfASelectionShareOneWorkloadLayer(t *testing.T) {
	r := start(t, mesh{tenants: 1, services: 1}.events())
	a := r.connect(0, 0)
	b := r.Attach(Proxy{Workload: workloadOf(0, 0), Pod: serviceName(0) + "-b"})
	<-b.Wake()
	require.Same(t, a.Binding().Workload, b.Binding().Workload)
	require.Same(t, a.Binding().View, b.Binding().View)
}

func TestLimitsOfAViewLeaveOutTheYoungest(t *testing.T) {
	r := start(t, append(mesh{tenants: 1, services: 3}.events(),
		put(tenancy.KindTenant, "", tenantName(0), &tenancy.Tenant{TrustDomain: "mesh.example", Limits: tenancy.Limits{ViewResources: 4}})))
	a := r.connect(0, 0)
	r.settle()
	cluster := func(s int) Child {
		return Child{Cluster, fmt.Sprintf("%s.%s.svc.cluster.local:80", serviceName(s), nsName(0))}
	}
	require.Contains(t, contents(a), cluster(0))
	require.Contains(t, contents(a), cluster(1))
	require.NotContains(t, contents(a), cluster(2))
	require.Equal(t, []string{"viewResources 4", "view left out 1"}, limitsOf(t, r, tenantName(0)))
	r.Apply([]tenancy.Event{gone(tenancy.KindService, nsName(0), serviceName(0))})
	r.settle()
	require.Contains(t, contents(a), cluster(2), "what was left out comes in when there is room")
	require.Equal(t, []string{"viewResources 4", "view left out 0"}, limitsOf(t, r, tenantName(0)))
}

// limitsOf are the metrics of a tenant's views.
func limitsOf(t *testing.T, r *running, tenant string) (out []string) {
	reg := prometheus.NewPedanticRegistry()
	require.NoError(t, reg.Register(newLimitGauge(r.stats)))
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, name := range []string{"bailiwick_snapshot_limit_usage viewResources", "bailiwick_snapshot_limit_left_out view"} {
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if m.GetLabel()[1].GetValue() == tenant && f.GetName()+" "+m.GetLabel()[0].GetValue() == name {
					what := strings.Replace(strings.TrimPrefix(name, "bailiwick_snapshot_limit_"), "left_out view", "view left out", 1)
					out = append(out, fmt.Sprintf("%s %.0f", strings.TrimPrefix(what, "usage "), m.GetGauge().GetValue()))
				}
			}
		}
	}
	return out
}

func TestAnyInterleavingEndsInTheSameBytes(t *testing.T) {
	m := mesh{tenants: 3, services: 3}
	history := append(m.events(),
		slice(0, 0, false), service(1, 1, 81), gone(tenancy.KindService, nsName(2), serviceName(2)),
		put(tenancy.KindServiceGrant, nsName(0), "offer", &tenancy.ServiceGrant{
			From: []tenancy.GrantFrom{{Tenant: tenantName(1), All: true}},
			To:   []tenancy.GrantTo{{Service: serviceName(0), Ports: tenancy.PortSet{All: true}}},
		}),
		put(tenancy.KindServiceRequest, nsName(1), "take", &tenancy.ServiceRequest{
			Namespace: nsName(0), Service: serviceName(0), Ports: tenancy.PortSet{All: true},
		}),
		put(tenancy.KindTenant, "", tenantName(2), &tenancy.Tenant{TrustDomain: "mesh.example", Visibility: tenancy.VisibleInNamespace}),
	)
	state := func(events []tenancy.Event, early bool) [3]map[Child]string {
		r := start(t, nil)
		var out [3]map[Child]string
		var atts [3]*Attachment
		if early {
			for i := range atts {
				atts[i] = r.connect(i, 0)
			}
		}
		for chunk := range slices.Chunk(events, 7) {
			r.Apply(chunk)
			r.settle()
		}
		for i := range atts {
			atts[i] = r.connect(i, 0)
			out[i] = contents(atts[i])
		}
		return out
	}
	want := state(history, false)
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		got := state(interleave(history, seed), rapid.Bool().Draw(rt, "early"))
		require.Equal(rt, want, got)
	})
}

// interleave shuffles events but keeps the order of each object's.
func interleave(events []tenancy.Event, seed uint64) []tenancy.Event {
	byRef := map[tenancy.Ref][]tenancy.Event{}
	var order []tenancy.Ref
	for _, ev := range events {
		byRef[ev.Ref] = append(byRef[ev.Ref], ev)
		order = append(order, ev.Ref)
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	out := make([]tenancy.Event, 0, len(events))
	for _, ref := range order {
		out = append(out, byRef[ref][0])
		byRef[ref] = byRef[ref][1:]
	}
	return out
}
