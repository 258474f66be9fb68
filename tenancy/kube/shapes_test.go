package kube

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/canary"
	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

// post sends bytes as they are, and returns what the API server stored.
func post(ctx context.Context, client *rest.RESTClient, p canary.Poison) (*unstructured.Unstructured, error) {
	like := &unstructured.Unstructured{}
	like.SetAPIVersion(map[bool]string{true: "v1", false: "bailiwick.dev/v1alpha1"}[p.Kind == "Namespace" || p.Kind == "Service" || p.Kind == "Pod"])
	if p.Kind == "EndpointSlice" {
		like.SetAPIVersion("discovery.k8s.io/v1")
	}
	like.SetKind(p.Kind)
	r := kubetest.Resource(like)
	prefix := "/apis/" + r.Group
	if r.Group == "" {
		prefix = "/api"
	}
	contentType := "application/yaml"
	if p.JSON {
		contentType = "application/json"
	}
	path := []string{prefix, r.Version, r.Resource}
	if p.Namespace != "" {
		path = []string{prefix, r.Version, "namespaces", p.Namespace, r.Resource}
	}
	result := client.Post().AbsPath(path...).
		SetHeader("Content-Type", contentType).Body([]byte(p.Text)).Do(ctx)
	if err := result.Error(); err != nil {
		return nil, err
	}
	raw, err := result.Raw()
	if err != nil {
		return nil, err
	}
	out := &unstructured.Unstructured{}
	if err := out.UnmarshalJSON(raw); err != nil {
		return nil, fmt.Errorf("read what was stored: %w", err)
	}
	return out, nil
}

// Every kind in every nasty form, sent to an API server: what it refuses it
// says clearly; of what it stores we honour what can be honoured and report the
// rest, and nothing beside it changes.
func TestPoisonOfEveryKind(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c := cluster(t)
	one := canary.Tenant{Name: "kanarya", Peer: "kanaryb", Stranger: "kanaryc", Network: "10.41.1", Number: 101}
	documents := one.Documents()
	var objects []*unstructured.Unstructured
	for _, d := range documents {
		parsed, err := kubetest.Parse([]byte(d.Text))
		require.NoError(t, err)
		objects = append(objects, parsed...)
	}
	kubetest.Complete(objects)
	require.NoError(t, c.Apply(ctx, kubetest.Admin, objects...))
	running, log, stop := follow(t, c.REST(kubetest.Admin), nil)
	running.wait(t, "it is synced", func() bool { return running.synced })
	running.mu.Lock()
	before := ours(running.objects)
	running.mu.Unlock()

	config := c.REST(kubetest.Admin)
	config.NegotiatedSerializer, config.GroupVersion = runtime.NewSimpleNegotiatedSerializer(runtime.SerializerInfo{}), &metav1.Unversioned
	client, err := rest.UnversionedRESTClientFor(config)
	require.NoError(t, err)
	dyn, err := dynamic.NewForConfig(c.REST(kubetest.Admin))
	require.NoError(t, err)
	var stored []*unstructured.Unstructured
	refused := map[string]int{}
	for _, p := range canary.Poisons(documents) {
		u, err := post(ctx, client, p)
		if err != nil {
			var told apierrors.APIStatus
			require.ErrorAs(t, err, &told, "%s %s", p.Kind, p.Shape)
			require.Contains(t, []int32{http.StatusBadRequest, http.StatusUnprocessableEntity}, told.Status().Code, "%s %s: %.500v", p.Kind, p.Shape, err)
			refused[p.Kind]++
			continue
		}
		stored = append(stored, u)
	}
	require.Len(t, refused, 11)
	ref := func(u *unstructured.Unstructured) tenancy.Ref {
		for kind := tenancy.Kind(1); kind.String() != "Unknown"; kind++ {
			if kind.String() == u.GetKind() {
				return tenancy.Ref{Kind: kind, Key: tenancy.Key{Namespace: u.GetNamespace(), Name: u.GetName()}}
			}
		}
		return tenancy.Ref{}
	}
	running.wait(t, "what is stored is honoured or reported", func() bool {
		for _, u := range stored {
			if running.objects[ref(u)] == nil && len(running.report.Invalid[ref(u)].Errors) == 0 {
				return false
			}
		}
		return true
	})
	running.mu.Lock()
	after := ours(running.objects)
	for _, u := range stored {
		delete(after, ref(u))
	}
	require.Equal(t, before, after, "nothing beside it changes")
	require.Empty(t, running.report.Stale, "no watch was hurt")
	running.mu.Unlock()
	require.NotContains(t, log.String(), "level=ERROR")
	stop()
	now := int64(0)
	for _, u := range append(stored, objects...) {
		if u.GetKind() == "Namespace" {
			require.NoError(t, c.Apply(ctx, kubetest.Admin, kubetest.Namespace(u.GetName(), "")))
			continue
		}
		err := dyn.Resource(kubetest.Resource(u)).Namespace(u.GetNamespace()).Delete(ctx, u.GetName(), metav1.DeleteOptions{GracePeriodSeconds: &now})
		require.NoError(t, err)
	}
	t.Logf("%d stored, refused %v", len(stored), refused)
}
