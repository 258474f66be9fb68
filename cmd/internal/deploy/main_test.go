package deploy

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

// The people of the tests, and the server's account.
const (
	platform  = "platform"
	security  = "security"
	admin     = "acme-admin"
	developer = "acme-developer"
	viewer    = "acme-viewer"
	// owner may do everything in a namespace of acme, gitops everything everywhere
	// but what is only for the platform.
	owner  = "acme-owner"
	gitops = "gitops"
	// newcomer follows the README.
	newcomer = "newcomer"
	server   = "system:serviceaccount:bailiwick-system:bailiwick"
)

// shared is the one API server of this package's tests.
var shared = &kubetest.Shared{Users: []kubetest.User{
	{Name: platform}, {Name: security}, {Name: admin}, {Name: developer}, {Name: viewer}, {Name: owner}, {Name: gitops}, {Name: newcomer},
	{Name: server, Groups: []string{"system:serviceaccounts"}},
}}

func TestMain(m *testing.M) {
	code := m.Run()
	shared.Stop()
	os.Exit(code)
}

// installed is done once: what deploy/base installs, and the people's bindings.
var installed sync.Once

// patience bounds what would else wait for ever.
const patience = 3 * time.Minute

// cluster has deploy/base installed, a namespace acme-shop of acme and one of
// nobody.
func cluster(t *testing.T) (*kubetest.Cluster, context.Context) {
	t.Helper()
	c := shared.Get(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	installed.Do(func() {
		require.NoError(t, c.InstallCRDs(ctx))
		all, err := kubetest.Objects(root(t, "deploy", "base", "namespace.yaml"), root(t, "deploy", "base", "bailiwick.yaml"))
		require.NoError(t, err)
		require.NoError(t, c.Apply(ctx, kubetest.Admin, all...))
		require.NoError(t, c.Apply(ctx, kubetest.Admin, kubetest.Namespace("acme-shop", "acme"), kubetest.Namespace("free", "")))
		bindings, err := kubetest.Objects(root(t, "cmd", "internal", "deploy", "testdata", "bindings.yaml"))
		require.NoError(t, err)
		require.NoError(t, c.Apply(ctx, kubetest.Admin, bindings...))
	})
	return c, ctx
}

// one parses one document.
func one(t testing.TB, text string) *unstructured.Unstructured {
	t.Helper()
	all := objects(t, text)
	require.Len(t, all, 1)
	return all[0]
}
