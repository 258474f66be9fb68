package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// An Envoy that stands still with its stream open holds up nobody, of its own
// tenant neither, and what it would have to be told is kept back beyond a bound; when
// it goes on it is told what is true by then.
func TestAStoppedEnvoyHoldsUpNobody(t *testing.T) {
	f := setUp(t)
	f.start(shopWeb, webOrders, globexOrders)
	stopped, sibling, stranger := f.pods[shopWeb], f.pods[webOrders], f.pods[globexOrders]
	for _, p := range []*pod{stopped, sibling, stranger} {
		f.holds(p)
	}
	services := func(tenant, namespace string, many, round int) {
		var all strings.Builder
		for i := range many {
			fmt.Fprintf(&all, "---\napiVersion: v1\nkind: Service\nmetadata: {name: r%d-%d, namespace: %s}\nspec: {clusterIP: None, ports: [{name: http, port: 80}]}\n",
				round, i, namespace)
		}
		f.write("tenants/"+tenant+"/rounds.yaml", all.String())
	}
	require.NoError(t, stopped.envoy.Pause())
	t.Cleanup(func() { _ = stopped.envoy.Resume() }) // it has ended if that fails
	for round := 0; !f.keptBack(stopped); round++ {
		require.Less(t, round, 40, "all is sent, however much is not answered")
		services("acme", "acme-shop", 600, round)
		services("globex", "globex-shop", 1, round)
		f.holds(sibling)
		f.holds(stranger)
	}
	require.NoError(t, stopped.envoy.Resume())
	f.holds(stopped)
}

// keptBack reports whether the server keeps something back that a Pod's proxy has to
// be told.
func (f *fixture) keptBack(p *pod) bool {
	f.t.Helper()
	raw, err := f.server.Dump(f.ctx, "/streams")
	require.NoError(f.t, err)
	var streams []struct {
		Workload struct{ Namespace string }
		Pod      string
		Behind   bool
	}
	require.NoError(f.t, json.Unmarshal(raw, &streams))
	for _, s := range streams {
		if s.Workload.Namespace+"/"+s.Pod == p.name {
			return s.Behind
		}
	}
	require.Fail(f.t, "no stream of "+p.name)
	return false
}
