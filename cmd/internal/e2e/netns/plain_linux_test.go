package netns

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

// apiVIP is the virtual IP of default/kubernetes.
var apiVIP = netip.MustParseAddr("10.96.0.1")

// kubernetesObjects are default/kubernetes as a cluster has it, and what shows it
// to all tenants; the API server is on the node.
const kubernetesObjects = `apiVersion: v1
kind: Namespace
metadata: {name: default}
---
apiVersion: v1
kind: Service
metadata: {name: kubernetes, namespace: default}
spec: {clusterIP: %s, ports: [{name: https, port: 443, targetPort: %d}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}
addressType: IPv4
ports: [{name: https, port: %d}]
endpoints: [{addresses: [%s], conditions: {ready: true}}]
---
`

const kubernetesGrant = `apiVersion: bailiwick.dev/v1alpha1
kind: ClusterServiceGrant
metadata: {name: kubernetes}
spec:
  allTenants: true
  to: [{namespace: default, service: kubernetes, ports: [443], plain: true}]
`

// withoutSidecar: a Pod that may reach its registry only lists its namespace at
// the API server, which has no sidecar, once the platform shows it as plain.
func (w *world) withoutSidecar(t *testing.T) {
	kubetest.Binaries(t)
	api, err := kubetest.Start(w.ctx, kubetest.Config{Dir: t.TempDir(), Args: []string{"--bind-address", "0.0.0.0", "--advertise-address", node4.String()}})
	require.NoError(t, err)
	t.Cleanup(api.Stop)
	require.NoError(t, api.Apply(w.ctx, kubetest.Admin, kubetest.Namespace("acme-web", "acme")))
	at := netip.MustParseAddrPort(api.Address)

	// As in a Pod: by the virtual IP, with the name of the certificate.
	config := api.REST(kubetest.Admin)
	config.Host = "https://" + netip.AddrPortFrom(apiVIP, 443).String()
	config.ServerName = "kubernetes.default.svc"
	config.Dial = func(ctx context.Context, _, address string) (net.Conn, error) {
		return w.web.dial(ctx, netip.MustParseAddrPort(address))
	}
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	path := filepath.Join(w.dir, "objects", "platform", "kubernetes.yaml")
	write := func(text string) {
		require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o644))
		require.NoError(t, os.Rename(path+".new", path))
	}
	objects := fmt.Sprintf(kubernetesObjects, apiVIP, at.Port(), at.Port(), node4)
	list := func() error {
		_, err := client.CoreV1().Pods("acme-web").List(w.ctx, metav1.ListOptions{})
		return err
	}

	write(objects)
	// A client would try for ten seconds; a connection says it at once.
	dial := func() (net.Conn, error) { return w.web.dial(w.ctx, netip.AddrPortFrom(apiVIP, 443)) }
	w.web.counts(t, counted{outBlackhole: 1}, func() { refused(t, dialed(dial()), hello, "nobody shows it yet") })
	write(objects + kubernetesGrant)
	w.until(t, "the API server is reached", list)
	_, err = client.CoreV1().ConfigMaps("acme-web").Create(w.ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "made-in-the-mesh"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	found, err := client.CoreV1().ConfigMaps("acme-web").List(w.ctx, metav1.ListOptions{})
	require.NoError(t, err)
	require.Equal(t, "made-in-the-mesh", found.Items[len(found.Items)-1].Name)

	write(objects)
	w.until(t, "new connections are refused again", func() error {
		conn, err := dial()
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
		_, _ = io.WriteString(conn, hello) // may be closed already
		if text, _ := io.ReadAll(conn); len(text) > 0 {
			return fmt.Errorf("it answers %q", text)
		}
		return nil
	})
	require.NoError(t, os.Remove(path))
}
