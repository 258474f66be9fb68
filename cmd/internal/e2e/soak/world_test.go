package soak

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy/file"
	"bailiwick.dev/bailiwick/tenancy/object"
	"bailiwick.dev/bailiwick/tenancy/reference"
)

const (
	trustDomain = "soak.example"
	tenants     = 8
	services    = 3
)

func tenant(i int) string    { return fmt.Sprintf("tenant%02d", i) }
func namespace(i int) string { return fmt.Sprintf("tenant%02d-apps", i) }
func service(i int) string   { return fmt.Sprintf("svc%d", i) }

// world is a directory of objects that the test changes. Each tenant offers
// services to the next one at most, so whom a tenant may hear of is known.
type world struct {
	t   *testing.T
	dir string
	rng *rand.Rand
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, dir: t.TempDir(), rng: rand.New(rand.NewPCG(seed, 0))}
	var platform strings.Builder
	for i := range tenants {
		fmt.Fprintf(&platform, "apiVersion: bailiwick.dev/v1alpha1\nkind: Tenant\nmetadata: {name: %s}\nspec: {trustDomain: %s}\n---\n"+
			"apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {bailiwick.dev/tenant: %s}}\n---\n",
			tenant(i), trustDomain, namespace(i), tenant(i))
	}
	w.write("platform/tenants.yaml", platform.String())
	for i := range tenants {
		for s := range services {
			w.writeService(i, s, 1)
		}
	}
	return w
}

// write replaces a file as careful tools do: by rename.
func (w *world) write(name, text string) {
	path := filepath.Join(w.dir, name)
	require.NoError(w.t, os.MkdirAll(filepath.Dir(path), 0o755))
	temp := path + ".tmp"
	require.NoError(w.t, os.WriteFile(temp, []byte(text), 0o600))
	require.NoError(w.t, os.Rename(temp, path))
}

func (w *world) remove(name string) {
	if err := os.Remove(filepath.Join(w.dir, name)); err != nil {
		require.ErrorIs(w.t, err, os.ErrNotExist)
	}
}

func (w *world) file(i int, name string) string {
	return fmt.Sprintf("tenants/%s/%s.yaml", tenant(i), name)
}

func (w *world) writeService(i, s, endpoints int) {
	var b strings.Builder
	ns, svc := namespace(i), service(s)
	fmt.Fprintf(&b, "apiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: %s}\nspec: {clusterIP: None, ports: [{name: http, port: %d}]}\n",
		svc, ns, 8080+w.rng.IntN(2))
	var slice strings.Builder
	for e := range endpoints {
		ip := fmt.Sprintf("127.%d.%d.%d", 100+i, s, e+1)
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Pod\nmetadata: {name: %s-%d, namespace: %s}\nspec: {serviceAccountName: %s}\nstatus: {phase: Running, podIP: %s}\n",
			svc, e, ns, svc, ip)
		fmt.Fprintf(&slice, "- {addresses: [%s], conditions: {ready: %t}, targetRef: {kind: Pod, name: %s-%d}}\n", ip, w.rng.IntN(4) > 0, svc, e)
	}
	fmt.Fprintf(&b, "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: %s, namespace: %s, labels: {kubernetes.io/service-name: %s}}\n"+
		"addressType: IPv4\nports: [{name: http, port: 8080}]\nendpoints:\n%s", svc, ns, svc, slice.String())
	if endpoints == 0 {
		b.WriteString(" []\n")
	}
	w.write(w.file(i, svc), b.String())
}

// change does one random thing.
func (w *world) change() {
	i, s := w.rng.IntN(tenants), w.rng.IntN(services)
	next := (i + 1) % tenants
	switch w.rng.IntN(8) {
	case 0, 1, 2, 3:
		w.writeService(i, s, w.rng.IntN(4))
	case 4:
		w.remove(w.file(i, service(s)))
	case 5:
		w.write(w.file(i, "grant"), fmt.Sprintf("apiVersion: bailiwick.dev/v1alpha1\nkind: ServiceGrant\nmetadata: {name: offer, namespace: %s}\n"+
			"spec: {from: [{tenant: %s, all: true}], to: [{service: %s, all: true}]}\n", namespace(i), tenant(next), service(s)))
	case 6:
		w.write(w.file(next, "request"), fmt.Sprintf("apiVersion: bailiwick.dev/v1alpha1\nkind: ServiceRequest\nmetadata: {name: take, namespace: %s}\n"+
			"spec: {to: {namespace: %s, service: %s, all: true}}\n", namespace(next), namespace(i), service(s)))
	case 7:
		w.remove(w.file(i, []string{"grant", "request"}[w.rng.IntN(2)]))
	}
}

// expected are the names of the clusters that each tenant's proxies must have
// for what is on disk now, by the reference.
func (w *world) expected() [tenants][]string {
	src, err := file.New(file.Config{Dir: w.dir, Options: object.Options{AllowLoopback: true}, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(w.t, err)
	events, report := src.Load()
	require.Empty(w.t, report.Errors)
	state := reference.Fold(events)
	var out [tenants][]string
	for i := range tenants {
		names := []string{"blackhole"}
		for _, n := range state.VisibleNames(tenant(i), namespace(i)) {
			names = append(names, fmt.Sprintf("%s.%s.svc.cluster.local:%d", n.Service, n.Namespace, n.Port))
		}
		slices.Sort(names)
		out[i] = slices.Compact(names)
	}
	return out
}
