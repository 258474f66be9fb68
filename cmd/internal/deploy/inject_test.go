package deploy

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"bailiwick.dev/bailiwick/cmd/internal/inject"
	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

// What inject prints is what the API server takes, of every kind and for both
// sources of certificates; injected and applied again it changes nothing, and
// over what was there without a sidecar it only adds.
func TestInjectedWorkloadsApply(t *testing.T) {
	c, ctx := cluster(t)
	plain, err := os.ReadFile("testdata/workloads.yaml")
	require.NoError(t, err)
	client, err := dynamic.NewForConfig(c.REST(kubetest.Admin))
	require.NoError(t, err)
	config := inject.Default()
	config.InitImage, config.ProxyImage = "init:1", "proxy:1"
	config.TrustDomain = spiffeid.RequireTrustDomainFromString("acme.example")
	config.Servers = []string{"bailiwick.bailiwick-system.svc:18000"}
	config.ServerID = spiffeid.RequireFromString("spiffe://mesh.example/ns/bailiwick-system/sa/bailiwick")
	certManager := config
	certManager.Driver, certManager.BundleConfigMap = inject.CertManager, "mesh/ca.pem"
	for i, config := range []inject.Config{config, certManager} {
		// Nothing here ends Jobs, so that each round has names of its own.
		named := []byte(strings.ReplaceAll(string(plain), "metadata: {name: ", fmt.Sprintf("metadata: {name: round-%d-", i)))
		text, err := inject.File("workloads.yaml", named, config)
		require.NoError(t, err)
		for _, u := range objects(t, string(text)) {
			t.Run(config.Driver+" "+u.GetKind(), func(t *testing.T) {
				at := client.Resource(kubetest.Resource(u)).Namespace("free")
				require.NoError(t, c.Apply(ctx, kubetest.Admin, u))
				first, err := at.Get(ctx, u.GetName(), metav1.GetOptions{})
				require.NoError(t, err)
				names := initContainers(t, first)
				require.GreaterOrEqual(t, len(names), 3)
				require.Equal(t, []string{"bailiwick-iptables", "bailiwick-bootstrap", "bailiwick-envoy"}, names[:3])
				if u.GetKind() == "Deployment" {
					require.Equal(t, []string{"migrate", "logs"}, names[3:])
				}

				again, err := inject.File("workloads.yaml", text, config)
				require.NoError(t, err)
				for _, o := range objects(t, string(again)) {
					if o.GetKind() == u.GetKind() {
						require.NoError(t, c.Apply(ctx, kubetest.Admin, o))
					}
				}
				second, err := at.Get(ctx, u.GetName(), metav1.GetOptions{})
				require.NoError(t, err)
				require.Equal(t, first.GetGeneration(), second.GetGeneration())
				require.Equal(t, first.Object["spec"], second.Object["spec"])
			})
		}
	}
}

func initContainers(t *testing.T, u *unstructured.Unstructured) []string {
	t.Helper()
	for _, path := range [][]string{{"spec"}, {"spec", "template", "spec"}, {"spec", "jobTemplate", "spec", "template", "spec"}} {
		list, ok, err := unstructured.NestedSlice(u.Object, append(path, "initContainers")...)
		require.NoError(t, err)
		if !ok {
			continue
		}
		var names []string
		for _, item := range list {
			names = append(names, item.(map[string]any)["name"].(string))
		}
		return names
	}
	return nil
}
