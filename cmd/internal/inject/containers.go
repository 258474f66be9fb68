package inject

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"bailiwick.dev/bailiwick/cmd/internal/capture"
	"bailiwick.dev/bailiwick/xds/bootstrap"
)

// Envoy's ports in a Pod.
const (
	adminPort    = 15000
	outboundPort = 15001
	inboundPort  = 15006
)

// Where things are in our containers.
const (
	envoyDir  = "/var/run/bailiwick/envoy"
	svidDir   = "/var/run/bailiwick/svid"
	bundleDir = "/var/run/bailiwick/bundle"
)

// exclusions are what a template's annotations leave uncaptured, and how they
// say it.
type exclusions struct {
	inbound []uint16
	args    []string
}

func readExclusions(annotations map[string]string) (exclusions, error) {
	var out exclusions
	var errs []error
	rules := capture.Default()
	for _, list := range []struct {
		annotation, flag string
		add              func(string) error
	}{
		{ExcludeInboundPorts, "--exclude-inbound-ports", func(s string) error { return addPort(&out.inbound, s) }},
		{ExcludeOutboundPorts, "--exclude-outbound-ports", func(s string) error { return addPort(&rules.ExcludeOutboundPorts, s) }},
		{ExcludeOutboundCIDRs, "--exclude-outbound-cidrs", func(s string) error {
			cidr, err := netip.ParsePrefix(s)
			rules.ExcludeOutboundCIDRs = append(rules.ExcludeOutboundCIDRs, cidr)
			return err
		}},
	} {
		value, ok := annotations[list.annotation]
		if !ok || value == "" {
			continue
		}
		var items []string
		for item := range strings.SplitSeq(value, ",") {
			item = strings.TrimSpace(item)
			items = append(items, item)
			if err := list.add(item); err != nil {
				errs = append(errs, fmt.Errorf("metadata.annotations[%s]: %w", list.annotation, err))
			}
		}
		out.args = append(out.args, list.flag+"="+strings.Join(items, ","))
	}
	if len(errs) == 0 {
		if err := rules.Check(); err != nil {
			errs = append(errs, fmt.Errorf("metadata.annotations: %w", err))
		}
	}
	return out, errors.Join(errs...)
}

func addPort(to *[]uint16, s string) error {
	port, err := strconv.ParseUint(s, 10, 16)
	if err != nil || port == 0 {
		return fmt.Errorf("%q is not a port", s)
	}
	*to = append(*to, uint16(port))
	return nil
}

// sized is c with what a template's annotations say of resources.
func (c Config) sized(annotations map[string]string) (Config, error) {
	var errs []error
	for _, size := range []struct {
		annotation string
		to         *resource.Quantity
		min        int64
	}{{ProxyCPU, &c.CPU, 1}, {ProxyMemory, &c.Memory, minMemory}} {
		text, ok := annotations[size.annotation]
		if !ok {
			continue
		}
		q, err := resource.ParseQuantity(text)
		if err != nil || q.Value() < size.min {
			errs = append(errs, fmt.Errorf("metadata.annotations[%s]: %q is not a quantity, or too small", size.annotation, text))
			continue
		}
		*size.to = q
	}
	return c, errors.Join(errs...)
}

// containers in the order in which the kubelet starts them.
func (c Config) containers(exclude exclusions) []corev1.Container {
	return []corev1.Container{c.iptables(exclude), c.bootstrap(), c.envoy()}
}

func (c Config) iptables(exclude exclusions) corev1.Container {
	args := append([]string{"iptables", "--apply"}, exclude.args...)
	if !c.IPv6 {
		args = append(args, "--ipv6=false")
	}
	security := restricted(0)
	security.RunAsNonRoot = new(false)
	security.Capabilities.Add = []corev1.Capability{"NET_ADMIN", "NET_RAW"}
	return corev1.Container{
		Name: prefix + "iptables", Image: c.InitImage, Args: args,
		Resources: small(), SecurityContext: security,
		VolumeMounts: []corev1.VolumeMount{{Name: prefix + "lock", MountPath: "/run"}},
	}
}

