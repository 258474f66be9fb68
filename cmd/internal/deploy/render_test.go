package deploy

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

// root is the repository's.
func root(t testing.TB, path ...string) string {
	t.Helper()
	dir, err := kubetest.Root()
	require.NoError(t, err)
	return filepath.Join(append([]string{dir}, path...)...)
}

// helm returns the binary that the Makefile built, or that HELM names.
func helm(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("HELM"); path != "" {
		return path
	}
	found, err := filepath.Glob(root(t, ".cache", "helm", "*", "helm"))
	require.NoError(t, err)
	if len(found) == 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("no helm: make helm builds it")
		}
		t.Skip("SKIPPED, the chart was not rendered: no helm, make helm builds it")
	}
	return found[0]
}

// render is what the chart makes with these settings (--set).
func render(t testing.TB, settings ...string) (string, error) {
	t.Helper()
	args := []string{"template", "bailiwick", root(t, "deploy", "chart"), "--namespace", "bailiwick-system", "--include-crds", "--kube-version", "1.36.0"}
	for _, s := range settings {
		args = append(args, "--set", s)
	}
	cmd := exec.CommandContext(t.Context(), helm(t), args...)
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stderr.String(), err
	}
	return stdout.String(), nil
}

// objects are the rendered ones.
func objects(t testing.TB, text string) []*unstructured.Unstructured {
	t.Helper()
	out, err := kubetest.Parse([]byte(text))
	require.NoError(t, err)
	return out
}

func TestBaseIsTheChart(t *testing.T) {
	rendered, err := render(t)
	require.NoError(t, err, rendered)
	base, err := os.ReadFile(root(t, "deploy", "base", "bailiwick.yaml"))
	require.NoError(t, err)
	require.Equal(t, rendered, string(base), "make manifests renders deploy/base/bailiwick.yaml again")
}

func deployment(t testing.TB, text string) *appsv1.Deployment {
	t.Helper()
	for _, u := range objects(t, text) {
		if u.GetKind() == "Deployment" {
			d := &appsv1.Deployment{}
			require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(u.Object, d, true))
			return d
		}
	}
	require.Fail(t, "no Deployment")
	return nil
}

// What Pods of the server may not do without.
func TestDeploymentIsHardened(t *testing.T) {
	text, err := render(t)
	require.NoError(t, err, text)
	d := deployment(t, text)
	require.GreaterOrEqual(t, *d.Spec.Replicas, int32(2))
	pod := d.Spec.Template.Spec
	require.True(t, *pod.SecurityContext.RunAsNonRoot)
	require.EqualValues(t, "RuntimeDefault", pod.SecurityContext.SeccompProfile.Type)
	require.NotEmpty(t, pod.Affinity.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	require.Len(t, pod.Containers, 1)
	c := pod.Containers[0]
	require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem)
	require.False(t, *c.SecurityContext.AllowPrivilegeEscalation)
	require.EqualValues(t, []string{"ALL"}, []string{string(c.SecurityContext.Capabilities.Drop[0])})
	require.False(t, c.Resources.Requests.Cpu().IsZero())
	require.False(t, c.Resources.Limits.Memory().IsZero())
	require.NotNil(t, c.ReadinessProbe)
	require.NotNil(t, c.LivenessProbe)
	require.Equal(t, "false", d.Spec.Template.Annotations["bailiwick.dev/inject"])
}

func TestOptionalParts(t *testing.T) {
	text, err := render(t, "serviceMonitor.enabled=true", "networkPolicy.enabled=false", "admission.enabled=false", "roles.enabled=false")
	require.NoError(t, err, text)
	var kinds []string
	for _, u := range objects(t, text) {
		kinds = append(kinds, u.GetKind())
	}
	require.Contains(t, kinds, "ServiceMonitor")
	for _, kind := range []string{"NetworkPolicy", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"} {
		require.NotContains(t, kinds, kind)
	}
	require.NotContains(t, text, "bailiwick-platform")
	require.NotContains(t, strings.ToLower(text), "kind: secret")
}
