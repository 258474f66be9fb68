package tenancy_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/identity"
	. "bailiwick.dev/bailiwick/tenancy"
)

// A name that changed hands is nobody's until the SVIDs of its former holder
// have expired, and then its new holder's, by itself.
func TestANameThatChangedHandsWaits(t *testing.T) {
	const ttl = time.Hour
	start := time.Unix(1e9, 0)
	who := identity.Workload{TrustDomain: "shared.example", Namespace: "shop", ServiceAccount: "web"}
	for _, c := range []struct {
		name string
		// steps are the tenant and uid of the namespace, one after the other;
		// the empty tenant deletes it.
		steps [][2]string
		want  string // at once
		later string // after the TTL
	}{
		{"stays", [][2]string{{"acme", "1"}}, "acme", "acme"},
		{"another tenant", [][2]string{{"acme", "1"}, {"globex", "1"}}, "", "globex"},
		{"made again", [][2]string{{"acme", "1"}, {"", ""}, {"acme", "2"}}, "", "acme"},
		{"made again unseen", [][2]string{{"acme", "1"}, {"acme", "2"}}, "", "acme"},
		{"made again by another", [][2]string{{"acme", "1"}, {"", ""}, {"globex", "2"}}, "", "globex"},
		{"there and back", [][2]string{{"acme", "1"}, {"globex", "1"}, {"acme", "1"}}, "", "acme"},
		{"deleted and back", [][2]string{{"acme", "1"}, {"", ""}, {"acme", "1"}}, "acme", "acme"},
		{"no uid", [][2]string{{"acme", ""}, {"", ""}, {"acme", ""}}, "acme", "acme"},
		{"no uid, another tenant", [][2]string{{"acme", ""}, {"", ""}, {"globex", ""}}, "", "globex"},
		{"another trust domain", [][2]string{{"other", "1"}, {"acme", "1"}}, "acme", "acme"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := NewModel(Config{SVIDMaxTTL: ttl})
			m.Tick(start)
			for tenant, domain := range map[string]string{"acme": "shared.example", "globex": "shared.example", "other": "other.example"} {
				m.Apply(event(KindTrustBundle, key("one", "", domain), &TrustBundle{PEM: []byte(domain)}))
				m.Apply(event(KindTenant, key("one", "", tenant), &Tenant{TrustDomain: domain}))
			}
			at := key("one", "", "shop")
			for _, step := range c.steps {
				var o Object
				if step[0] != "" {
					o = &Namespace{Meta: Meta{UID: step[1]}, Tenant: step[0]}
				}
				m.Apply(event(KindNamespace, at, o))
			}
			tenant, _ := m.Resolve(who)
			require.Equal(t, c.want, tenant)
			problems := m.Problems(Ref{Kind: KindNamespace, Key: at})
			if c.want == "" {
				require.Equal(t, ReasonReserved, problems[0].Reason)
				require.NotContains(t, problems[0].Message, "acme")
				require.Equal(t, start.Add(ttl), m.NextExpiry())
			} else {
				require.Empty(t, problems)
			}
			m.Tick(start.Add(ttl - 1))
			tenant, _ = m.Resolve(who)
			require.Equal(t, c.want, tenant, "not before")
			m.TakeTouched()
			m.Tick(start.Add(ttl))
			tenant, _ = m.Resolve(who)
			require.Equal(t, c.later, tenant)
			require.Empty(t, m.Problems(Ref{Kind: KindNamespace, Key: at}))
			require.Zero(t, m.NextExpiry())
			touched := m.TakeTouched()
			if c.want != c.later {
				require.Contains(t, touched.Namespaces, "shop")
			} else {
				require.True(t, touched.Empty())
			}
		})
	}
}
