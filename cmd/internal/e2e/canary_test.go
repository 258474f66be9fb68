package e2e

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/tenancy/canary"
	"bailiwick.dev/bailiwick/xds/adsclient"
)

// aviary is a mesh of tenants all of whose strings are canaries. The first two
// are watched; each has live grants with a partner, the third and the fourth,
// and nobody of one pair may hear of the other.
type aviary struct {
	*fixture
	rng     *rand.Rand
	tenants []canary.Tenant
	objects []canary.Document
	streams map[string]*adsclient.Client // by Pod and protocol
	markers int
}

func newAviary(t *testing.T) *aviary {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	w := &aviary{rng: rand.New(rand.NewPCG(seed, 0)), streams: map[string]*adsclient.Client{}}
	names := []string{"kanarya", "kanaryb", "kanaryc", "kanaryd"}
	var domains []string
	for i, name := range names {
		one := canary.Tenant{
			Name: name, Peer: names[(i+2)%4], Stranger: names[i^1], Number: byte(i + 1), Network: fmt.Sprintf("127.%d.%d", built.network, i+1),
		}
		w.tenants, domains = append(w.tenants, one), append(domains, name+".example")
		w.objects = append(w.objects, one.Documents()...)
	}
	w.fixture = emptyFixture(t, domains...)
	w.restore()
	return w
}

// restore puts all objects in place.
func (w *aviary) restore() {
	for _, d := range w.objects {
		w.write(d.Path, d.Text)
	}
}

// strangers of one tenant are those of the other pair.
func (w *aviary) strangers(i int) []canary.Tenant {
	other := i ^ 1
	return []canary.Tenant{w.tenants[other], w.tenants[(other+2)%4]}
}

func podOf(t canary.Tenant, service string) string {
	return fmt.Sprintf("%s-shop/%s-%s-0", t.Name, t.Name, service)
}

// change does one random thing: an object goes, comes, cannot be honoured, or is
// a tenant that is suspended. What watched streams live by stays.
func (w *aviary) change() {
	d := w.objects[w.rng.IntN(len(w.objects))]
	watched := slices.ContainsFunc(w.tenants[:2], func(t canary.Tenant) bool { return strings.HasPrefix(d.Name, t.Name) })
	if watched && (d.Kind == "Tenant" || d.Kind == "Namespace" || d.Kind == "Pod") {
		return
	}
	mark, _, _ := strings.Cut(d.Name, "-")
	switch w.rng.IntN(5) {
	case 0:
		if err := os.Remove(filepath.Join(w.dir, d.Path)); err != nil {
			require.ErrorIs(w.t, err, os.ErrNotExist)
		}
	case 1:
		w.write(d.Path, d.Text+fmt.Sprintf("%s-bogus: {%s-bogus: %s-bogus}\n", mark, mark, mark))
	case 2:
		w.write(d.Path, strings.NewReplacer("outboundPolicy: RegistryOnly", "suspended: true", "8080", "8089", "-zone", "-other-zone").Replace(d.Text))
	default:
		w.write(d.Path, d.Text)
	}
}

// settle waits until both watched tenants' streams have what was written before.
func (w *aviary) settle() {
	w.t.Helper()
	w.markers++
	for _, t := range w.tenants[:2] {
		w.write(fmt.Sprintf("tenants/%s/marker.yaml", t.Name), fmt.Sprintf(
			"apiVersion: v1\nkind: Service\nmetadata: {name: %s-marker-%d, namespace: %s-admin}\nspec: {clusterIP: None, ports: [{name: http, port: 80}]}\n", t.Name, w.markers, t.Name))
	}
	for name, c := range w.streams {
		mark, _, _ := strings.Cut(name, "-")
		cluster := fmt.Sprintf("%s-marker-%d.%s-admin.svc.cluster.local:80", mark, w.markers, mark)
		require.NoError(w.t, c.Wait(w.ctx, func(v adsclient.View) bool { return v.Has(mesh.ClusterType, cluster) }), "%s: %v", name, c.Err())
	}
}

