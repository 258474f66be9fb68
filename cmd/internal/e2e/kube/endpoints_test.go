package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

// assigned are the endpoints of a cluster, those that drain with a mark.
func assigned(t *testing.T, p *proxy, cluster string) []string {
	t.Helper()
	entry, ok := p.State(resourcev3.EndpointType)[cluster]
	if !ok {
		return []string{"(none)"}
	}
	m, err := entry.Decode()
	require.NoError(t, err)
	out := []string{}
	for _, l := range m.(*endpointv3.ClusterLoadAssignment).GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			a := e.GetEndpoint().GetAddress().GetSocketAddress()
			text := fmt.Sprintf("%s:%d", a.GetAddress(), a.GetPortValue())
			if e.GetHealthStatus() == corev3.HealthStatus_DRAINING {
				text += " draining"
			}
			out = append(out, text)
		}
	}
	slices.Sort(out)
	return out
}

// TestEndpoints: what an API server says of endpoints means here what it means in
// Kubernetes, and each change of it arrives.
func TestEndpoints(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	s := demo(ctx, t)
	server, _ := s.through(ctx, t)
	p := connect(ctx, t, s.ca, server, s.pod(t, "acme-shop", "orders"))
	const ns = "acme-shop"
	apply := func(texts ...string) {
		t.Helper()
		for _, text := range texts {
			objects, err := kubetest.Parse([]byte(text))
			require.NoError(t, err)
			require.NoError(t, s.cluster.Apply(ctx, kubetest.Admin, objects...))
			t.Cleanup(func() { _ = s.cluster.Delete(context.Background(), kubetest.Admin, objects...) }) // the API server ends anyway
		}
	}
	svc := func(name, more string) string {
		return fmt.Sprintf("{apiVersion: v1, kind: Service, metadata: {name: %s, namespace: %s}, spec: {clusterIP: None, ports: [{name: http, port: 80, targetPort: web}]%s}}", name, ns, more)
	}
	running := func(name, ip, phase string) string {
		ips := strings.Split(ip, ",")
		return fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: %s}, spec: {serviceAccountName: default, containers: [{name: app, image: app}]}, status: {phase: %s, podIP: \"%s\", podIPs: [{ip: \"%s\"}]}}",
			name, ns, phase, ips[0], strings.Join(ips, "\"}, {ip: \""))
	}
	slice := func(name, service, family, port string, endpoints ...string) string {
		return fmt.Sprintf("{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: %s, namespace: %s, labels: {kubernetes.io/service-name: %s}}, addressType: %s, ports: [{name: http, port: %s}], endpoints: [%s]}",
			name, ns, service, family, port, strings.Join(endpoints, ", "))
	}
	at := func(ip, pod, conditions string) string {
		return fmt.Sprintf("{addresses: [\"%s\"], conditions: {%s}, targetRef: {kind: Pod, name: %s}}", ip, conditions, pod)
	}
	has := func(service string, want ...string) {
		t.Helper()
		if want == nil {
			want = []string{}
		}
		cluster := service + ".acme-shop.svc.cluster.local:80"
		until(ctx, t, service+" has its endpoints", func() error {
			if got := assigned(t, p, cluster); !slices.Equal(got, want) {
				return fmt.Errorf("%v, want %v", got, want)
			}
			return nil
		})
	}

	// Nil ready is ready; a named target port is the slice's number; what is serving
	// and terminating drains; what is not ready is left out, unless it is published.
	apply(running("a", "10.77.0.1", "Running"), running("b", "10.77.0.2", "Running"), running("c", "10.77.0.3", "Running"), running("d", "10.77.0.4,fd77::4", "Running"))
	all := []string{
		at("10.77.0.1", "a", ""), at("10.77.0.2", "b", "ready: false, serving: true, terminating: true"),
		at("10.77.0.3", "c", "ready: false, serving: false, terminating: false"),
	}
	apply(svc("plain", ""), slice("plain-1", "plain", "IPv4", "8080", all...), svc("eager", ", publishNotReadyAddresses: true"), slice("eager-1", "eager", "IPv4", "8080", all...))
	has("plain", "10.77.0.1:8080", "10.77.0.2:8080 draining")
	has("eager", "10.77.0.1:8080", "10.77.0.2:8080", "10.77.0.3:8080")

	// Several slices, with doubles and both families.
	apply(slice("plain-2", "plain", "IPv4", "8080", at("10.77.0.1", "a", "ready: true"), at("10.77.0.4", "d", "ready: true")),
		slice("plain-3", "plain", "IPv6", "8080", at("fd77::4", "d", "ready: true")))
	has("plain", "10.77.0.1:8080", "10.77.0.2:8080 draining", "10.77.0.4:8080", "fd77::4:8080")

	// Addresses without a Pod of the namespace, or of one that is another's, are
	// left out until there is one.
	apply(svc("early", ""), slice("early-1", "early", "IPv4", "8080", at("10.77.1.1", "late", "ready: true"), at("10.77.1.9", "a", "ready: true")))
	has("early")
	apply(running("late", "10.77.1.1", "Running"))
	has("early", "10.77.1.1:8080")

	// A Job's Pod that has completed leaves, though its slice still names it.
	apply(running("late", "10.77.1.1", "Succeeded"))
	has("early")

	// A service of an external name is no service of the mesh, and that is told.
	apply(fmt.Sprintf("{apiVersion: v1, kind: Service, metadata: {name: elsewhere, namespace: %s}, spec: {type: ExternalName, externalName: elsewhere.example}}", ns))
	until(ctx, t, "that is told", func() error {
		raw, err := server.Dump(ctx, "/source")
		if err == nil && !strings.Contains(string(raw), "ExternalName services are refused") {
			err = fmt.Errorf("%s", raw)
		}
		return err
	})
	require.NotContains(t, strings.Join(p.Names(resourcev3.ClusterType), " "), "elsewhere")

	// A headless service of three through restarts: each Pod comes back at another
	// address, and the old one is nobody's.
	pods := func(round int) (endpoints []string, want []string) {
		for i := range 3 {
			ip := fmt.Sprintf("10.77.%d.%d", 10+round, i+1)
			apply(running(fmt.Sprintf("db-%d", i), ip, "Running"))
			endpoints, want = append(endpoints, at(ip, fmt.Sprintf("db-%d", i), "ready: true")), append(want, ip+":8080")
		}
		return endpoints, want
	}
	apply(svc("db", ""))
	for round := range 3 {
		if round > 0 {
			for i := range 3 {
				objects, err := kubetest.Parse([]byte(running(fmt.Sprintf("db-%d", i), "10.0.0.1", "Running")))
				require.NoError(t, err)
				require.NoError(t, s.cluster.Delete(ctx, kubetest.Admin, objects...))
			}
			has("db")
		}
		endpoints, want := pods(round)
		apply(slice("db-1", "db", "IPv4", "8080", endpoints...))
		has("db", want...)
	}
}
