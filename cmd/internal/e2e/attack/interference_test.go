package attack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/xds/adsclient"
)

// deed is one thing that happens to acme, or that it does: a file of the directory
// becomes one of its variants, or one of its proxies misbehaves.
type deed struct {
	file, variant int
	stream        int
}

// variants are what files of acme's and of the platform about acme may hold; the
// first is what there is at the beginning, "" for no file.
func (w *world) variants() (files []string, texts [][]string) {
	services := func(n, port int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "apiVersion: v1\nkind: Service\nmetadata: {name: x%d, namespace: acme-web}\nspec: {clusterIP: None, ports: [{name: http, port: %d}]}\n---\n", i, port)
		}
		return b.String()
	}
	grants := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "apiVersion: bailiwick.dev/v1alpha1\nkind: ServiceGrant\nmetadata: {name: gift-%d, namespace: acme-web}\nspec: {from: [{tenant: globex, all: true}], to: [{service: orders, all: true}]}\n---\n", i)
		}
		return b.String()
	}
	all, tenants, inside := `{from: [{all: true}]}`, w.read(tenantsFile), w.read(insideFile)
	acme := func(more string) string {
		return strings.Replace(tenants, "  trustDomain: acme.example\n", "  trustDomain: acme.example\n  "+more+"\n", 1)
	}
	denied := strings.ReplaceAll(fmt.Sprintf(policy, "x", `{from: [{tenant: globex, namespace: globex-web}, {all: true}]}`), "Allow", "Deny")
	orders := w.read("tenants/acme/web-orders.yaml")
	for file, list := range map[string][]string{
		"tenants/acme/x-services.yaml": {"", services(1, 80), services(30, 80), services(30, 81)},
		"tenants/acme/x-policies.yaml": {"", fmt.Sprintf(policy, "x", all), denied, fmt.Sprintf(policy, "x", "{from: [{bad: true}]}")},
		"tenants/acme/x-grants.yaml":   {"", grants(1), grants(20)},
		"tenants/acme/x-request.yaml": {"",
			"apiVersion: bailiwick.dev/v1alpha1\nkind: ServiceRequest\nmetadata: {name: x, namespace: acme-web}\nspec: {to: {namespace: globex-web, service: web, all: true}}\n"},
		"tenants/acme/web-orders.yaml": {orders, strings.Replace(orders, "  zone: acme-web-zone\n", "  zone: acme-web-zone\n  conditions: {ready: false}\n", 1),
			strings.ReplaceAll(orders, "127.40.2.1", "127.40.4.1")},
		tenantsFile: {tenants, acme("suspended: true"), acme("visibility: Namespace"), acme("limits: {services: 1, viewResources: 3, policies: 1}"), acme("defaultAction: AllowWithinTenant")},
		insideFile:  {inside, strings.Replace(inside, "    bailiwick.dev/tenant: acme\n", "", 1)},
		"platform/x-policy.yaml": {"",
			"apiVersion: bailiwick.dev/v1alpha1\nkind: ClusterAccessPolicy\nmetadata: {name: x}\nspec: {tier: Admin, priority: 1, subjects: [{tenants: [acme]}], rules: [{action: Deny, from: [{tenant: acme}]}]}\n"},
	} {
		files, texts = append(files, file), append(texts, list)
	}
	order := make([]int, len(files))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(files[a], files[b]) })
	sorted, of := make([]string, len(files)), make([][]string, len(files))
	for i, at := range order {
		sorted[i], of[i] = files[at], texts[at]
	}
	return sorted, of
}

// thirdID is a workload of a tenant that has no part in it: what it is told after
// a deed tells that the deed was looked at.
const thirdID = "spiffe://platform.example/ns/third/sa/watcher"

// withThird has acme and globex without a live grant, and the third.
func withThird(w *world) {
	w.remove(requestFile)
	w.write("platform/third.yaml", "apiVersion: bailiwick.dev/v1alpha1\nkind: Tenant\nmetadata: {name: third}\nspec: {trustDomain: platform.example}\n---\n"+
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: third, labels: {bailiwick.dev/tenant: third}}\n")
}

// everything is what a client has: by type and name the version, but for what
// [world.said] asks for.
func everything(c *adsclient.Client) map[string]string {
	out := map[string]string{}
	for typ := range snapshot.NumTypes {
		for name, e := range c.State(typ.URL()) {
			if !strings.HasPrefix(name, "end-") {
				out[typ.URL()+" "+name] = e.Version
			}
		}
	}
	return out
}

