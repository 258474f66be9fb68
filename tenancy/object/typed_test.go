package object

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// TestTypedInvalidUTF8: an API server stores invalid UTF-8 that came as
// protobuf. It becomes an error, and no string of ours.
func TestTypedInvalidUTF8(t *testing.T) {
	const bad = "a\xff"
	zone, port, name := bad, int32(1), bad
	for want, obj := range map[string]metav1.Object{
		"metadata.uid":                        &corev1.Service{ObjectMeta: metav1.ObjectMeta{UID: bad}},
		"spec.ports[0].name":                  &corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: bad, Port: 1}}}},
		"spec.clusterIPs[0]":                  &corev1.Service{Spec: corev1.ServiceSpec{ClusterIPs: []string{bad}}},
		"metadata.labels.x":                   &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"x": bad}}},
		"spec.serviceAccountName":             &corev1.Pod{Spec: corev1.PodSpec{ServiceAccountName: bad}},
		"endpoints[0].zone":                   slice1(discoveryv1.Endpoint{Zone: &zone}),
		"endpoints[0].targetRef.name":         slice1(discoveryv1.Endpoint{TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: bad}}),
		"endpoints[0].targetRef.uid":          slice1(discoveryv1.Endpoint{TargetRef: &corev1.ObjectReference{Kind: "Pod", UID: bad}}),
		"endpoints[0].hints.forZones[0].name": slice1(discoveryv1.Endpoint{Hints: &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: bad}}}}),
		"ports[0].name":                       &discoveryv1.EndpointSlice{Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}}},
		"spec.trustDomain":                    &v1alpha1.Tenant{Spec: v1alpha1.TenantSpec{TrustDomain: bad}},
	} {
		o, errs := Convert(obj, Options{})
		require.Nil(t, o, want)
		found := false
		for _, e := range errs {
			found = found || e.Field == want
			require.True(t, utf8.ValidString(e.Error()), want)
		}
		require.True(t, found, "%s: %q", want, errs)
	}
}

func slice1(e discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	e.Addresses = []string{"10.0.0.1"}
	return &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{e}}
}

func TestTypedLimits(t *testing.T) {
	many := &corev1.Service{}
	for range maxServicePorts + 1 {
		many.Spec.Ports = append(many.Spec.Ports, corev1.ServicePort{Port: 1})
	}
	_, errs := FromService(many, Options{})
	require.Equal(t, []FieldError{{"spec.ports", "more than 1000"}}, errs)
	_, errs = FromAccessPolicy(&v1alpha1.AccessPolicy{Spec: v1alpha1.AccessPolicySpec{
		Selector: &v1alpha1.PodSelector{}, Action: "Allow",
		Rules: []v1alpha1.AccessRule{{From: []v1alpha1.AccessSource{{SPIFFEID: "spiffe://td/ns/a/sa/" + strings.Repeat("b", 600)}}}},
	}})
	require.Len(t, errs, 1)
	require.Equal(t, "spec.rules[0].from[0].spiffeID", errs[0].Field)
	_, errs = Convert(&corev1.Secret{}, Options{})
	require.Len(t, errs, 1)
}
