package condition

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/object"
)

// brief is "Type=Status/Reason" of each condition.
func brief(cs []metav1.Condition) string {
	var out []string
	for _, c := range cs {
		out = append(out, fmt.Sprintf("%s=%s/%s@%d", c.Type, c.Status, c.Reason, c.ObservedGeneration))
	}
	return strings.Join(out, " ")
}

func TestConditionsFollowFromFacts(t *testing.T) {
	problem := func(reason string) []tenancy.Problem {
		return []tenancy.Problem{{Reason: reason, Field: "spec.to", Message: "m"}}
	}
	for name, c := range map[string]struct {
		facts Facts
		want  string
	}{
		"a policy that all have": {Facts{Kind: tenancy.KindAccessPolicy, Generation: 3, Delivery: Delivery{Proxies: 2}},
			"Accepted=True/Accepted@3 Programmed=True/Programmed@3"},
		"nobody is connected": {Facts{Kind: tenancy.KindAccessPolicy, Generation: 1},
			"Accepted=True/Accepted@1 Programmed=Unknown/NoProxies@1"},
		"something is on its way": {Facts{Kind: tenancy.KindAccessPolicy, Delivery: Delivery{Proxies: 2, Unsettled: true}},
			"Accepted=True/Accepted@0"},
		"one is late, whatever else is on its way": {Facts{Kind: tenancy.KindAccessPolicy, Delivery: Delivery{Proxies: 2, Pending: 1, Unsettled: true}},
			"Accepted=True/Accepted@0 Programmed=False/Pending@0"},
		"one refuses": {Facts{Kind: tenancy.KindAccessPolicy, Delivery: Delivery{Proxies: 2, Pending: 1, Refused: 1}},
			"Accepted=True/Accepted@0 Programmed=False/Refused@0"},
		"more is lacking than is known": {Facts{Kind: tenancy.KindAccessPolicy, Delivery: Delivery{Proxies: 2, More: true}},
			"Accepted=True/Accepted@0 Programmed=Unknown/TooManyFaults@0"},
		"an invalid policy has its effect": {Facts{Kind: tenancy.KindAccessPolicy, Errors: []object.FieldError{{Field: "spec", Message: "x"}}, Delivery: Delivery{Proxies: 1}},
			"Accepted=False/Invalid@0 Programmed=True/Programmed@0"},
		"an invalid grant has none": {Facts{Kind: tenancy.KindServiceGrant, Errors: []object.FieldError{{Field: "spec", Message: "x"}}, Delivery: Delivery{Proxies: 1}},
			"Accepted=False/Invalid@0 ResolvedRefs=Unknown/Invalid@0 Programmed=False/Invalid@0"},
		"a request that leads nowhere": {Facts{Kind: tenancy.KindServiceRequest, Problems: problem(tenancy.ReasonNotAvailable), Delivery: Delivery{Proxies: 1}},
			"Accepted=True/Accepted@0 ResolvedRefs=False/NotAvailable@0 Programmed=False/NotAvailable@0"},
		"a grant that opens more": {Facts{Kind: tenancy.KindServiceGrant, Problems: problem(tenancy.ReasonSharedPort), Delivery: Delivery{Proxies: 1}},
			"Accepted=True/SharedTargetPort@0 ResolvedRefs=True/ResolvedRefs@0 Programmed=True/Programmed@0"},
		"over the limit": {Facts{Kind: tenancy.KindServiceRequest, Problems: problem(tenancy.ReasonLimit), Delivery: Delivery{Proxies: 1}},
			"Accepted=False/LimitExceeded@0 ResolvedRefs=True/ResolvedRefs@0 Programmed=False/LimitExceeded@0"},
		"what the platform grants is nobody's proxies' affair": {Facts{Kind: tenancy.KindClusterServiceGrant, Delivery: Delivery{Proxies: 9, Refused: 9}},
			"Accepted=True/Accepted@0 ResolvedRefs=True/ResolvedRefs@0 Programmed=Unknown/NotCounted@0"},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, brief(Of(c.facts))) })
	}
}

// A transition time moves with the status and with nothing else; what is not
// spoken of stays.
func TestMergeKeepsWhatDidNotChange(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0).UTC() }
	facts := Facts{Kind: tenancy.KindAccessPolicy, Generation: 1, Delivery: Delivery{Proxies: 1}}
	first, changed := Merge(nil, Of(facts), at(1))
	require.True(t, changed)
	again, changed := Merge(first, Of(facts), at(2))
	require.False(t, changed)
	require.Equal(t, first, again)

	facts.Generation, facts.Delivery.Unsettled = 2, true
	next, changed := Merge(first, Of(facts), at(3))
	require.True(t, changed)
	require.Equal(t, "Accepted=True/Accepted@2 Programmed=True/Programmed@1", brief(next))
	require.Equal(t, at(1), next[0].LastTransitionTime.Time, "true before and after")

	facts.Delivery = Delivery{Proxies: 1, Refused: 1}
	last, _ := Merge(next, Of(facts), at(4))
	require.Equal(t, at(4), last[1].LastTransitionTime.Time)
}

