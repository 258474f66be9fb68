package netns

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
	"bailiwick.dev/bailiwick/xds/bootstrap/envoytest"
)

// serverAccount is the server's, as deploy/base names it.
const serverAccount = "system:serviceaccount:bailiwick-system:bailiwick"

// installation is a whole mesh on Kubernetes: an API server with what deploy/base
// installs, the server under its own account, and Pods that the injector made.
// What controllers and kubelets do the test does.
type installation struct {
	*world
	*kubelet
	cluster *kubetest.Cluster
	// templates are the Pods of workloads, by their names, as the API server has
	// them.
	templates map[string]*unstructured.Unstructured
	// pods are those that run, by name.
	pods map[string]*running
}

func install(t *testing.T) *installation {
	t.Helper()
	needNode(t)
	kubetest.Binaries(t)
	w := prepare(t)
	i := &installation{world: w, templates: map[string]*unstructured.Unstructured{}, pods: map[string]*running{}}
	buildBridge(t)
	ip(t, "addr add 10.77.0.3/24 dev pods") // the kubelet's
	var err error
	i.cluster, err = kubetest.Start(w.ctx, kubetest.Config{
		Dir: t.TempDir(), Args: []string{"--advertise-address", node4.String()},
		Users: []kubetest.User{{Name: serverAccount, Groups: []string{"system:serviceaccounts"}}},
	})
	require.NoError(t, err)
	t.Cleanup(i.cluster.Stop)
	require.NoError(t, i.cluster.InstallCRDs(w.ctx))
	repository, err := kubetest.Root()
	require.NoError(t, err)
	i.applyFiles(t, filepath.Join(repository, "deploy", "base", "namespace.yaml"), filepath.Join(repository, "deploy", "base", "bailiwick.yaml"), "testdata/cluster.yaml")
	bundle := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "data": map[string]any{"platform.pem": string(w.ca.Bundles()["platform.example"])},
	}}
	bundle.SetName("mesh")
	for _, ns := range []string{"acme-web", "acme-shop", "globex-web"} {
		bundle.SetNamespace(ns)
		require.NoError(t, i.cluster.Apply(w.ctx, kubetest.Admin, bundle))
	}
	kubeconfig, err := i.cluster.Kubeconfig(serverAccount)
	require.NoError(t, err)
	w.startServer(t, mesh.ServerConfig{Args: []string{"--kubeconfig", kubeconfig, "--system-namespace", "bailiwick-system"}})

	i.kubelet = &kubelet{w: w, bin: filepath.Join(w.dir, "bin"), ip: kubelets[0], domain: map[string]string{
		"acme-web": "acme.example", "acme-shop": "acme.example", "globex-web": "globex.example",
	}}
	require.NoError(t, os.Mkdir(i.bin, 0o755))
	require.NoError(t, os.Symlink(w.binary, filepath.Join(i.bin, "bailiwick")))
	require.NoError(t, os.Symlink(envoytest.Binary(t), filepath.Join(i.bin, "envoy")))
	i.client, err = kubernetes.NewForConfig(i.cluster.REST(kubetest.Admin))
	require.NoError(t, err)
	i.inject(t)
	return i
}

func (i *installation) applyFiles(t *testing.T, files ...string) {
	t.Helper()
	objects, err := kubetest.Objects(files...)
	require.NoError(t, err)
	require.NoError(t, i.cluster.Apply(i.ctx, kubetest.Admin, objects...))
}

func (i *installation) apply(t *testing.T, text string) {
	t.Helper()
	objects, err := kubetest.Parse([]byte(text))
	require.NoError(t, err)
	require.NoError(t, i.cluster.Apply(i.ctx, kubetest.Admin, objects...))
}

