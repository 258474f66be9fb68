package kube

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

// parse reads YAML documents.
func parse(t *testing.T, text string) []*unstructured.Unstructured {
	t.Helper()
	objects, err := kubetest.Parse([]byte(text))
	require.NoError(t, err)
	kubetest.Complete(objects)
	return objects
}

func service(t *testing.T, namespace, name string) *unstructured.Unstructured {
	t.Helper()
	return parse(t, fmt.Sprintf("{apiVersion: v1, kind: Service, metadata: {name: %s, namespace: %s}, spec: {clusterIP: None, ports: [{port: 80}]}}", name, namespace))[0]
}

func request(t *testing.T, namespace, name string) *unstructured.Unstructured {
	t.Helper()
	return parse(t, fmt.Sprintf("{apiVersion: bailiwick.dev/v1alpha1, kind: ServiceRequest, metadata: {name: %s, namespace: %s}, spec: {to: {namespace: other, service: s, all: true}}}", name, namespace))[0]
}

// has returns the object of that kind and name, nil if it is not applied.
func (r *recorder) has(kind tenancy.Kind, namespace, name string) tenancy.Object {
	return r.objects[tenancy.Ref{Kind: kind, Key: tenancy.Key{Namespace: namespace, Name: name}}]
}

// TestOutages: whatever becomes of the API server or the way to it, nothing that
// was there goes, how old it is is told, and afterwards the source has what was
// written and lacks what was deleted meanwhile.
func TestOutages(t *testing.T) {
	c := cluster(t)
	ctx := t.Context()
	restart := func(t *testing.T) {
		require.NoError(t, c.StartEtcd(ctx))
		require.NoError(t, c.StartAPIServer(ctx))
	}
	for name, o := range map[string]struct {
		begin, end func(*testing.T, *kubetest.Gate)
		// apiserver tells that it is away itself, so that nothing can be written
		// before the end.
		apiserver bool
	}{
		"connections are refused": {
			begin: func(_ *testing.T, g *kubetest.Gate) { g.Cut() },
			end:   func(_ *testing.T, g *kubetest.Gate) { g.Open() },
		},
		"every answer is 503": {
			begin: func(_ *testing.T, g *kubetest.Gate) { g.Fail(http.StatusServiceUnavailable) },
			end:   func(_ *testing.T, g *kubetest.Gate) { g.Open() },
		},
		"every answer is 500": {
			begin: func(_ *testing.T, g *kubetest.Gate) { g.Fail(http.StatusInternalServerError) },
			end:   func(_ *testing.T, g *kubetest.Gate) { g.Open() },
		},
		"rights are lost": {
			begin: func(_ *testing.T, g *kubetest.Gate) { g.Fail(http.StatusForbidden) },
			end:   func(_ *testing.T, g *kubetest.Gate) { g.Open() },
		},
		"nothing is served": {
			begin: func(_ *testing.T, g *kubetest.Gate) { g.Fail(http.StatusNotFound) },
			end:   func(_ *testing.T, g *kubetest.Gate) { g.Open() },
		},
		"requests hang": {
			begin: func(_ *testing.T, g *kubetest.Gate) { g.Slow(time.Hour); g.Drop() },
			end:   func(_ *testing.T, g *kubetest.Gate) { g.Open(); g.Drop() },
		},
		"the API server is killed": {
			begin: func(*testing.T, *kubetest.Gate) { c.KillAPIServer() },
			end:   func(t *testing.T, _ *kubetest.Gate) { restart(t) }, apiserver: true,
		},
		"etcd is killed, the API server is after it": {
			begin: func(_ *testing.T, g *kubetest.Gate) { c.KillEtcd(); c.KillAPIServer() },
			end:   func(t *testing.T, _ *kubetest.Gate) { restart(t) }, apiserver: true,
		},
		"410: restarted and compacted meanwhile": {
			begin: func(_ *testing.T, g *kubetest.Gate) { g.Cut() },
			end: func(t *testing.T, g *kubetest.Gate) {
				c.KillAPIServer()
				require.NoError(t, c.Compact(ctx))
				restart(t)
				g.Open()
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			gate := c.Gate(t)
			ns := "outage"
			require.NoError(t, c.Apply(ctx, kubetest.Admin, kubetest.Namespace(ns, "acme"),
				service(t, ns, "stays"), service(t, ns, "goes"), request(t, ns, "stays"), request(t, ns, "goes")))
			r, log, _ := follow(t, gate.REST(kubetest.Admin), nil)
			r.wait(t, "it is synced", func() bool { return r.synced && r.report.Ready })
			r.mu.Lock()
			before, removed := len(r.objects), r.removed
			r.mu.Unlock()

			write := func() {
				require.NoError(t, c.Delete(ctx, kubetest.Admin, service(t, ns, "goes"), request(t, ns, "goes")))
				require.NoError(t, c.Apply(ctx, kubetest.Admin, service(t, ns, "comes"), request(t, ns, "comes")))
			}
			o.begin(t, gate)
			r.wait(t, "all kinds are stale, and it is known why", func() bool {
				return len(r.report.Stale) == len(kinds(t)) && !slices.ContainsFunc(r.report.Stale, func(s Stale) bool {
					return s.Unserved != (name == "nothing is served")
				})
			})
			if !o.apiserver {
				write()
			}
			r.mu.Lock()
			require.Len(t, r.objects, before, "an outage takes nothing away")
			require.Equal(t, removed, r.removed)
			for _, stale := range r.report.Stale {
				require.False(t, stale.Since.IsZero())
				require.NotEmpty(t, stale.Reason)
			}
			r.mu.Unlock()
			require.Contains(t, log.String(), "cannot be followed: what was read stays")

			o.end(t, gate)
			if o.apiserver {
				write()
			}
			r.wait(t, "it has caught up", func() bool {
				return len(r.report.Stale) == 0 && r.has(tenancy.KindService, ns, "comes") != nil && r.has(tenancy.KindServiceRequest, ns, "comes") != nil &&
					r.has(tenancy.KindService, ns, "goes") == nil && r.has(tenancy.KindServiceRequest, ns, "goes") == nil
			})
			r.mu.Lock()
			require.NotNil(t, r.has(tenancy.KindService, ns, "stays"))
			require.NotNil(t, r.has(tenancy.KindServiceRequest, ns, "stays"))
			require.Equal(t, removed+2, r.removed, "two were deleted, and nothing else went")
			r.mu.Unlock()
			require.Contains(t, log.String(), "is followed again")
			require.NoError(t, c.Delete(ctx, kubetest.Admin, service(t, ns, "comes"), request(t, ns, "comes")))
		})
	}
}

