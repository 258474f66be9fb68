package kube

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

func denial(t *testing.T, namespace, name string) *unstructured.Unstructured {
	t.Helper()
	return parse(t, fmt.Sprintf("{apiVersion: bailiwick.dev/v1alpha1, kind: AccessPolicy, metadata: {name: %s, namespace: %s}, spec: {selector: {}, action: Deny, rules: [{from: [{namespace: other}]}]}}", name, namespace))[0]
}

// TestDefinitionGoes: a removal that somebody meant is told from one that comes
// with the end of the CRD, or that happened while a CRD was made anew.
func TestDefinitionGoes(t *testing.T) {
	c := kubetest.New(t) // the CRD of the others stays
	ctx := t.Context()
	require.NoError(t, c.InstallCRDs(ctx))
	const ns = "defined"
	require.NoError(t, c.Apply(ctx, kubetest.Admin, kubetest.Namespace(ns, "acme"), denial(t, ns, "meant"), denial(t, ns, "taken"), denial(t, ns, "missed")))
	gate := c.Gate(t)
	r, log, _ := follow(t, gate.REST(kubetest.Admin), nil)
	r.wait(t, "it is synced", func() bool { return r.synced })
	ref := func(name string) tenancy.Ref {
		return tenancy.Ref{Kind: tenancy.KindAccessPolicy, Key: tenancy.Key{Namespace: ns, Name: name}}
	}

	require.NoError(t, c.Delete(ctx, kubetest.Admin, denial(t, ns, "meant")))
	r.wait(t, "what is meant is told so", func() bool { return r.objects[ref("meant")] == nil && !r.doubtful[ref("meant")] })

	policies := crd(t, "accesspolicies", true)
	require.NoError(t, c.Delete(ctx, kubetest.Admin, policies))
	r.wait(t, "the kind is gone", func() bool { return len(r.report.Stale) == 1 && r.report.Stale[0].Unserved && r.doubtful[ref("taken")] })
	r.mu.Lock()
	require.True(t, r.doubtful[ref("missed")])
	require.False(t, r.doubtful[ref("meant")])
	r.mu.Unlock()

	// It is made anew and back, then taken and made anew while nobody looks.
	again := func() {
		t.Helper()
		require.NoError(t, c.Apply(ctx, kubetest.Admin, policies))
		require.NoError(t, c.WaitServed(ctx, policies))
		require.NoError(t, c.Apply(ctx, kubetest.Admin, denial(t, ns, "meant")))
	}
	again()
	require.NoError(t, c.Apply(ctx, kubetest.Admin, denial(t, ns, "missed")))
	r.wait(t, "they are back", func() bool { return r.objects[ref("missed")] != nil && r.objects[ref("meant")] != nil })
	require.NoError(t, c.Delete(ctx, kubetest.Admin, denial(t, ns, "meant")))
	r.wait(t, "what is meant is told so again", func() bool { return r.objects[ref("meant")] == nil && !r.doubtful[ref("meant")] })
	gate.Cut()
	require.NoError(t, c.Delete(ctx, kubetest.Admin, policies))
	require.NoError(t, c.WaitUnserved(ctx, policies))
	again()
	gate.Open()
	r.wait(t, "it has caught up", func() bool { return r.objects[ref("meant")] != nil && r.objects[ref("missed")] == nil })
	r.wait(t, "that is told", func() bool { return len(r.report.Stale) == 0 })
	require.NoError(t, c.Delete(ctx, kubetest.Admin, denial(t, ns, "meant")))
	r.wait(t, "later removals are meant", func() bool { return r.objects[ref("meant")] == nil && !r.doubtful[ref("meant")] })
	r.mu.Lock()
	require.True(t, r.doubtful[ref("missed")], "asked about before, and never meant")
	r.mu.Unlock()
	require.Contains(t, log.String(), "objects went with the CRD")
}
