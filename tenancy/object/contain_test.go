package object

import (
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// A panic while one object is read is that object's error: data keeps what was
// good, what gives access gives none, a Deny denies. The others of the file are
// read.
func TestAPanicIsTheObjectsError(t *testing.T) {
	var told []string
	opts := Options{
		Panicked: func(_ any, stack []byte) { told = append(told, string(stack)) },
		trap: func(obj any) {
			if o, ok := obj.(interface{ GetName() string }); ok && o.GetName() == "poison" {
				panic("planted")
			}
		},
	}
	const file = `
apiVersion: v1
kind: Service
metadata: {name: poison, namespace: a}
spec: {ports: [{port: 80}]}
---
apiVersion: bailiwick.dev/v1alpha1
kind: AccessPolicy
metadata: {name: poison, namespace: a}
spec: {action: Deny, selector: {matchLabels: {a: b}}, rules: [{from: [{all: true}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: good, namespace: a}
spec: {ports: [{port: 80}]}
`
	got := DecodeAll("f.yaml", []byte(file), opts)
	require.Nil(t, got.Unreadable)
	require.Len(t, got.Entries, 3)
	require.Nil(t, got.Entries[0].Object)
	require.Equal(t, &tenancy.AccessPolicy{Action: tenancy.Deny, Invalid: true}, got.Entries[1].Object)
	require.Len(t, got.Errors(), 2)
	require.NotNil(t, got.Entries[2].Object)
	require.Len(t, told, 2)
	require.Contains(t, told[0], "contain_test.go")

	for _, o := range []struct {
		kind metav1.Object
		want tenancy.Object
	}{
		{&v1alpha1.ServiceGrant{}, &tenancy.ServiceGrant{}},
		{&v1alpha1.ServiceRequest{}, &tenancy.ServiceRequest{}},
		{&v1alpha1.ClusterServiceGrant{}, &tenancy.ClusterServiceGrant{}},
	} {
		opts.trap = func(any) { panic("planted") }
		obj, errs := Convert(o.kind, opts)
		require.Equal(t, o.want, obj)
		require.Len(t, errs, 1)
	}
}
