package snapshot

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/reference"
)

// The random worlds of this file: three tenants, each with two namespaces that
// have services of the same two names.
var (
	scopeTenants    = []string{"acme", "globex", "umbrella"}
	scopeNamespaces = []string{"acme-a", "acme-b", "globex-a", "globex-b", "umbrella-a", "umbrella-b"}
	scopeServices   = []string{"logs", "shop"}
)

func scopeAddress(ns, svc string, b byte) netip.Addr {
	return netip.AddrFrom4([4]byte{b, 0, byte(slices.Index(scopeNamespaces, ns)), byte(1 + slices.Index(scopeServices, svc))})
}

func scopeService(ns, name string, port uint16, protocol tenancy.Protocol) tenancy.Event {
	return put(tenancy.KindService, ns, name, &tenancy.Service{
		ClusterIPs: []netip.Addr{scopeAddress(ns, name, 172)},
		Ports:      []tenancy.ServicePort{{Name: "p", Port: port, Protocol: protocol}},
	})
}

func scopeSlice(ns, name string, ready bool) tenancy.Event {
	return put(tenancy.KindEndpointSlice, ns, name, &tenancy.EndpointSlice{
		Service: name, Ports: []tenancy.SlicePort{{Name: "p", Port: 8080}},
		Endpoints: []tenancy.Endpoint{{Addresses: []netip.Addr{scopeAddress(ns, name, 10)}, Ready: ready, Serving: ready, PodName: name}},
	})
}

func scopePod(ns, name, account string) tenancy.Event {
	return put(tenancy.KindPod, ns, name, &tenancy.Pod{
		ServiceAccount: account, Labels: map[string]string{"app": name}, IPs: []netip.Addr{scopeAddress(ns, name, 10)},
	})
}

// scopeStart is a world in which everybody has everything of the own tenant.
func scopeStart() []tenancy.Event {
	events := []tenancy.Event{put(tenancy.KindTrustBundle, "", "mesh.example", &tenancy.TrustBundle{PEM: authority()})}
	for _, t := range scopeTenants {
		events = append(events, put(tenancy.KindTenant, "", t, &tenancy.Tenant{TrustDomain: "mesh.example"}))
	}
	for i, ns := range scopeNamespaces {
		events = append(events, put(tenancy.KindNamespace, "", ns, &tenancy.Namespace{Tenant: scopeTenants[i/2]}))
		for _, name := range scopeServices {
			events = append(events, scopePod(ns, name, name), scopeService(ns, name, 80, tenancy.HTTP1), scopeSlice(ns, name, true))
		}
	}
	return events
}

func drawScopeEvent(t *rapid.T) tenancy.Event {
	pick := func(label string, from []string) string { return rapid.SampledFrom(from).Draw(t, label) }
	ns, name := pick("namespace", scopeNamespaces), pick("service", scopeServices)
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0, 1:
		return scopeSlice(ns, name, rapid.Bool().Draw(t, "ready"))
	case 2:
		protocol := rapid.SampledFrom([]tenancy.Protocol{tenancy.HTTP1, tenancy.ServerFirst}).Draw(t, "protocol")
		return scopeService(ns, name, rapid.SampledFrom([]uint16{80, 81}).Draw(t, "port"), protocol)
	case 3:
		return gone(rapid.SampledFrom([]tenancy.Kind{
			tenancy.KindService, tenancy.KindServiceGrant, tenancy.KindServiceRequest, tenancy.KindAccessPolicy,
		}).Draw(t, "gone"), ns, name)
	case 4:
		return scopePod(ns, name, pick("account", []string{"logs", "shop", "other"}))
	case 5, 6:
		return put(tenancy.KindServiceGrant, ns, name, &tenancy.ServiceGrant{
			From: []tenancy.GrantFrom{{Tenant: pick("consumer", scopeTenants), All: true}},
			To:   []tenancy.GrantTo{{Service: name, Ports: tenancy.PortSet{All: true}}},
		})
	case 7:
		return put(tenancy.KindServiceRequest, pick("consumer namespace", scopeNamespaces), ns+"."+name, &tenancy.ServiceRequest{
			Namespace: ns, Service: name, Ports: tenancy.PortSet{All: true},
		})
	case 8:
		return put(tenancy.KindClusterServiceGrant, "", "shared", &tenancy.ClusterServiceGrant{
			AllTenants: rapid.Bool().Draw(t, "all tenants"), Tenants: []string{pick("consumer", scopeTenants)},
			To: []tenancy.ClusterGrantTo{{Namespace: ns, Service: name, Ports: tenancy.PortSet{All: true}}},
		})
	default:
		return put(tenancy.KindTenant, "", pick("tenant", scopeTenants), &tenancy.Tenant{
			TrustDomain: "mesh.example",
			Visibility:  rapid.SampledFrom([]tenancy.Visibility{tenancy.VisibleInTenant, tenancy.VisibleInNamespace}).Draw(t, "visibility"),
			Outbound:    rapid.SampledFrom([]tenancy.OutboundPolicy{tenancy.RegistryOnly, tenancy.AllowAny}).Draw(t, "outbound"),
		})
	}
}