// inject runs the injector over the workloads of each tenant, applies what it
// prints, and takes the templates from what the API server made of it.
func (i *installation) inject(t *testing.T) {
	t.Helper()
	raw, err := os.ReadFile("testdata/workloads.yaml")
	require.NoError(t, err)
	for document := range strings.SplitSeq(string(raw), "---\n") {
		plain, err := kubetest.Parse([]byte(document))
		require.NoError(t, err)
		cmd := exec.CommandContext(i.ctx, i.binary, "inject", "-f", "-",
			"--trust-domain", i.domain[plain[0].GetNamespace()], "--xds-address", i.server.XDS.String(), "--server-id", i.server.ID,
			"--svid", "spiffe.csi.cert-manager.io", "--trust-bundle-configmap", "mesh/platform.pem",
			"--init-image", "init:test", "--proxy-image", "proxy:test", "--concurrency", "1", "--drain-time", "1s", "--drain-wait", "0s")
		cmd.Stdin, cmd.Stderr = strings.NewReader(document), os.Stderr
		out, err := cmd.Output()
		require.NoError(t, err)
		i.apply(t, string(out))
		d := plain[0]
		stored, err := i.cluster.Get(i.ctx, kubetest.Admin, d)
		require.NoError(t, err)
		template, _, err := unstructured.NestedMap(stored.Object, "spec", "template")
		require.NoError(t, err)
		i.templates[d.GetName()] = &unstructured.Unstructured{Object: template}
	}
}

// start makes a Pod of a template, as a controller would, and runs it.
func (i *installation) start(t *testing.T, namespace, template, name string, ports map[uint16]string) *running {
	t.Helper()
	pod := &corev1.Pod{}
	require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructured(i.templates[template].Object, pod))
	pod.Name, pod.Namespace = name, namespace
	if name != template { // of a StatefulSet
		pod.Spec.Hostname, pod.Spec.Subdomain = name, template
	}
	_, err := i.client.CoreV1().Pods(namespace).Create(i.ctx, pod, metav1.CreateOptions{})
	require.NoError(t, err)
	i.pods[name] = i.run(t, namespace, name, ports)
	return i.pods[name]
}

// endpoints writes the EndpointSlice of a service as its controller would.
func (i *installation) endpoints(t *testing.T, service string, ports map[string]int32, pods ...string) {
	t.Helper()
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: service, Namespace: "acme-shop", Labels: map[string]string{"kubernetes.io/service-name": service}}, AddressType: discoveryv1.AddressTypeIPv4,
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
	}
	for name, port := range ports {
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &name, Port: &port})
	}
	slices.SortFunc(slice.Ports, func(a, b discoveryv1.EndpointPort) int { return strings.Compare(*a.Name, *b.Name) })
	for _, name := range pods {
		p := i.pods[name]
		e := discoveryv1.Endpoint{Addresses: []string{p.ip.String()}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: name, Namespace: "acme-shop"}}
		if p.spec.Spec.Hostname != "" {
			e.Hostname = &p.spec.Spec.Hostname
		}
		slice.Endpoints = append(slice.Endpoints, e)
	}
	raw, err := json.Marshal(slice)
	require.NoError(t, err)
	i.apply(t, string(raw))
}

// answers waits until a request is answered so: a status, and who answered.
func (i *installation) answers(t *testing.T, from, host, path string, status int, who string) answer {
	t.Helper()
	var got answer
	i.until(t, fmt.Sprintf("%s%s answers %s with %d", host, path, from, status), func() (err error) {
		if got, err = i.pods[from].get(host, path); err == nil && (got.status != status || got.Workload != who) {
			err = fmt.Errorf("%d of %q", got.status, got.Workload)
		}
		return err
	})
	return got
}

// unknown waits until a proxy has nothing on the port of HTTP services, so that
// whatever is sent there ends.
func (i *installation) unknown(t *testing.T, from, host, path string) {
	t.Helper()
	i.until(t, from+" does not know "+host, func() error {
		if got, err := i.pods[from].get(host, path); err == nil {
			return fmt.Errorf("%d of %q", got.status, got.Workload)
		}
		return nil
	})
}

