package netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/identity"
)

// kubelet runs the Pods of an API server as their spec says: mounts, users,
// capabilities, environment, order of the containers, probes and hooks. Of images
// it knows those of the injector; an application is the test's.
type kubelet struct {
	w      *world
	client kubernetes.Interface
	// bin has the programs of the images.
	bin string
	// domain is the trust domain of a namespace, as its issuer has it.
	domain map[string]string
	// ip is the node's as the Pods see it.
	ip netip.Addr
	// created counts Pods: each has an address of its own.
	created int
}

// running is a Pod that the kubelet runs.
type running struct {
	*namespace
	k       *kubelet
	spec    *corev1.Pod
	ip      netip.Addr
	dir     string
	sidecar *exec.Cmd
	// ended is closed when Envoy has.
	ended chan struct{}
	apps  []interface{ Stop() }
}

// images are the entry points, as deploy/Dockerfile has them.
var images = map[string]string{"init:test": "bailiwick", "proxy:test": "envoy"}

// run starts a Pod that the API server has, and tells it so: running when its
// sidecar's startup probe says so, ready when the readiness probes do.
func (k *kubelet) run(t *testing.T, namespace, name string, ports map[uint16]string) *running {
	t.Helper()
	pod, err := k.client.CoreV1().Pods(namespace).Get(k.w.ctx, name, metav1.GetOptions{})
	require.NoError(t, err)
	k.created++
	p := &running{
		namespace: newNamespace(t, fmt.Sprintf("pod-%d", k.created)), k: k, spec: pod,
		ip: netip.MustParseAddr(fmt.Sprintf("10.77.0.%d", 100+k.created)), dir: t.TempDir(), ended: make(chan struct{}),
	}
	require.NoError(t, os.Chmod(p.dir, 0o755))
	require.NoError(t, os.Chmod(filepath.Dir(p.dir), 0o755))
	p.join(t, p.ip, netip.MustParseAddr(fmt.Sprintf("fd77::%d", 100+k.created)))
	p.mount(t)
	// The address is known before the first container runs.
	p.tell(t, corev1.PodPending, false)
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			p.startSidecar(t, c)
			continue
		}
		out, err := p.exec(c, k.argv(c))
		require.NoError(t, err, "%s: %s", c.Name, out)
	}
	for port, kind := range ports {
		p.serve(t, port, kind)
	}
	p.tell(t, corev1.PodRunning, false)
	k.w.until(t, name+" is ready", func() error { return p.probe(pod.Spec.Containers[0].ReadinessProbe) })
	p.tell(t, corev1.PodRunning, true)
	return p
}

// mount prepares the Pod's volumes: each is a directory of that name.
func (p *running) mount(t *testing.T) {
	t.Helper()
	for _, v := range p.spec.Spec.Volumes {
		dir := filepath.Join(p.dir, v.Name)
		require.NoError(t, os.Mkdir(dir, 0o777))
		require.NoError(t, os.Chmod(dir, 0o777)) // as an emptyDir is
		write := func(name string, data []byte, mode os.FileMode) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, mode))
		}
		switch {
		case v.EmptyDir != nil:
		case v.CSI != nil:
			require.Equal(t, "spiffe.csi.cert-manager.io", v.CSI.Driver)
			group, err := strconv.Atoi(v.CSI.VolumeAttributes["spiffe.csi.cert-manager.io/fs-group"])
			require.NoError(t, err)
			domain := p.k.domain[p.spec.Namespace]
			w := identity.Workload{TrustDomain: domain, Namespace: p.spec.Namespace, ServiceAccount: p.spec.Spec.ServiceAccountName}
			cert, key, err := p.k.w.ca.Issue(w.String(), identity.IssueOptions{})
			require.NoError(t, err)
			write("tls.crt", cert, 0o644)
			write("tls.key", key, 0o640)
			require.NoError(t, os.Chown(filepath.Join(dir, "tls.key"), 0, group))
			write("ca.crt", p.k.w.ca.Bundles()[domain], 0o644)
		case v.ConfigMap != nil:
			m, err := p.k.client.CoreV1().ConfigMaps(p.spec.Namespace).Get(p.k.w.ctx, v.ConfigMap.Name, metav1.GetOptions{})
			require.NoError(t, err)
			for name, text := range m.Data {
				write(name, []byte(text), 0o644)
			}
		default:
			require.Fail(t, "a volume of an unknown kind", v.Name)
		}
	}
}

