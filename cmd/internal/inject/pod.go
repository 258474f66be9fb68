package inject

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// prefix of the names of everything that is put into a Pod.
const prefix = "bailiwick-"

// typedPod is what is read of a template.
type typedPod struct {
	Metadata metav1.ObjectMeta `json:"metadata"`
	Spec     corev1.PodSpec    `json:"spec"`
}

// injectPod changes a template in place, and reports whether it did.
func injectPod(pod tree, c Config) (bool, error) {
	stripped := strip(pod)
	raw, err := json.Marshal(pod)
	if err != nil {
		return false, fmt.Errorf("encode: %w", err)
	}
	var typed typedPod
	if err := json.Unmarshal(raw, &typed); err != nil {
		return false, fmt.Errorf("spec is not a Pod's: %w", err)
	}
	switch choice := typed.Metadata.Annotations[OptOut]; choice {
	case "false":
		return stripped, nil
	case "", "true":
	default:
		return false, fmt.Errorf("metadata.annotations[%s]: %q is neither true nor false", OptOut, choice)
	}
	exclude, err := readExclusions(typed.Metadata.Annotations)
	if err := errors.Join(err, check(&typed.Spec, exclude.inbound)); err != nil {
		return false, err
	}
	if c, err = c.sized(typed.Metadata.Annotations); err != nil {
		return false, err
	}
	spec := at(pod, "spec")
	for field, ours := range map[string][]any{
		"initContainers": untyped(c.containers(exclude)...), "volumes": untyped(c.volumes()...),
	} {
		theirs, _ := spec[field].([]any)
		spec[field] = append(ours, theirs...)
	}
	return true, nil
}

// strip takes out what is ours.
func strip(pod tree) bool {
	spec := at(pod, "spec")
	changed := false
	for _, field := range []string{"initContainers", "volumes"} {
		list, ok := spec[field].([]any)
		if !ok {
			continue
		}
		kept := slices.DeleteFunc(slices.Clone(list), func(item any) bool {
			one, _ := item.(tree)
			name, _ := one["name"].(string)
			return strings.HasPrefix(name, prefix)
		})
		if len(kept) == len(list) {
			continue
		}
		changed = true
		if spec[field] = kept; len(kept) == 0 {
			delete(spec, field)
		}
	}
	return changed
}

// untyped turns API types into trees, without the fields that are empty.
func untyped[T any](list ...T) []any {
	out := make([]any, len(list))
	for i, one := range list {
		raw, err := json.Marshal(one)
		if err == nil {
			out[i], err = parse(raw)
		}
		if err != nil { // API types that were made here always encode
			panic(err)
		}
	}
	return out
}

// check reports what would not work in the Pod.
func check(spec *corev1.PodSpec, excluded []uint16) error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if spec.HostNetwork {
		fail("spec.hostNetwork: the host's network cannot be captured; annotate the template with %s: \"false\"", OptOut)
	}
	if spec.OS != nil && spec.OS.Name == corev1.Windows {
		fail("spec.os.name: there is no capture on Windows")
	}
	if len(spec.Containers) == 0 {
		fail("spec.containers: required")
	}
	if s := spec.SecurityContext; s != nil && s.RunAsUser != nil && *s.RunAsUser == UID {
		fail("spec.securityContext.runAsUser: %d is Envoy's, its traffic would escape", UID)
	}
	each := func(field string, list []corev1.Container) {
		for i := range list {
			for _, err := range checkContainer(&list[i], excluded) {
				fail("spec.%s[%d] (%s).%w", field, i, list[i].Name, err)
			}
		}
	}
	each("initContainers", spec.InitContainers)
	each("containers", spec.Containers)
	return errors.Join(errs...)
}

func checkContainer(c *corev1.Container, excluded []uint16) []error {
	var errs []error
	if strings.HasPrefix(c.Name, prefix) {
		errs = append(errs, fmt.Errorf("name: names that begin with %q are the injector's", prefix))
	}
	if s := c.SecurityContext; s != nil && s.RunAsUser != nil && *s.RunAsUser == UID {
		errs = append(errs, fmt.Errorf("securityContext.runAsUser: %d is Envoy's, its traffic would escape", UID))
	}
	for i, p := range c.Ports {
		if slices.Contains([]int32{adminPort, outboundPort, inboundPort}, p.ContainerPort) {
			errs = append(errs, fmt.Errorf("ports[%d].containerPort: %d is Envoy's", i, p.ContainerPort))
		}
	}
	for _, probe := range []struct {
		field string
		*corev1.Probe
	}{{"startupProbe", c.StartupProbe}, {"livenessProbe", c.LivenessProbe}, {"readinessProbe", c.ReadinessProbe}} {
		if probe.Probe != nil {
			errs = append(errs, checkHTTP(probe.field, probe.HTTPGet, c, excluded)...)
		}
	}
	if l := c.Lifecycle; l != nil {
		for field, hook := range map[string]*corev1.LifecycleHandler{"lifecycle.postStart": l.PostStart, "lifecycle.preStop": l.PreStop} {
			if hook != nil {
				errs = append(errs, checkHTTP(field, hook.HTTPGet, c, excluded)...)
			}
		}
	}
	return errs
}

// checkHTTP refuses what the kubelet asks over TLS: Envoy cannot tell the path
// that is asked for, and would have to let anything through.
func checkHTTP(field string, get *corev1.HTTPGetAction, c *corev1.Container, excluded []uint16) []error {
	if get == nil || get.Host != "" || get.Scheme != corev1.URISchemeHTTPS {
		return nil
	}
	if port := portOf(get.Port, c); slices.Contains(excluded, port) {
		return nil
	}
	return []error{fmt.Errorf("%s.httpGet.scheme: HTTPS cannot be told from other TLS: use exec or HTTP, or name the port in annotation %s",
		field, ExcludeInboundPorts)}
}

// portOf resolves a port by number or name; 0 if there is none.
func portOf(port intstr.IntOrString, c *corev1.Container) uint16 {
	if port.Type == intstr.Int {
		return uint16(port.IntVal)
	}
	for _, p := range c.Ports {
		if p.Name == port.StrVal {
			return uint16(p.ContainerPort)
		}
	}
	return 0
}
