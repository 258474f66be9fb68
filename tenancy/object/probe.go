package object

import (
	"net/netip"
	"net/url"
	"slices"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"bailiwick.dev/bailiwick/tenancy"
)

const (
	maxProbes    = 64
	maxProbePath = 1024
)

// probesOf reads what the kubelet asks of a Pod over HTTP and gRPC, and from
// where. What is left out is refused by the Pod's proxy, which is no error of
// the Pod: TLS, whose path nobody can tell, paths over the bound, more than so
// many. TCP probes need nothing, because the proxy's port is open.
func probesOf(out *tenancy.Pod, in *corev1.Pod, opts Options) {
	for i := range in.Spec.InitContainers {
		if c := &in.Spec.InitContainers[i]; value(c.RestartPolicy, "") == corev1.ContainerRestartPolicyAlways {
			containerProbes(out, c)
		}
	}
	for i := range in.Spec.Containers {
		containerProbes(out, &in.Spec.Containers[i])
	}
	slices.SortFunc(out.Probes, tenancy.Probe.Compare)
	out.Probes = slices.Compact(out.Probes)
	if len(out.Probes) > maxProbes {
		out.Probes = out.Probes[:maxProbes]
	}
	if len(out.Probes) == 0 {
		return
	}
	hosts := []string{in.Status.HostIP}
	for _, ip := range in.Status.HostIPs {
		hosts = append(hosts, ip.IP)
	}
	ignored := &problems{}
	for _, s := range hosts[:min(len(hosts), maxAddresses)] {
		if ip, ok := address(ignored, nil, s, opts); ok {
			out.HostIPs = append(out.HostIPs, ip)
		}
	}
	slices.SortFunc(out.HostIPs, netip.Addr.Compare)
	out.HostIPs = slices.Compact(out.HostIPs)
}

func containerProbes(out *tenancy.Pod, c *corev1.Container) {
	for _, p := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
		if p == nil {
			continue
		}
		httpProbe(out, p.HTTPGet, c)
		if p.GRPC != nil && p.GRPC.Port > 0 && p.GRPC.Port <= 65535 {
			out.Probes = append(out.Probes, tenancy.Probe{Port: uint16(p.GRPC.Port), GRPC: true})
		}
	}
	if c.Lifecycle == nil {
		return
	}
	for _, h := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
		if h != nil {
			httpProbe(out, h.HTTPGet, c)
		}
	}
}

func httpProbe(out *tenancy.Pod, get *corev1.HTTPGetAction, c *corev1.Container) {
	// A host of its own is asked elsewhere, not at this Pod.
	if get == nil || get.Host != "" || get.Scheme == corev1.URISchemeHTTPS {
		return
	}
	port := get.Port.IntVal
	if get.Port.Type == intstr.String {
		port = 0
		for _, p := range c.Ports {
			if p.Name == get.Port.StrVal {
				port = p.ContainerPort
			}
		}
	}
	path := requestTarget(get.Path)
	if port > 0 && port <= 65535 && len(path) <= maxProbePath && utf8.ValidString(path) {
		out.Probes = append(out.Probes, tenancy.Probe{Port: uint16(port), Path: path})
	}
}

// requestTarget is what the kubelet asks for a probe's path.
func requestTarget(path string) string {
	u, err := url.Parse(path)
	if err != nil {
		u = &url.URL{Path: path}
	}
	u.Scheme, u.Host, u.User, u.Opaque = "http", "pod", nil, ""
	again, err := url.Parse(u.String())
	if err != nil {
		return "/"
	}
	return again.RequestURI()
}
