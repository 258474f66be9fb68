package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

// TestSameBytes: every proxy of a mesh is given the same, byte for byte, whether
// its objects come from files or from an API server.
func TestSameBytes(t *testing.T) {
	for name, path := range map[string][]string{
		"demo":       {"deploy", "demo"},
		"golden":     {"cmd", "internal", "e2e", "testdata", "mesh"},
		"zones":      {"cmd", "internal", "e2e", "testdata", "zones"},
		"dual stack": {"cmd", "internal", "e2e", "netns", "testdata", "objects"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			c := cluster(ctx, t)
			s := open(t, path...)
			t.Cleanup(func() { clean(t, c, s) })
			require.NoError(t, c.Apply(ctx, kubetest.Admin, s.objects...))
			kubeconfig, err := c.Kubeconfig(kubetest.Admin)
			require.NoError(t, err)
			ca := authority(t, s)
			files := serve(ctx, t, mesh.ServerConfig{ConfigDir: s.dir, CA: ca})
			api := serve(ctx, t, mesh.ServerConfig{Args: []string{"--kubeconfig", kubeconfig}, CA: ca})
			require.NotEmpty(t, s.pods)
			var first, second []*proxy
			for _, who := range s.pods {
				first, second = append(first, connect(ctx, t, ca, files, who)), append(second, connect(ctx, t, ca, api, who))
			}
			for i, who := range s.pods {
				until(ctx, t, "both are given the same", func() error {
					if !first[i].complete() || !second[i].complete() {
						return errors.New("not all has come")
					}
					return differ(first[i].holds(), second[i].holds())
				})
				require.Greater(t, len(first[i].holds()), 5, "%v", who)
			}
			if name == "zones" {
				assignment := resourcev3.EndpointType + " near.acme-shop.svc.cluster.local:8080"
				require.NotEqual(t, first[0].holds()[assignment], first[1].holds()[assignment], "places matter")
			}
			until(ctx, t, "both hold the same", func() error {
				one, err := files.Dump(ctx, "/dump")
				if err != nil {
					return err
				}
				two, err := api.Dump(ctx, "/dump")
				if err == nil && string(one) != string(two) {
					err = fmt.Errorf("%s\n\n%s", one, two)
				}
				return err
			})
		})
	}
}

// differ says which resources differ.
func differ(a, b map[string]string) error {
	var names []string
	for name := range maps.Keys(a) {
		if other, ok := b[name]; !ok || other != a[name] {
			names = append(names, name)
		}
	}
	for name := range maps.Keys(b) {
		if _, ok := a[name]; !ok {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return fmt.Errorf("%d of %d and %d resources differ: %q", len(names), len(a), len(b), names)
}

// clean removes all objects but namespaces, which nobody here would end: these
// become nobody's.
func clean(t *testing.T, c *kubetest.Cluster, s *scene) {
	t.Helper()
	ctx := context.Background() // that of the test is over
	for _, u := range slices.Backward(s.objects) {
		var err error
		switch u.GetKind() {
		case "Namespace":
			err = c.Apply(ctx, kubetest.Admin, kubetest.Namespace(u.GetName(), ""))
		case "Tenant":
			// Nobody is there to let it go when its names need not wait any more.
			err = errors.Join(c.Delete(ctx, kubetest.Admin, u), c.Release(ctx, kubetest.Admin, u))
		default:
			err = c.Delete(ctx, kubetest.Admin, u)
		}
		if err != nil {
			t.Error(err)
		}
	}
}
