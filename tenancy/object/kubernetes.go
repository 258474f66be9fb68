package object

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// What an object may hold: the bounds of the API server where it has any.
const (
	maxServicePorts      = 1000
	maxSliceEndpoints    = 1000
	maxSlicePorts        = 1000
	maxEndpointAddresses = 100
	maxHints             = 8
	maxAddresses         = 16
	maxUID               = 128
)

// metaOf reads what the Model wants of an object's metadata.
func metaOf(p *problems, obj metav1.Object) tenancy.Meta {
	var m tenancy.Meta
	if t := obj.GetCreationTimestamp(); !t.IsZero() {
		m.Created = t.Unix()
	}
	uid := string(obj.GetUID())
	if len(uid) > maxUID || !utf8.ValidString(uid) {
		p.add(field.NewPath("metadata", "uid"), "longer than %d bytes or invalid UTF-8", maxUID)
		return m
	}
	m.UID = uid
	return m
}

// labelsOf reads labels that a selector or we ourselves look at.
func labelsOf(p *problems, path *field.Path, in map[string]string) map[string]string {
	for _, key := range sortedKeys(in) {
		if errs := content.IsLabelKey(key); len(errs) > 0 {
			p.add(child(path, key), "label key: %s", errs[0])
		} else if errs := content.IsLabelValue(in[key]); len(errs) > 0 {
			p.add(child(path, key), "%s: %s", quote(in[key]), errs[0])
		}
	}
	if len(in) == 0 {
		return nil
	}
	out := make(map[string]string, len(in))
	for k, v := range in {
		out[k] = v
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// FromNamespace reads a Namespace; nil if there are errors.
func FromNamespace(in *corev1.Namespace) (*tenancy.Namespace, []FieldError) {
	p := &problems{}
	out := &tenancy.Namespace{Meta: metaOf(p, in)}
	if tenant, ok := in.Labels[v1alpha1.TenantLabel]; ok {
		at := field.NewPath("metadata", "labels").Key(v1alpha1.TenantLabel)
		if errs := validation.IsDNS1123Label(tenant); len(errs) > 0 {
			p.add(at, "%s: %s", quote(tenant), errs[0])
		}
		out.Tenant = tenant
	}
	for _, key := range sortedKeys(in.Labels) {
		if !strings.HasPrefix(key, guardedPrefix) || key == v1alpha1.TenantLabel {
			continue
		}
		if errs := append(content.IsLabelKey(key), content.IsLabelValue(in.Labels[key])...); len(errs) > 0 {
			p.add(field.NewPath("metadata", "labels").Key(key), "%s", errs[0])
			continue
		}
		if out.Labels == nil {
			out.Labels = make(map[string]string)
		}
		out.Labels[key] = in.Labels[key]
	}
	return result(out, p)
}

// result is out if there are no problems, else nil and the problems.
func result[T any](out *T, p *problems) (*T, []FieldError) {
	if errs := p.errors(); len(errs) > 0 {
		return nil, errs
	}
	return out, nil
}

// FromService reads a Service; nil if there are errors. External names and
// external IPs are errors: they would lead proxies where no workload of the
// mesh is. Ports of UDP and SCTP are left out.
func FromService(in *corev1.Service, opts Options) (*tenancy.Service, []FieldError) {
	p := &problems{}
	spec := field.NewPath("spec")
	out := &tenancy.Service{Meta: metaOf(p, in), PublishNotReady: in.Spec.PublishNotReadyAddresses}
	switch in.Spec.Type {
	case "", corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
	case corev1.ServiceTypeExternalName:
		p.add(spec.Child("type"), "ExternalName services are refused: they name no workload of the mesh")
	default:
		p.add(spec.Child("type"), "%s is none of ClusterIP, NodePort, LoadBalancer", quote(string(in.Spec.Type)))
	}
	if in.Spec.ExternalName != "" && in.Spec.Type != corev1.ServiceTypeExternalName {
		p.add(spec.Child("externalName"), "external names are refused: they name no workload of the mesh")
	}
	if len(in.Spec.ExternalIPs) > 0 {
		p.add(spec.Child("externalIPs"), "external IPs are refused: anybody could claim anybody's address")
	}
	out.ClusterIPs = clusterIPs(p, spec, &in.Spec, opts)
	out.Traffic = traffic(p, spec.Child("trafficDistribution"), in.Spec.TrafficDistribution)
	out.Ports = servicePorts(p, spec.Child("ports"), in.Spec.Ports)
	return result(out, p)
}

// traffic reads whom a service's clients prefer.
func traffic(p *problems, at *field.Path, in *string) tenancy.Traffic {
	switch value(in, "") {
	case "":
		return tenancy.AnyEndpoint
	case corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone:
		return tenancy.SameZone
	case corev1.ServiceTrafficDistributionPreferSameNode:
		return tenancy.SameNode
	}
	p.add(at, "%s is none of PreferClose, PreferSameZone, PreferSameNode", quote(*in))
	return tenancy.AnyEndpoint
}

func clusterIPs(p *problems, spec *field.Path, in *corev1.ServiceSpec, opts Options) []netip.Addr {
	list, at := in.ClusterIPs, func(i int) *field.Path { return spec.Child("clusterIPs").Index(i) }
	switch {
	case len(list) == 0 && in.ClusterIP != "":
		list, at = []string{in.ClusterIP}, func(int) *field.Path { return spec.Child("clusterIP") }
	case len(list) > 0 && in.ClusterIP != "" && in.ClusterIP != list[0]:
		p.add(spec.Child("clusterIP"), "%s is not the first of clusterIPs", quote(in.ClusterIP))
	}
	if len(list) == 1 && list[0] == corev1.ClusterIPNone {
		return nil
	}
	if len(list) > maxAddresses {
		p.add(spec.Child("clusterIPs"), "more than %d", maxAddresses)
		return nil
	}
	var out []netip.Addr
	for i, s := range list {
		if ip, ok := address(p, at(i), s, opts); ok {
			if slices.Contains(out, ip) {
				p.add(at(i), "%s is given twice", ip)
			}
			out = append(out, ip)
		}
	}
	return out
}

func servicePorts(p *problems, path *field.Path, in []corev1.ServicePort) []tenancy.ServicePort {
	if len(in) > maxServicePorts {
		p.add(path, "more than %d", maxServicePorts)
		return nil
	}
	var out []tenancy.ServicePort
	names := make(map[string]bool)
	numbers := make(map[string]bool)
	for i, port := range in {
		at := path.Index(i)
		portName(p, at.Child("name"), port.Name, len(in) > 1, names)
		number, ok := portNumber(p, at.Child("port"), port.Port)
		tcp := isTCP(p, at.Child("protocol"), port.Protocol)
		if !ok {
			continue
		}
		key := fmt.Sprint(cmp.Or(port.Protocol, corev1.ProtocolTCP), number)
		if numbers[key] {
			p.add(at.Child("port"), "%d is given twice", number)
		}
		numbers[key] = true
		if tcp {
			out = append(out, tenancy.ServicePort{Name: port.Name, Port: number, Protocol: ProtocolOf(port.Name, port.AppProtocol)})
		}
	}
	slices.SortFunc(out, func(a, b tenancy.ServicePort) int { return cmp.Compare(a.Port, b.Port) })
	return out
}

// portName checks a port's name; names are unique within seen.
func portName(p *problems, at *field.Path, name string, required bool, seen map[string]bool) {
	switch errs := validation.IsDNS1123Label(name); {
	case name == "" && required:
		p.add(at, "required, because there is more than one port")
	case name == "":
	case len(errs) > 0:
		p.add(at, "%s: %s", quote(name), errs[0])
	case seen[name]:
		p.add(at, "%s is given twice", quote(name))
	}
	seen[name] = true
}

func portNumber(p *problems, at *field.Path, n int32) (uint16, bool) {
	if n < 1 || n > 65535 {
		p.add(at, "%d is no port number: 1 to 65535", n)
		return 0, false
	}
	return uint16(n), true
}

// isTCP reports whether a port is one that we carry.
func isTCP(p *problems, at *field.Path, protocol corev1.Protocol) bool {
	switch protocol {
	case "", corev1.ProtocolTCP:
		return true
	case corev1.ProtocolUDP, corev1.ProtocolSCTP:
		return false
	}
	p.add(at, "%s is none of TCP, UDP, SCTP", quote(string(protocol)))
	return false
}

// address reads an address where a workload may be. Others than unicast ones
// of some network are refused: they would lead a proxy to its own host.
func address(p *problems, at *field.Path, s string, opts Options) (netip.Addr, bool) {
	ip, err := netip.ParseAddr(s)
	switch {
	case err != nil || ip.Zone() != "":
		p.add(at, "%s is no IP address", quote(s))
	case ip.Is4In6():
		p.add(at, "%s: write the IPv4 address", quote(s))
	case ip.IsUnspecified():
		p.add(at, "%s is refused: unspecified address", ip)
	case ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		p.add(at, "%s is refused: multicast or broadcast address", ip)
	case ip.IsLinkLocalUnicast():
		p.add(at, "%s is refused: link-local address", ip)
	case ip.IsLoopback() && !opts.AllowLoopback:
		p.add(at, "%s is refused: loopback address", ip)
	default:
		return ip, true
	}
	return netip.Addr{}, false
}

// FromPod reads a Pod; nil if there are errors.
func FromPod(in *corev1.Pod, opts Options) (*tenancy.Pod, []FieldError) {
	p := &problems{}
	spec, status := field.NewPath("spec"), field.NewPath("status")
	out := &tenancy.Pod{
		Meta:           metaOf(p, in),
		ServiceAccount: cmp.Or(in.Spec.ServiceAccountName, in.Spec.DeprecatedServiceAccount, "default"),
		Labels:         labelsOf(p, field.NewPath("metadata", "labels"), in.Labels),
		HostNetwork:    in.Spec.HostNetwork,
	}
	if errs := validation.IsDNS1123Subdomain(out.ServiceAccount); len(errs) > 0 {
		p.add(spec.Child("serviceAccountName"), "%s: %s", quote(out.ServiceAccount), errs[0])
	}
	switch in.Status.Phase {
	case "", corev1.PodPending, corev1.PodRunning, corev1.PodUnknown:
	case corev1.PodSucceeded, corev1.PodFailed:
		out.Finished = true
	default:
		p.add(status.Child("phase"), "%s is none of Pending, Running, Succeeded, Failed, Unknown", quote(string(in.Status.Phase)))
	}
	probesOf(out, in, opts)
	if len(in.Status.PodIPs) > maxAddresses {
		p.add(status.Child("podIPs"), "more than %d", maxAddresses)
		return result(out, p)
	}
	add := func(at *field.Path, s string) {
		if ip, ok := address(p, at, s, opts); ok && !slices.Contains(out.IPs, ip) {
			out.IPs = append(out.IPs, ip)
		}
	}
	if in.Status.PodIP != "" {
		add(status.Child("podIP"), in.Status.PodIP)
	}
	for i, ip := range in.Status.PodIPs {
		add(status.Child("podIPs").Index(i).Child("ip"), ip.IP)
	}
	return result(out, p)
}

// value is what p points to, or otherwise.
func value[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}