// kinds are those that a source follows.
func kinds(t *testing.T) []*kind {
	t.Helper()
	s, err := New(Config{REST: shared.Get(t).REST(kubetest.Admin), Logger: quietLogger()})
	require.NoError(t, err)
	return s.kinds
}

// TestBurst: watches that are dropped again and again while objects come and go
// lose nothing.
func TestBurst(t *testing.T) {
	c := cluster(t)
	ctx := t.Context()
	gate := c.Gate(t)
	ns := "burst"
	require.NoError(t, c.Apply(ctx, kubetest.Admin, kubetest.Namespace(ns, "acme")))
	r, _, _ := follow(t, gate.REST(kubetest.Admin), nil)
	r.wait(t, "it is synced", func() bool { return r.synced })
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 10 {
				s := service(t, ns, fmt.Sprintf("s-%d-%d", w, i))
				if err := c.Apply(ctx, kubetest.Admin, s); err != nil {
					t.Error(err)
				}
				if i%2 == 1 {
					if err := c.Delete(ctx, kubetest.Admin, s); err != nil {
						t.Error(err)
					}
				}
				gate.Drop()
			}
		})
	}
	writers.Wait()
	r.wait(t, "exactly the even ones are there", func() bool {
		n := 0
		for ref := range r.objects {
			if ref.Kind == tenancy.KindService && ref.Key.Namespace == ns {
				if strings.HasSuffix(ref.Key.Name, "1") || strings.HasSuffix(ref.Key.Name, "3") {
					return false
				}
				n++
			}
		}
		return n == 20
	})
}

