package kube

import (
	"context"
	"net/http"
	"testing"
	"time"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

// TestEndsArePutOff: a grant ends while one of two replicas cannot follow the API
// server, and so cannot know whether it was renewed. That one keeps it longer than
// the other, and by no more than the grace: it ends while the server is still away.
func TestEndsArePutOff(t *testing.T) {
	const grace = 5 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	s := demo(ctx, t)
	current, _ := s.through(ctx, t)
	gate := s.cluster.Gate(t)
	kubeconfig, err := gate.Kubeconfig(kubetest.Admin)
	require.NoError(t, err)
	behind := serve(ctx, t, mesh.ServerConfig{Args: []string{"--kubeconfig", kubeconfig, "--expiry-grace", grace.String()}, CA: s.ca})
	consumer := s.pod(t, "acme-shop", "orders")
	informed, cut := connect(ctx, t, s.ca, current, consumer), connect(ctx, t, s.ca, behind, consumer)
	grant := s.object(t, "ServiceGrant", "platform", "logs")
	has := func(p *proxy) bool { _, ok := p.State(resourcev3.ClusterType)[logs]; return ok }

	// The end is far enough away if the replica knows by then that it is cut off.
	for in := 4 * time.Second; ; in *= 2 {
		settled(ctx, t, informed, logs, true)
		settled(ctx, t, cut, logs, true)
		end := time.Now().Add(in).Truncate(time.Second)
		require.NoError(t, unstructured.SetNestedField(grant.Object, end.UTC().Format(time.RFC3339), "spec", "expiresAt"))
		require.NoError(t, s.cluster.Apply(ctx, kubetest.Admin, grant))
		// What was written after it has come.
		svc := service(t, "acme-shop", "mark")
		require.NoError(t, s.cluster.Apply(ctx, kubetest.Admin, svc))
		settled(ctx, t, cut, "mark.acme-shop.svc.cluster.local:80", true)
		gate.Fail(http.StatusServiceUnavailable)
		stale(ctx, t, behind, true)
		inTime := time.Now().Before(end)
		settled(ctx, t, informed, logs, false)
		kept := has(cut)
		if inTime && (kept || time.Now().Before(end.Add(grace))) {
			require.True(t, kept, "the end was not put off")
			break
		}
		gate.Open()
		stale(ctx, t, behind, false)
		require.NoError(t, s.cluster.Delete(ctx, kubetest.Admin, svc))
		unstructured.RemoveNestedField(grant.Object, "spec", "expiresAt")
		require.NoError(t, s.cluster.Apply(ctx, kubetest.Admin, grant))
	}
	settled(ctx, t, cut, logs, false)
	stale(ctx, t, behind, true)
}
