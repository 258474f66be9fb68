package guard

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/tenancy"
)

func ref(kind tenancy.Kind, namespace, name string) tenancy.Ref {
	return tenancy.Ref{Kind: kind, Key: tenancy.Key{Namespace: namespace, Name: name}}
}

func there(r tenancy.Ref, o tenancy.Object) tenancy.Event { return tenancy.Event{Ref: r, Object: o} }

func gone(r tenancy.Ref) tenancy.Event { return tenancy.Event{Ref: r} }

// behind is what stands behind a guard: the objects that it was given.
type behind struct {
	*Guard
	now map[tenancy.Ref]tenancy.Object
}

func newBehind(t require.TestingT, c Config) *behind {
	b := &behind{now: map[tenancy.Ref]tenancy.Object{}}
	c.Logger = slog.New(slog.DiscardHandler)
	c.Next = func(events []tenancy.Event) {
		for _, ev := range events {
			if b.now[ev.Ref] = ev.Object; ev.Object == nil {
				delete(b.now, ev.Ref)
			}
		}
	}
	var err error
	b.Guard, err = New(c)
	require.NoError(t, err)
	return b
}

func services(n int) (refs []tenancy.Ref, made []tenancy.Event) {
	for i := range n {
		r := ref(tenancy.KindService, "shop", fmt.Sprintf("s%03d", i))
		refs, made = append(refs, r), append(made, there(r, &tenancy.Service{}))
	}
	return refs, made
}

func removals(refs []tenancy.Ref) (out []tenancy.Event) {
	for _, r := range refs {
		out = append(out, gone(r))
	}
	return out
}

func TestManyAtOnceAreHeldUntilConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		g := newBehind(t, Config{Floor: 5, Registerer: registry})
		refs, made := services(40)
		g.Apply(made)
		g.Apply(removals(refs[:20]))
		require.Len(t, g.now, 20, "half of them is not more than half")
		time.Sleep(DefaultWindow)
		g.Apply(removals(refs[20:31]))
		require.Len(t, g.now, 20, "the whole change is held")
		require.Len(t, g.Held(), 11)
		require.Equal(t, 11.0, testutil.ToFloat64(g.gauge.WithLabelValues("Service")))

		time.Sleep(DefaultWindow)
		g.Apply(removals(refs[35:36]))
		require.Len(t, g.now, 19, "one by one is no accident")
		g.Apply(made[20:21])
		require.Len(t, g.Held(), 10, "what is back is not held")
		require.Equal(t, 0, g.Confirm(time.Now().Add(-time.Hour)))
		require.Equal(t, 10, g.Confirm(time.Now()))
		require.Len(t, g.now, 9)
		require.Empty(t, g.Held())
		require.Equal(t, 0.0, testutil.ToFloat64(g.gauge.WithLabelValues("Service")))
	})
}

// A source that tells of removals one at a time is stopped at the same count.
func TestManyOneByOneAreHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newBehind(t, Config{Floor: 5})
		refs, made := services(40)
		g.Apply(made)
		for _, ev := range removals(refs) {
			g.Apply([]tenancy.Event{ev})
			time.Sleep(time.Millisecond)
		}
		require.Len(t, g.now, 20)
		require.Len(t, g.Held(), 20)
	})
}

// owned are objects of tenants, n Services in a namespace of each.
func owned(tenants, n int) (refs [][]tenancy.Ref, made []tenancy.Event) {
	for i := range tenants {
		ns := fmt.Sprintf("ns%03d", i)
		made = append(made, there(ref(tenancy.KindNamespace, "", ns), &tenancy.Namespace{Tenant: fmt.Sprintf("t%03d", i)}))
		var list []tenancy.Ref
		for j := range n {
			r := ref(tenancy.KindService, ns, fmt.Sprintf("s%03d", j))
			list, made = append(list, r), append(made, there(r, &tenancy.Service{}))
		}
		refs = append(refs, list)
	}
	return refs, made
}

// What one tenant removes holds nothing of another's, however much it is.
func TestTenantsAreCountedApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newBehind(t, Config{})
		refs, made := owned(3, 100)
		g.Apply(made)
		g.Apply(removals(refs[0]))
		require.Len(t, g.Held(), 100)
		g.Apply(removals(refs[1][:15]))
		g.Apply(removals(refs[2][:15]))
		require.Len(t, g.Held(), 100, "neighbours go on as ever")
		require.NotContains(t, g.now, refs[1][0])

		// In small steps just as well.
		time.Sleep(DefaultWindow)
		g.Apply(made)
		for _, r := range refs[0] {
			g.Apply(removals([]tenancy.Ref{r}))
		}
		held := len(g.Held())
		require.Positive(t, held)
		g.Apply(removals(refs[1][:10]))
		require.Len(t, g.Held(), held)
	})
}

