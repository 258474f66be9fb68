package tenancy_test

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/identity"
	. "bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
	"bailiwick.dev/bailiwick/tenancy/reference"
)

var views = func() (all []ViewKey) {
	for _, t := range tenants {
		for _, ns := range namespaces {
			all = append(all, ViewKey{Tenant: t, Namespace: ns})
		}
	}
	return all
}()

var workloads = func() (all []identity.Workload) {
	for _, d := range domains {
		for _, ns := range namespaces {
			for _, a := range accounts {
				all = append(all, identity.Workload{TrustDomain: d, Namespace: ns, ServiceAccount: a})
			}
		}
	}
	return all
}()

// state is all that a Model says.
type state struct {
	Sights     map[ViewKey][]Sight
	Services   map[Key]*ServiceSpec
	Tenants    map[identity.Workload]string
	Settings   map[string]TenantSettings
	Selections map[Key]map[identity.Workload]Selection
	IPs        map[Key][]netip.Addr
	Places     map[Key]Place
	Workloads  map[Selection]WorkloadSpec
	Bundles    map[string]string
}

// stateOf asks m for everything, and for what it says of former selections.
func stateOf(m *Model, former map[Selection]WorkloadSpec) state {
	s := state{
		Sights: map[ViewKey][]Sight{}, Services: map[Key]*ServiceSpec{}, Tenants: map[identity.Workload]string{}, Settings: map[string]TenantSettings{},
		Selections: map[Key]map[identity.Workload]Selection{}, IPs: map[Key][]netip.Addr{}, Places: map[Key]Place{}, Workloads: map[Selection]WorkloadSpec{}, Bundles: map[string]string{},
	}
	for _, v := range views {
		s.Sights[v] = m.Visible(v)
	}
	for _, name := range tenants {
		s.Settings[name] = m.Settings(name)
	}
	for _, d := range domains {
		s.Bundles[d] = string(m.Bundle(d))
	}
	for sel := range former {
		s.Workloads[sel] = m.Workload(sel)
	}
	for _, ns := range namespaces {
		for _, source := range []string{"one", "two"} {
			for _, svc := range services {
				if spec := m.Service(key(source, ns, svc)); spec != nil {
					s.Services[key(source, ns, svc)] = spec
				}
			}
		}
		for _, p := range pods {
			k := key("", ns, p)
			s.Selections[k] = map[identity.Workload]Selection{}
			for _, w := range workloads {
				if sel, ips, ok := m.Select(k, w); ok {
					s.Selections[k][w], s.IPs[k], s.Places[k] = sel, ips, m.Place(k, w)
					s.Workloads[sel] = m.Workload(sel)
				}
			}
		}
	}
	for _, w := range workloads {
		s.Tenants[w], _ = m.Resolve(w)
	}
	return s
}

var compareState = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}), cmpopts.EquateEmpty()}

// seen are the services of a view's sights with what each is.
func (s state) seen(v ViewKey) map[Key]any {
	all := map[Key]any{}
	for _, sight := range s.Sights[v] {
		all[sight.Service] = []any{sight, s.Services[sight.Service]}
	}
	return all
}

func differing[K comparable, V any](a, b map[K]V) (keys []K) {
	for k := range a {
		if _, ok := b[k]; !ok || !reflect.DeepEqual(a[k], b[k]) {
			keys = append(keys, k)
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			keys = append(keys, k)
		}
	}
	return keys
}

func TestAgreesWithReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		script := anyScript(t, 40)
		m := NewModel(Config{})
		for _, ev := range script {
			m.Apply(ev)
		}
		w := reference.Fold(script)
		for _, v := range views {
			var got []reference.Name
			for _, s := range m.Visible(v) {
				again, ok := m.See(v, s.Service)
				require.True(t, ok)
				require.Equal(t, s, again)
				for _, p := range m.Service(s.Service).Ports {
					if s.Ports.Has(p.Port) {
						got = append(got, reference.Name{Namespace: s.Service.Namespace, Service: s.Service.Name, Port: p.Port, Grade: s.Grade, Plain: s.Plain.Has(p.Port)})
					}
				}
			}
			slices.SortFunc(got, func(a, b reference.Name) int {
				return slices.Compare([]string{a.Namespace, a.Service, fmt.Sprintf("%05d", a.Port)}, []string{b.Namespace, b.Service, fmt.Sprintf("%05d", b.Port)})
			})
			require.Equal(t, w.VisibleNames(v.Tenant, v.Namespace), got, "%+v", v)
		}
		agreeOnCalls(t, m, w)
	})
}

func agreeOnCalls(t *rapid.T, m *Model, w reference.World) {
	requests := []policy.Request{{Method: "GET", Path: "/a/b?q", Host: "LOGS:80"}, {Method: "POST", Path: "/a;x", Host: "shop", Headers: map[string]string{"x-a": "b"}}}
	s := stateOf(m, nil)
	for pod, selections := range s.Selections {
		for self, sel := range selections {
			require.Equal(t, self.Namespace, pod.Namespace)
			ports := map[uint16]policy.Port{}
			for _, p := range s.Workloads[sel].Ports {
				ports[p.Port] = p.Policy
			}
			for _, caller := range workloads {
				for _, number := range podPorts {
					for _, r := range requests {
						got := ports[number].Decide(caller.String(), r)
						want := w.MayCall(caller, pod, number, r)
						require.Equal(t, want, got.Allowed, "%s calls %s port %d: %+v\n%s", caller, pod.Name+"."+pod.Namespace, number, got, sel.Class)
					}
				}
			}
		}
	}
}

func TestTouchedIsCompleteAndMinimal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		world := anyWorld(t)
		script := slices.Concat(world, anyEvents(t, 20))
		m := NewModel(Config{})
		open := map[ViewKey]bool{}
		for _, v := range views {
			if often(t, "open") {
				open[v] = true
				m.OpenView(v)
			}
		}
		problems := map[Ref][]Problem{}
		for _, ev := range world {
			m.Apply(ev)
		}
		m.TakeTouched()
		before, known := stateOf(m, nil), reference.Fold(world)
		for i := len(world); i < len(script); i++ {
			ev := script[i]
			m.Apply(ev)
			touched := m.TakeTouched()
			after, now := stateOf(m, before.Workloads), reference.Fold(script[:i+1])
			complete(t, ev, before, after, touched, open)
			minimal(t, ev, known, now, touched, open)
			agreeOnProblems(t, m, script[:i+1], problems)
			before, known = after, now
		}
		agreeOnCalls(t, m, known)
	})
}

func complete(t *rapid.T, ev Event, before, after state, touched Touched, open map[ViewKey]bool) {
	say := func(what string, k any) string {
		return fmt.Sprintf("%s %v differs after %+v %+v", what, k, ev.Ref, ev.Object)
	}
	for v := range open {
		for _, k := range differing(before.seen(v), after.seen(v)) {
			require.Contains(t, touched.Views, v, say("service", k))
			require.Contains(t, touched.Views[v].Services, k, say("service", k))
		}
		if before.Settings[v.Tenant] != after.Settings[v.Tenant] {
			require.True(t, touched.Views[v] != nil && touched.Views[v].Settings, say("settings of", v))
		}
	}
	for _, k := range differing(before.Services, after.Services) {
		require.Contains(t, touched.Services, k, say("service", k))
	}
	for k, spec := range before.Services {
		if after.Services[k] != nil && reflect.DeepEqual(spec, after.Services[k]) {
			require.Same(t, spec, after.Services[k], say("pointer of", k))
		}
	}
	for _, w := range differing(before.Tenants, after.Tenants) {
		require.Contains(t, touched.Namespaces, w.Namespace, say("tenant of", w))
	}
	for _, k := range slices.Concat(differing(before.Selections, after.Selections), differing(before.IPs, after.IPs), differing(before.Places, after.Places)) {
		require.Contains(t, touched.Pods, k, say("selection or place of", k))
	}
	for sel, spec := range before.Workloads {
		if !reflect.DeepEqual(spec, after.Workloads[sel]) {
			_, told := touched.Workloads[sel.Workload.Namespace]
			for s := range touched.Selected {
				told = told || s.Has(sel)
			}
			require.True(t, told, say("workload", sel)+cmp.Diff(spec, after.Workloads[sel], compareState))
		}
	}
	for _, d := range differing(before.Bundles, after.Bundles) {
		require.Contains(t, touched.Bundles, d)
	}
}

