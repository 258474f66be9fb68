package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/kube"
	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
	"bailiwick.dev/bailiwick/tenancy/reference"
	"bailiwick.dev/bailiwick/xds/adsclient"
)

// size is how much there is of everything, and for how long.
type size struct {
	tenants, services, endpoints, streams int
	// writes are made with every in between; the API server is killed after each
	// kill of them.
	writes, kill int
	every        time.Duration
}

func soakSize() size {
	if os.Getenv("BAILIWICK_SOAK") == "full" {
		return size{tenants: 100, services: 10, endpoints: 5, streams: 200, writes: 12000, kill: 2400, every: 50 * time.Millisecond}
	}
	return size{tenants: 10, services: 2, endpoints: 2, streams: 20, writes: 120, kill: 60, every: time.Millisecond}
}

const soakDomain = "soak.example"

func soakTenant(i int) string { return fmt.Sprintf("soak%03d", i) }

// churn writes objects of a mesh in which each tenant offers services to the next
// one at most, so that whom a tenant may hear of is known.
type churn struct {
	t    *testing.T
	size size
	c    *kubetest.Cluster
	rng  *rand.Rand
}

func (w *churn) apply(ctx context.Context, format string, args ...any) {
	w.t.Helper()
	objects, err := kubetest.Parse(fmt.Appendf(nil, format, args...))
	require.NoError(w.t, err)
	require.NoError(w.t, w.c.Apply(ctx, kubetest.Admin, objects...))
}

func (w *churn) remove(ctx context.Context, format string, args ...any) {
	w.t.Helper()
	objects, err := kubetest.Parse(fmt.Appendf(nil, format, args...))
	require.NoError(w.t, err)
	require.NoError(w.t, w.c.Delete(ctx, kubetest.Admin, objects...))
}

const (
	soakService = "{apiVersion: v1, kind: Service, metadata: {name: svc%d, namespace: %s}, spec: {clusterIP: None, ports: [{name: http, port: %d}]}}"
	soakGrant   = "{apiVersion: bailiwick.dev/v1alpha1, kind: ServiceGrant, metadata: {name: offer%d, namespace: %s}, spec: {from: [{tenant: %s, all: true}], to: [{service: svc%d, all: true}]}}"
	soakRequest = "{apiVersion: bailiwick.dev/v1alpha1, kind: ServiceRequest, metadata: {name: take%d, namespace: %s}, spec: {to: {namespace: %s, service: svc%d, all: true}}}"
)

func (w *churn) fill(ctx context.Context) {
	for i := range w.size.tenants {
		name := soakTenant(i)
		w.apply(ctx, "{apiVersion: bailiwick.dev/v1alpha1, kind: Tenant, metadata: {name: %s}, spec: {trustDomain: %s}}", name, soakDomain)
		require.NoError(w.t, w.c.Apply(ctx, kubetest.Admin, kubetest.Namespace(name, name)))
		for s := range w.size.services {
			w.apply(ctx, soakService, s, name, 8080)
			for e := range w.size.endpoints {
				w.apply(ctx, "{apiVersion: v1, kind: Pod, metadata: {name: svc%d-%d, namespace: %s}, spec: {serviceAccountName: svc%d, containers: [{name: app, image: app}]}, "+
					"status: {phase: Running, podIP: %s, podIPs: [{ip: %s}]}}", s, e, name, s, w.address(i, s, e), w.address(i, s, e))
			}
			w.slice(ctx, i, s)
		}
	}
}

func (w *churn) address(i, s, e int) string { return fmt.Sprintf("10.%d.%d.%d", 100+i, s, e+1) }

func (w *churn) slice(ctx context.Context, i, s int) {
	var endpoints []string
	for e := range w.size.endpoints {
		endpoints = append(endpoints, fmt.Sprintf("{addresses: [%s], conditions: {ready: %t}, targetRef: {kind: Pod, name: svc%d-%d}}", w.address(i, s, e), w.rng.IntN(4) > 0, s, e))
	}
	w.apply(ctx, "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: svc%d, namespace: %s, labels: {kubernetes.io/service-name: svc%d}}, "+
		"addressType: IPv4, ports: [{name: http, port: 8080}], endpoints: [%s]}", s, soakTenant(i), s, strings.Join(endpoints, ", "))
}

// change writes one random thing.
func (w *churn) change(ctx context.Context) {
	i, s := w.rng.IntN(w.size.tenants), w.rng.IntN(w.size.services)
	own, next := soakTenant(i), soakTenant((i+1)%w.size.tenants)
	switch w.rng.IntN(8) {
	case 0, 1, 2:
		w.slice(ctx, i, s)
	case 3:
		w.remove(ctx, soakService, s, own, 8080)
	case 4:
		w.apply(ctx, soakService, s, own, 8080)
	case 5:
		w.apply(ctx, soakGrant, s, own, next, s)
	case 6:
		w.apply(ctx, soakRequest, s, next, own, s)
	case 7:
		if w.rng.IntN(2) == 0 {
			w.remove(ctx, soakGrant, s, own, next, s)
		} else {
			w.remove(ctx, soakRequest, s, next, own, s)
		}
	}
}

// content is what the API server has, read anew.
type content struct {
	events []tenancy.Event
	done   context.CancelFunc
}

func (c *content) Apply(events []tenancy.Event) { c.events = append(c.events, events...) }
func (c *content) Report(kube.Report)           {}
func (c *content) Synced()                      { c.done() }