// An accident that takes a little of everybody is one all the same.
func TestALittleOfEverybodyIsHeld(t *testing.T) {
	g := newBehind(t, Config{})
	refs, made := owned(20, 5)
	g.Apply(made)
	var all []tenancy.Ref
	for _, list := range refs {
		all = append(all, list...)
	}
	g.Apply(removals(all))
	require.Len(t, g.Held(), 100)
	g.Apply(made)
	require.Empty(t, g.Held())
}

// What comes back has not gone: replacing an object over and over is no accident.
func TestWhatComesBackDoesNotCount(t *testing.T) {
	g := newBehind(t, Config{Floor: 5})
	refs, made := services(8)
	g.Apply(made)
	for range 50 {
		g.Apply(removals(refs[:1]))
		require.NotContains(t, g.now, refs[0])
		g.Apply(made[:1])
	}
	require.Empty(t, g.Held())
}

func TestATenantIsHeldWhileNamespacesBelongToIt(t *testing.T) {
	tenant, one, two := ref(tenancy.KindTenant, "", "acme"), ref(tenancy.KindNamespace, "", "a"), ref(tenancy.KindNamespace, "", "b")
	made := []tenancy.Event{there(tenant, &tenancy.Tenant{}), there(one, &tenancy.Namespace{Tenant: "acme"}), there(two, &tenancy.Namespace{Tenant: "acme"})}

	g := newBehind(t, Config{})
	g.Apply(made)
	g.Apply(removals([]tenancy.Ref{tenant}))
	require.Contains(t, g.now, tenant)
	g.Apply([]tenancy.Event{there(one, &tenancy.Namespace{})})
	require.Contains(t, g.now, tenant)
	g.Apply([]tenancy.Event{gone(two)})
	require.NotContains(t, g.now, tenant, "nothing belongs to it any more")
	require.Empty(t, g.Held())

	g.Apply(made)
	g.Apply(removals([]tenancy.Ref{tenant, one, two}))
	require.Empty(t, g.now, "who removes the namespaces too means it")

	g.Apply(made)
	g.Apply(removals([]tenancy.Ref{tenant}))
	require.Equal(t, 1, g.Confirm(time.Now().Add(time.Second)))
	require.NotContains(t, g.now, tenant)
}

// Whatever happens: revocations and all that is there pass at once, what is
// held is exactly what differs from the source, and once all is confirmed
// nothing differs.
func TestNoRevocationIsEverHeld(t *testing.T) {
	objects := map[tenancy.Ref]func(t *rapid.T) tenancy.Object{}
	for i := range 8 {
		name := fmt.Sprint(i)
		objects[ref(tenancy.KindTenant, "", name)] = func(*rapid.T) tenancy.Object { return &tenancy.Tenant{} }
		objects[ref(tenancy.KindNamespace, "", name)] = func(t *rapid.T) tenancy.Object {
			return &tenancy.Namespace{Tenant: fmt.Sprint(rapid.IntRange(0, 7).Draw(t, "tenant"))}
		}
		objects[ref(tenancy.KindPod, name, "p")] = func(*rapid.T) tenancy.Object { return &tenancy.Pod{} }
		objects[ref(tenancy.KindServiceGrant, name, "g")] = func(*rapid.T) tenancy.Object { return &tenancy.ServiceGrant{} }
		objects[ref(tenancy.KindServiceRequest, name, "r")] = func(*rapid.T) tenancy.Object { return &tenancy.ServiceRequest{} }
		objects[ref(tenancy.KindClusterServiceGrant, "", name)] = func(*rapid.T) tenancy.Object { return &tenancy.ClusterServiceGrant{} }
		objects[ref(tenancy.KindClusterAccessPolicy, "", name)] = func(t *rapid.T) tenancy.Object {
			rule := func(label string) tenancy.ClusterRule {
				return tenancy.ClusterRule{Action: rapid.SampledFrom([]tenancy.Action{tenancy.Allow, tenancy.Deny}).Draw(t, label)}
			}
			return &tenancy.ClusterAccessPolicy{Rules: []tenancy.ClusterRule{rule("first"), rule("second")}}
		}
		objects[ref(tenancy.KindAccessPolicy, name, "a")] = func(t *rapid.T) tenancy.Object {
			return &tenancy.AccessPolicy{Action: rapid.SampledFrom([]tenancy.Action{tenancy.Allow, tenancy.Deny}).Draw(t, "action")}
		}
	}
	refs := []tenancy.Ref{}
	for r := range objects {
		refs = append(refs, r)
	}
	slices.SortFunc(refs, compare)
	rapid.Check(t, func(t *rapid.T) {
		g := newBehind(t, Config{Floor: 2, Share: 0.2, Window: time.Hour})
		source := map[tenancy.Ref]tenancy.Object{}
		for range rapid.IntRange(1, 20).Draw(t, "changes") {
			var events []tenancy.Event
			for _, r := range rapid.SliceOfNDistinct(rapid.SampledFrom(refs), 0, 20, rapid.ID).Draw(t, "objects") {
				ev := tenancy.Event{Ref: r}
				if !rapid.Bool().Draw(t, "gone") {
					ev.Object = objects[r](t)
				}
				if source[r] = ev.Object; ev.Object == nil {
					delete(source, r)
				}
				events = append(events, ev)
			}
			g.Apply(events)
			differs := 0
			for _, r := range refs {
				o, here := source[r]
				have, honoured := g.now[r]
				if here {
					require.Same(t, o, have)
				} else if honoured {
					differs++
					p, isPolicy := have.(*tenancy.AccessPolicy)
					require.False(t, isPolicy && p.Action == tenancy.Allow, "%v", r)
					if c, isCluster := have.(*tenancy.ClusterAccessPolicy); isCluster {
						require.Equal(t, []tenancy.ClusterRule{{Action: tenancy.Deny}, {Action: tenancy.Deny}}, c.Rules)
					}
					require.NotContains(t, []tenancy.Kind{tenancy.KindServiceGrant, tenancy.KindServiceRequest, tenancy.KindClusterServiceGrant}, r.Kind)
				}
			}
			require.Len(t, g.Held(), differs)
			for tenant, n := range g.labelled {
				count := 0
				for _, o := range g.now {
					if ns, ok := o.(*tenancy.Namespace); ok && ns.Tenant == tenant {
						count++
					}
				}
				require.Equal(t, count, n)
			}
		}
		g.Confirm(time.Now().Add(time.Hour))
		require.Equal(t, source, g.now)
		require.Empty(t, g.Held())
	})
}