func policy(namespace, name string) tenancy.Ref {
	return tenancy.Ref{Kind: tenancy.KindAccessPolicy, Key: tenancy.Key{Namespace: namespace, Name: name}}
}

func service(namespace, name string) tenancy.Ref {
	return tenancy.Ref{Kind: tenancy.KindService, Key: tenancy.Key{Namespace: namespace, Name: name}}
}

// However much the proxies of one tenant lack, or say that they refuse, what is
// known of another tenant's proxies is the same.
func TestALiarHidesNobodyElse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		refs := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) tenancy.Ref {
			ns := rapid.SampledFrom([]string{"acme-shop", "acme-web", "evil", "x"}).Draw(t, "namespace")
			name := fmt.Sprintf("n%d", rapid.IntRange(0, 20000).Draw(t, "name"))
			return rapid.SampledFrom([]tenancy.Ref{policy(ns, name), service(ns, name)}).Draw(t, "ref")
		}), 0, 200).Draw(t, "lies")
		floods := rapid.IntRange(0, 20).Draw(t, "one in twenty floods") == 0
		streams := rapid.IntRange(0, 3).Draw(t, "liars")
		calm := func(lies bool) []metav1.Condition {
			g := NewGather()
			g.Add(Stream{Tenant: "acme", Namespace: "acme-shop"})
			g.Add(Stream{Tenant: "acme", Namespace: "acme-shop", Faulty: true, Refused: []tenancy.Ref{policy("acme-shop", "other")}})
			if lies {
				for range streams {
					g.Add(Stream{Tenant: "evil", Namespace: "evil", Late: true, Faulty: true, Unsettled: true, StuckSince: time.Unix(1, 0), Pending: refs, Refused: refs})
				}
				flood := Stream{Tenant: "evil", Namespace: "evil-2", Faulty: true}
				for i := range maxLacks + 1 {
					if !floods {
						break
					}
					flood.Refused = append(flood.Refused, service("acme-shop", fmt.Sprint(i)))
				}
				g.Add(flood)
			}
			fleet := NewFleet([]Report{g.Report("a", time.Unix(9, 0), []string{"evil"})})
			var out []metav1.Condition
			for _, ref := range []tenancy.Ref{policy("acme-shop", "n1"), policy("acme-shop", "other"), policy("acme-web", "n1")} {
				out = append(out, Of(Facts{Kind: ref.Kind, Delivery: fleet.delivery(ref, &tenancy.AccessPolicy{}, time.Unix(1, 0))})...)
			}
			return out
		}
		require.Equal(t, calm(false), calm(true))
	})
}

// A proxy that acknowledges nothing lacks what changed since, and for all that
// is known nothing that was there before.
func TestAMuteProxyLacksWhatChangedSince(t *testing.T) {
	g := NewGather()
	g.Add(Stream{Tenant: "acme", Namespace: "shop", Late: true, StuckSince: time.Unix(50, 0), Pending: []tenancy.Ref{policy("shop", "late")}})
	g.Add(Stream{Tenant: "acme", Namespace: "web"})
	fleet := NewFleet([]Report{g.Report("a", time.Unix(90, 0), nil)})
	said := func(ref tenancy.Ref, since int64) string {
		return brief(Of(Facts{Kind: ref.Kind, Delivery: fleet.delivery(ref, &tenancy.AccessPolicy{}, time.Unix(since, 0))})[1:])
	}
	require.Equal(t, "Programmed=True/Programmed@0", said(policy("shop", "old"), 40))
	require.Equal(t, "Programmed=False/Pending@0", said(policy("shop", "late"), 40))
	require.Equal(t, "Programmed=False/Pending@0", said(policy("shop", "new"), 60))
	require.Equal(t, "Programmed=True/Programmed@0", said(policy("web", "new"), 60), "not those of another namespace")
	require.Empty(t, said(policy("web", "newer"), 95), "younger than the report")
}

// A report never outgrows what is read back, and says of every tenant that it
// holds more when it does.
func TestReportsAreBounded(t *testing.T) {
	g := NewGather()
	for tenant := range 50 {
		s := Stream{Tenant: fmt.Sprintf("tenant-%03d-%s", tenant, strings.Repeat("t", 50)), Namespace: fmt.Sprintf("ns-%03d", tenant), Faulty: true}
		for i := range 200 {
			s.Refused = append(s.Refused, service(s.Namespace, fmt.Sprintf("%03d-%s", i, strings.Repeat("s", 50))))
		}
		g.Add(s)
	}
	r := g.Report("a", time.Unix(1, 0), nil)
	data, err := r.Encode()
	require.NoError(t, err)
	require.Less(t, len(data), MaxReport)
	back, err := DecodeReport(data)
	require.NoError(t, err)
	require.True(t, r.Same(back))
	for _, p := range r.Places {
		require.True(t, p.More)
		require.Len(t, p.Lacks, maxLacks/50)
	}
}