func (w *aviary) watch(p *pod) {
	config := w.envoyConfig(p)
	for _, config.SotW = range []bool{false, true} {
		c, err := mesh.DialADS(w.ctx, config, func(c *adsclient.Config) { c.Follow = adsclient.FollowLikeEnvoy })
		require.NoError(w.t, err)
		w.t.Cleanup(func() { _ = c.Close() })
		w.streams[fmt.Sprintf("%s sotw=%t", p.name, config.SotW)] = c
	}
}

// Whatever a tenant's objects have in their fields, and whatever becomes of them,
// a tenant with which it has no live grant never finds any of it: not on its
// streams, in its proxies, in their access logs, in what is said of its objects,
// nor in what it is answered.
func TestNoCanaryReachesAStranger(t *testing.T) {
	w := newAviary(t)
	w.serve("--max-removal", "1")
	require.NoError(t, w.server.WaitReady(w.ctx))
	var names []string
	for _, tenant := range w.tenants[:2] {
		names = append(names, podOf(tenant, "web"), podOf(tenant, "orders"))
	}
	w.start(names...)
	for _, name := range names {
		w.watch(w.pods[name])
	}
	for i := range 60 {
		w.change()
		if i%10 == 9 {
			w.settle()
		}
	}
	for i, tenant := range w.tenants[:2] {
		w.run("words about "+tenant.Name, func() { w.hearsNothing(w.said(i), w.strangers(i)) })
	}
	w.restore()
	w.settle()
	for i, tenant := range w.tenants[:2] {
		w.run(tenant.Name, func() {
			w.calls(i)
			for _, service := range []string{"web", "orders"} {
				p := w.pods[podOf(tenant, service)]
				pages := w.pages(p)
				require.NotEmpty(w.t, canary.Find(pages, tenant), "the search finds")
				require.NotEmpty(w.t, canary.Find(pages, w.tenants[(i+2)%4]), "what is granted is there")
				w.hearsNothing(pages+p.envoy.LogTail(1<<20), w.strangers(i))
			}
			w.hearsNothing(w.said(i)+w.answers(i), w.strangers(i))
		})
	}
	for name, c := range w.streams {
		i := slices.IndexFunc(w.tenants, func(t canary.Tenant) bool { return strings.HasPrefix(name, t.Name) })
		var bytes strings.Builder
		for _, m := range c.Log() {
			bytes.Write(m.Raw)
		}
		require.NotEmpty(t, canary.Find(bytes.String(), w.tenants[i]), "the search finds")
		require.NotEmpty(t, canary.Find(bytes.String(), w.tenants[(i+2)%4]), "what is granted is there")
		w.hearsNothing(bytes.String(), w.strangers(i))
	}
}

func (w *aviary) hearsNothing(text string, of []canary.Tenant) {
	w.t.Helper()
	require.Empty(w.t, canary.Find(text, of...))
}

// calls make the proxies of a tenant write their access logs: of its own
// workloads, and of a stranger's with the stranger's certificate.
func (w *aviary) calls(i int) {
	tenant := w.tenants[i]
	web, orders := w.pods[podOf(tenant, "web")], w.pods[podOf(tenant, "orders")]
	url := fmt.Sprintf("http://%s-orders.%s-shop.svc.cluster.local:8080/", tenant.Name, tenant.Name)
	w.untilGet(web, url, answeredBy(orders, web))
	require.Equal(w.t, forbidden, w.request(orders, http.MethodPost, url+tenant.Name+"-denied/x"), "what its policies deny")
	w.refusesHandshake(w.certificate(w.pods[podOf(w.tenants[i^1], "web")]), orders, 8080)
	w.until("both are in the access log", func() error {
		log := orders.envoy.LogTail(1 << 20)
		if !strings.Contains(log, web.workload.String()) || !strings.Contains(log, orders.workload.String()) {
			return errors.New(log)
		}
		return nil
	})
}

// said are the conditions of a tenant's objects, without its own words.
func (w *aviary) said(i int) string {
	var all strings.Builder
	for _, o := range w.status().Objects {
		if strings.HasPrefix(o.Name, w.tenants[i].Name) {
			for _, c := range o.Conditions {
				fmt.Fprintln(&all, o.Kind, o.Namespace, o.Name, c.Type, c.Status, c.Reason, c.Message)
			}
		}
	}
	require.NotEmpty(w.t, canary.Find(all.String(), w.tenants[i]), "the search finds")
	return w.tenants[i].Without(all.String())
}