// TestStart: nothing is served before all is read. A kind that only adds rights
// and is not served holds the start up for a while, one that may refuse or decide
// whose a namespace is for as long as it takes.
func TestStart(t *testing.T) {
	c := cluster(t)
	ctx := t.Context()
	unserve := func(resource string, served bool) {
		t.Helper()
		crds := crd(t, resource, served)
		require.NoError(t, c.Apply(ctx, kubetest.Admin, crds))
		if served {
			require.NoError(t, c.WaitServed(ctx, crds))
		} else {
			require.NoError(t, c.WaitUnserved(ctx, crds))
		}
	}
	t.Run("the API server is away", func(t *testing.T) {
		gate := c.Gate(t)
		gate.Cut()
		r, _, _ := follow(t, gate.REST(kubetest.Admin), nil)
		r.wait(t, "all kinds are stale", func() bool { return len(r.report.Stale) == len(kinds(t)) })
		r.mu.Lock()
		require.False(t, r.synced)
		require.Empty(t, r.objects)
		r.mu.Unlock()
		gate.Open()
		r.wait(t, "it is synced", func() bool { return r.synced })
	})
	t.Run("grants are not served", func(t *testing.T) {
		unserve("servicegrants", false)
		t.Cleanup(func() { unserve("servicegrants", true) })
		r, log, _ := follow(t, c.REST(kubetest.Admin), func(c *Config) { c.Absence = 2 * time.Second })
		r.wait(t, "it is synced without them", func() bool { return r.synced && len(r.report.Stale) == 1 })
		r.mu.Lock()
		require.Equal(t, "ServiceGrant", r.report.Stale[0].Kind)
		require.True(t, r.report.Stale[0].Unserved)
		r.mu.Unlock()
		require.Contains(t, log.String(), "serves the kind")
	})
	t.Run("policies are not served", func(t *testing.T) {
		unserve("accesspolicies", false)
		r, _, _ := follow(t, c.REST(kubetest.Admin), func(c *Config) { c.Absence = time.Millisecond })
		r.wait(t, "only policies are missing", func() bool { return len(r.report.Stale) == 1 && r.report.Objects > 0 })
		r.mu.Lock()
		require.False(t, r.synced)
		r.mu.Unlock()
		unserve("accesspolicies", true)
		r.wait(t, "it is synced", func() bool { return r.synced })
	})
	t.Run("a kind is withdrawn and comes back", func(t *testing.T) {
		ns := "withdrawn"
		require.NoError(t, c.Apply(ctx, kubetest.Admin, kubetest.Namespace(ns, "acme"), request(t, ns, "r")))
		r, _, _ := follow(t, c.REST(kubetest.Admin), nil)
		r.wait(t, "the request is there", func() bool { return r.has(tenancy.KindServiceRequest, ns, "r") != nil })
		unserve("servicerequests", false)
		r.wait(t, "the kind is stale", func() bool { return len(r.report.Stale) == 1 && r.report.Stale[0].Unserved })
		r.mu.Lock()
		require.NotNil(t, r.has(tenancy.KindServiceRequest, ns, "r"))
		require.Zero(t, r.removed)
		r.mu.Unlock()
		unserve("servicerequests", true)
		require.NoError(t, c.Delete(ctx, kubetest.Admin, request(t, ns, "r")))
		r.wait(t, "it has caught up", func() bool { return len(r.report.Stale) == 0 && r.has(tenancy.KindServiceRequest, ns, "r") == nil })
	})
}
