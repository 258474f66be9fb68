package steward

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"

	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

var shared = &kubetest.Shared{}

func TestMain(m *testing.M) {
	code := m.Run()
	shared.Stop()
	os.Exit(code)
}

// world is a Steward over the real API server.
type world struct {
	t   *testing.T
	ctx context.Context
	c   *kubetest.Cluster
	s   *Steward
	reg *prometheus.Registry
}

func start(t *testing.T) *world {
	t.Helper()
	c := shared.Get(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	require.NoError(t, c.InstallCRDs(ctx))
	w := &world{t: t, ctx: ctx, c: c, reg: prometheus.NewRegistry()}
	var err error
	w.s, err = New(Config{REST: c.REST(kubetest.Admin), Logger: slog.New(slog.DiscardHandler), Registerer: w.reg})
	require.NoError(t, err)
	return w
}

// one parses a document.
func (w *world) one(text string) *unstructured.Unstructured {
	all, err := kubetest.Parse([]byte(text))
	require.NoError(w.t, err)
	return all[0]
}

func (w *world) apply(text string) {
	w.t.Helper()
	require.NoError(w.t, w.c.Apply(w.ctx, kubetest.Admin, w.one(text)))
}

// get is a Tenant as it is, nil if it is gone.
func (w *world) get(name string) *v1alpha1.Tenant {
	w.t.Helper()
	client, err := dynamic.NewForConfig(w.c.REST(kubetest.Admin))
	require.NoError(w.t, err)
	u, err := client.Resource(v1alpha1.GroupVersion().WithResource("tenants")).Get(w.ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	require.NoError(w.t, err)
	out := &v1alpha1.Tenant{}
	require.NoError(w.t, runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, out))
	return out
}

func (w *world) pass(leads bool) {
	w.t.Helper()
	require.NoError(w.t, w.s.Pass(w.ctx, leads))
}

func tenantYAML(name string) string {
	return "apiVersion: bailiwick.dev/v1alpha1\nkind: Tenant\nmetadata: {name: " + name + "}\nspec: {trustDomain: " + name + ".example}\n"
}

// A Tenant stays while a namespace carries its label, even when it is deleted, and
// goes when the last one does not.
func TestTenantStaysWhileNamespacesAreItsOwn(t *testing.T) {
	w := start(t)
	w.apply(tenantYAML("acme"))
	require.NoError(t, w.c.Apply(w.ctx, kubetest.Admin, kubetest.Namespace("acme-shop", "acme")))
	w.pass(false)
	require.Empty(t, w.get("acme").Finalizers, "only who leads writes")
	w.pass(true)
	require.Equal(t, []string{Finalizer}, w.get("acme").Finalizers)
	version := w.get("acme").ResourceVersion
	w.pass(true)
	require.Equal(t, version, w.get("acme").ResourceVersion, "written on change only")

	require.NoError(t, w.c.Delete(w.ctx, kubetest.Admin, w.one(tenantYAML("acme"))))
	w.pass(true)
	require.NotNil(t, w.get("acme"))
	require.NotNil(t, w.get("acme").DeletionTimestamp)
	require.NoError(t, w.c.Apply(w.ctx, kubetest.Admin, kubetest.Namespace("acme-shop", "")))
	w.pass(true)
	require.Nil(t, w.get("acme"))

	// One that no namespace ever had goes at once.
	w.apply(tenantYAML("globex"))
	w.pass(true)
	require.NoError(t, w.c.Delete(w.ctx, kubetest.Admin, w.one(tenantYAML("globex"))))
	w.pass(true)
	require.Nil(t, w.get("globex"))
}

// What guards the label is missed in the metric and in a condition, whichever part
// of it is not there or does not deny.
func TestMissingAdmissionIsSaid(t *testing.T) {
	w := start(t)
	w.apply(tenantYAML("initech"))
	policy := func(name, failure string) string {
		return "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\nmetadata: {name: " + name + "}\n" +
			"spec: {failurePolicy: " + failure + ", matchConstraints: {resourceRules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [secrets]}]}, validations: [{expression: 'true'}]}\n"
	}
	binding := func(name, action string) string {
		return "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicyBinding\nmetadata: {name: " + name + "}\nspec: {policyName: " + name + ", validationActions: [" + action + "]}\n"
	}
	expect := func(missing ...string) {
		t.Helper()
		w.pass(true)
		c := meta.FindStatusCondition(w.get("initech").Status.Conditions, Guarded)
		require.NotNil(t, c)
		for _, object := range []string{"policy/bailiwick-tenant-label", "binding/bailiwick-tenant-label", "policy/bailiwick-status", "binding/bailiwick-status"} {
			want := 0.0
			for _, m := range missing {
				if m == object {
					want = 1
				}
			}
			require.Equal(t, want, testutil.ToFloat64(w.s.missing.WithLabelValues(object)), object)
			if want == 1 {
				require.Contains(t, c.Message, object)
			}
		}
		if len(missing) == 0 {
			require.Equal(t, []any{metav1.ConditionTrue, ReasonGuarded}, []any{c.Status, c.Reason})
		} else {
			require.Equal(t, []any{metav1.ConditionFalse, ReasonMissing}, []any{c.Status, c.Reason})
		}
	}
	expect("policy/bailiwick-tenant-label", "binding/bailiwick-tenant-label", "policy/bailiwick-status", "binding/bailiwick-status")
	w.apply(policy("bailiwick-tenant-label", "Fail"))
	w.apply(policy("bailiwick-status", "Ignore"))
	w.apply(binding("bailiwick-tenant-label", "Deny"))
	w.apply(binding("bailiwick-status", "Warn"))
	expect("policy/bailiwick-status", "binding/bailiwick-status")
	w.apply(policy("bailiwick-status", "Fail"))
	w.apply(binding("bailiwick-status", "Deny"))
	expect()
	// The other conditions are somebody else's, and stay.
	require.NotNil(t, meta.FindStatusCondition(w.get("initech").Status.Conditions, v1alpha1.ConditionAccepted))
	require.NoError(t, w.c.Delete(w.ctx, kubetest.Admin, w.one(binding("bailiwick-tenant-label", "Deny"))))
	expect("binding/bailiwick-tenant-label")
	// It ends with the test.
	require.NoError(t, w.c.Delete(w.ctx, kubetest.Admin, w.one(tenantYAML("initech"))))
	w.pass(true)
}
