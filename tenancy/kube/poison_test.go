package kube

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/file"
	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

// poison is one object that no API server of today would take, made from one that
// it takes by changing what etcd has.
type poison struct {
	kind    tenancy.Kind
	name    string
	yaml    string // with %s for the namespace
	key     string // in etcd, with %s for the namespace
	old, by string
	// field is where the error is, as an API server has the object.
	field string
}

func poisons() []poison {
	const (
		service = "{apiVersion: v1, kind: Service, metadata: {name: NAME, namespace: %s}, spec: {type: ClusterIP, clusterIP: None, ports: [{port: 80}]}}"
		pod     = "{apiVersion: v1, kind: Pod, metadata: {name: NAME, namespace: %s, labels: {app: aaaaa}}, spec: {serviceAccountName: bbbbb, containers: [{name: app, image: app}]}, status: {phase: Running, podIP: 10.9.9.9, podIPs: [{ip: 10.9.9.9}]}}"
		slice   = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: NAME, namespace: %s, labels: {kubernetes.io/service-name: ccccc}}, addressType: IPv4, ports: [{port: 80}], endpoints: [{addresses: [10.9.9.9], zone: ddddd, targetRef: {kind: Pod, name: eeeee}}]}"
		policy  = "{apiVersion: bailiwick.dev/v1alpha1, kind: AccessPolicy, metadata: {name: NAME, namespace: %s}, spec: {selector: {matchLabels: {app: aaaaa}}, action: Allow, rules: [{from: [{namespace: fffff}]}]}}"
		request = "{apiVersion: bailiwick.dev/v1alpha1, kind: ServiceRequest, metadata: {name: NAME, namespace: %s}, spec: {to: {namespace: other, service: ggggg, all: true}}}"
		bad     = "\xff\xfe\xfd\xfc\xfb"
	)
	at := func(kind string) string { return "/registry/" + kind + "/%s/NAME" }
	list := []poison{
		{tenancy.KindService, "enum", service, at("services/specs"), "ClusterIP", "ClusterXX", "spec.type"},
		{tenancy.KindPod, "account", pod, at("pods"), "bbbbb", bad, "spec.serviceAccountName"},
		{tenancy.KindPod, "label", pod, at("pods"), "aaaaa", bad, "metadata.labels.app"},
		{tenancy.KindPod, "phase", pod, at("pods"), "Running", "Walking", "status.phase"},
		{tenancy.KindPod, "address", pod, at("pods"), "10.9.9.9", "nowhere!", "status.podIP"},
		{tenancy.KindEndpointSlice, "zone", slice, at("endpointslices"), "ddddd", bad, "endpoints[0].zone"},
		{tenancy.KindEndpointSlice, "target", slice, at("endpointslices"), "eeeee", bad, "endpoints[0].targetRef.name"},
		{tenancy.KindEndpointSlice, "service", slice, at("endpointslices"), "ccccc", bad, "metadata.labels"},
		{tenancy.KindEndpointSlice, "loopback", slice, at("endpointslices"), "10.9.9.9", "ff02::01", "endpoints[0].addresses[0]"},
		{tenancy.KindAccessPolicy, "action", policy, at("bailiwick.dev/accesspolicies"), "Allow", "Avoid", "spec.action"},
		{tenancy.KindAccessPolicy, "source", policy, at("bailiwick.dev/accesspolicies"), "fffff", bad, "spec.rules[0].from[0].namespace"},
		{tenancy.KindAccessPolicy, "unknown", policy, at("bailiwick.dev/accesspolicies"), `"rules"`, `"rulez"`, "spec.rules"},
		{tenancy.KindAccessPolicy, "oversized", policy, at("bailiwick.dev/accesspolicies"), `{"namespace":"fffff"}`, strings.Repeat(`{"namespace":"f"},`, 500) + `{"namespace":"f"}`, "spec.rules[0].from"},
		{tenancy.KindServiceRequest, "name", request, at("bailiwick.dev/servicerequests"), "ggggg", bad, "spec.to.service"},
	}
	for i := range list {
		p := &list[i]
		p.yaml, p.key = strings.ReplaceAll(p.yaml, "NAME", p.name), strings.ReplaceAll(p.key, "NAME", p.name)
	}
	return list
}

