package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

// TestDefinitionsGo: a CRD that is removed takes its objects along. Policies that
// allow are revoked with it; what their absence would widen, be it one object, and
// whose a namespace is stays until somebody confirms that it is to go.
func TestDefinitionsGo(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	s := demo(ctx, t)
	server, _ := s.through(ctx, t)
	closed, err := kubetest.Parse([]byte("{apiVersion: bailiwick.dev/v1alpha1, kind: AccessPolicy, metadata: {name: closed, namespace: acme-shop}, " +
		"spec: {selector: {matchLabels: {app: orders}}, action: Deny, rules: [{from: [{namespace: acme-web, serviceAccount: orders}]}]}}"))
	require.NoError(t, err)
	require.NoError(t, s.cluster.Apply(ctx, kubetest.Admin, closed...))
	p := connect(ctx, t, s.ca, server, s.pod(t, "acme-shop", "orders"))
	// rules waits until these policies, and no others, are in what the callee enforces.
	rules := func(want ...string) {
		t.Helper()
		until(ctx, t, fmt.Sprintf("%q are enforced", want), func() error {
			var all strings.Builder
			for _, e := range p.State(resourcev3.ExtensionConfigType) {
				all.Write(e.Any)
			}
			for _, name := range []string{"acme-shop/closed", "acme-shop/orders-from-web"} {
				if strings.Contains(all.String(), name) != slices.Contains(want, name) {
					return fmt.Errorf("%s: %t", name, !slices.Contains(want, name))
				}
			}
			return nil
		})
	}
	held := func(want ...string) {
		t.Helper()
		until(ctx, t, fmt.Sprintf("%q are held", want), func() error {
			raw, err := server.Dump(ctx, "/status")
			if err != nil {
				return err
			}
			var status struct {
				Held []struct{ Kind, Namespace, Name string }
			}
			if err := json.Unmarshal(raw, &status); err != nil {
				return err
			}
			got := []string{}
			for _, h := range status.Held {
				got = append(got, strings.Trim(h.Kind+" "+h.Namespace+"/"+h.Name, "/"))
			}
			if !slices.Equal(got, append([]string{}, want...)) {
				return fmt.Errorf("%q", got)
			}
			return nil
		})
	}
	remove := func(resource string) {
		t.Helper()
		root, err := kubetest.Root()
		require.NoError(t, err)
		crds, err := kubetest.Objects(filepath.Join(root, "deploy", "crds", "bailiwick.dev_"+resource+".yaml"))
		require.NoError(t, err)
		require.NoError(t, s.cluster.Delete(ctx, kubetest.Admin, crds...))
		require.NoError(t, s.cluster.WaitUnserved(ctx, crds...))
	}
	confirm := func() {
		t.Helper()
		out, err := exec.CommandContext(ctx, binary, "confirm", "--admin-address", server.Admin.String()).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	rules("acme-shop/closed", "acme-shop/orders-from-web")
	held()
	denials := []string{"AccessPolicy (Deny) acme-shop/closed", "AccessPolicy (Deny) acme-web/web-admin", "AccessPolicy (Deny) globex-web/web-not-from-shop"}

	remove("accesspolicies")
	held(denials...)
	rules("acme-shop/closed")
	require.NoError(t, s.cluster.InstallCRDs(ctx))
	require.NoError(t, s.cluster.Apply(ctx, kubetest.Admin, append(only(s.objects, "AccessPolicy"), closed...)...))
	held()
	rules("acme-shop/closed", "acme-shop/orders-from-web")

	before := p.Names(resourcev3.ClusterType)
	remove("tenants")
	held("Tenant /acme", "Tenant /globex", "Tenant /platform")
	require.NoError(t, s.cluster.InstallCRDs(ctx))
	require.NoError(t, s.cluster.Apply(ctx, kubetest.Admin, only(s.objects, "Tenant")...))
	held()
	require.Equal(t, before, p.Names(resourcev3.ClusterType))

	remove("accesspolicies")
	held(denials...)
	confirm()
	held()
	rules()
	require.NoError(t, p.Err(), "no stream ended")
}

// only are the objects of a kind.
func only(objects []*unstructured.Unstructured, kind string) (out []*unstructured.Unstructured) {
	for _, u := range objects {
		if u.GetKind() == kind {
			out = append(out, u)
		}
	}
	return out
}
