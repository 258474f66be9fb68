package tenancy_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/identity"
	. "bailiwick.dev/bailiwick/tenancy"
)

const shopTTL = time.Hour

// shopOf is a Model with three tenants, two of which share a trust domain, and
// what is remembered of them, in any order.
func shopOf(now time.Time, records map[string][]Held, shop *Namespace) *Model {
	m := NewModel(Config{SVIDMaxTTL: shopTTL})
	m.Tick(now)
	events := []Event{event(KindNamespace, key("one", "", "shop"), shop)}
	if shop == nil {
		events = nil
	}
	for tenant, domain := range map[string]string{"acme": "shared.example", "globex": "shared.example", "other": "other.example"} {
		events = append(events, event(KindTrustBundle, key("one", "", domain), &TrustBundle{PEM: []byte(domain)}),
			event(KindTenant, key("one", "", tenant), &Tenant{TrustDomain: domain}),
			event(KindHoldings, key("one", "", tenant), &Holdings{Held: records[tenant]}))
	}
	rand.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	for _, ev := range events {
		m.Apply(ev)
	}
	return m
}

// may are who may speak for the name: by trust domain, the tenant.
func may(m *Model) map[string]string {
	out := map[string]string{}
	for _, domain := range []string{"shared.example", "other.example"} {
		out[domain], _ = m.Resolve(identity.Workload{TrustDomain: domain, Namespace: "shop", ServiceAccount: "web"})
	}
	return out
}

// Whoever starts anew with what the other wrote down refuses whom the other
// refuses, and as long, whenever the one ended and the other began. What nobody
// saw happen waits from the start.
func TestARestartForgetsNoHolder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		now := time.Unix(1e9, 0)
		var shop *Namespace
		records := map[string][]Held{}
		m := shopOf(now, records, shop)
		write := func() {
			for tenant, held := range m.TakeHoldings() {
				records[tenant] = held
			}
		}
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			now = now.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 20, 61}).Draw(rt, "minutes")) * time.Minute)
			m.Tick(now)
			if rapid.Bool().Draw(rt, "written") {
				write()
			}
			unseen := rapid.IntRange(0, 3).Draw(rt, "unseen") == 0
			before := shop
			shop = nil
			if tenant := rapid.SampledFrom([]string{"", "acme", "globex", "other"}).Draw(rt, "tenant"); tenant != "" {
				shop = &Namespace{Meta: Meta{UID: rapid.SampledFrom([]string{"1", "2"}).Draw(rt, "uid")}, Tenant: tenant}
			}
			if unseen { // it was down, and what it knew is written
				write()
				m = shopOf(now, records, shop)
				if before != nil && shop != nil && before.Tenant != "other" && shop.Tenant != "other" && holderOf(before) != holderOf(shop) {
					require.Empty(rt, may(m)["shared.example"], "it waits for the one from before")
				}
				continue
			}
			var o Object
			if shop != nil {
				o = shop
			}
			m.Apply(event(KindNamespace, key("one", "", "shop"), o))
			write()
			again := shopOf(now, records, shop)
			require.Equal(rt, may(m), may(again))
			at := m.NextExpiry()
			require.False(rt, again.NextExpiry().Before(at), "nobody waits less")
			require.LessOrEqual(rt, again.NextExpiry().Sub(at), time.Second)
			changed := again.TakeHoldings()
			for tenant, held := range changed {
				require.Equal(rt, records[tenant], held, "and it writes down the same")
			}
		}
		m.Tick(now.Add(2 * shopTTL))
		require.Zero(rt, m.NextExpiry(), "all ends")
		if shop != nil {
			domain := map[string]string{"acme": "shared.example", "globex": "shared.example", "other": "other.example"}[shop.Tenant]
			require.Equal(rt, shop.Tenant, may(m)[domain])
		}
	})
}

// holderOf is what makes one holder another.
func holderOf(n *Namespace) [2]string { return [2]string{n.Tenant, n.UID} }

// What is remembered makes wait, and nothing else: not longer than an SVID lives,
// nor for who has the name, nor for what is over.
func TestHoldingsOnlyMakeWait(t *testing.T) {
	now := time.Unix(1e9, 0)
	held := func(tenant, uid string, until time.Duration) map[string][]Held {
		h := Held{Namespace: "shop", TrustDomain: "shared.example", UID: uid}
		if until != 0 {
			h.Until = now.Add(until).Unix()
		}
		return map[string][]Held{tenant: {h}}
	}
	shop := &Namespace{Meta: Meta{UID: "1"}, Tenant: "acme"}
	for name, c := range map[string]struct {
		records map[string][]Held
		waits   time.Duration
	}{
		"had by the one who has it":   {held("acme", "1", 0), 0},
		"lost by the one who is back": {held("acme", "1", time.Minute), 0},
		"another's":                   {held("globex", "1", 0), shopTTL},
		"another's, until":            {held("globex", "1", time.Minute), time.Minute},
		"another's, over":             {held("globex", "1", -time.Minute), 0},
		"another's, too long":         {held("globex", "1", 1000*time.Hour), shopTTL},
		"made again":                  {held("acme", "0", 0), shopTTL},
		"of another trust domain":     {map[string][]Held{"other": {{Namespace: "shop", TrustDomain: "other.example", UID: "1"}}}, 0},
	} {
		m := shopOf(now, c.records, shop)
		if c.waits == 0 {
			require.Equal(t, "acme", may(m)["shared.example"], name)
			continue
		}
		require.Empty(t, may(m)["shared.example"], name)
		m.Tick(now.Add(c.waits - 1))
		require.Empty(t, may(m)["shared.example"], name)
		// Nothing that is forgotten there is forgotten here.
		m.Apply(event(KindHoldings, key("one", "", "globex"), nil))
		m.Apply(event(KindHoldings, key("one", "", "globex"), &Holdings{}))
		require.Empty(t, may(m)["shared.example"], name)
		m.Tick(now.Add(c.waits))
		require.Equal(t, "acme", may(m)["shared.example"], name)
	}
	off := NewModel(Config{})
	off.Apply(event(KindHoldings, key("one", "", "globex"), &Holdings{Held: held("globex", "1", 0)["globex"]}))
	require.Zero(t, off.NextExpiry())
	require.Empty(t, off.TakeHoldings())
}