// TestCluster: what an API server says is what real Envoys do, which run as the
// injector wrote them into its Pods.
func TestCluster(t *testing.T) {
	i := install(t)
	i.start(t, "acme-shop", "orders", "orders", map[uint16]string{8080: "http"})
	i.start(t, "acme-web", "web", "web", nil)
	i.start(t, "globex-web", "spy", "spy", nil)
	i.endpoints(t, "orders", map[string]int32{"http": 8080}, "orders")
	t.Run("Calls", i.calls)
	t.Run("Probes", i.probes)
	t.Run("Policies and grants", i.policies)
	t.Run("Status", i.statuses)
	t.Run("StatefulSet", i.statefulSet)
}

func (i *installation) calls(t *testing.T) {
	got := i.answers(t, "web", "orders.acme-shop", "/orders/1", http.StatusOK, "acme-shop/orders")
	require.Equal(t, i.pods["web"].workload(), got.Peer)
	i.answers(t, "web", "orders.acme-shop", "/admin", http.StatusForbidden, "")
	i.answers(t, "web", "orders.acme-shop", "/orders/../admin", http.StatusForbidden, "")
	require.Equal(t, "2", i.pods["orders"].stat(t, "http.inbound_8080.rbac.denied"))
	require.Equal(t, "0", i.pods["orders"].stat(t, "listener_manager.lds.update_rejected"))
	i.unknown(t, "spy", "orders.acme-shop.svc.cluster.local", "/orders/1")
}

// probes: those of the Pod's spec passed when it started. Nothing else does, and
// they pass from nowhere else.
func (i *installation) probes(t *testing.T) {
	p := i.pods["orders"]
	require.NoError(t, p.probe(p.spec.Spec.Containers[0].ReadinessProbe))
	for _, path := range []string{"/", "/readyz", "/ready/", "/orders/1"} {
		status, err := p.ask(i.ip, 8080, path)
		require.NoError(t, err)
		require.Equal(t, http.StatusNotFound, status, path)
	}
	status, err := p.ask(node4, 8080, "/ready")
	require.Error(t, err, "status %d", status)
	conn, err := from(i.ip)(i.ctx, netip.AddrPortFrom(p.ip, 8080))
	require.NoError(t, err, "the TCP probe")
	require.NoError(t, conn.Close())
}

// policies: what is written to the API server decides the next request.
func (i *installation) policies(t *testing.T) {
	const host = "orders.acme-shop.svc.cluster.local"
	deny := `{apiVersion: bailiwick.dev/v1alpha1, kind: AccessPolicy, metadata: {name: closed, namespace: acme-shop},
spec: {selector: {matchLabels: {app: orders}}, action: Deny, rules: [{from: [{namespace: acme-web}]}]}}`
	i.apply(t, deny)
	i.answers(t, "web", host, "/orders/1", http.StatusForbidden, "")
	i.remove(t, deny)
	i.answers(t, "web", host, "/orders/1", http.StatusOK, "acme-shop/orders")

	grant := `{apiVersion: bailiwick.dev/v1alpha1, kind: ServiceGrant, metadata: {name: orders, namespace: acme-shop},
spec: {from: [{tenant: globex, namespaces: [globex-web]}], to: [{service: orders, ports: [80]}]}}`
	request := `{apiVersion: bailiwick.dev/v1alpha1, kind: ServiceRequest, metadata: {name: orders, namespace: globex-web},
spec: {to: {namespace: acme-shop, service: orders, ports: [80]}}}`
	i.apply(t, grant)
	i.apply(t, request)
	i.answers(t, "spy", host, "/granted", http.StatusForbidden, "") // seen, and not let in
	i.apply(t, `{apiVersion: bailiwick.dev/v1alpha1, kind: AccessPolicy, metadata: {name: granted, namespace: acme-shop},
spec: {selector: {matchLabels: {app: orders}}, action: Allow, rules: [{from: [{granted: true}], paths: [{prefix: /granted}]}]}}`)
	got := i.answers(t, "spy", host, "/granted", http.StatusOK, "acme-shop/orders")
	require.Equal(t, i.pods["spy"].workload(), got.Peer)
	i.answers(t, "spy", host, "/orders/1", http.StatusForbidden, "")
	i.answers(t, "spy", "orders.acme-shop", "/granted", http.StatusBadGateway, "")
	i.remove(t, grant)
	i.unknown(t, "spy", host, "/granted")
	i.answers(t, "web", host, "/orders/1", http.StatusOK, "acme-shop/orders")
}

