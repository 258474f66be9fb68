package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The same mesh as files, as a user has them: a file per service with its Pods,
// and one with its slice.

// writeMesh writes all of it below dir.
func (s shape) writeMesh(dir string) error {
	for t := range s.Tenants {
		text := fmt.Sprintf(`apiVersion: bailiwick.dev/v1alpha1
kind: Tenant
metadata: {name: %s}
spec: {trustDomain: %s}
---
apiVersion: v1
kind: Namespace
metadata: {name: %s, labels: {bailiwick.dev/tenant: %s}}
`, tenantName(t), trustDomain, namespaceOf(t), tenantName(t))
		if err := writeObject(filepath.Join(dir, "platform", tenantName(t)+".yaml"), text); err != nil {
			return err
		}
		if err := writePolicy(dir, t, true); err != nil {
			return err
		}
		for svc := range s.Services {
			if err := writeObject(sliceFile(dir, t, svc), s.sliceText(t, svc, true)); err != nil {
				return err
			}
			if err := writeObject(serviceFile(dir, t, svc), s.serviceText(t, svc)); err != nil {
				return err
			}
		}
	}
	return nil
}

// writePolicy writes or removes a tenant's policy.
func writePolicy(dir string, tenant int, there bool) error {
	file := filepath.Join(tenantDir(dir, tenant), "policy.yaml")
	if !there {
		return removeObject(file)
	}
	return writeObject(file, fmt.Sprintf(`apiVersion: bailiwick.dev/v1alpha1
kind: AccessPolicy
metadata: {name: within, namespace: %[1]s}
spec: {selector: {}, action: Allow, rules: [{from: [{namespace: %[1]s}]}]}
`, namespaceOf(tenant)))
}

func tenantDir(dir string, tenant int) string {
	return filepath.Join(dir, "tenants", tenantName(tenant))
}

func serviceFile(dir string, tenant, service int) string {
	return filepath.Join(tenantDir(dir, tenant), serviceName(service)+".yaml")
}

func sliceFile(dir string, tenant, service int) string {
	return filepath.Join(tenantDir(dir, tenant), serviceName(service)+"-endpoints.yaml")
}

// writeObject puts a file in place, whole.
func writeObject(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write objects: %w", err)
	}
	// What begins with a dot is no object.
	next := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := os.WriteFile(next, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write objects: %w", err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("write objects: %w", err)
	}
	return nil
}

func (s shape) serviceText(tenant, service int) string {
	var b strings.Builder
	ns, name := namespaceOf(tenant), serviceName(service)
	fmt.Fprintf(&b, `apiVersion: v1
kind: Service
metadata: {name: %s, namespace: %s}
spec:
  clusterIP: %[3]s
  clusterIPs: [%[3]s]
  ports: [{name: http, port: %d}]
`, name, ns, s.virtualIP(tenant, service), servicePort)
	for e := range s.Endpoints {
		fmt.Fprintf(&b, `---
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s, labels: {app: %s}}
spec: {serviceAccountName: %[3]s, containers: [{name: c}]}
status: {phase: Running, podIP: %[4]s, podIPs: [{ip: %[4]s}]}
`, podName(service, e), ns, name, s.address(tenant, service, e))
	}
	return b.String()
}

func (s shape) sliceText(tenant, service int, lastReady bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s, namespace: %[2]s, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
ports: [{name: http, port: %[3]d}]
endpoints:
`, serviceName(service), namespaceOf(tenant), podPort)
	for e := range s.Endpoints {
		ready := lastReady || e < s.Endpoints-1
		fmt.Fprintf(&b, "- {addresses: [%s], conditions: {ready: %t}, targetRef: {kind: Pod, name: %s}}\n",
			s.address(tenant, service, e), ready, podName(service, e))
	}
	return b.String()
}
