package deploy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"

	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

// columns is what `kubectl get` prints of one object, as the API server tells it:
// the columns that are shown, by name.
func columns(t *testing.T, c *kubetest.Cluster, u *unstructured.Unstructured) map[string]any {
	t.Helper()
	client, err := kubernetes.NewForConfig(c.REST(kubetest.Admin))
	require.NoError(t, err)
	path := []string{"apis", "bailiwick.dev", "v1alpha1"}
	if ns := u.GetNamespace(); ns != "" {
		path = append(path, "namespaces", ns)
	}
	raw, err := client.RESTClient().Get().AbsPath(append(path, kubetest.Resource(u).Resource, u.GetName())...).
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").Do(t.Context()).Raw()
	require.NoError(t, err)
	var table metav1.Table
	require.NoError(t, json.Unmarshal(raw, &table))
	require.Len(t, table.Rows, 1)
	out := map[string]any{}
	for i, d := range table.ColumnDefinitions {
		if d.Priority == 0 {
			out[d.Name] = table.Rows[0].Cells[i]
		}
	}
	delete(out, "Age")
	return out
}

// TestColumns: a glance at `kubectl get` tells what is wrong.
func TestColumns(t *testing.T) {
	c, ctx := cluster(t)
	for kind, row := range map[string]struct {
		spec string
		// conditions are what stands in the status, as Type=Status/Reason.
		conditions []string
		want       map[string]any
	}{
		"Tenant": {
			spec:       "{trustDomain: columns.example}",
			conditions: []string{"Accepted=True/Accepted", "Degraded=True/LimitExceeded", "Guarded=False/PolicyMissing", "Programmed=Unknown/NoProxies"},
			want: map[string]any{
				"Name": "columns", "Trust Domain": "columns.example", "Suspended": nil, "Accepted": "True", "Degraded": "True", "Guarded": "False",
				"Programmed": "Unknown", "Reason": "Accepted",
			},
		},
		"ServiceGrant": {
			spec:       "{from: [{tenant: acme, all: true}, {tenant: globex, all: true}], to: [{service: a, ports: [80]}, {service: b, all: true}]}",
			conditions: []string{"Accepted=False/SameTenant", "ResolvedRefs=True/ResolvedRefs", "Programmed=False/SameTenant"},
			want: map[string]any{
				"Name": "columns", "First Tenant": "acme", "First Service": "a", "Accepted": "False", "Resolved": "True", "Programmed": "False", "Reason": "SameTenant",
			},
		},
		"ServiceRequest": {
			spec:       "{to: {namespace: other, service: orders, ports: [80]}}",
			conditions: []string{"Accepted=True/Accepted", "ResolvedRefs=False/NotAvailable", "Programmed=False/NotAvailable"},
			want: map[string]any{
				"Name": "columns", "Namespace": "other", "Service": "orders", "Accepted": "True", "Resolved": "False", "Programmed": "False", "Reason": "Accepted",
			},
		},
		"ClusterServiceGrant": {
			spec:       "{tenants: [acme, globex], to: [{namespace: other, service: orders, ports: [80]}]}",
			conditions: []string{"Accepted=True/SharedTargetPort", "ResolvedRefs=True/ResolvedRefs", "Programmed=Unknown/NotCounted"},
			want: map[string]any{
				"Name": "columns", "Tenants": `["acme","globex"]`, "All Tenants": nil, "Accepted": "True", "Resolved": "True", "Programmed": "Unknown", "Reason": "SharedTargetPort",
			},
		},
		"AccessPolicy": {
			spec:       "{selector: {}, action: Deny, rules: [{from: [{all: true}]}]}",
			conditions: []string{"Accepted=False/LimitExceeded", "Programmed=False/Pending"},
			want:       map[string]any{"Name": "columns", "Action": "Deny", "Accepted": "False", "Programmed": "False", "Reason": "LimitExceeded"},
		},
		"ClusterAccessPolicy": {
			spec:       "{tier: Admin, priority: 7, subjects: [{allTenants: true}], rules: [{action: Deny, from: [{all: true}]}]}",
			conditions: []string{"Accepted=True/Accepted", "Programmed=False/Refused"},
			want: map[string]any{
				"Name": "columns", "Tier": "Admin", "Priority": int64(7), "Mode": "Enforce", "Accepted": "True", "Programmed": "False", "Reason": "Accepted",
			},
		},
		"PeerTLS": {
			spec:       "{selector: {}, mode: Permissive, until: \"2027-01-01T00:00:00Z\"}",
			conditions: []string{"Accepted=False/NotPermitted", "Programmed=True/Programmed"},
			want: map[string]any{
				"Name": "columns", "Mode": "Permissive", "Until": "2027-01-01T00:00:00Z", "Accepted": "False", "Programmed": "True", "Reason": "NotPermitted",
			},
		},
	} {
		t.Run(kind, func(t *testing.T) {
			namespace := ", namespace: acme-shop"
			if strings.HasPrefix(kind, "Cluster") || kind == "Tenant" {
				namespace = ""
			}
			u := one(t, fmt.Sprintf("{apiVersion: bailiwick.dev/v1alpha1, kind: %s, metadata: {name: columns%s}, spec: %s}", kind, namespace, row.spec))
			t.Cleanup(func() { _ = c.Delete(ctx, kubetest.Admin, u) }) // the API server ends anyway
			require.NoError(t, c.Apply(ctx, kubetest.Admin, u))
			var conditions []any
			for _, text := range row.conditions {
				name, rest, _ := strings.Cut(text, "=")
				status, reason, _ := strings.Cut(rest, "/")
				conditions = append(conditions, map[string]any{
					"type": name, "status": status, "reason": reason, "message": "because", "lastTransitionTime": time.Now().UTC().Format(time.RFC3339),
				})
			}
			require.NoError(t, unstructured.SetNestedSlice(u.Object, conditions, "status", "conditions"))
			require.NoError(t, c.Apply(ctx, kubetest.Admin, u))
			got := columns(t, c, u)
			for name, want := range row.want {
				require.EqualValues(t, want, got[name], name)
			}
			require.Len(t, got, len(row.want), "%v", got)
			require.True(t, slices.Contains(row.conditions, "Accepted="+fmt.Sprint(got["Accepted"])+"/"+fmt.Sprint(got["Reason"])))
		})
	}
}