// serviceOf is the service that an event is about, if it is about one alone.
func serviceOf(ev tenancy.Event) (ns, name string, ok bool) {
	switch ev.Ref.Kind {
	case tenancy.KindService, tenancy.KindEndpointSlice, tenancy.KindPod:
		return ev.Ref.Key.Namespace, ev.Ref.Key.Name, true
	default:
		return "", "", false
	}
}

func sees(names []reference.Name, ns, name string) bool {
	return slices.ContainsFunc(names, func(n reference.Name) bool { return n.Namespace == ns && n.Service == name })
}

// outbound are the versions of what a is bound to, without its workload layer.
func outbound(a *Attachment) map[Child]string {
	out := map[Child]string{}
	a.Read(func(b *Binding) {
		for _, l := range []*Layer{b.View, b.Listeners} {
			for t := range NumTypes {
				l.All(t, func(res *Resource) { out[Child{t, res.Name()}] = res.Version() })
			}
		}
	})
	return out
}

// After any script, the clusters and assignments of each view are those of the
// services that the naive reference calls visible; and a change of a service
// that a view saw neither before nor after it changes no version of the view
// and wakes none of its streams.
func TestViewsHoldWhatTheReferenceCallsVisible(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		history := scopeStart()
		r := start(t, history)
		watch := map[string]*Attachment{}
		for i, ns := range scopeNamespaces {
			w := identity.Workload{TrustDomain: "mesh.example", Namespace: ns, ServiceAccount: "viewer"}
			watch[ns] = r.Attach(Proxy{Workload: w, Pod: fmt.Sprint(i)})
			<-watch[ns].Wake()
		}
		for range rapid.IntRange(1, 25).Draw(rt, "events") {
			ev := drawScopeEvent(rt)
			before, world := map[string]map[Child]string{}, reference.Fold(history)
			saw := map[string][]reference.Name{}
			for i, ns := range scopeNamespaces {
				before[ns], saw[ns] = outbound(watch[ns]), world.VisibleNames(scopeTenants[i/2], ns)
				drain(watch[ns])
			}
			history = append(history, ev)
			r.Apply([]tenancy.Event{ev})
			r.settle()
			world = reference.Fold(history)
			for i, ns := range scopeNamespaces {
				sight := world.VisibleNames(scopeTenants[i/2], ns)
				requireClusters(rt, ns, sight, outbound(watch[ns]))
				if sns, name, ok := serviceOf(ev); ok && !sees(saw[ns], sns, name) && !sees(sight, sns, name) {
					require.True(rt, maps.Equal(before[ns], outbound(watch[ns])), "%s learnt of %s/%s", ns, sns, name)
					require.False(rt, drain(watch[ns]), "%s was woken by %s/%s", ns, sns, name)
				}
			}
		}
	})
}

func requireClusters(t require.TestingT, ns string, sight []reference.Name, got map[Child]string) {
	want := map[Child]bool{{Cluster, "blackhole"}: true}
	for _, n := range sight {
		name := fmt.Sprintf("%s.%s.svc.cluster.local:%d", n.Service, n.Namespace, n.Port)
		want[Child{Cluster, name}], want[Child{Endpoint, name}] = true, true
	}
	have := map[Child]bool{}
	for c := range got {
		if (c.Type == Cluster && c.Name != passthroughCluster) || c.Type == Endpoint {
			have[c] = true
		}
	}
	require.Equal(t, want, have, "the view of %s", ns)
}
