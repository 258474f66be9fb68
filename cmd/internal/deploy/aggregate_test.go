package deploy

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"

	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

// aggregate is what the controller of aggregated ClusterRoles does, which is no
// part of an API server: a role that others are aggregated to has their rules,
// until nothing changes any more.
func aggregate(ctx context.Context, t *testing.T, client kubernetes.Interface) {
	t.Helper()
	roles := client.RbacV1().ClusterRoles()
	for changed := true; changed; {
		changed = false
		all, err := roles.List(ctx, metav1.ListOptions{})
		require.NoError(t, err)
		for i := range all.Items {
			to := &all.Items[i]
			if to.AggregationRule == nil {
				continue
			}
			rules := []rbacv1.PolicyRule{}
			for _, s := range to.AggregationRule.ClusterRoleSelectors {
				selector, err := metav1.LabelSelectorAsSelector(&s)
				require.NoError(t, err)
				for j := range all.Items {
					from := &all.Items[j]
					if from.Name == to.Name || !selector.Matches(labels.Set(from.Labels)) {
						continue
					}
					for _, r := range from.Rules {
						if !slices.ContainsFunc(rules, func(have rbacv1.PolicyRule) bool { return reflect.DeepEqual(have, r) }) {
							rules = append(rules, r)
						}
					}
				}
			}
			if !reflect.DeepEqual(to.Rules, rules) {
				to.Rules, changed = rules, true
				_, err := roles.Update(ctx, to, metav1.UpdateOptions{})
				require.NoError(t, err)
			}
		}
	}
}

// TestAggregatedRights: whoever has the cluster's own roles admin, edit or view in
// a namespace has ours there, and no more: neither what belongs to the cluster, nor
// a status, nor another namespace.
func TestAggregatedRights(t *testing.T) {
	c, ctx := cluster(t)
	client, err := kubernetes.NewForConfig(c.REST(kubetest.Admin))
	require.NoError(t, err)
	aggregate(ctx, t, client)
	may := map[string][]string{"admin": inNamespace, "edit": {"accesspolicies"}, "view": nil}
	for role := range may {
		_, err := client.RbacV1().RoleBindings("acme-shop").Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "by-" + role},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "by-" + role}},
		}, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	for role, writable := range may {
		t.Run(role, func(t *testing.T) {
			check := func(resource, namespace, verb string, want bool) {
				t.Helper()
				resource, sub, _ := strings.Cut(resource, "/")
				review, err := client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
					Spec: authorizationv1.SubjectAccessReviewSpec{User: "by-" + role, ResourceAttributes: &authorizationv1.ResourceAttributes{
						Group: "bailiwick.dev", Resource: resource, Subresource: sub, Namespace: namespace, Verb: verb,
					}},
				}, metav1.CreateOptions{})
				require.NoError(t, err)
				require.Equal(t, want, review.Status.Allowed, "%s %s/%s in %q", verb, resource, sub, namespace)
			}
			for _, resource := range inNamespace {
				for _, verb := range reads {
					check(resource, "acme-shop", verb, true)
					check(resource, "globex-shop", verb, false)
				}
				for _, verb := range writes {
					check(resource, "acme-shop", verb, slices.Contains(writable, resource))
					check(resource+"/status", "acme-shop", verb, false)
					check(resource, "globex-shop", verb, false)
				}
			}
			for _, resource := range ofCluster {
				for _, verb := range slices.Concat(reads, writes, []string{"assign", "report"}) {
					check(resource, "", verb, false)
				}
			}
			check("proxyreports", "acme-shop", "list", false)
		})
	}
}
