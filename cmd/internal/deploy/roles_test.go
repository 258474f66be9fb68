package deploy

import (
	"fmt"
	"os"
	"sort"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

// The resources of the group, as RBAC names them.
var (
	ofCluster   = []string{"clusteraccesspolicies", "clusterservicegrants", "tenants"}
	inNamespace = []string{"accesspolicies", "peertls", "servicegrants", "servicerequests"}
	reads       = []string{"get", "list", "watch"}
	writes      = []string{"create", "update", "patch", "delete", "deletecollection"}
)

// Who may do what, as the API server itself decides it: every person, every
// resource and its status, every verb, in the own namespace and in another.
func TestRolesMatrix(t *testing.T) {
	c, ctx := cluster(t)
	client, err := kubernetes.NewForConfig(c.REST(kubetest.Admin))
	require.NoError(t, err)
	may := func(user, resource, namespace, verb string) bool {
		resource, sub, _ := strings.Cut(resource, "/")
		review, err := client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{User: user, ResourceAttributes: &authorizationv1.ResourceAttributes{
				Group: "bailiwick.dev", Resource: resource, Subresource: sub, Namespace: namespace, Verb: verb,
			}},
		}, metav1.CreateOptions{})
		require.NoError(t, err)
		return review.Status.Allowed
	}
	// What each may write, and read, and in acme-shop alone or everywhere.
	type rights struct {
		writes, reads []string
		everywhere    bool
	}
	for user, r := range map[string]rights{
		platform:  {[]string{"clusterservicegrants", "tenants"}, append(append([]string{}, ofCluster...), inNamespace...), true},
		security:  {[]string{"clusteraccesspolicies"}, append(append([]string{}, ofCluster...), inNamespace...), true},
		admin:     {inNamespace, inNamespace, false},
		developer: {[]string{"accesspolicies"}, inNamespace, false},
		viewer:    {nil, inNamespace, false},
		"nobody":  {},
	} {
		t.Run(user, func(t *testing.T) {
			check := func(resource, namespace, verb string, want bool) {
				require.Equal(t, want, may(user, resource, namespace, verb), "%s %s in %q", verb, resource, namespace)
			}
			for _, resource := range append(append([]string{}, ofCluster...), inNamespace...) {
				namespaces := map[string]bool{"acme-shop": true, "globex-shop": r.everywhere}
				if contains(ofCluster, resource) {
					namespaces = map[string]bool{"": true}
				}
				for namespace, here := range namespaces {
					for _, verb := range reads {
						check(resource, namespace, verb, here && contains(r.reads, resource))
					}
					for _, verb := range writes {
						check(resource, namespace, verb, here && contains(r.writes, resource))
					}
					for _, verb := range []string{"update", "patch"} {
						check(resource+"/status", namespace, verb, false)
					}
				}
			}
			check("tenants", "", "assign", user == platform)
			check("tenants", "", "report", false)
			for _, verb := range append(append([]string{}, reads...), writes...) { // what replicas say of everybody's proxies
				check("proxyreports", "bailiwick-system", verb, false)
			}
		})
	}
}

func contains(list []string, s string) bool {
	for _, one := range list {
		if one == s {
			return true
		}
	}
	return false
}

// TestServerRights holds what the server may do, word for word: a change of it is
// a change of this file.
func TestServerRights(t *testing.T) {
	c, ctx := cluster(t)
	client, err := kubernetes.NewForConfig(c.REST(kubetest.Admin))
	require.NoError(t, err)
	cluster, err := client.RbacV1().ClusterRoles().Get(ctx, "bailiwick-server", metav1.GetOptions{})
	require.NoError(t, err)
	role, err := client.RbacV1().Roles("bailiwick-system").Get(ctx, "bailiwick-server", metav1.GetOptions{})
	require.NoError(t, err)
	var lines []string
	add := func(where string, rules []rbacv1.PolicyRule) {
		for _, r := range rules {
			for _, group := range r.APIGroups {
				for _, resource := range r.Resources {
					verbs := append([]string{}, r.Verbs...)
					sort.Strings(verbs)
					if len(r.ResourceNames) > 0 {
						resource += fmt.Sprint(r.ResourceNames)
					}
					lines = append(lines, fmt.Sprintf("%s: %s/%s: %s", where, group, resource, strings.Join(verbs, ",")))
				}
			}
			require.Empty(t, r.NonResourceURLs)
		}
	}
	add("cluster", cluster.Rules)
	add("own namespace", role.Rules)
	sort.Strings(lines)
	want, err := os.ReadFile("testdata/server-rights.txt")
	require.NoError(t, err)
	require.Equal(t, string(want), strings.Join(lines, "\n")+"\n")
	require.NotContains(t, string(want), "secrets")
	require.NotContains(t, string(want), "*")
}

// People's roles reach the cluster's own roles by the labels that its controller
// goes by.
func TestRolesAggregate(t *testing.T) {
	text, err := render(t)
	require.NoError(t, err, text)
	got := map[string]string{}
	for _, u := range objects(t, text) {
		if u.GetKind() != "ClusterRole" {
			continue
		}
		raw, err := yaml.Marshal(u.Object)
		require.NoError(t, err)
		var role rbacv1.ClusterRole
		require.NoError(t, yaml.UnmarshalStrict(raw, &role))
		for label := range role.Labels {
			if to, ok := strings.CutPrefix(label, "rbac.authorization.k8s.io/aggregate-to-"); ok {
				got[role.Name] = to
			}
		}
	}
	require.Equal(t, map[string]string{"bailiwick-tenant-admin": "admin", "bailiwick-developer": "edit", "bailiwick-viewer": "view"}, got)
	text, err = render(t, "roles.aggregateToDefaultRoles=false")
	require.NoError(t, err)
	require.NotContains(t, text, "aggregate-to-")
}
