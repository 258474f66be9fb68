package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

const tenantLabel = "bailiwick.dev/tenant"

// people are clients by user.
type people struct {
	t   *testing.T
	ctx context.Context
	c   *kubetest.Cluster
}

func (p people) client(user string) *kubernetes.Clientset {
	client, err := kubernetes.NewForConfig(p.c.REST(user))
	require.NoError(p.t, err)
	return client
}

// label sets the tenant of a namespace (nil removes it), by a subresource or none.
func (p people) label(user, namespace string, to any, subresource ...string) error {
	return p.patch(user, namespace, tenantLabel, to, subresource...)
}

func (p people) patch(user, namespace, key string, to any, subresource ...string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]any{key: to}}})
	require.NoError(p.t, err)
	_, err = p.client(user).CoreV1().Namespaces().Patch(p.ctx, namespace, types.MergePatchType, patch, metav1.PatchOptions{}, subresource...)
	return err
}

// tryAssign is a namespace for acme by gitops, which leaves nothing behind.
func (p people) tryAssign() error {
	_, err := p.client(gitops).CoreV1().Namespaces().Create(p.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "trial", Labels: map[string]string{tenantLabel: "acme"},
	}}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

// guarded waits until the API server enforces the policies, which it does a
// moment after they were written.
func guarded(t *testing.T) people {
	t.Helper()
	c, ctx := cluster(t)
	p := people{t, ctx, c}
	for {
		err := p.tryAssign()
		if apierrors.IsForbidden(err) {
			return p
		}
		require.NoError(t, err)
		select {
		case <-ctx.Done():
			require.NoError(t, ctx.Err(), "the policy is not enforced")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// The tenant label is set, changed and removed by who may assign, and by nobody
// from one tenant to another; whatever else is changed of a namespace is not this
// policy's.
func TestTenantLabelIsGuarded(t *testing.T) {
	p := guarded(t)
	forbidden := func(err error, says string) {
		t.Helper()
		require.True(t, apierrors.IsForbidden(err) || apierrors.IsInvalid(err), "%v", err)
		require.ErrorContains(t, err, says)
	}
	const bad = "needs the verb assign"
	create := func(user, name, tenant string) error {
		_, err := p.client(user).CoreV1().Namespaces().Create(p.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{tenantLabel: tenant},
		}}, metav1.CreateOptions{})
		return err
	}
	forbidden(create(gitops, "stolen", "acme"), bad)
	require.NoError(t, create(platform, "acme-new", "acme"))
	for _, by := range [][]string{nil, {"status"}, {"finalize"}} {
		if len(by) > 0 && by[0] == "finalize" {
			continue // takes an update only, below
		}
		forbidden(p.label(gitops, "free", "acme", by...), bad)
		forbidden(p.label(gitops, "acme-new", nil, by...), bad)
		forbidden(p.label(gitops, "acme-new", "globex", by...), "does not go from one tenant to another")
	}
	ns, err := p.client(gitops).CoreV1().Namespaces().Get(p.ctx, "free", metav1.GetOptions{})
	require.NoError(t, err)
	ns.Labels[tenantLabel] = "acme"
	_, err = p.client(gitops).CoreV1().Namespaces().Finalize(p.ctx, ns, metav1.UpdateOptions{})
	forbidden(err, bad)

	require.NoError(t, p.label(platform, "free", "acme"))
	forbidden(p.label(platform, "free", "globex"), "does not go from one tenant to another")
	forbidden(p.label(platform, "free", ""), "must be the name of a Tenant")
	require.NoError(t, p.label(platform, "free", nil))
	forbidden(p.label(platform, "free", ""), "must be the name of a Tenant")
	require.NoError(t, p.label(platform, "free", "globex"))
	require.NoError(t, p.label(platform, "free", nil))

	// Policies of the platform choose namespaces by labels below bailiwick.dev/.
	const grade = "bailiwick.dev/grade"
	forbidden(p.patch(gitops, "acme-new", grade, "low"), "the verb assign on all")
	require.NoError(t, p.patch(platform, "acme-new", grade, "high"))
	forbidden(p.patch(gitops, "acme-new", grade, "low"), "the verb assign on all")
	forbidden(p.patch(gitops, "acme-new", grade, nil), "the verb assign on all")
	require.NoError(t, p.patch(gitops, "acme-new", "team", "web"))
	require.NoError(t, p.patch(platform, "acme-new", grade, nil))
}

// Who may assign namespaces to one tenant may not to another.
func TestAssignIsPerTenant(t *testing.T) {
	p := guarded(t)
	require.NoError(t, p.c.Apply(p.ctx, kubetest.Admin, one(t, `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: test-owner-assigns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: assign-acme}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: gitops}]
`)))
	defer func() {
		require.NoError(t, p.client(kubetest.Admin).RbacV1().ClusterRoleBindings().Delete(p.ctx, "test-owner-assigns", metav1.DeleteOptions{}))
		p.until(func() error { // so that the other tests find what they know
			if err := p.tryAssign(); !apierrors.IsForbidden(err) {
				return fmt.Errorf("not refused yet: %w", err)
			}
			return nil
		})
	}()
	p.until(func() error { return p.label(gitops, "free", "acme") })
	require.NoError(t, p.label(gitops, "free", nil))
	require.ErrorContains(t, p.label(gitops, "free", "globex"), "tenants.bailiwick.dev/globex")
}

func (p people) until(ask func() error) {
	p.t.Helper()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-p.ctx.Done():
			require.NoError(p.t, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// A status is the server's, whatever else somebody may do in the namespace; and
// no right in a namespace is one over the cluster's kinds.
func TestStatusIsTheServers(t *testing.T) {
	p := guarded(t)
	grants := schema.GroupVersionResource{Group: "bailiwick.dev", Version: "v1alpha1", Resource: "servicegrants"}
	grant := one(t, `apiVersion: bailiwick.dev/v1alpha1
kind: ServiceGrant
metadata: {name: orders, namespace: acme-shop}
spec: {from: [{tenant: globex, all: true}], to: [{service: orders, all: true}]}
`)
	require.NoError(t, p.c.Apply(p.ctx, owner, grant))
	status := []byte(`{"status": {"conditions": [{"type": "Accepted", "status": "True", "reason": "Mine", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}`)
	patch := func(user string) error {
		client, err := dynamic.NewForConfig(p.c.REST(user))
		require.NoError(t, err)
		_, err = client.Resource(grants).Namespace("acme-shop").Patch(p.ctx, "orders", types.MergePatchType, status, metav1.PatchOptions{}, "status")
		return err
	}
	for _, user := range []string{owner, gitops} {
		err := patch(user)
		require.True(t, apierrors.IsForbidden(err), "%s: %v", user, err)
		require.ErrorContains(t, err, "written by the server")
	}
	require.NoError(t, patch(server))

	for _, text := range []string{
		"apiVersion: bailiwick.dev/v1alpha1\nkind: Tenant\nmetadata: {name: mine}\nspec: {trustDomain: mine.example}\n",
		"apiVersion: bailiwick.dev/v1alpha1\nkind: ClusterServiceGrant\nmetadata: {name: mine}\nspec: {allTenants: true, to: [{namespace: a, service: b, all: true}]}\n",
	} {
		for _, user := range []string{owner, admin, gitops, security} {
			err := p.c.Apply(p.ctx, user, one(t, text))
			require.True(t, apierrors.IsForbidden(err), "%s: %v", user, err)
		}
		require.NoError(t, p.c.Apply(p.ctx, platform, one(t, text)))
		require.NoError(t, p.c.Delete(p.ctx, platform, one(t, text)))
	}
}