// minimal checks that an event reached no view and no workload beyond what the
// reference says is own or revealed by a live grant, before it or after it.
func minimal(t *rapid.T, ev Event, before, after reference.World, touched Touched, open map[ViewKey]bool) {
	say := fmt.Sprintf("touched by %+v %+v", ev.Ref, ev.Object)
	knows := func(w reference.World, v ViewKey, namespace, service string) bool {
		return slices.ContainsFunc(w.VisibleNames(v.Tenant, v.Namespace), func(n reference.Name) bool {
			return n.Namespace == namespace && (service == "" || n.Service == service)
		})
	}
	either := func(f func(reference.World) bool) bool { return f(before) || f(after) }
	shares := func(w reference.World, a, b string) bool {
		x, _ := w.Tenant(a)
		y, _ := w.Tenant(b)
		return x != "" && x == y
	}
	for v, tv := range touched.Views {
		require.True(t, open[v], "view that is not open %s", say)
		for k := range tv.Services {
			require.True(t, either(func(w reference.World) bool {
				owner, _ := w.Tenant(k.Namespace)
				viewer, _ := w.Tenant(v.Namespace)
				return owner == v.Tenant && viewer == v.Tenant || knows(w, v, k.Namespace, k.Name)
			}), "%v of %v %s", k, v, say)
		}
		if tv.Settings {
			require.True(t, ev.Ref.Key.Name == v.Tenant || ev.Ref.Key.Name == v.Namespace || ev.Ref.Kind == KindTrustBundle, "settings of %v %s", v, say)
		}
	}
	// May the event's own namespace concern that one?
	concerns := func(from, ns string) bool {
		return from == ns || either(func(w reference.World) bool {
			owner, _ := w.Tenant(from)
			return shares(w, from, ns) || knows(w, ViewKey{Tenant: owner, Namespace: from}, ns, "")
		})
	}
	namespacesOf := maps.Clone(touched.Workloads)
	for s := range touched.Selected {
		if namespacesOf == nil {
			namespacesOf = map[string]string{}
		}
		namespacesOf[s.Namespace] = ""
	}
	for ns := range namespacesOf {
		switch ev.Ref.Kind {
		case KindService, KindEndpointSlice, KindServiceGrant, KindPeerTLS:
			require.Equal(t, ev.Ref.Key.Namespace, ns, say)
		case KindAccessPolicy:
			require.True(t, ns == ev.Ref.Key.Namespace || either(func(w reference.World) bool { return shares(w, ev.Ref.Key.Namespace, ns) }), "%s %s", ns, say)
		case KindPod:
			require.True(t, either(func(w reference.World) bool { return shares(w, ev.Ref.Key.Namespace, ns) }), "%s %s", ns, say)
		case KindServiceRequest:
			require.True(t, concerns(ev.Ref.Key.Namespace, ns) && ns != ev.Ref.Key.Namespace, "%s %s", ns, say)
		case KindNamespace:
			require.True(t, concerns(ev.Ref.Key.Name, ns), "%s %s", ns, say)
		case KindTenant:
			require.True(t, slices.ContainsFunc(namespaces, func(from string) bool {
				return either(func(w reference.World) bool { x, _ := w.Tenant(from); return x == ev.Ref.Key.Name }) && concerns(from, ns)
			}), "%s %s", ns, say)
		}
	}
}