func (i *installation) remove(t *testing.T, text string) {
	t.Helper()
	objects, err := kubetest.Parse([]byte(text))
	require.NoError(t, err)
	require.NoError(t, i.cluster.Delete(i.ctx, kubetest.Admin, objects...))
}

// statuses: the conditions say what these Envoys have.
func (i *installation) statuses(t *testing.T) {
	policy := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "bailiwick.dev/v1alpha1", "kind": "AccessPolicy"}}
	policy.SetName("orders")
	policy.SetNamespace("acme-shop")
	i.until(t, "the policy is programmed", func() error {
		stored, err := i.cluster.Get(i.ctx, kubetest.Admin, policy)
		if err != nil {
			return err
		}
		conditions, _, err := unstructured.NestedSlice(stored.Object, "status", "conditions")
		for _, c := range conditions {
			if c := c.(map[string]any); c["type"] == "Programmed" && c["status"] == "True" {
				return err
			}
		}
		return fmt.Errorf("%v", conditions)
	})
}

// statefulSet: each of three Pods is reached by its own name and at its own
// address, and no other is, through restarts that give it another address.
func (i *installation) statefulSet(t *testing.T) {
	apps := map[uint16]string{8080: "http", 3306: "banner"}
	ports := map[string]int32{"http": 8080, "mysql": 3306}
	names := []string{"db-0", "db-1", "db-2"}
	reached := func(name string) {
		t.Helper()
		p := i.pods[name]
		host := name + ".db.acme-shop"
		i.answers(t, "web", host, "/", http.StatusOK, "acme-shop/"+name)
		to := netip.AddrPortFrom(p.ip, 3306)
		i.until(t, to.String()+" is reached", func() error {
			line, err := first(i.pods["web"].dial(i.ctx, to))
			if err == nil && line != name+"\n" {
				err = fmt.Errorf("it says %q", line)
			}
			return err
		})
		for range 5 { // nobody else ever is
			got, err := i.pods["web"].get(host, "/")
			require.NoError(t, err)
			require.Equal(t, "acme-shop/"+name, got.Workload)
			line, err := first(i.pods["web"].dial(i.ctx, to))
			require.NoError(t, err)
			require.Equal(t, name+"\n", line)
		}
	}
	for _, name := range names {
		i.start(t, "acme-shop", "db", name, apps)
	}
	i.endpoints(t, "db", ports, names...)
	for _, name := range names {
		reached(name)
	}
	for n, name := range names {
		old := i.pods[name].ip
		i.pods[name].end(t)
		i.endpoints(t, "db", ports, slices.Concat(names[:n], names[n+1:])...)
		i.answers(t, "web", name+".db.acme-shop", "/", http.StatusBadGateway, "")
		for _, other := range slices.Concat(names[:n], names[n+1:]) {
			reached(other)
		}
		i.start(t, "acme-shop", "db", name, apps)
		i.endpoints(t, "db", ports, names...)
		reached(name)
		require.NotEqual(t, old, i.pods[name].ip)
		i.until(t, "the old address is nobody's", func() error {
			if line, err := first(i.pods["web"].dial(i.ctx, netip.AddrPortFrom(old, 3306))); err == nil {
				return fmt.Errorf("it says %q", line)
			}
			return nil
		})
	}
	// Their sidecars heard of no error on the way.
	for _, name := range names {
		require.Equal(t, "0", i.pods[name].stat(t, "cluster_manager.cds.update_rejected"))
	}
}
