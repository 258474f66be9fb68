package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy/canary"
	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
	"bailiwick.dev/bailiwick/xds/adsclient"
)

// aviary is a mesh of two pairs of tenants all of whose strings are canaries. The
// pairs have live grants in themselves, and none between them.
type aviary struct {
	t       *testing.T
	ctx     context.Context
	c       *kubetest.Cluster
	rng     *rand.Rand
	tenants []canary.Tenant
	objects []*unstructured.Unstructured
}

func newAviary(ctx context.Context, t *testing.T) *aviary {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	w := &aviary{t: t, ctx: ctx, c: cluster(ctx, t), rng: rand.New(rand.NewPCG(seed, 0))}
	names := []string{"kanarya", "kanaryb", "kanaryc", "kanaryd"}
	for i, name := range names {
		one := canary.Tenant{Name: name, Peer: names[(i+2)%4], Stranger: names[i^1], Number: byte(i + 101), Network: fmt.Sprintf("10.41.%d", i+1)}
		w.tenants = append(w.tenants, one)
		for _, d := range one.Documents() {
			parsed, err := kubetest.Parse([]byte(d.Text))
			require.NoError(t, err)
			w.objects = append(w.objects, parsed...)
		}
	}
	kubetest.Complete(w.objects)
	require.NoError(t, w.c.Apply(ctx, kubetest.Admin, w.objects...))
	t.Cleanup(func() { clean(t, w.c, &scene{objects: w.objects}) })
	return w
}

// strangers of one tenant are those of the other pair.
func (w *aviary) strangers(i int) []canary.Tenant {
	return []canary.Tenant{w.tenants[i^1], w.tenants[((i^1)+2)%4]}
}

// change removes a random object, or applies it anew.
func (w *aviary) change() {
	o := w.objects[w.rng.IntN(len(w.objects))]
	if o.GetKind() == "Namespace" || o.GetKind() == "Tenant" {
		return
	}
	if w.rng.IntN(2) == 0 {
		require.NoError(w.t, w.c.Delete(w.ctx, kubetest.Admin, o))
	} else {
		require.NoError(w.t, w.c.Apply(w.ctx, kubetest.Admin, o))
	}
}

// proxy is one of a tenant's, which takes everything or, as a liar, nothing.
func (w *aviary) proxy(ca *mesh.CA, server *mesh.Server, i int, liar bool) *adsclient.Client {
	name := w.tenants[i].Name
	who := identity.Workload{TrustDomain: name + ".example", Namespace: name + "-shop", ServiceAccount: name + "-orders-account"}
	source, err := ca.Source(who.String(), identity.IssueOptions{})
	require.NoError(w.t, err)
	c, err := adsclient.Dial(w.ctx, adsclient.Config{
		Address: server.XDS.String(), TLS: identity.ClientTLS(source, source, spiffeid.RequireFromString(server.ID)),
		Follow: adsclient.FollowReferences, Node: &corev3.Node{Id: fmt.Sprintf("%s-shop/%s-orders-0", name, name)},
		OnResponse: func(*adsclient.Message) adsclient.Verdict {
			if liar {
				return adsclient.Nack(name + "-lies of " + w.tenants[i^1].Name)
			}
			return adsclient.Ack()
		},
	})
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// resources are all that the API server can list, of all groups.
func (w *aviary) resources() (out []schema.GroupVersionResource) {
	client, err := discovery.NewDiscoveryClientForConfig(w.c.REST(kubetest.Admin))
	require.NoError(w.t, err)
	lists, err := client.ServerPreferredResources()
	require.NoError(w.t, err)
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		require.NoError(w.t, err)
		for _, r := range list.APIResources {
			if slices.Contains(r.Verbs, "list") {
				out = append(out, gv.WithResource(r.Name))
			}
		}
	}
	return out
}

// readable is everything that there is in a tenant's namespaces, events
// included, and the objects of its own outside of them.
func (w *aviary) readable(i int) (kinds map[string]bool, objects []unstructured.Unstructured) {
	client, err := dynamic.NewForConfig(w.c.REST(kubetest.Admin))
	require.NoError(w.t, err)
	kinds = map[string]bool{}
	for _, r := range w.resources() {
		list, err := client.Resource(r).List(w.ctx, metav1.ListOptions{})
		require.NoError(w.t, err, r)
		for _, o := range list.Items {
			if mark := w.tenants[i].Name; strings.HasPrefix(o.GetNamespace(), mark) || o.GetNamespace() == "" && strings.HasPrefix(o.GetName(), mark) {
				kinds[o.GetKind()] = true
				objects = append(objects, o)
			}
		}
	}
	return kinds, objects
}

// pending is an error while anything of the group waits for its conditions.
func pending(objects []unstructured.Unstructured) error {
	for _, o := range objects {
		if o.GroupVersionKind().Group != "bailiwick.dev" {
			continue
		}
		raw, err := json.Marshal(o.Object["status"])
		if err != nil || bytes.Contains(raw, []byte("waiting for the server")) || !bytes.Contains(raw, []byte("Programmed")) {
			return errors.Join(err, fmt.Errorf("%s %s: %s", o.GetKind(), o.GetName(), raw))
		}
	}
	return nil
}

// What the API server has of a tenant, whoever wrote it there, says nothing of a
// stranger but what the tenant said itself: statuses of all kinds there are,
// events, and whatever else a namespace can hold.
func TestNoCanaryInWhatIsStored(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	w := newAviary(ctx, t)
	require.NoError(t, w.c.Apply(ctx, kubetest.Admin, kubetest.Namespace("canary-system", "")))
	kubeconfig, err := w.c.Kubeconfig(kubetest.Admin)
	require.NoError(t, err)
	var domains []string
	for _, one := range w.tenants {
		domains = append(domains, one.Name+".example")
	}
	ca := authority(t, &scene{domains: domains})
	server := serve(ctx, t, mesh.ServerConfig{
		Args: []string{"--kubeconfig", kubeconfig, "--system-namespace", "canary-system", "--max-removal", "1"}, CA: ca,
	})
	var streams []*adsclient.Client
	for i := range w.tenants {
		streams = append(streams, w.proxy(ca, server, i, i < 2), w.proxy(ca, server, i, false))
	}
	for range 60 {
		w.change()
	}
	require.NoError(t, w.c.Apply(ctx, kubetest.Admin, w.objects...))
	for i, tenant := range w.tenants {
		var objects []unstructured.Unstructured
		until(ctx, t, "all conditions are written", func() error {
			var kinds map[string]bool
			kinds, objects = w.readable(i)
			for _, o := range w.objects {
				if !kinds[o.GetKind()] {
					return fmt.Errorf("no %s", o.GetKind())
				}
			}
			return pending(objects)
		})
		for _, o := range objects {
			raw, err := json.Marshal(o.Object)
			require.NoError(t, err)
			require.NotEmpty(t, canary.Find(string(raw), tenant), "the search finds")
			require.Empty(t, canary.Find(tenant.Without(string(raw)), w.strangers(i)...), "%s %s", o.GetKind(), o.GetName())
		}
	}
	for n, c := range streams {
		var all strings.Builder
		for _, m := range c.Log() {
			all.Write(m.Raw)
		}
		require.NotEmpty(t, canary.Find(all.String(), w.tenants[n/2]), "the search finds")
		require.Empty(t, canary.Find(all.String(), w.strangers(n/2)...))
	}
}