// TestPoison: whatever gets into the store, it is left out and told, closes what
// it would have given, and hurts nothing beside it; from the start as well as
// while the server runs, from an API server as well as from files.
func TestPoison(t *testing.T) {
	c := cluster(t)
	ctx := t.Context()
	ns := "poison"
	require.NoError(t, c.Apply(ctx, kubetest.Admin, kubetest.Namespace(ns, "acme"), service(t, ns, "beside"), request(t, ns, "beside")))
	for _, p := range poisons() {
		require.NoError(t, c.Apply(ctx, kubetest.Admin, parse(t, fmt.Sprintf(p.yaml, ns))...))
	}
	running, log, _ := follow(t, c.REST(kubetest.Admin), nil)
	running.wait(t, "it is synced", func() bool { return running.synced })
	running.mu.Lock()
	good := ours(running.objects)
	running.mu.Unlock()
	for _, p := range poisons() {
		key := fmt.Sprintf(p.key, ns)
		raw, err := c.GetRaw(ctx, key)
		require.NoError(t, err)
		require.Contains(t, string(raw), p.old, "%s", p.name)
		require.NoError(t, c.PutRaw(ctx, key, bytes.ReplaceAll(raw, []byte(p.old), []byte(p.by))))
	}
	ref := func(p poison) tenancy.Ref {
		return tenancy.Ref{Kind: p.kind, Key: tenancy.Key{Namespace: ns, Name: p.name}}
	}
	all := func(r *recorder) func() bool {
		return func() bool {
			for _, p := range poisons() {
				if len(r.report.Invalid[ref(p)].Errors) == 0 {
					return false
				}
			}
			return r.synced
		}
	}
	running.wait(t, "all are told", all(running))
	fresh, _, _ := follow(t, c.REST(kubetest.Admin), nil)
	fresh.wait(t, "all are told", all(fresh))
	for name, r := range map[string]*recorder{"running": running, "fresh": fresh} {
		r.mu.Lock()
		for _, p := range poisons() {
			require.True(t, strings.HasPrefix(r.report.Invalid[ref(p)].Errors[0].Field, p.field), "%s: %s: %v", name, p.name, r.report.Invalid[ref(p)].Errors)
			now := withoutMetaOf(r.objects[ref(p)])
			switch p.kind {
			case tenancy.KindAccessPolicy:
				policy := now.(*tenancy.AccessPolicy)
				require.True(t, policy.Invalid, p.name)
				require.Empty(t, policy.Rules, p.name)
			case tenancy.KindServiceRequest:
				require.Equal(t, &tenancy.ServiceRequest{}, now, p.name)
			default:
				if name == "running" {
					require.Equal(t, good[ref(p)], now, "the last good one stays")
				} else {
					require.Nil(t, now, p.name)
				}
			}
		}
		require.NotNil(t, r.has(tenancy.KindService, ns, "beside"))
		require.NotNil(t, r.has(tenancy.KindServiceRequest, ns, "beside"))
		require.Empty(t, r.report.Stale, "no watch was hurt")
		r.mu.Unlock()
	}
	require.NotContains(t, log.String(), "level=ERROR")

	// The same text in files.
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "platform"), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "platform", name+".yaml"), []byte(text), 0o600))
	}
	write("namespace", "{apiVersion: v1, kind: Namespace, metadata: {name: poison, labels: {bailiwick.dev/tenant: acme}}}")
	write("beside", fmt.Sprintf("{apiVersion: v1, kind: Service, metadata: {name: beside, namespace: %s}, spec: {ports: [{port: 80}]}}", ns))
	files, err := file.New(file.Config{Dir: dir, Logger: quietLogger()})
	require.NoError(t, err)
	for _, p := range poisons() {
		text := fmt.Sprintf(p.yaml, ns)
		if strings.HasPrefix(p.old, `"`) || strings.HasPrefix(p.old, "{") {
			continue // JSON of the store
		}
		require.Contains(t, text, p.old)
		write(fmt.Sprintf("%s-%d", p.name, p.kind), strings.ReplaceAll(text, p.old, p.by))
	}
	events, report := files.Load()
	for _, p := range poisons() {
		if strings.HasPrefix(p.old, `"`) || strings.HasPrefix(p.old, "{") {
			continue
		}
		told := false
		for _, e := range report.Errors {
			told = told || strings.HasSuffix(e.File, fmt.Sprintf("/%s-%d.yaml", p.name, p.kind))
		}
		require.True(t, told, p.name)
		for _, ev := range events {
			if ev.Ref == ref(p) {
				require.NotContains(t, []tenancy.Kind{tenancy.KindService, tenancy.KindPod, tenancy.KindEndpointSlice}, p.kind, "%s is left out", p.name)
			}
		}
	}
	require.Contains(t, refs(events), tenancy.Ref{Kind: tenancy.KindService, Key: tenancy.Key{Namespace: ns, Name: "beside"}})
	require.NoError(t, c.DeleteRaw(ctx, "/registry/", poisonKeys(ns)...))
}