// argv is what a container runs: command and arguments with the Pod's values.
func (k *kubelet) argv(c *corev1.Container) []string {
	command := c.Command
	if len(command) == 0 {
		command = []string{images[c.Image]}
	}
	return append(slices.Clone(command), c.Args...)
}

// expand puts in what the downward API says.
func (p *running) expand(c *corev1.Container, s string) string {
	for _, env := range c.Env {
		if env.ValueFrom == nil || env.ValueFrom.FieldRef == nil {
			continue
		}
		value := map[string]string{
			"metadata.name": p.spec.Name, "metadata.namespace": p.spec.Namespace, "spec.serviceAccountName": p.spec.Spec.ServiceAccountName,
		}[env.ValueFrom.FieldRef.FieldPath]
		s = strings.ReplaceAll(s, "$("+env.Name+")", value)
	}
	return s
}

// contain mounts what a container has and runs the rest of its arguments as its
// user, with its capabilities and no way to more.
const contain = `set -e
mount -t tmpfs none /run
while [ "$1" != -- ]; do
	mkdir -p "$2"
	mount --bind "$1" "$2"
	[ "$3" = rw ] || mount -o remount,ro,bind "$2"
	shift 3
done
shift
cd "$1"
shift
exec setpriv --clear-groups --no-new-privs --pdeathsig=KILL "$@"`