// expected are the clusters that each tenant's proxies must have, by the
// reference over what the API server has.
func (w *churn) expected(ctx context.Context) [][]string {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	source, err := kube.New(kube.Config{REST: w.c.REST(kubetest.Admin), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(w.t, err)
	all := &content{done: cancel}
	require.NoError(w.t, source.Run(ctx, all))
	require.NotEmpty(w.t, all.events)
	state := reference.Fold(all.events)
	var out [][]string
	for i := range w.size.tenants {
		names := []string{"blackhole"}
		for _, n := range state.VisibleNames(soakTenant(i), soakTenant(i)) {
			names = append(names, fmt.Sprintf("%s.%s.svc.cluster.local:%d", n.Service, n.Namespace, n.Port))
		}
		slices.Sort(names)
		out = append(out, slices.Compact(names))
	}
	return out
}

// listener is a client that looks at every byte for names of tenants that its own
// has nothing to do with.
type listener struct {
	*proxy
	tenant  int
	foreign atomic.Pointer[string]
	seen    int
}

func (l *listener) scan(n int) {
	l.Look(func(v adsclient.View) {
		for _, m := range v.Log()[l.seen:] {
			for i := range n {
				if d := (i - l.tenant + n) % n; d > 1 && d < n-1 && bytes.Contains(m.Raw, []byte(soakTenant(i))) {
					text := fmt.Sprintf("%s: %s in %v", m.TypeURL, soakTenant(i), m.Names())
					l.foreign.CompareAndSwap(nil, &text)
				}
			}
		}
		l.seen = len(v.Log())
	})
}

// TestSoakCluster: churn through an API server that is killed in between. At the
// end every stream's state is what the reference computes from the API server's
// content, nobody was told of a tenant that has nothing to do with it, and the
// server holds no more than a fresh one.
func TestSoakCluster(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	// The tenants' objects would be in the way of the other tests.
	c := kubetest.New(t)
	require.NoError(t, c.InstallCRDs(ctx))
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	w := &churn{t: t, size: soakSize(), c: c, rng: rand.New(rand.NewPCG(seed, 0))}
	w.fill(ctx)
	kubeconfig, err := c.Kubeconfig(kubetest.Admin)
	require.NoError(t, err)
	ca := authority(t, &scene{domains: []string{soakDomain}})
	server := serve(ctx, t, mesh.ServerConfig{Args: []string{"--kubeconfig", kubeconfig}, CA: ca})
	var clients []*listener
	for n := range w.size.streams {
		i := n % w.size.tenants
		who := pod{identity.Workload{TrustDomain: soakDomain, Namespace: soakTenant(i), ServiceAccount: "svc0"}, "svc0-0"}
		clients = append(clients, &listener{proxy: connect(ctx, t, ca, server, who), tenant: i})
	}
	tick := time.NewTicker(w.size.every)
	defer tick.Stop()
	for n := range w.size.writes {
		<-tick.C
		w.change(ctx)
		if n%w.size.kill == w.size.kill/2 {
			c.KillAPIServer()
			require.NoError(t, c.StartAPIServer(ctx))
		}
		if n%50 == 0 {
			for _, l := range clients {
				l.scan(w.size.tenants)
			}
		}
	}
	want := w.expected(ctx)
	for _, l := range clients {
		until(ctx, t, "the stream has what the reference says", func() error {
			has := slices.DeleteFunc(l.Names(resourcev3.ClusterType), func(n string) bool { return strings.HasPrefix(n, "inbound-") })
			if !slices.Equal(has, want[l.tenant]) || !l.complete() {
				return fmt.Errorf("tenant %d has %v and should have %v", l.tenant, has, want[l.tenant])
			}
			return nil
		})
		l.scan(w.size.tenants)
		require.Nil(t, l.foreign.Load(), "tenant %d was told of somebody else", l.tenant)
		require.NoError(t, l.Err(), "no stream ended")
	}
	// The reference speaks of names; all bytes are those of a server that starts now.
	fresh := serve(ctx, t, mesh.ServerConfig{Args: []string{"--kubeconfig", kubeconfig}, CA: ca})
	for i, l := range clients[:min(len(clients), w.size.tenants)] {
		who := pod{identity.Workload{TrustDomain: soakDomain, Namespace: soakTenant(i), ServiceAccount: "svc0"}, "svc0-0"}
		twin := connect(ctx, t, ca, fresh, who)
		until(ctx, t, "a fresh server gives the same", func() error {
			if !twin.complete() {
				return errors.New("not all has come")
			}
			return differ(twin.holds(), l.holds())
		})
		require.NoError(t, twin.Close())
	}
	for _, l := range clients {
		require.NoError(t, l.Close())
	}
	measure := func() (goroutines, heap, streams float64) {
		for name, into := range map[string]*float64{"go_goroutines": &goroutines, "go_memstats_heap_alloc_bytes": &heap, "bailiwick_xds_streams": &streams} {
			var err error
			*into, err = metric(ctx, server, name)
			require.NoError(t, err)
		}
		return goroutines, heap, streams
	}
	until(ctx, t, "all streams have ended", func() error {
		if _, _, streams := measure(); streams > 0 {
			return fmt.Errorf("%v are open", streams)
		}
		return nil
	})
	goroutines, _, _ := measure()
	base, err := metric(ctx, fresh, "go_goroutines")
	require.NoError(t, err)
	require.LessOrEqual(t, goroutines, base+10, "goroutines after all clients left, against a fresh server")
	idle, err := metric(ctx, fresh, "go_memstats_heap_alloc_bytes")
	require.NoError(t, err)
	until(ctx, t, "the heap is back", func() error {
		_, heap, _ := measure()
		t.Logf("goroutines %.0f (fresh server: %.0f), heap %.1f MiB (%.1f)", goroutines, base, heap/(1<<20), idle/(1<<20))
		if heap > 2*idle+64<<20 {
			return fmt.Errorf("%.0f bytes, a fresh server has %.0f", heap, idle)
		}
		return nil
	})
}
