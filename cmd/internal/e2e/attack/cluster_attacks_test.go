package attack

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
	"bailiwick.dev/bailiwick/xds/adsclient"
)

// insideFile is the namespace of acmeInside.
const insideFile = "platform/namespace-acme-web.yaml"

// crash ends the server without a word, and starts it again after what happens
// meanwhile.
func (w *world) crash(meanwhile func()) {
	w.t.Helper()
	w.server.Kill()
	meanwhile()
	require.NoError(w.t, w.server.Restart(w.ctx))
	require.NoError(w.t, w.server.WaitReady(w.ctx))
}

// remembers waits until the status of acme has these namespaces.
func (w *world) remembers(want ...string) {
	w.t.Helper()
	w.until(fmt.Sprintf("the status of acme remembers %q", want), func() error {
		if got := w.cluster.remembered(w.ctx, w.t, "acme"); !slices.Equal(got, want) {
			return fmt.Errorf("it remembers %q", got)
		}
		return nil
	})
}

// reusedOverRestart is T43 for one who need only wait until no process is left
// that saw the change, or until none runs.
func reusedOverRestart(w *world) {
	w.renew([]string{"--svid-max-ttl", "1h"}, shareDomain)
	w.remembers("acme-shop held", "acme-web held")
	// Seen by one process, asked of another.
	w.replace(insideFile, "bailiwick.dev/tenant: acme", "bailiwick.dev/tenant: globex")
	w.remembers("acme-shop held", "acme-web until")
	w.seesNothing(acmeInside, options{})
	w.crash(func() {})
	w.seesNothing(acmeInside, options{})
	// The one who had it does not wait, and has not been forgotten when it goes again.
	w.replace(insideFile, "bailiwick.dev/tenant: globex", "bailiwick.dev/tenant: acme")
	w.remembers("acme-shop held", "acme-web held")
	w.seesNothing(acmeInside, options{}) // globex had it, too

	// Seen by nobody.
	w.crash(func() {
		w.replace("platform/namespace-acme-shop.yaml", "uid: kanary-uid-of-namespace-acme-shop", "uid: made-again")
	})
	w.seesNothing(acmeOrders, options{})
	w.until("both are remembered", func() error {
		got := w.cluster.remembered(w.ctx, w.t, "acme")
		if !slices.Equal(slices.Sorted(slices.Values(got)), []string{"acme-shop held", "acme-shop until", "acme-web held"}) {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
	// A Tenant does not go before what it remembers is over.
	require.Contains(w.t, w.cluster.get(w.ctx, w.t, "Tenant", "", "acme").GetFinalizers(), "bailiwick.dev/namespaces")

	// When the last SVID has expired, the name is its new holder's.
	w.crash(func() {
		over := []map[string]string{{"name": "acme-shop", "uid": "before", "until": "2020-01-01T00:00:00Z"}}
		w.cluster.status(w.ctx, w.t, "acme", over)
		w.cluster.status(w.ctx, w.t, "globex", nil)
	})
	for _, id := range []string{acmeInside, acmeOrders} {
		require.NotEmpty(w.t, w.proxy(adsclient.Delta, id, options{}).Names(snapshot.Cluster.URL()), id)
	}
	w.remembers("acme-shop held", "acme-web held")
}

// foreignWrites has all rights that Kubernetes can give in acme's namespaces, and
// those of our roles.
func foreignWrites(w *world) {
	w.renew(nil)
	before := w.victims()
	everything := `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: attack-everything}
rules: [{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}]
`
	for _, ns := range []string{"acme-shop", "acme-web"} {
		everything += "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: attack, namespace: " + ns + "}\n" +
			"roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: attack-everything}\n" +
			"subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: " + intruder + "}]\n"
	}
	rights, err := kubetest.Parse([]byte(everything))
	require.NoError(w.t, err)
	require.NoError(w.t, w.cluster.Apply(w.ctx, kubetest.Admin, rights...))
	own := "apiVersion: bailiwick.dev/v1alpha1\nkind: ServiceGrant\nmetadata: {name: own, namespace: acme-web}\nspec: {from: [{tenant: globex, all: true}], to: [{service: orders, all: true}]}\n"
	w.until("the rights are known", func() error { return w.as(intruder, own) })
	for _, text := range []string{
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: acme-web, labels: {bailiwick.dev/tenant: globex}}\n",
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: acme-web, labels: {bailiwick.dev/tenant: \"\"}}\n",
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: globex-own, labels: {bailiwick.dev/tenant: globex}}\n",
		"apiVersion: bailiwick.dev/v1alpha1\nkind: Tenant\nmetadata: {name: acme}\nspec: {trustDomain: acme.example, defaultAction: AllowWithinTenant}\n",
		"apiVersion: bailiwick.dev/v1alpha1\nkind: Tenant\nmetadata: {name: third}\nspec: {trustDomain: globex.example}\n",
		"apiVersion: bailiwick.dev/v1alpha1\nkind: ClusterServiceGrant\nmetadata: {name: all}\nspec: {tenants: [acme], to: [{namespace: globex-web, service: web, all: true}]}\n",
		"apiVersion: bailiwick.dev/v1alpha1\nkind: ClusterAccessPolicy\nmetadata: {name: all}\nspec: {tier: Admin, priority: 1, subjects: [{tenants: [globex]}], rules: [{action: Allow, from: [{tenant: acme}]}]}\n",
		"apiVersion: bailiwick.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: mine, namespace: globex-shop}\nspec: {selector: {}, action: Allow, rules: [{from: [{all: true}]}]}\n",
		"apiVersion: bailiwick.dev/v1alpha1\nkind: ServiceGrant\nmetadata: {name: mine, namespace: globex-web}\nspec: {from: [{tenant: acme, all: true}], to: [{service: web, all: true}]}\n",
		"apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: globex-web}\nspec: {clusterIP: None, ports: [{name: http, port: 666}]}\n",
		"apiVersion: bailiwick.dev/v1alpha1\nkind: ProxyReport\nmetadata: {name: liar, namespace: bailiwick-system}\nreport: \"{}\"\n",
		"apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {name: bailiwick, namespace: bailiwick-system}\nspec: {holderIdentity: me}\n",
	} {
		err := w.as(intruder, text)
		require.Error(w.t, err, text)
		require.Contains(w.t, err.Error(), "forbidden", text)
	}
	// Statuses are the server's, of one's own objects as well; that of a Tenant is
	// what rights of former owners hang on.
	client, err := dynamic.NewForConfig(w.cluster.REST(intruder))
	require.NoError(w.t, err)
	namespaces := schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	_, err = client.Resource(namespaces).Patch(w.ctx, "acme-web", types.MergePatchType, []byte(`{"metadata":{"labels":{"bailiwick.dev/tenant":null}}}`), metav1.PatchOptions{})
	require.True(w.t, apierrors.IsForbidden(err), "%v", err)
	for _, c := range [][3]string{{"servicegrants", "acme-web", "own"}, {"tenants", "", "acme"}, {"tenants", "", "globex"}} {
		gvr := kubetest.Resource(&unstructured.Unstructured{Object: map[string]any{"apiVersion": "bailiwick.dev/v1alpha1", "kind": "Tenant"}})
		gvr.Resource = c[0]
		_, err := client.Resource(gvr).Namespace(c[1]).Patch(w.ctx, c[2], types.MergePatchType, []byte(`{"status":{"conditions":[],"namespaces":[]}}`), metav1.PatchOptions{}, "status")
		require.True(w.t, apierrors.IsForbidden(err), "%v: %v", c, err)
	}
	w.settled()
	require.Equal(w.t, before, w.victims())
}

// many is how many objects or changes an attack has: fewer where each is a request
// to the API server, and still more than the limits.
func (w *world) many(files, requests int) int {
	if w.cluster != nil {
		return requests
	}
	return files
}

// as applies an object as somebody.
func (w *world) as(user, text string) error {
	w.t.Helper()
	list, err := kubetest.Parse([]byte(text))
	require.NoError(w.t, err)
	return w.cluster.Apply(w.ctx, user, list...)
}

// statuses are the conditions of all objects of a tenant's namespaces, once they
// have been said.
func (w *world) statuses(prefix string) (out []string) {
	w.t.Helper()
	w.until("all is said", func() error {
		out = nil
		for _, kind := range []string{"AccessPolicy", "ServiceGrant", "ServiceRequest", "PeerTLS"} {
			u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "bailiwick.dev/v1alpha1", "kind": kind}}
			list, err := w.cluster.objects.Resource(kubetest.Resource(u)).List(w.ctx, metav1.ListOptions{})
			require.NoError(w.t, err)
			for i := range list.Items {
				if !strings.HasPrefix(list.Items[i].GetNamespace(), prefix) {
					continue
				}
				text := fmt.Sprint(list.Items[i].Object["status"])
				if strings.Contains(text, "waiting for the server") {
					return errors.New(list.Items[i].GetName() + " waits")
				}
				out = append(out, text)
			}
		}
		return nil
	})
	require.NotEmpty(w.t, out)
	return out
}