// misbehaves is a stream of acme's that lies or asks for what is globex's.
func (w *world) misbehaves(kind int) {
	w.t.Helper()
	p := []adsclient.Protocol{adsclient.Delta, adsclient.SotW}[kind%2]
	c, err := w.dial(p, acmeOrders, options{follow: adsclient.FollowReferences, answers: func(*adsclient.Message) adsclient.Verdict {
		return adsclient.Nack("globex-shop/orders is invalid")
	}})
	require.NoError(w.t, err)
	for typ := range snapshot.NumTypes { // what becomes of it is the stream's
		_ = c.Send(subscribe(p, typ, "orders.globex-shop.svc.cluster.local:8080"))
	}
}

// told waits until all that was written before has been read and built.
func (w *world) told(third *adsclient.Client, n int) {
	w.t.Helper()
	name := fmt.Sprintf("s%d", n)
	w.write("tenants/third/marker.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: "+name+", namespace: third}\nspec: {clusterIP: None, ports: [{name: http, port: 80}]}\n")
	require.NoError(w.t, third.Wait(w.bounded(), func(v adsclient.View) bool {
		return v.Has(snapshot.Cluster.URL(), name+".third.svc.cluster.local:80")
	}))
}

// undisturbed runs a script against acme and requires that globex's streams are as
// if nothing had happened.
func (w *world) undisturbed(script []deed) {
	w.t.Helper()
	files, texts := w.variants()
	third, err := w.dial(adsclient.Delta, thirdID, options{node: &corev3.Node{Id: "third/watcher"}, follow: adsclient.FollowReferences})
	require.NoError(w.t, err)
	require.NoError(w.t, third.Wildcard(snapshot.Cluster.URL()))
	victims := map[string]*adsclient.Client{}
	before, messages, sent := map[string]map[string]string{}, map[string]int{}, w.served()
	for _, id := range []string{globexWeb, globexOrders} {
		for _, p := range []adsclient.Protocol{adsclient.Delta, adsclient.SotW} {
			key := p.String() + " " + id
			victims[key] = w.proxy(p, id, options{})
			w.said(victims[key]) // all that was on its way is there
			before[key], messages[key] = everything(victims[key]), len(victims[key].Log())
			require.NotEmpty(w.t, before[key])
		}
	}
	still := func(after string) {
		w.t.Helper()
		for key, c := range victims {
			require.Len(w.t, c.Log(), messages[key], "%s was sent something after %s", key, after)
			require.Equal(w.t, before[key], everything(c), "%s after %s", key, after)
		}
	}
	set := func(file int, text string) {
		_, err := os.Stat(filepath.Join(w.dir, files[file]))
		switch {
		case text != "":
			w.write(files[file], text)
		case err == nil:
			w.remove(files[file])
		}
	}
	for i, d := range script {
		file := d.file % len(files)
		variant := d.variant % len(texts[file])
		set(file, texts[file][variant])
		if d.stream > 0 {
			w.misbehaves(d.stream)
		}
		w.told(third, i)
		still(fmt.Sprintf("step %d: %s variant %d, stream %d", i, files[file], variant, d.stream))
	}
	for i := range files { // as it was, and acme has it
		set(i, texts[i][0])
	}
	w.settled()
	w.told(third, len(script))
	still("all")
	require.Equal(w.t, sent, w.served(), "whoever comes gets what there was before")
}

// drawDeed draws one.
func drawDeed(t *rapid.T) deed {
	d := deed{rapid.IntRange(0, 100).Draw(t, "file"), rapid.IntRange(0, 100).Draw(t, "variant"), 0}
	if rapid.IntRange(0, 3).Draw(t, "misbehaves") == 0 {
		d.stream = rapid.IntRange(1, 2).Draw(t, "stream")
	}
	return d
}

// Whatever a tenant without a live grant does or suffers, over the real transport
// and from either source: the streams of another carry no further message, and what
// they have stays the same.
func TestNonInterferenceOverTheWire(t *testing.T) {
	run := func(t *testing.T, w *world, scripts int) {
		if os.Getenv("BAILIWICK_SOAK") == "full" {
			scripts = 50
		}
		w = w.in(t)
		w.renew(nil, withThird)
		for seed := range scripts {
			w.undisturbed(rapid.SliceOfN(rapid.Custom(drawDeed), 15, 15).Example(seed))
		}
	}
	t.Run("files", func(t *testing.T) { run(t, &world{t: t}, 3) })
	t.Run("API server", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), 40*patience)
		defer cancel()
		run(t, &world{t: t, ctx: ctx, cluster: newCluster(t)}, 1)
	})
}
