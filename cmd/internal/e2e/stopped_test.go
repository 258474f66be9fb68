package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// An Envoy that stands still with its stream open holds up nobody, of its own
// tenant neither, however much it would have to be told; when it goes on it is told
// what is true by then.
func TestAStoppedEnvoyHoldsUpNobody(t *testing.T) {
	f := setUp(t)
	f.start(shopWeb, webOrders, globexOrders)
	stopped, sibling, stranger := f.pods[shopWeb], f.pods[webOrders], f.pods[globexOrders]
	for _, p := range []*pod{stopped, sibling, stranger} {
		f.holds(p)
	}
	services := func(tenant, namespace string, round int) {
		var all strings.Builder
		for i := range 40 {
			fmt.Fprintf(&all, "---\napiVersion: v1\nkind: Service\nmetadata: {name: r%d-%d, namespace: %s}\nspec: {clusterIP: None, ports: [{name: http, port: 80}]}\n",
				round, i, namespace)
		}
		f.write("tenants/"+tenant+"/rounds.yaml", all.String())
	}
	require.NoError(t, stopped.envoy.Pause())
	t.Cleanup(func() { _ = stopped.envoy.Resume() }) // it has ended if that fails
	for round := range 5 {
		services("acme", "acme-shop", round)
		services("globex", "globex-shop", round)
		f.holds(sibling)
		f.holds(stranger)
	}
	require.NoError(t, stopped.envoy.Resume())
	f.holds(stopped)
}
