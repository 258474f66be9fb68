package snapshot

import (
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy"
)

// TestAPolicyTouchesTheProxiesThatItSelects and builds nothing for the others
// of its namespace.
func TestAPolicyTouchesTheProxiesThatItSelects(t *testing.T) {
	const services = 5
	r := start(t, mesh{tenants: 2, services: services}.events())
	var watch []*Attachment
	for s := range services {
		watch = append(watch, r.connect(0, s))
	}
	watch = append(watch, r.connect(1, 0))
	policy := func(methods ...string) tenancy.Event {
		return put(tenancy.KindAccessPolicy, nsName(0), serviceName(2), &tenancy.AccessPolicy{
			MatchLabels: map[string]string{"app": serviceName(2)},
			Rules:       []tenancy.AccessRule{{Sources: []tenancy.AccessSource{{Namespace: nsName(0)}}, Methods: methods}},
		})
	}
	c := r.count(watch, policy("GET"))
	require.Equal(t, 1, c.woken)
	require.EqualValues(t, 1, c.builds[Extension])
	require.Equal(t, counts{}, r.count(watch, policy("GET")), "an equal policy costs nothing")

	// One of the platform's, for one namespace.
	c = r.count(watch, put(tenancy.KindClusterAccessPolicy, "", "no", &tenancy.ClusterAccessPolicy{
		Subjects: []tenancy.Subject{{Namespaces: []string{nsName(1)}}},
		Rules:    []tenancy.ClusterRule{{Action: tenancy.Deny, AccessRule: tenancy.AccessRule{Sources: []tenancy.AccessSource{{All: true}}}}},
	}))
	require.Equal(t, 1, c.woken)
	require.EqualValues(t, 1, c.builds[Extension])
	require.Zero(t, c.builds[Endpoint]+c.builds[Route])
}