// Objects that come and go, as those of tests and Jobs do, are no accident; those
// that were there before are.
func TestWhatHasJustComeMayGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newBehind(t, Config{Floor: 5})
		refs, made := services(40)
		g.Apply(made[:8])
		for i := 8; i < 40; i++ {
			g.Apply(made[i : i+1])
			g.Apply(removals(refs[i : i+1]))
		}
		require.Empty(t, g.Held())
		g.Apply(made)
		time.Sleep(DefaultWindow)
		g.Apply(removals(refs))
		require.Len(t, g.Held(), 40)
	})
}

// What the source doubts is held, however little it is, until the source says that
// it is meant, it is back, or somebody confirms it; revocations pass.
func TestDoubtfulRemovalsAreHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newBehind(t, Config{})
		deny, allow := ref(tenancy.KindAccessPolicy, "shop", "deny"), ref(tenancy.KindAccessPolicy, "shop", "allow")
		denies := there(deny, &tenancy.AccessPolicy{Action: tenancy.Deny})
		doubtful := func(r tenancy.Ref) tenancy.Event { return tenancy.Event{Ref: r, Doubtful: true} }
		g.Apply([]tenancy.Event{denies, there(allow, &tenancy.AccessPolicy{Action: tenancy.Allow})})
		time.Sleep(DefaultWindow)
		g.Apply([]tenancy.Event{doubtful(deny), doubtful(allow)})
		require.Contains(t, g.now, deny)
		require.NotContains(t, g.now, allow)
		require.Len(t, g.Held(), 1)
		g.Apply([]tenancy.Event{gone(deny), gone(allow)})
		require.Empty(t, g.now, "it is meant")
		require.Empty(t, g.Held())

		g.Apply([]tenancy.Event{denies})
		g.Apply([]tenancy.Event{doubtful(deny)})
		g.Apply([]tenancy.Event{denies})
		require.Empty(t, g.Held(), "it is back")
		g.Apply([]tenancy.Event{doubtful(deny)})
		g.Apply([]tenancy.Event{doubtful(deny)})
		time.Sleep(time.Second)
		require.Contains(t, g.now, deny)
		require.Equal(t, 1, g.Confirm(time.Now()))
		require.Empty(t, g.now)
		g.Apply([]tenancy.Event{gone(deny)})
		require.Empty(t, g.Held())

		// A Tenant that is meant to go is held for its namespaces all the same.
		acme := ref(tenancy.KindTenant, "", "acme")
		g.Apply([]tenancy.Event{there(acme, &tenancy.Tenant{}), there(ref(tenancy.KindNamespace, "", "shop"), &tenancy.Namespace{Tenant: "acme"})})
		g.Apply([]tenancy.Event{doubtful(acme)})
		g.Apply([]tenancy.Event{gone(acme)})
		require.Contains(t, g.now, acme)
	})
}
