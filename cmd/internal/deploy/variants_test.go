package deploy

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

// Whatever the values, the API server takes what the chart renders, and the Pods
// are what the restricted Pod Security Standard allows, which the namespace of
// deploy/base enforces.
func TestVariantsApply(t *testing.T) {
	c, ctx := cluster(t)
	objectsClient, err := dynamic.NewForConfig(c.REST(kubetest.Admin))
	require.NoError(t, err)
	pods, err := kubernetes.NewForConfig(c.REST(kubetest.Admin))
	require.NoError(t, err)
	dry := []string{metav1.DryRunAll}
	for name, settings := range map[string][]string{
		"defaults":     nil,
		"cert-manager": {"identity.source=certManager", "proxySVID=file", "trustDomains={acme.example,globex.example}"},
		"secret": {
			"identity.source=secret", "proxySVID=file", "replicas=5", "priorityClassName=system-cluster-critical",
			"nodeSelector.zone=a", "tolerations[0].operator=Exists", "podAnnotations.team=mesh", "imagePullSecrets[0].name=pull",
			"networkPolicy.metricsFrom=null", "podDisruptionBudget.minAvailable=3",
		},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := render(t, settings...)
			require.NoError(t, err, text)
			for _, u := range objects(t, text) {
				if u.GetKind() == "CustomResourceDefinition" {
					continue // the same in all
				}
				_, err := objectsClient.Resource(kubetest.Resource(u)).Namespace(u.GetNamespace()).
					Apply(ctx, u.GetName(), u, metav1.ApplyOptions{FieldManager: "helm", Force: true, DryRun: dry})
				require.NoError(t, err, "%s %s", u.GetKind(), u.GetName())
			}
			template := deployment(t, text).Spec.Template
			template.Name, template.Spec.PriorityClassName = "trial", ""
			_, err = pods.CoreV1().Pods("bailiwick-system").Create(ctx, &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec},
				metav1.CreateOptions{DryRun: dry, FieldValidation: metav1.FieldValidationStrict})
			require.NoError(t, err)
		})
	}
	_, err = pods.CoreV1().Pods("bailiwick-system").Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "trial"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "a"}}},
	}, metav1.CreateOptions{DryRun: dry})
	require.ErrorContains(t, err, "PodSecurity", "the standard is enforced")
}
