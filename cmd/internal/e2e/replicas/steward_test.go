package replicas

import (
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"bailiwick.dev/bailiwick/tenancy/kube/steward"
)

// looksAfterTenants: whoever leads has put the finalizer on every Tenant and says
// whether admission guards their label, with the rights of deploy/base.
func (f *fixture) looksAfterTenants() {
	f.t.Helper()
	for _, tenant := range []string{"acme", "globex"} {
		f.says("tenants", "", tenant, steward.Guarded, "True/"+steward.ReasonGuarded+"@1")
		u, err := f.resource("tenants", "").Get(f.ctx, tenant, metav1.GetOptions{})
		require.NoError(f.t, err)
		require.Equal(f.t, []string{steward.Finalizer}, u.GetFinalizers())
	}
	bindings := f.objects.Resource(schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicybindings"})
	binding, err := bindings.Get(f.ctx, "bailiwick-tenant-label", metav1.GetOptions{})
	require.NoError(f.t, err)
	require.NoError(f.t, bindings.Delete(f.ctx, binding.GetName(), metav1.DeleteOptions{}))
	f.says("tenants", "", "acme", steward.Guarded, "False/"+steward.ReasonMissing+"@1")
	binding.SetResourceVersion("")
	_, err = bindings.Create(f.ctx, binding, metav1.CreateOptions{})
	require.NoError(f.t, err)
	for _, s := range f.servers {
		require.NotContains(f.t, s.LogTail(1000), "forbidden", "the server lacks a right")
	}
}
