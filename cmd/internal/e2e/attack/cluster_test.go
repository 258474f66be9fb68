package attack

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

// Who writes: the server's own account, and an admin of acme's namespaces.
const (
	account  = "system:serviceaccount:bailiwick-system:bailiwick"
	intruder = "acme-admin"
)

// cluster is a real API server that has the objects of a world's directory, as
// somebody would who applies it: the same rows run over both sources.
type cluster struct {
	*kubetest.Cluster
	objects dynamic.Interface
	client  kubernetes.Interface
	// applied are the objects that are there, uids those of namespaces as the
	// directory has them.
	applied map[string]*unstructured.Unstructured
	uids    map[string]string
}

// newCluster has all that deploy/base installs, with its admission policies.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{Cluster: kubetest.New(t, kubetest.User{Name: account, Groups: []string{"system:serviceaccounts"}}, kubetest.User{Name: intruder})}
	root, err := kubetest.Root()
	require.NoError(t, err)
	require.NoError(t, c.InstallCRDs(t.Context()))
	base, err := kubetest.Objects(filepath.Join(root, "deploy", "base", "namespace.yaml"), filepath.Join(root, "deploy", "base", "bailiwick.yaml"))
	require.NoError(t, err)
	require.NoError(t, c.Apply(t.Context(), kubetest.Admin, base...))
	c.objects, err = dynamic.NewForConfig(c.REST(kubetest.Admin))
	require.NoError(t, err)
	c.client, err = kubernetes.NewForConfig(c.REST(kubetest.Admin))
	require.NoError(t, err)
	return c
}

func keyOf(u *unstructured.Unstructured) string {
	return u.GetKind() + "/" + u.GetNamespace() + "/" + u.GetName()
}

// read is what the directory holds, at addresses that an API server takes.
func (c *cluster) read(t *testing.T, dir string) (map[string]*unstructured.Unstructured, map[string]string) {
	t.Helper()
	var list []*unstructured.Unstructured
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".yaml" {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		some, err := kubetest.Parse([]byte(strings.ReplaceAll(string(raw), "127.", "10.")))
		list = append(list, some...)
		return err
	}))
	all, uids := map[string]*unstructured.Unstructured{}, map[string]string{}
	for _, u := range list {
		if u.GetKind() == "Namespace" {
			uids[u.GetName()] = string(u.GetUID())
		}
		all[keyOf(u)] = u
	}
	kubetest.Complete(list)
	return all, uids
}

// sync makes the API server's objects those of the directory. What it refuses is
// returned: the attacker's own objects, which are then nowhere.
func (c *cluster) sync(ctx context.Context, t *testing.T, dir string) (refused []error) {
	t.Helper()
	now, uids := c.read(t, dir)
	order := func(a, b string) int { // what objects are in comes before them
		return strings.Compare(rank(a)+a, rank(b)+b)
	}
	was := slices.SortedFunc(keys(c.applied), order)
	for _, key := range slices.Backward(was) {
		u := c.applied[key]
		if again := u.GetKind() == "Namespace" && uids[u.GetName()] != c.uids[u.GetName()]; now[key] == nil || again {
			c.remove(ctx, t, u)
			delete(c.applied, key)
		}
	}
	for _, key := range slices.SortedFunc(keys(now), order) {
		u, before := now[key], c.applied[key]
		if before != nil && reflect.DeepEqual(before.Object, u.Object) {
			continue
		}
		const label = "bailiwick.dev/tenant"
		if before != nil && u.GetKind() == "Namespace" && before.GetLabels()[label] != u.GetLabels()[label] {
			nobody := u.DeepCopy() // never from one tenant to another in one step
			unstructured.RemoveNestedField(nobody.Object, "metadata", "labels", label)
			require.NoError(t, c.Apply(ctx, kubetest.Admin, nobody))
		}
		err := c.Apply(ctx, kubetest.Admin, u)
		if apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || err != nil && strings.Contains(err.Error(), "typed patch") {
			refused = append(refused, err)
			continue
		}
		require.NoError(t, err)
		c.applied[key] = u
	}
	c.uids = uids
	return refused
}

func rank(key string) string {
	switch {
	case strings.HasPrefix(key, "Tenant/"):
		return "0"
	case strings.HasPrefix(key, "Namespace/"):
		return "1"
	}
	return "2"
}

func keys(m map[string]*unstructured.Unstructured) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// remove deletes an object for good. There is no namespace controller: what it
// would do to an empty namespace is done here.
func (c *cluster) remove(ctx context.Context, t *testing.T, u *unstructured.Unstructured) {
	t.Helper()
	require.NoError(t, c.Delete(ctx, kubetest.Admin, u))
	if u.GetKind() != "Namespace" {
		return
	}
	ns, err := c.client.CoreV1().Namespaces().Get(ctx, u.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return
	}
	require.NoError(t, err)
	ns.Spec.Finalizers = nil
	_, err = c.client.CoreV1().Namespaces().Finalize(ctx, ns, metav1.UpdateOptions{})
	require.NoError(t, err)
}

// clear removes all objects that were applied; no server runs.
func (c *cluster) clear(ctx context.Context, t *testing.T) {
	t.Helper()
	for key, u := range c.applied {
		if u.GetKind() == "Tenant" {
			_, err := c.objects.Resource(kubetest.Resource(u)).Patch(ctx, u.GetName(), types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
			require.NoError(t, err)
		}
		if u.GetKind() != "Namespace" {
			c.remove(ctx, t, u)
			delete(c.applied, key)
		}
	}
	for key, u := range c.applied {
		c.remove(ctx, t, u)
		delete(c.applied, key)
	}
	c.uids = nil
	err := c.client.CoordinationV1().Leases("bailiwick-system").Delete(ctx, "bailiwick", metav1.DeleteOptions{})
	require.True(t, err == nil || apierrors.IsNotFound(err), "%v", err)
}

// get is an object as it is.
func (c *cluster) get(ctx context.Context, t *testing.T, kind, namespace, name string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	u.SetAPIVersion("bailiwick.dev/v1alpha1")
	u.SetKind(kind)
	u, err := c.objects.Resource(kubetest.Resource(u)).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	require.NoError(t, err)
	return u
}

// remembered are the namespaces in the status of a Tenant, as name/uid/until.
func (c *cluster) remembered(ctx context.Context, t *testing.T, tenant string) []string {
	t.Helper()
	list, _, err := unstructured.NestedSlice(c.get(ctx, t, "Tenant", "", tenant).Object, "status", "namespaces")
	require.NoError(t, err)
	var out []string
	for _, item := range list {
		f := item.(map[string]any)
		until := "held"
		if f["until"] != nil {
			until = "until"
		}
		out = append(out, fmt.Sprintf("%s %s", f["name"], until))
	}
	return out
}

// status patches the status of a Tenant as the platform may.
func (c *cluster) status(ctx context.Context, t *testing.T, tenant string, namespaces []map[string]string) {
	t.Helper()
	raw, err := json.Marshal(map[string]any{"status": map[string]any{"namespaces": namespaces}})
	require.NoError(t, err)
	u := c.get(ctx, t, "Tenant", "", tenant)
	_, err = c.objects.Resource(kubetest.Resource(u)).Patch(ctx, tenant, types.MergePatchType, raw, metav1.PatchOptions{}, "status")
	require.NoError(t, err)
}
