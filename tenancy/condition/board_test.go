package condition

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/object"
)

// now is a clock that the test moves.
type now struct{ t time.Time }

func (n *now) clock() time.Time { return n.t }

// world is a board beside the model that it is told of.
type world struct {
	model *tenancy.Model
	board *Board
	time  *now
}

func newWorld() *world {
	n := &now{time.Unix(100, 0)}
	return &world{tenancy.NewModel(tenancy.Config{ClusterDomain: "cluster.local", TrustDomains: []string{"t.example"}}), NewBoard(n.clock, 0), n}
}

func (w *world) apply(events ...tenancy.Event) {
	w.board.Apply(events)
	for _, ev := range events {
		w.model.Apply(ev)
	}
	w.board.Problems(w.model.TakeProblems())
}

// say is a pass after everything has arrived.
func (w *world) say() []Said {
	w.time.t = w.time.t.Add(time.Minute)
	return w.board.Say(NewFleet([]Report{NewGather().Report("a", w.time.t, nil)}), w.board.Mark())
}

func at(kind tenancy.Kind, namespace, name string, o tenancy.Object) tenancy.Event {
	return tenancy.Event{Ref: tenancy.Ref{Kind: kind, Key: tenancy.Key{Namespace: namespace, Name: name}}, Object: o, Generation: 1}
}

func tenants() []tenancy.Event {
	return []tenancy.Event{
		at(tenancy.KindTenant, "", "acme", &tenancy.Tenant{TrustDomain: "t.example"}),
		at(tenancy.KindTenant, "", "canary-tenant", &tenancy.Tenant{TrustDomain: "t.example"}),
		at(tenancy.KindNamespace, "", "acme-web", &tenancy.Namespace{Tenant: "acme"}),
		at(tenancy.KindNamespace, "", "canary-shop", &tenancy.Namespace{Tenant: "canary-tenant"}),
	}
}

func someService() *tenancy.Service {
	return &tenancy.Service{ClusterIPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Ports: []tenancy.ServicePort{{Name: "canary-port", Port: 80, Protocol: tenancy.HTTP1}}}
}

// A pass speaks of what the model has absorbed, and of nothing newer.
func TestSayWaitsForWhatTheModelHasNotSeen(t *testing.T) {
	w := newWorld()
	w.apply(tenants()...)
	grant := at(tenancy.KindServiceGrant, "acme-web", "g", &tenancy.ServiceGrant{
		From: []tenancy.GrantFrom{{Tenant: "canary-tenant", All: true}}, To: []tenancy.GrantTo{{Service: "web", Ports: tenancy.PortSet{All: true}}},
	})
	w.say()
	mark := w.board.Mark()
	w.board.Apply([]tenancy.Event{grant}) // on its way to the model
	require.Empty(t, w.board.Say(NewFleet(nil), mark), "nothing is said of it yet")
	require.True(t, w.board.Open(), "and there is more to say")
	w.apply(grant)
	said := w.say()
	require.Len(t, said, 1)
	require.Equal(t, "Accepted=True/Accepted@1 Programmed=Unknown/NoProxies@1 ResolvedRefs=False/NotAvailable@1", brief(said[0].Conditions))
	require.Empty(t, w.say(), "said on change only")
	require.False(t, w.board.Open())

	before := w.board.Mark()
	w.apply(at(tenancy.KindService, "acme-web", "web", someService()))
	require.NotEqual(t, before, w.board.Mark(), "what changes another object's conditions is a step, too")
	require.Contains(t, brief(w.say()[0].Conditions), "ResolvedRefs=True")
}

// Of an object that goes and comes back before the model looks, the model has
// nothing new to say; what it said stands.
func TestProblemsOutliveAnObjectThatComesBackAtOnce(t *testing.T) {
	w := newWorld()
	w.apply(tenants()...)
	request := at(tenancy.KindServiceRequest, "acme-web", "r", &tenancy.ServiceRequest{Namespace: "nowhere", Service: "s", Ports: tenancy.PortSet{All: true}})
	w.apply(request)
	w.board.Apply([]tenancy.Event{{Ref: request.Ref}})
	w.apply(request)
	for _, s := range w.say() {
		if s.Ref == request.Ref {
			require.Contains(t, brief(s.Conditions), "ResolvedRefs=False/NotAvailable")
		}
	}
}

