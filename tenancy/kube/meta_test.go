package kube

import (
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"reflect"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

// withoutMeta is a copy without what only an API server knows: metadata, and the
// UIDs of Pods.
func withoutMeta(obj tenancy.Object) tenancy.Object {
	v := reflect.New(reflect.TypeOf(obj).Elem())
	v.Elem().Set(reflect.ValueOf(obj).Elem())
	if meta := v.Elem().FieldByName("Meta"); meta.IsValid() {
		meta.SetZero()
	}
	return v.Interface().(tenancy.Object)
}

func quietLogger() *slog.Logger { return slog.New(slog.DiscardHandler) }

// crd is one of the repository's, served or not.
func crd(t *testing.T, resource string, served bool) *unstructured.Unstructured {
	t.Helper()
	root, err := kubetest.Root()
	require.NoError(t, err)
	objects, err := kubetest.Objects(filepath.Join(root, "deploy", "crds", "bailiwick.dev_"+resource+".yaml"))
	require.NoError(t, err)
	versions, _, err := unstructured.NestedSlice(objects[0].Object, "spec", "versions")
	require.NoError(t, err)
	versions[0].(map[string]any)["served"] = served
	require.NoError(t, unstructured.SetNestedSlice(objects[0].Object, versions, "spec", "versions"))
	return objects[0]
}

// withoutMetaOf is withoutMeta for an object that may be nil.
func withoutMetaOf(obj tenancy.Object) tenancy.Object {
	if obj == nil {
		return nil
	}
	return withoutMeta(obj)
}

// requests notes what a client asks.
type requests struct {
	mu   sync.Mutex
	list []asked
}

type asked struct {
	path, accept string
	query        url.Values
}

func (r *requests) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		r.mu.Lock()
		r.list = append(r.list, asked{req.URL.Path, req.Header.Get("Accept"), req.URL.Query()})
		r.mu.Unlock()
		return next.RoundTrip(req)
	})
}

func (r *requests) all() []asked {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.list
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
