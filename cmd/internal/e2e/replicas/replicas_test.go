package replicas

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
	"bailiwick.dev/bailiwick/xds/adsclient"
)

const late = "late.acme-web.svc.cluster.local:8080"

func service(name string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: acme-web}\nspec: {ports: [{name: http, port: 8080}]}\n", name)
}

func (f *fixture) apply(text string) {
	f.t.Helper()
	objects, err := kubetest.Parse([]byte(text))
	require.NoError(f.t, err)
	require.NoError(f.t, f.cluster.Apply(f.ctx, kubetest.Admin, objects...))
}

// Two servers, with no more rights than deploy/base gives them, are one: they
// serve the same bytes, a proxy that moves is sent nothing, and when the one that
// writes statuses is killed the other goes on where it was.
func TestTwoReplicasAreOne(t *testing.T) {
	f := setUp(t)
	first, second := f.serve("first"), f.serve("second")
	moving, staying := f.connect(first), f.connect(second)
	moving.complete(f)
	staying.complete(f)
	require.Equal(t, staying.has(), moving.has(), "byte for byte")
	f.says("accesspolicies", "acme-web", "web-for-all", "Programmed", "True/Programmed@1")
	f.says("accesspolicies", "acme-shop", "orders-from-web", "Programmed", "Unknown/NoProxies@1")
	f.says("servicerequests", "acme-shop", "logs", "ResolvedRefs", "True/ResolvedRefs@1")
	f.says("tenants", "", "acme", "Programmed", "True/Programmed@1")
	f.looksAfterTenants()

	moving.Disconnect()
	before := len(moving.Log())
	moving.to.Store(second)
	require.NoError(t, moving.Reconnect(f.ctx, adsclient.Reconnection{Fresh: true}))
	f.apply(service("late"))
	f.knows(moving, late, true)
	f.knows(staying, late, true)
	for _, m := range moving.Log()[before:] {
		for _, r := range m.Resources {
			require.True(t, strings.Contains(r.Name, "late") || strings.Contains(string(r.Value()), "late"), "%s %s was sent again", m.TypeURL, r.Name)
		}
		require.Empty(t, m.Removed)
	}

	var holder string
	f.until("somebody holds the Lease", func() (err error) { holder, err = f.holder(); return err })
	other := map[string]string{"first": "second", "second": "first"}[holder]
	_, was := f.status("accesspolicies", "acme-shop", "orders-from-web")
	f.servers[holder].Kill()
	f.until("the other holds the Lease", func() error {
		if now, err := f.holder(); err != nil || now != other {
			return fmt.Errorf("%s does, %w", now, errors.Join(err, errors.New("still")))
		}
		return nil
	})
	_, err := f.resource("accesspolicies", "acme-web").Patch(f.ctx, "web-for-all", types.MergePatchType,
		[]byte(`{"spec":{"rules":[{"from":[{"all":true}],"methods":["GET"]}]}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	f.says("accesspolicies", "acme-web", "web-for-all", "Accepted", "True/Accepted@2")
	_, is := f.status("accesspolicies", "acme-shop", "orders-from-web")
	require.Equal(t, was, is, "what did not change is not written again")

	// Nor does one that starts anew write what stands there.
	require.NoError(t, f.servers[other].Restart(f.ctx))
	_, err = f.resource("accesspolicies", "acme-web").Patch(f.ctx, "web-for-all", types.MergePatchType,
		[]byte(`{"spec":{"rules":[{"from":[{"all":true}]}]}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	f.says("accesspolicies", "acme-web", "web-for-all", "Accepted", "True/Accepted@3")
	_, is = f.status("accesspolicies", "acme-shop", "orders-from-web")
	require.Equal(t, was, is)
	f.says("servicerequests", "acme-shop", "logs", "Programmed", "Unknown/NoProxies@1")

	// A request for what another tenant has and does not grant, and one for nothing.
	for name, service := range map[string]string{"real": "web", "unreal": "nobody"} {
		f.apply(fmt.Sprintf("{apiVersion: bailiwick.dev/v1alpha1, kind: ServiceRequest, metadata: {name: %s, namespace: acme-web}, spec: {to: {namespace: globex-web, service: %s, all: true}}}", name, service))
		f.says("servicerequests", "acme-web", name, "ResolvedRefs", "False/NotAvailable@1")
	}
	f.noWordOfOthers()
	f.eventsSay(map[string]string{"real": "web", "unreal": "nobody"})
}

// noWordOfOthers checks that no status names a thing of another tenant, but what
// stands in the object itself.
func (f *fixture) noWordOfOthers() {
	f.t.Helper()
	for _, plural := range []string{"servicegrants", "servicerequests", "accesspolicies"} {
		list, err := f.resource(plural, "").List(f.ctx, metav1.ListOptions{})
		require.NoError(f.t, err)
		require.NotEmpty(f.t, list.Items)
		for _, u := range list.Items {
			status, err := json.Marshal(u.Object["status"])
			require.NoError(f.t, err)
			spec, err := json.Marshal(u.Object["spec"])
			require.NoError(f.t, err)
			for _, tenant := range []string{"acme", "globex"} {
				if !strings.HasPrefix(u.GetNamespace(), tenant) && !strings.Contains(string(spec), tenant) {
					require.NotContains(f.t, string(status), tenant, u.GetName())
				}
			}
		}
	}
}

// eventsSay checks that there is one Event about each of these requests for a
// service of globex, that they differ in what was asked for alone, and that no
// Event names a tenant where another reads it.
func (f *fixture) eventsSay(about map[string]string) {
	f.t.Helper()
	events := f.objects.Resource(schema.GroupVersionResource{Group: "events.k8s.io", Version: "v1", Resource: "events"})
	var notes map[string][]string
	f.until("there are Events", func() error {
		list, err := events.List(f.ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		notes = map[string][]string{}
		for _, u := range list.Items {
			note := u.Object["note"].(string)
			name := u.Object["regarding"].(map[string]any)["name"].(string)
			notes[name] = append(notes[name], note)
			if u.GetNamespace() == "acme-web" {
				note = strings.ReplaceAll(note, about[name]+".globex-web.svc", "")
			}
			for _, tenant := range []string{"acme", "globex", "platform"} {
				if u.GetNamespace() != metav1.NamespaceSystem && !strings.HasPrefix(u.GetNamespace(), tenant) {
					require.NotContains(f.t, note, tenant, "%s of %s", name, u.GetNamespace())
				}
			}
		}
		if len(notes["real"]) == 0 || len(notes["unreal"]) == 0 {
			return fmt.Errorf("%v", notes)
		}
		return nil
	})
	require.Len(f.t, notes["real"], 1)
	require.Len(f.t, notes["unreal"], 1)
	require.Equal(f.t, strings.Replace(notes["real"][0], about["real"], "", 1), strings.Replace(notes["unreal"][0], about["unreal"], "", 1), "nobody learns which of them exists")
}

// Whoever deletes a Tenant that namespaces belong to, by mistake, changes nothing
// for its proxies; said on the Lease that it is meant, it goes at all replicas.
func TestDeletedTenantIsHeldUntilConfirmed(t *testing.T) {
	f := setUp(t)
	first, second := f.serve("first"), f.serve("second")
	p := f.connect(first)
	const orders = "orders.acme-web.svc.cluster.local:8080"
	f.knows(p, orders, true)

	tenants := f.resource("tenants", "")
	_, err := tenants.Patch(f.ctx, "acme", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	require.NoError(t, tenants.Delete(f.ctx, "acme", metav1.DeleteOptions{}))
	held := func(s *mesh.Server, want int) {
		f.until(fmt.Sprintf("%d removals are held", want), func() error {
			raw, err := s.Dump(f.ctx, "/status")
			if err != nil {
				return err
			}
			var got struct{ Held []struct{ Kind, Name string } }
			if err := json.Unmarshal(raw, &got); err != nil || len(got.Held) != want {
				return fmt.Errorf("held are %v, %w", got.Held, errors.Join(err, errors.New("not yet")))
			}
			return nil
		})
	}
	held(first, 1)
	held(second, 1)
	f.apply(service("late"))
	f.knows(p, late, true)
	f.knows(p, orders, true)

	leases := f.objects.Resource(schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}).Namespace(system)
	f.until("it is confirmed on the Lease", func() error {
		patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"bailiwick.dev/confirm-removals":%q}}}`, time.Now().Add(time.Second).UTC().Format(time.RFC3339))
		_, err := leases.Patch(f.ctx, "bailiwick", types.MergePatchType, patch, metav1.PatchOptions{})
		return err
	})
	held(first, 0)
	held(second, 0)
	f.until("its proxy has nothing any more", func() error {
		if names := p.Names(mesh.ClusterType); len(names) > 0 {
			return fmt.Errorf("it knows %v", names)
		}
		return nil
	})
}

// A server that is told to end sends its proxies away over some time, serves them
// until then, and is not ready meanwhile; the other takes them, sends them nothing
// again, and takes no more than it may.
func TestDrain(t *testing.T) {
	f := setUp(t)
	first, second := f.serve("first", "--drain", "5s"), f.serve("second", "--max-streams", "2")
	var proxies []*proxy
	for range 3 {
		proxies = append(proxies, f.connect(first))
	}
	for _, p := range proxies {
		f.knows(p, "orders.acme-web.svc.cluster.local:8080", true)
	}
	ended := make(chan struct{})
	go func() { // ends with the server
		first.Stop()
		close(ended)
	}()
	f.until("the first is not ready", func() error {
		if _, err := first.Fetch(f.ctx, "/readyz"); err == nil || !strings.Contains(err.Error(), "draining") {
			return fmt.Errorf("it says %w", errors.Join(err, errors.New("not yet")))
		}
		return nil
	})
	for _, p := range proxies {
		<-p.Done()
	}
	<-ended
	for _, p := range proxies[:2] {
		p.to.Store(second)
		require.NoError(t, p.Reconnect(f.ctx, adsclient.Reconnection{Fresh: true}))
	}
	f.apply(service("late"))
	for _, p := range proxies[:2] {
		f.knows(p, late, true)
	}
	proxies[2].to.Store(second)
	_ = proxies[2].Reconnect(f.ctx, adsclient.Reconnection{Fresh: true}) // refused, now or by the first answer
	<-proxies[2].Done()
	require.ErrorContains(t, proxies[2].Err(), "connect to another")
}