// agreeOnProblems checks that what TakeProblems told so far is what is wrong now.
func agreeOnProblems(t *rapid.T, m *Model, script []Event, told map[Ref][]Problem) {
	for ref, list := range m.TakeProblems() {
		if told[ref] = list; len(list) == 0 {
			delete(told, ref)
		}
	}
	for _, ev := range script {
		now := m.Problems(ev.Ref)
		require.True(t, slices.Equal(told[ev.Ref], now), "%+v after %+v: told %+v, have %+v", ev.Ref, script[len(script)-1], told[ev.Ref], now)
	}
}

// TestAnyInterleavingEndsEqual keeps the order of each object's events only.
func TestAnyInterleavingEndsEqual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		script := limited(anyScript(t, 40))
		byRef := map[Ref][]Event{}
		var order []Ref
		for _, ev := range script {
			byRef[ev.Ref] = append(byRef[ev.Ref], ev)
			order = append(order, ev.Ref)
		}
		limits := Limits{Services: 2, Policies: 2, PoliciesPerWorkload: 1, Grants: 1, Requests: 1, Endpoints: 1}
		m, n := NewModel(Config{Limits: limits}), NewModel(Config{Limits: limits})
		for _, ev := range script {
			m.Apply(ev)
		}
		for _, ref := range rapid.Permutation(order).Draw(t, "order") {
			n.Apply(byRef[ref][0])
			byRef[ref] = byRef[ref][1:]
		}
		a, b := stateOf(m, nil), stateOf(n, nil)
		require.Empty(t, cmp.Diff(a, b, compareState))
		require.Empty(t, cmp.Diff(m.TakeProblems(), n.TakeProblems(), cmpopts.EquateEmpty(), dropEmpty))
	})
}

// dropEmpty leaves out problems that came and went.
var dropEmpty = cmp.Transformer("dropEmpty", func(all map[Ref][]Problem) map[string][]Problem {
	out := map[string][]Problem{}
	for ref, list := range all {
		if len(list) > 0 {
			out[fmt.Sprint(ref)] = list
		}
	}
	return out
})

// TestTouchedIsCompleteAtLimits does without the reference, which knows none.
func TestTouchedIsCompleteAtLimits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := NewModel(Config{Limits: Limits{Services: 2, Policies: 2, PoliciesPerWorkload: 1, Grants: 1, Requests: 1, Endpoints: 1}})
		open := map[ViewKey]bool{}
		for _, v := range views {
			open[v] = true
			m.OpenView(v)
		}
		problems := map[Ref][]Problem{}
		before := stateOf(m, nil)
		script := limited(anyScript(t, 10))
		for i, ev := range script {
			m.Apply(ev)
			after := stateOf(m, before.Workloads)
			complete(t, ev, before, after, m.TakeTouched(), open)
			agreeOnProblems(t, m, script[:i+1], problems)
			before = after
		}
	})
}

func TestNothingIsLeftOfObjectsThatAreGone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		script := anyScript(t, 30)
		m := NewModel(Config{})
		for _, ev := range script {
			m.Apply(ev)
		}
		refs := map[Ref]struct{}{}
		for _, ev := range script {
			refs[ev.Ref] = struct{}{}
		}
		order := slices.SortedFunc(maps.Keys(refs), func(a, b Ref) int {
			return slices.Compare([]string{a.Kind.String(), a.Key.Namespace, a.Key.Name, a.Key.Source}, []string{b.Kind.String(), b.Key.Namespace, b.Key.Name, b.Key.Source})
		})
		for _, ref := range rapid.Permutation(order).Draw(t, "order") {
			m.Apply(Event{Ref: ref})
		}
		require.Zero(t, m.Left())
	})
}
