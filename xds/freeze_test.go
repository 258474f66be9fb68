package xds

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/snapshot"
)

// A server that knows less than there is sends nothing to whom has state, in
// either flavour, whatever changes and whatever is asked; whoever has none is
// served. When it is up to date, all are told the difference.
func TestClientsWithStateAreLeftAsTheyAreWhileTheSourceIsBehind(t *testing.T) {
	v := newView("acme").set(append(svc("a", "1"), svc("revoked", "1")...)...)
	synctest.Test(t, func(t *testing.T) {
		fresh := make(chan struct{})
		w := newWorld(t, v, func(c *Config) { c.Fresh = func() <-chan struct{} { return fresh } })
		back := w.open(delta)
		require.Empty(t, show(back.back(snapshot.Cluster, nil, svc("a", "0")[0])))
		require.Empty(t, show(back.subscribe(snapshot.Endpoint, "a")))
		state := w.open(state)
		require.Empty(t, show(state.request(&request{url: snapshot.Cluster.URL(), version: "1"})))
		v.set(svc("b", "1")...)
		require.Empty(t, show(back.take()))
		require.Empty(t, show(state.take()))
		require.NotEmpty(t, show(w.open(delta).subscribe(snapshot.Cluster)), "who has nothing is served")

		v.remove(child(snapshot.Cluster, "revoked"), child(snapshot.Endpoint, "revoked"))
		close(fresh)
		said := show(back.take())
		require.NotEmpty(t, said)
		require.NotContains(t, said[0], "revoked")
		require.Contains(t, said[0], "a=1")
		said = show(state.take())
		require.NotEmpty(t, said)
		require.NotContains(t, said[0], "revoked")
		require.NotEmpty(t, show(w.open(delta).back(snapshot.Cluster, nil, svc("a", "0")[0])))
	})
}
