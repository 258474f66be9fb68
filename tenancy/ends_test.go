package tenancy_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	. "bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

// TestEndsAreEventsOfTheClock: an object that has ended is as if it were not
// there, in whatever order event and clock come, and those who depend on it are
// touched.
func TestEndsAreEventsOfTheClock(t *testing.T) {
	start := time.Unix(1_000_000_000, 0)
	end := start.Add(30 * 24 * time.Hour)
	meta := Meta{Expires: end.Unix()}
	w := newTown(t, Config{})
	w.Tick(start)
	w.grant("acme-shop", "globex")
	w.set(KindServiceRequest, "globex-a", "request", &ServiceRequest{Meta: meta, Namespace: "acme-shop", Service: "orders", Ports: PortSet{All: true}})
	w.set(KindAccessPolicy, "acme-shop", "p", &AccessPolicy{Meta: meta, Rules: []AccessRule{allRule()}})
	w.set(KindClusterAccessPolicy, "", "c", &ClusterAccessPolicy{Meta: meta, Subjects: []Subject{{Tenants: []string{"globex"}}}, Rules: []ClusterRule{{Allow, allRule()}}})
	decide := func() []policy.Decision {
		return []policy.Decision{w.decide(workload("globex-a", "app"), "acme-shop"), w.decide(workload("acme-web", "app"), "acme-shop"), w.decide(workload("globex-b", "app"), "globex-a")}
	}
	allowed := []policy.Decision{{Allowed: true, By: "acme-shop/p"}, {Allowed: true, By: "acme-shop/p"}, {Allowed: true, By: "*/c"}}
	require.Equal(t, allowed, decide())
	require.Empty(t, w.reasons(KindAccessPolicy, "acme-shop", "p"))
	require.Equal(t, end.Add(-ExpirySoon), w.NextExpiry())

	w.TakeTouched()
	w.TakeProblems()
	w.Tick(end.Add(-ExpirySoon))
	require.Len(t, w.TakeProblems(), 3)
	require.Equal(t, []string{ReasonExpiringSoon}, w.reasons(KindAccessPolicy, "acme-shop", "p"))
	touched := w.TakeTouched()
	require.True(t, touched.Empty(), "a report changes nothing")
	require.Equal(t, end, w.NextExpiry())
	w.Tick(end.Add(-1))
	require.Equal(t, allowed, decide())
	w.Tick(end)
	touched = w.TakeTouched()
	require.Contains(t, touched.Views, viewOf("globex-a"))
	require.Contains(t, touched.Selected, Selected{Namespace: "acme-shop", Policy: "acme-shop/p"})
	require.Contains(t, touched.Workloads, "globex-a")
	ended := []policy.Decision{{By: policy.ByTenantFloor}, {By: policy.ByDefaultDeny}, {By: policy.ByDefaultDeny}}
	require.Equal(t, ended, decide())
	require.Equal(t, []string{ReasonExpired}, w.reasons(KindAccessPolicy, "acme-shop", "p"))
	require.True(t, w.NextExpiry().IsZero())

	// The same, told late.
	w.set(KindAccessPolicy, "acme-shop", "p", nil)
	require.Empty(t, w.reasons(KindAccessPolicy, "acme-shop", "p"))
	w.set(KindAccessPolicy, "acme-shop", "p", &AccessPolicy{Meta: meta, Rules: []AccessRule{allRule()}})
	require.Equal(t, ended, decide())
	require.Equal(t, []string{ReasonExpired}, w.reasons(KindAccessPolicy, "acme-shop", "p"))
	// Renewed.
	w.set(KindAccessPolicy, "acme-shop", "p", &AccessPolicy{Meta: Meta{Expires: end.Unix() + 1}, Rules: []AccessRule{allRule()}})
	require.Equal(t, allowed[1], decide()[1])
}

// TestAStaleSourcePutsEndsOff by the grace and no more.
func TestAStaleSourcePutsEndsOff(t *testing.T) {
	end := time.Unix(1_000_000_000, 0)
	w := newTown(t, Config{ExpiryGrace: time.Hour})
	w.Tick(end.Add(-time.Minute))
	w.set(KindAccessPolicy, "acme-shop", "p", &AccessPolicy{Meta: Meta{Expires: end.Unix()}, Rules: []AccessRule{allRule()}})
	holds := func() bool { return w.decide(workload("acme-web", "app"), "acme-shop").Allowed }
	w.SetStale(true)
	w.Tick(end)
	require.True(t, holds())
	require.Equal(t, end.Add(time.Hour), w.NextExpiry())
	w.Tick(end.Add(time.Hour - 1))
	require.True(t, holds())
	w.Tick(end.Add(time.Hour))
	require.False(t, holds())

	w.set(KindAccessPolicy, "acme-shop", "p", &AccessPolicy{Meta: Meta{Expires: end.Add(2 * time.Hour).Unix()}, Rules: []AccessRule{allRule()}})
	w.Tick(end.Add(2 * time.Hour))
	require.True(t, holds())
	w.SetStale(false)
	w.Tick(end.Add(2 * time.Hour))
	require.False(t, holds(), "the source is back, and has not renewed it")
}

func TestPermissiveEndsOnlyIfItSaysSo(t *testing.T) {
	end := time.Unix(1_000_000_000, 0)
	for enforced, reason := range map[bool]string{false: ReasonOverdue, true: ReasonOverdue} {
		w := newTown(t, Config{})
		w.Tick(end.Add(-time.Minute))
		w.set(KindTenant, "", "acme", &Tenant{TrustDomain: "acme.example", Permissive: true})
		w.set(KindPeerTLS, "acme-shop", "t", &PeerTLS{Permissive: true, Until: end.Unix(), EnforceAtEnd: enforced})
		permissive := func() bool { return w.spec("acme-shop", "orders").Ports[0].Policy.Permissive }
		require.True(t, permissive())
		require.Equal(t, []string{ReasonExpiringSoon}, w.reasons(KindPeerTLS, "acme-shop", "t"))
		w.Tick(end)
		require.Equal(t, !enforced, permissive())
		require.Equal(t, []string{reason}, w.reasons(KindPeerTLS, "acme-shop", "t"))
	}
}