func (c Config) bootstrap() corev1.Container {
	args := []string{
		"bootstrap",
		"--spiffe-id=spiffe://" + c.TrustDomain.Name() + "/ns/$(POD_NAMESPACE)/sa/$(POD_SERVICE_ACCOUNT)",
		"--node-id=$(POD_NAMESPACE)/$(POD_NAME)",
		"--xds-address=" + strings.Join(c.Servers, ","),
		"--server-id=" + c.ServerID.String(),
		"--admin-address=127.0.0.1:" + strconv.Itoa(adminPort),
		"--admin-drain",
		"--max-heap-mib=" + strconv.FormatInt(c.Memory.Value()>>20*85/100, 10),
		"--out=" + envoyDir,
	}
	mounts := []corev1.VolumeMount{{Name: prefix + "envoy", MountPath: envoyDir}}
	if c.Driver == SPIRE {
		args = append(args, "--sds=unix:"+path.Join(svidDir, c.SocketName))
	} else {
		bundle := path.Join(svidDir, "ca.crt")
		if _, key, ok := strings.Cut(c.BundleConfigMap, "/"); ok {
			bundle = path.Join(bundleDir, key)
		}
		args = append(args, "--cert="+path.Join(svidDir, "tls.crt"), "--key="+path.Join(svidDir, "tls.key"), "--trust-bundle="+bundle)
		// So that it can tell whether they are there.
		mounts = append(mounts, c.identityMounts()...)
	}
	return corev1.Container{
		Name: prefix + "bootstrap", Image: c.ProxyImage, Command: []string{"bailiwick"}, Args: args,
		Env:       []corev1.EnvVar{field("POD_NAME", "metadata.name"), field("POD_NAMESPACE", "metadata.namespace"), field("POD_SERVICE_ACCOUNT", "spec.serviceAccountName")},
		Resources: small(), SecurityContext: restricted(UID), VolumeMounts: mounts,
	}
}

// envoy starts before and ends after everything else of the Pod. Its preStop hook
// runs when the Pod's end begins, not at Envoy's own turn.
func (c Config) envoy() corev1.Container {
	process := bootstrap.Process{Concurrency: c.Concurrency, DrainTime: c.DrainTime}
	admin := "--admin-address=127.0.0.1:" + strconv.Itoa(adminPort)
	return corev1.Container{
		Name: prefix + "envoy", Image: c.ProxyImage, Command: []string{"envoy"}, Args: process.Args(),
		WorkingDir:    envoyDir,
		RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
		StartupProbe: &corev1.Probe{
			ProbeHandler:  exec("bailiwick", "sidecar", "ready", admin),
			PeriodSeconds: 1, TimeoutSeconds: 5, FailureThreshold: 600,
		},
		Lifecycle: &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{
			Exec: exec("bailiwick", "sidecar", "drain", admin, "--wait="+c.DrainWait.String()).Exec,
		}},
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: c.CPU, corev1.ResourceMemory: c.Memory},
			Limits:   corev1.ResourceList{corev1.ResourceMemory: c.Memory},
		},
		SecurityContext: restricted(UID),
		VolumeMounts:    append([]corev1.VolumeMount{{Name: prefix + "envoy", MountPath: envoyDir, ReadOnly: true}}, c.identityMounts()...),
	}
}

func (c Config) identityMounts() []corev1.VolumeMount {
	mounts := []corev1.VolumeMount{{Name: prefix + "svid", MountPath: svidDir, ReadOnly: true}}
	if c.BundleConfigMap != "" {
		mounts = append(mounts, corev1.VolumeMount{Name: prefix + "bundle", MountPath: bundleDir, ReadOnly: true})
	}
	return mounts
}

func (c Config) volumes() []corev1.Volume {
	empty := corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: new(resource.MustParse("1Mi"))}}
	svid := &corev1.CSIVolumeSource{Driver: c.Driver, ReadOnly: new(true)}
	if c.Driver == CertManager {
		svid.VolumeAttributes = map[string]string{CertManager + "/fs-group": strconv.Itoa(UID)}
	}
	volumes := []corev1.Volume{
		{Name: prefix + "lock", VolumeSource: empty},
		{Name: prefix + "envoy", VolumeSource: empty},
		{Name: prefix + "svid", VolumeSource: corev1.VolumeSource{CSI: svid}},
	}
	if name, _, ok := strings.Cut(c.BundleConfigMap, "/"); ok {
		volumes = append(volumes, corev1.Volume{Name: prefix + "bundle", VolumeSource: corev1.VolumeSource{
			ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}},
		}})
	}
	return volumes
}

// restricted is all that a container may give up.
func restricted(uid int64) *corev1.SecurityContext {
	return &corev1.SecurityContext{
		RunAsUser: new(uid), RunAsGroup: new(uid), RunAsNonRoot: new(true),
		AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// small is what a step of a moment needs.
func small() corev1.ResourceRequirements {
	return corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("32Mi")},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("128Mi")},
	}
}

func field(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}}
}

func exec(command ...string) corev1.ProbeHandler {
	return corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: command}}
}
