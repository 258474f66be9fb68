package deploy

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

// The quick start of the README works as it stands: the platform applies the
// tenants, and the admins of both sides what is theirs.
func TestQuickStartApplies(t *testing.T) {
	p := guarded(t)
	text, err := os.ReadFile(root(t, "README.md"))
	require.NoError(t, err)
	_, section, ok := strings.Cut(string(text), "## On Kubernetes\n")
	require.True(t, ok)
	section, _, _ = strings.Cut(section, "\n## ")
	var blocks [][]*unstructured.Unstructured
	for _, part := range strings.Split(section, "   ```yaml\n")[1:] {
		block, _, ok := strings.Cut(part, "   ```\n")
		require.True(t, ok)
		blocks = append(blocks, objects(t, strings.ReplaceAll("\n"+block, "\n   ", "\n")))
	}
	require.Len(t, blocks, 2)
	require.NoError(t, p.c.Apply(p.ctx, platform, blocks[0]...))
	for _, u := range blocks[1] {
		require.NoError(t, p.c.Apply(p.ctx, kubetest.Admin, one(t, `apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: quick-start, namespace: `+u.GetNamespace()+`}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: bailiwick-tenant-admin}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: newcomer}]
`)))
		p.until(func() error { return p.c.Apply(p.ctx, newcomer, u) })
		require.NoError(t, p.c.Delete(p.ctx, newcomer, u))
	}
	for _, u := range blocks[0] {
		if u.GetKind() != "Namespace" { // which nobody here ends
			require.NoError(t, p.c.Delete(p.ctx, platform, u))
		}
	}
}
