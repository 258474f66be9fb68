package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/file"
	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

// row is one of testdata/objects.yaml.
type row struct {
	Name           string
	Valid          bool
	Object, Update map[string]any
}

func rows(t testing.TB) []row {
	t.Helper()
	raw, err := os.ReadFile("testdata/objects.yaml")
	require.NoError(t, err)
	var out []row
	require.NoError(t, yaml.UnmarshalStrict(raw, &out))
	return out
}

// The API server admits what the file source accepts, and nothing else: one table
// for both, row by row.
func TestAPIServerAndFilesAgree(t *testing.T) {
	c, ctx := cluster(t)
	client, err := dynamic.NewForConfig(c.REST(kubetest.Admin))
	require.NoError(t, err)
	seen := map[string][2]int{}
	for _, r := range rows(t) {
		t.Run(strings.ReplaceAll(r.Name, "/", " "), func(t *testing.T) {
			u := &unstructured.Unstructured{Object: r.Object}
			at := client.Resource(kubetest.Resource(u)).Namespace(u.GetNamespace())
			dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: "Strict"}
			var admitted error
			if r.Update == nil {
				_, admitted = at.Create(ctx, u, dry)
			} else {
				is, err := at.Create(ctx, u, metav1.CreateOptions{})
				require.NoError(t, err)
				defer func() { require.NoError(t, c.Delete(ctx, kubetest.Admin, u)) }()
				next := &unstructured.Unstructured{Object: r.Update}
				next.SetResourceVersion(is.GetResourceVersion())
				_, admitted = at.Update(ctx, next, metav1.UpdateOptions{DryRun: dry.DryRun, FieldValidation: "Strict"})
				unstructured.RemoveNestedField(r.Update, "metadata", "resourceVersion")
			}
			if admitted != nil { // refused for what it is, not for want of a right or a kind
				require.True(t, apierrors.IsInvalid(admitted) || apierrors.IsBadRequest(admitted), "%v", admitted)
			}
			accepted := inFiles(t, r)
			require.Equal(t, r.Valid, admitted == nil, "the API server: %v", admitted)
			require.Equal(t, r.Valid, accepted == nil, "files: %v", accepted)
		})
		n := seen[fmt.Sprint(r.Object["kind"])]
		if n[0]++; !r.Valid {
			n[0], n[1] = n[0]-1, n[1]+1
		}
		seen[fmt.Sprint(r.Object["kind"])] = n
	}
	crds, err := filepath.Glob(root(t, "deploy", "crds", "*.yaml"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(seen), 7)
	for kind, n := range seen {
		require.True(t, n[0] >= 2 && n[1] >= 2, "%s has %d valid and %d invalid rows", kind, n[0], n[1])
	}
	require.LessOrEqual(t, len(seen), len(crds))
}

// inFiles is what the file source says of a row: of the object, and of the update
// of a directory that it read before.
func inFiles(t *testing.T, r row) error {
	t.Helper()
	dir := t.TempDir()
	write := func(object map[string]any) {
		raw, err := json.Marshal(object)
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "platform"), 0o755))
		path := filepath.Join(dir, "platform", "row.json")
		require.NoError(t, os.WriteFile(path+".new", raw, 0o600))
		require.NoError(t, os.Rename(path+".new", path))
	}
	write(r.Object)
	config := file.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)}
	source, err := file.New(config)
	require.NoError(t, err)
	if r.Update == nil {
		_, report := source.Load()
		return firstError(report)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	sink := &changes{reports: make(chan file.Report, 8), applied: make(chan int, 8)}
	ended := make(chan error, 1)
	go func() { ended <- source.Run(ctx, sink) }() // ends with cancel
	defer func() {
		cancel()
		require.NoError(t, <-ended)
	}()
	<-sink.applied
	require.NoError(t, firstError(<-sink.reports))
	write(r.Update)
	select { // a change is applied, or there is a report of why not
	case <-sink.applied:
		return nil
	case report := <-sink.reports:
		return firstError(report)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func firstError(r file.Report) error {
	for _, e := range r.Errors {
		return e
	}
	return nil
}

// changes is a Sink that tells of each.
type changes struct {
	reports chan file.Report
	applied chan int
}

func (c *changes) Apply(events []tenancy.Event) { c.applied <- len(events) }
func (c *changes) Report(r file.Report)         { c.reports <- r }
func (c *changes) Synced()                      {}

// What kubectl shows: short names, the category, columns that say what is wrong.
func TestKindsAreConventional(t *testing.T) {
	crds, err := kubetest.Objects(root(t, "deploy", "crds"))
	require.NoError(t, err)
	short := map[string]string{}
	for _, crd := range crds {
		kind, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "kind")
		if kind == "ProxyReport" {
			continue // written by servers for each other: nobody's wish, nothing to accept
		}
		categories, _, _ := unstructured.NestedStringSlice(crd.Object, "spec", "names", "categories")
		require.Equal(t, []string{"bailiwick"}, categories, kind)
		names, _, _ := unstructured.NestedStringSlice(crd.Object, "spec", "names", "shortNames")
		require.Len(t, names, 1, kind)
		require.Empty(t, short[names[0]], "%s and %s are both %s", kind, short[names[0]], names[0])
		short[names[0]] = kind
		versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
		for _, v := range versions {
			version := v.(map[string]any)
			_, status, _ := unstructured.NestedMap(version, "subresources", "status")
			require.True(t, status, kind)
			columns, _, _ := unstructured.NestedSlice(version, "additionalPrinterColumns")
			text := fmt.Sprint(columns)
			require.Contains(t, text, `type=="Accepted"`, kind)
			require.Contains(t, text, "creationTimestamp", kind)
			list, _, _ := unstructured.NestedString(version, "schema", "openAPIV3Schema", "properties", "status", "properties", "conditions", "x-kubernetes-list-type")
			require.Equal(t, "map", list, kind)
		}
	}
}