// answers are what the server says to a tenant that asks.
func (w *aviary) answers(i int) string {
	own, other := w.tenants[i], w.tenants[i^1]
	web := w.pods[podOf(own, "web")]
	server := w.asking(web)
	var all strings.Builder
	ask := func(args ...string) {
		got := run(w.t, nil, append(args, server...)...)
		require.Contains(w.t, []int{0, 3, 4}, got.code, got.stderr)
		fmt.Fprintln(&all, got.stdout, got.stderr)
	}
	ask("matrix")
	ask("matrix", "-o", "json")
	ask("whoami")
	ask("whoami", "-o", "json")
	for _, to := range []string{
		own.Name + "-shop/" + own.Name + "-orders:8080", own.Peer + "-shop/" + own.Peer + "-orders:8080", other.Name + "-shop/" + other.Name + "-db:8081", "nobody/nothing:80",
	} {
		ask("explain", "--from", web.workload.String(), "--to", to)
		ask("explain", "-o", "json", "--from", web.workload.String(), "--to", to, "--path", "/"+own.Name+"-denied")
	}
	return own.Without(all.String())
}

// Every kind of a tenant's and of the platform's in every nasty form, put before
// a running server at once: each file that cannot be honoured is in the log, the
// others' proxies keep what they have, byte for byte, and all goes on.
func TestPoisonHurtsNobodyElse(t *testing.T) {
	w := newAviary(t)
	w.serve("--max-removal", "1")
	require.NoError(t, w.server.WaitReady(w.ctx))
	world := w.world()
	for _, tenant := range w.tenants[:2] {
		w.watch(w.newPod(world, podOf(tenant, "orders")))
	}
	w.settle()
	types := []string{mesh.ClusterType, resourcev3.EndpointType, resourcev3.ListenerType, resourcev3.SecretType, resourcev3.ExtensionConfigType}
	held := func() map[string]string {
		all := map[string]string{}
		for name, c := range w.streams {
			if !strings.HasPrefix(name, w.tenants[1].Name) {
				continue
			}
			require.NoError(t, c.Wait(w.ctx, func(v adsclient.View) bool {
				return !slices.ContainsFunc(types, func(url string) bool { return len(v.Names(url)) == 0 || len(v.Missing(url)) > 0 })
			}), "%s has all", name)
			for _, url := range types {
				for resource, e := range c.State(url) {
					if !strings.Contains(resource, "-marker-") {
						all[name+" "+url+" "+resource] = string(e.Any)
					}
				}
			}
		}
		return all
	}
	before := held()
	require.Greater(t, len(before), 20)
	var written []canary.Poison
	for _, p := range canary.Poisons(w.tenants[0].Documents()) {
		// One that cannot be read denies calls to subjects that may be anybody.
		if p.Kind != "ClusterAccessPolicy" {
			w.write(p.Path, p.Text)
			written = append(written, p)
		}
	}
	w.settle()
	log := w.server.LogTail(1 << 20)
	told := map[string]int{}
	for _, p := range written {
		if strings.Contains(log, p.Path) {
			told[p.Kind]++
		}
	}
	require.Len(t, told, 10)
	for kind, n := range told {
		require.GreaterOrEqual(t, n, 20, "%s", kind)
	}
	requireSame(t, before, held())
	for _, p := range written {
		w.remove(p.Path)
	}
	w.settle()
	requireSame(t, before, held())
	metrics, err := w.server.Metrics(w.ctx)
	require.NoError(t, err)
	for _, of := range []string{"xds", "snapshot", "source"} {
		require.Contains(t, string(metrics), fmt.Sprintf("\nbailiwick_%s_panics_total 0\n", of))
	}
}

// requireSame names what differs, and does not show it: it is long.
func requireSame(t *testing.T, want, got map[string]string) {
	t.Helper()
	for name, o := range want {
		require.True(t, got[name] == o, "%s differs", name)
	}
	for name := range got {
		require.Contains(t, slices.Collect(maps.Keys(want)), name)
	}
}