// An object that never was anything has conditions as long as it is there.
func TestErrorsAloneMakeConditions(t *testing.T) {
	w := newWorld()
	ref := tenancy.Ref{Kind: tenancy.KindTenant, Key: tenancy.Key{Name: "acme"}}
	w.board.Errors(ref, 7, []object.FieldError{{Field: "spec.trustDomain", Message: "required"}})
	said := w.say()
	require.Equal(t, "Accepted=False/Invalid@7 Degraded=False/WithinLimits@7 Programmed=False/Invalid@7", brief(said[0].Conditions))
	require.Equal(t, "spec.trustDomain: required", said[0].Conditions[0].Message)
	w.board.Errors(ref, 7, nil)
	require.Empty(t, w.board.All())
}

// Whether what a tenant refers to is missing or another's and withheld, its
// objects say the same, at every step of a random life of the other tenant; and
// nothing that it did not write itself stands in what it reads.
func TestNoWordOfAnotherTenant(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		present, absent := newWorld(), newWorld()
		var mine []tenancy.Event
		all := tenancy.PortSet{All: true}
		for i, to := range []string{"s0", "s1", "canary-unknown"} {
			mine = append(mine,
				at(tenancy.KindServiceRequest, "acme-web", fmt.Sprintf("r%d", i), &tenancy.ServiceRequest{Namespace: "canary-shop", Service: to, Ports: all}),
				at(tenancy.KindServiceGrant, "acme-web", fmt.Sprintf("g%d", i), &tenancy.ServiceGrant{
					From: []tenancy.GrantFrom{{Tenant: rapid.SampledFrom([]string{"canary-tenant", "nobody", "acme"}).Draw(t, "from"), All: true}},
					To:   []tenancy.GrantTo{{Service: "web", Ports: all}},
				}),
				at(tenancy.KindAccessPolicy, "acme-web", fmt.Sprintf("p%d", i), &tenancy.AccessPolicy{
					Invalid: rapid.Bool().Draw(t, "invalid"),
					Rules:   []tenancy.AccessRule{{Sources: []tenancy.AccessSource{{Tenant: "canary-tenant", Namespace: "canary-shop"}}}},
				}))
		}
		for _, w := range []*world{present, absent} {
			w.apply(tenants()[:1]...)
			w.apply(tenants()[2:3]...)
			w.apply(mine...)
		}
		theirs := tenants()
		theirs = []tenancy.Event{theirs[1], theirs[3]}
		for i := range 3 {
			name := fmt.Sprintf("s%d", i)
			theirs = append(theirs, at(tenancy.KindService, "canary-shop", name, someService()),
				at(tenancy.KindServiceRequest, "canary-shop", "canary-r", &tenancy.ServiceRequest{Namespace: "acme-web", Service: "web", Ports: all}),
				// Offered to somebody else.
				at(tenancy.KindServiceGrant, "canary-shop", "canary-g", &tenancy.ServiceGrant{
					From: []tenancy.GrantFrom{{Tenant: "canary-other", All: true}}, To: []tenancy.GrantTo{{Service: name, Ports: all}},
				}))
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			ev := rapid.SampledFrom(theirs).Draw(t, "event")
			if rapid.Bool().Draw(t, "gone") {
				ev.Object = nil
			}
			present.apply(ev)
			present.say()
			absent.say()
			require.Equal(t, readBy(absent.board.All()), readBy(present.board.All()))
		}
	})
}

// readBy is what acme reads of its objects.
func readBy(all []Said) []string {
	var out []string
	for _, s := range all {
		if s.Ref.Key.Namespace != "acme-web" && s.Ref.Key.Name != "acme" {
			continue
		}
		for _, c := range s.Conditions {
			out = append(out, fmt.Sprintf("%v %s %s=%s/%s %s", s.Ref.Kind, s.Ref.Key.Name, c.Type, c.Status, c.Reason,
				strings.ReplaceAll(c.Message, "canary-unknown", "named by acme itself")))
		}
	}
	return out
}
