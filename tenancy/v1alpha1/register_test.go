package v1alpha1

import (
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/runtime"
)

func TestAddToScheme(t *testing.T) {
	scheme := runtime.NewScheme()
	require.NoError(t, AddToScheme(scheme))
	for _, kind := range []string{"Tenant", "ServiceGrant", "ServiceRequest", "ClusterServiceGrant", "AccessPolicy", "ClusterAccessPolicy", "PeerTLS"} {
		for _, name := range []string{kind, kind + "List"} {
			obj, err := scheme.New(GroupVersion().WithKind(name))
			require.NoError(t, err)
			kinds, _, err := scheme.ObjectKinds(obj)
			require.NoError(t, err)
			require.Equal(t, "bailiwick.dev/v1alpha1", kinds[0].GroupVersion().String())
		}
	}
}

func TestDeepCopyIsDeep(t *testing.T) {
	yes := true
	in := &AccessPolicy{Spec: AccessPolicySpec{
		Selector: &PodSelector{MatchLabels: map[string]LabelValue{"app": "a"}},
		Rules:    []AccessRule{{From: []AccessSource{{All: &yes}}, Ports: []Port{1}}},
	}}
	out := in.DeepCopy()
	require.Equal(t, in, out)
	out.Spec.Selector.MatchLabels["app"] = "b"
	out.Spec.Rules[0].Ports[0] = 2
	*out.Spec.Rules[0].From[0].All = false
	require.Equal(t, LabelValue("a"), in.Spec.Selector.MatchLabels["app"])
	require.Equal(t, Port(1), in.Spec.Rules[0].Ports[0])
	require.True(t, yes)
}