func poisonKeys(ns string) []string {
	var keys []string
	for _, p := range poisons() {
		keys = append(keys, strings.TrimPrefix(fmt.Sprintf(p.key, ns), "/registry/"))
	}
	return keys
}

func refs(events []tenancy.Event) []tenancy.Ref {
	var out []tenancy.Ref
	for _, ev := range events {
		out = append(out, ev.Ref)
	}
	return out
}

// TestProtocol: objects are streamed, never listed, in protobuf where there is
// that, and a watch goes on from where the last ended.
func TestProtocol(t *testing.T) {
	c := cluster(t)
	gate := c.Gate(t)
	config := gate.REST(kubetest.Admin)
	seen := &requests{}
	config.Wrap(seen.wrap)
	r, _, stop := follow(t, config, nil)
	r.wait(t, "it is synced", func() bool { return r.synced })
	ns := "protocol"
	there := func(name string) func() bool {
		return func() bool {
			return r.has(tenancy.KindService, ns, name) != nil && r.has(tenancy.KindServiceRequest, ns, name) != nil
		}
	}
	// A watch that ends at once without a word would be a reason to read anew.
	require.NoError(t, c.Apply(t.Context(), kubetest.Admin, kubetest.Namespace(ns, "acme"), service(t, ns, "one"), request(t, ns, "one")))
	r.wait(t, "it follows", there("one"))
	gate.Drop()
	require.NoError(t, c.Apply(t.Context(), kubetest.Admin, service(t, ns, "two"), request(t, ns, "two")))
	r.wait(t, "it goes on", there("two"))
	stop()
	require.NoError(t, c.Delete(t.Context(), kubetest.Admin, service(t, ns, "one"), request(t, ns, "one"), service(t, ns, "two"), request(t, ns, "two")))
	whole, on := map[string]int{}, map[string]int{}
	for _, s := range seen.all() {
		if strings.HasPrefix(s.path, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/") {
			require.Contains(t, s.accept, "PartialObjectMetadata")
			continue
		}
		require.Equal(t, "true", s.query.Get("watch"), "%s is listed", s.path)
		builtin := !strings.Contains(s.path, "bailiwick.dev")
		require.Equal(t, builtin, strings.HasPrefix(s.accept, "application/vnd.kubernetes.protobuf"), s.accept)
		if s.query.Get("sendInitialEvents") != "true" {
			require.NotEmpty(t, s.query.Get("resourceVersion"))
			on[s.path]++
			continue
		}
		if whole[s.path]++; whole[s.path] == 1 {
			require.Empty(t, s.query.Get("resourceVersion"), "as new as can be")
		}
	}
	require.Len(t, whole, len(kinds(t)))
	for _, path := range []string{"/api/v1/services", "/apis/bailiwick.dev/v1alpha1/servicerequests"} {
		require.Equal(t, 1, whole[path], path)
		require.NotZero(t, on[path], path)
	}
}
