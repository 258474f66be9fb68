package deploy

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/cmd/internal/preview"
	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
	"bailiwick.dev/bailiwick/tenancy/read"
)

// The same questions have the same answers, from an API server and from files;
// whoever may not read a kind is told so, and told nothing else.
func TestExplainFromAnAPIServer(t *testing.T) {
	c, ctx := cluster(t)
	dir := t.TempDir()
	demo := root(t, "deploy", "demo")
	require.NoError(t, filepath.WalkDir(demo, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Ext(path) != ".yaml" {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		// An API server takes no loopback addresses; names of their own keep other
		// tests out.
		text := strings.NewReplacer("127.", "10.", "acme", "ask", "globex", "ask2", "name: platform", "name: ask3", "namespace: platform", "namespace: ask3",
			"tenant: platform", "tenant: ask3", "[platform]", "[ask3]").Replace(string(raw))
		rel, err := filepath.Rel(demo, path)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, strings.NewReplacer("acme", "ask", "globex", "ask2").Replace(rel))
		return errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, []byte(text), 0o600))
	}))
	all, err := kubetest.Objects(dir)
	require.NoError(t, err)
	kubetest.Complete(all)
	slices.SortStableFunc(all, func(a, b *unstructured.Unstructured) int { // namespaces first
		return cmp.Compare(len(a.GetNamespace()), len(b.GetNamespace()))
	})
	require.NoError(t, c.Apply(ctx, kubetest.Admin, all...))
	binary, err := mesh.BuildBailiwick(ctx, t.TempDir())
	require.NoError(t, err)
	ask := func(args ...string) (int, read.Answer) {
		args = append([]string{"explain", "-o", "json"}, args...)
		out, err := exec.CommandContext(ctx, binary, args...).Output()
		var exit *exec.ExitError
		code := 0
		if errors.As(err, &exit) {
			code = exit.ExitCode()
		}
		var a read.Answer
		require.NoError(t, json.Unmarshal(out, &a), "%v: %v", args, err)
		a.At = ""
		for i := range a.Looked {
			a.Looked[i].At = ""
		}
		return code, a
	}
	as := func(user string) string {
		path, err := c.Kubeconfig(user)
		require.NoError(t, err)
		return path
	}
	for question, want := range map[string]int{
		"--from spiffe://ask.example/ns/ask-web/sa/web --to ask-shop/orders:8080":                 0,
		"--from spiffe://ask.example/ns/ask-web/sa/orders --to ask-shop/orders:8080":              3,
		"--from spiffe://ask.example/ns/ask-shop/sa/orders --to ask3/logs:8080 --method DELETE":   3,
		"--from spiffe://ask.example/ns/ask-shop/sa/orders --to ask3/logs:8080 --tenant ask":      4,
		"--from spiffe://ask2.example/ns/ask2-web/sa/web --to ask-shop/orders:8080 --tenant ask2": 3,
	} {
		args := strings.Fields(question)
		code, fromServer := ask(append(args, "--kubeconfig", as(kubetest.Admin))...)
		require.Equal(t, want, code, "%s: %+v", question, fromServer)
		_, fromFiles := ask(append(args, "--config-dir", dir)...)
		require.Equal(t, fromFiles, fromServer)
	}
	code, a := ask("--from", "spiffe://ask.example/ns/ask-web/sa/web", "--to", "ask-shop/orders:8080", "--kubeconfig", as(viewer))
	require.Equal(t, 4, code)
	require.Equal(t, read.Unknown, a.Verdict)
	require.Contains(t, strings.Join(a.Unknown, "\n"), "may not read Tenant: ")
	require.Empty(t, a.Looked)

	// One object over those of the cluster.
	change := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(change, "deny.yaml"), []byte("apiVersion: bailiwick.dev/v1alpha1\nkind: AccessPolicy\n"+
		"metadata: {name: nobody, namespace: ask-shop}\nspec: {selector: {}, action: Deny, rules: [{from: [{all: true}]}]}\n"), 0o600))
	out, err := exec.CommandContext(ctx, binary, "preview", change, "-o", "json", "--kubeconfig", as(kubetest.Admin)).Output()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 3, exit.ExitCode())
	var diff preview.Diff
	require.NoError(t, json.Unmarshal(out, &diff))
	require.Equal(t, []preview.Call{{From: "ask-web/web", To: "ask-shop/orders:8080", Before: "some", After: "no", Less: true}}, diff.Calls)
	require.Len(t, diff.Touched, 1)
	require.Equal(t, "ask-shop/orders", diff.Touched[0].Name)
	require.Empty(t, diff.Clusters)
}
