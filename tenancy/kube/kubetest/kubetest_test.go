package kubetest

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// TestCluster is what the other tests rely on: it starts, knows its users, keeps
// its data and address over kill -9, and gates do what they say.
func TestCluster(t *testing.T) {
	c := New(t, User{Name: "ann", Groups: []string{"developers", "acme"}})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	require.NoError(t, c.InstallCRDs(ctx))
	admin, err := kubernetes.NewForConfig(c.REST(Admin))
	require.NoError(t, err)
	require.NoError(t, c.Apply(ctx, Admin, Namespace("shop", "acme")))

	ann, err := kubernetes.NewForConfig(c.REST("ann"))
	require.NoError(t, err)
	_, err = ann.CoreV1().Namespaces().Get(ctx, "shop", metav1.GetOptions{})
	require.True(t, apierrors.IsForbidden(err), "%v", err)
	nobody, err := kubernetes.NewForConfig(c.REST("nobody"))
	require.NoError(t, err)
	_, err = nobody.CoreV1().Namespaces().Get(ctx, "shop", metav1.GetOptions{})
	require.True(t, apierrors.IsUnauthorized(err), "%v", err)

	c.KillAPIServer()
	c.KillEtcd()
	require.NoError(t, c.StartEtcd(ctx))
	require.NoError(t, c.StartAPIServer(ctx))
	require.NoError(t, c.Compact(ctx))
	ns, err := admin.CoreV1().Namespaces().Get(ctx, "shop", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, "acme", ns.Labels["bailiwick.dev/tenant"])
}

func TestGate(t *testing.T) {
	c := New(t)
	g := c.Gate(t)
	client, err := kubernetes.NewForConfig(g.REST(Admin))
	require.NoError(t, err)
	list := func(within time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		_, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
		return err
	}
	require.NoError(t, list(time.Minute))
	watch, err := client.CoreV1().Namespaces().Watch(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	<-watch.ResultChan()

	g.Fail(http.StatusServiceUnavailable)
	for range watch.ResultChan() {
	} // ends, because the connection broke
	require.True(t, apierrors.IsServiceUnavailable(list(time.Minute)))
	g.Open()
	require.NoError(t, list(time.Minute))
	g.Cut()
	require.Error(t, list(time.Minute))
	g.Open()
	require.NoError(t, list(time.Minute))
	g.Hold()
	require.ErrorIs(t, list(100*time.Millisecond), context.DeadlineExceeded)
	g.Open()
	require.NoError(t, list(time.Minute))
}