// command is a process of a container, which has to be started in the Pod's
// namespace.
func (p *running) command(c *corev1.Container, argv []string) *exec.Cmd {
	args := []string{"--mount", "sh", "-c", contain, "sh"}
	for _, m := range c.VolumeMounts {
		mode := "rw"
		if m.ReadOnly {
			mode = "ro"
		}
		args = append(args, filepath.Join(p.dir, m.Name), m.MountPath, mode)
	}
	dir := c.WorkingDir
	if dir == "" {
		dir = "/"
	}
	user, security := strconv.FormatInt(*c.SecurityContext.RunAsUser, 10), c.SecurityContext
	bounding := "-all"
	for _, capability := range security.Capabilities.Add {
		bounding += ",+" + strings.ToLower(string(capability))
	}
	args = append(args, "--", dir, "--reuid="+user, "--regid="+user, "--inh-caps=-all", "--bounding-set="+bounding)
	for _, a := range argv {
		args = append(args, p.expand(c, a))
	}
	cmd := exec.CommandContext(p.k.w.ctx, "unshare", args...)
	cmd.Env = []string{"PATH=" + p.k.bin + ":/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// exec runs something in a container until it ends.
func (p *running) exec(c *corev1.Container, argv []string) (string, error) {
	var out strings.Builder
	cmd := p.command(c, argv)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := p.do(cmd.Start); err != nil {
		return "", err
	}
	err := cmd.Wait()
	return out.String(), err
}

// startSidecar starts Envoy, and waits for its startup probe.
func (p *running) startSidecar(t *testing.T, c *corev1.Container) {
	t.Helper()
	file := filepath.Join(p.dir, "envoy.log")
	log, err := os.Create(file)
	require.NoError(t, err)
	defer log.Close()
	// As container runtimes do, because Envoy opens /dev/stdout for its access log.
	require.NoError(t, log.Chown(int(*c.SecurityContext.RunAsUser), 0))
	p.sidecar = p.command(c, append(p.k.argv(c), "--log-level", "warning"))
	p.sidecar.Stdout, p.sidecar.Stderr = log, log
	require.NoError(t, p.do(p.sidecar.Start))
	go func() { // ends with Envoy
		_ = p.sidecar.Wait() // what it says is in its log
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.sidecar.Process.Kill() // an error means that it has ended
		<-p.ended
		if t.Failed() {
			text, _ := os.ReadFile(file)
			t.Logf("the log of the Envoy of %s/%s:\n%s", p.spec.Namespace, p.spec.Name, text)
		}
	})
	p.k.w.until(t, "the sidecar has started", func() error {
		select {
		case <-p.ended:
			return errors.New("it has ended")
		default:
		}
		out, err := p.exec(c, c.StartupProbe.Exec.Command)
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
}

// serve starts a part of the Pod's application.
func (p *running) serve(t *testing.T, port uint16, kind string) {
	t.Helper()
	addr := netip.AddrPortFrom(netip.IPv6Unspecified(), port)
	var app interface{ Stop() }
	require.NoError(t, p.do(func() (err error) {
		if kind == "http" {
			app, err = mesh.StartEcho(p.k.w.ctx, p.spec.Namespace+"/"+p.spec.Name, addr)
		} else {
			app, err = mesh.StartTCPEcho(p.k.w.ctx, p.spec.Name+"\n", addr)
		}
		return err
	}))
	t.Cleanup(app.Stop)
	p.apps = append(p.apps, app)
}

// tell writes the Pod's status.
func (p *running) tell(t *testing.T, phase corev1.PodPhase, ready bool) {
	t.Helper()
	pod, err := p.k.client.CoreV1().Pods(p.spec.Namespace).Get(p.k.w.ctx, p.spec.Name, metav1.GetOptions{})
	require.NoError(t, err)
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	pod.Status.Phase, pod.Status.PodIP, pod.Status.HostIP = phase, p.ip.String(), p.k.ip.String()
	pod.Status.PodIPs, pod.Status.HostIPs = []corev1.PodIP{{IP: pod.Status.PodIP}}, []corev1.HostIP{{IP: pod.Status.HostIP}}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
	_, err = p.k.client.CoreV1().Pods(p.spec.Namespace).UpdateStatus(p.k.w.ctx, pod, metav1.UpdateOptions{})
	require.NoError(t, err)
}

// probe asks once what the kubelet would.
func (p *running) probe(probe *corev1.Probe) error {
	if probe == nil {
		return nil
	}
	status, err := p.ask(p.k.ip, uint16(probe.HTTPGet.Port.IntVal), probe.HTTPGet.Path)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d", status)
	}
	return err
}

// ask sends a GET without TLS from an address of the node.
func (p *running) ask(source netip.Addr, port uint16, path string) (int, error) {
	a, err := p.k.w.request(func(ctx context.Context) (net.Conn, error) {
		return from(source)(ctx, netip.AddrPortFrom(p.ip, port))
	}, false, "pod", path)
	return a.status, err
}

// end is what happens to a Pod that is deleted: its hooks, the application's end,
// then the sidecar's. The Pod is gone from the API server afterwards.
func (p *running) end(t *testing.T) {
	t.Helper()
	for i := range p.spec.Spec.InitContainers {
		if c := &p.spec.Spec.InitContainers[i]; c.Lifecycle != nil {
			out, err := p.exec(c, c.Lifecycle.PreStop.Exec.Command)
			require.NoError(t, err, "%s", out)
		}
	}
	for _, app := range p.apps {
		app.Stop()
	}
	require.NoError(t, p.sidecar.Process.Signal(syscall.SIGTERM))
	select {
	case <-p.ended:
	case <-p.k.w.ctx.Done():
		require.Fail(t, "Envoy goes on after SIGTERM")
	}
	now := int64(0)
	require.NoError(t, p.k.client.CoreV1().Pods(p.spec.Namespace).Delete(p.k.w.ctx, p.spec.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}))
}

// get sends a request of the Pod's application to a host; where it is sent is
// nobody's address.
func (p *running) get(host, path string) (answer, error) {
	return p.k.w.request(func(ctx context.Context) (net.Conn, error) {
		return p.dial(ctx, netip.AddrPortFrom(both[0].anywhere, 80))
	}, false, host, path)
}

// stat is a counter of the Pod's Envoy.
func (p *running) stat(t *testing.T, name string) string {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return p.dial(ctx, netip.MustParseAddrPort("127.0.0.1:15000"))
	}}
	req, err := http.NewRequestWithContext(p.k.w.ctx, http.MethodGet, "http://envoy/stats", http.NoBody)
	require.NoError(t, err)
	resp, err := transport.RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	n, ok := mesh.ParseStats(string(text))[name]
	require.True(t, ok, name)
	return strconv.FormatUint(n, 10)
}

// workload is whom the Pod's certificate names.
func (p *running) workload() string {
	return identity.Workload{TrustDomain: p.k.domain[p.spec.Namespace], Namespace: p.spec.Namespace, ServiceAccount: p.spec.Spec.ServiceAccountName}.String()
}
