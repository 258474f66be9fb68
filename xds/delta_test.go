package xds

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
)

// bubble runs a test in a synctest bubble with a server over v.
func bubble(t *testing.T, v view, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(t, newWorld(t, v))
	})
}

func shopView() view {
	v := newView("acme")
	v.set(svc("a", "1")...)
	v.set(svc("b", "1")...)
	v.set(res(snapshot.Secret, "bundle/td", "pem"))
	v.set(res(snapshot.Listener, "l", "1", child(snapshot.Route, "http-80"), child(snapshot.Secret, "inbound"), child(snapshot.Extension, "rbac-http-80")))
	v.set(res(snapshot.Secret, "inbound", "pem"), res(snapshot.Route, "http-80", "1"), res(snapshot.Extension, "rbac-http-80", "1"))
	return v
}

// What a client has not asked for yet it asks for as soon as it knows the name.
func TestDeltaStartBringsNothingTwice(t *testing.T) {
	v := shopView()
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.open(delta)
		require.Equal(t, []string{"cluster [a=1 b=1] -[]"}, show(c.subscribe(snapshot.Cluster)))
		require.Equal(t, []string{"endpoint [a=1 b=1] -[]"}, show(c.subscribe(snapshot.Endpoint, "a", "b")))
		require.Equal(t, []string{"secret [bundle/td=pem] -[]"}, show(c.subscribe(snapshot.Secret, "bundle/td")))
		require.Equal(t, []string{"listener [l=1] -[]"}, show(c.subscribe(snapshot.Listener)))
		require.Equal(t, []string{"secret [inbound=pem] -[]"}, show(c.subscribe(snapshot.Secret, "inbound")))
		require.Equal(t, []string{"extension [rbac-http-80=1] -[]"}, show(c.subscribe(snapshot.Extension, "rbac-http-80")))
		require.Equal(t, []string{"route [http-80=1] -[]"}, show(c.subscribe(snapshot.Route, "http-80")))
		sent := w.srv.Counts().Sends
		require.Equal(t, [snapshot.NumTypes]uint64{1, 1, 2, 1, 1, 1}, sent)
	})
}

func TestDeltaChangesBringChildrenInOrder(t *testing.T) {
	v := newView("acme")
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.open(delta)
		for typ, names := range [snapshot.NumTypes][]string{
			snapshot.Endpoint: {"x"}, snapshot.Secret: {"x"}, snapshot.Extension: {"rbac-http-9"}, snapshot.Route: {"x"},
		} {
			c.ack(c.subscribe(snapshot.Type(typ), names...)...)
		}
		from := shopView()
		set := append(append(svc("a", "1"), svc("b", "1")...), res(snapshot.Secret, "bundle/td", "pem"))
		for _, typ := range []snapshot.Type{snapshot.Secret, snapshot.Listener, snapshot.Extension, snapshot.Route} {
			from.All(typ, func(r *snapshot.Resource) { set = append(set, r) })
		}
		v.set(set...)
		require.Equal(t, []string{
			"cluster [a=1 b=1] -[]",
			"endpoint [a=1 b=1] -[]",
			"secret [bundle/td=pem] -[]",
			"listener [l=1] -[]",
			"secret [inbound=pem] -[]",
			"extension [rbac-http-80=1] -[]",
			"route [http-80=1] -[]",
		}, show(c.take()))
	})
}

// A cluster that a returning client is sent warms until its assignment comes
// again, though the client says that it has it.
func TestDeltaReconnectGetsAssignmentsOfChangedClusters(t *testing.T) {
	bubble(t, shopView(), func(t *testing.T, w *world) {
		c := w.open(delta)
		require.Equal(t, []string{"cluster [a=1] -[]"}, show(c.back(snapshot.Cluster, nil, res(snapshot.Cluster, "a", "0"), svc("b", "1")[0])))
		require.Equal(t, []string{"endpoint [a=1] -[]"}, show(c.back(snapshot.Endpoint, []string{"a", "b"}, svc("a", "1")[1], svc("b", "1")[1])))
	})
}

func TestDeltaEverySubscribeIsAnswered(t *testing.T) {
	bubble(t, shopView(), func(t *testing.T, w *world) {
		c := w.open(delta)
		require.Equal(t, []string{"endpoint [a=1] -[]"}, show(c.subscribe(snapshot.Endpoint, "a")))
		require.Equal(t, []string{"endpoint [a=1] -[]"}, show(c.subscribe(snapshot.Endpoint, "a")), "known at that version, and asked again")
		require.Empty(t, c.request(&request{url: snapshot.Endpoint.URL(), unsubscribe: []string{"a"}}))
		require.Equal(t, []string{"endpoint [a=1] -[]"}, show(c.subscribe(snapshot.Endpoint, "a")))
	})
}

func TestDeltaEmptyClustersAndListenersAreAnswered(t *testing.T) {
	bubble(t, newView("acme"), func(t *testing.T, w *world) {
		c := w.open(delta)
		require.Equal(t, []string{"cluster [] -[]"}, show(c.subscribe(snapshot.Cluster)))
		require.Equal(t, []string{"listener [] -[]"}, show(c.subscribe(snapshot.Listener)))
	})
}

func TestDeltaWildcards(t *testing.T) {
	bubble(t, shopView(), func(t *testing.T, w *world) {
		c := w.open(delta)
		require.Empty(t, c.subscribe(snapshot.Route), "an empty first request of other types is no wildcard")
		require.Equal(t, []string{"route [http-80=1] -[]"}, show(c.subscribe(snapshot.Route, "*")))
		require.Equal(t, "cluster [a=1 b=1] -[]", show(c.subscribe(snapshot.Cluster, "*", "a"))[0])
		require.Equal(t, "cluster [a=1] -[]", show(c.request(&request{url: snapshot.Cluster.URL(), unsubscribe: []string{"a"}}))[0], "goes on by the wildcard: its state")
		require.Equal(t, []string{"cluster [] -[x]"}, show(c.request(&request{url: snapshot.Cluster.URL(), unsubscribe: []string{"x"}})), "nothing there: removed")
		require.Empty(t, c.request(&request{url: snapshot.Cluster.URL(), unsubscribe: []string{"*"}}))
		require.Empty(t, c.subscribe(snapshot.Cluster), "empty is a wildcard only in the first request")
	})
}

func TestDeltaNamedListenerIsServedAlone(t *testing.T) {
	bubble(t, shopView(), func(t *testing.T, w *world) {
		c := w.open(delta)
		require.Equal(t, "cluster [b=1] -[]", show(c.subscribe(snapshot.Cluster, "b"))[0])
		w.store.mu.Lock()
		v := view{w.store.binding}
		w.store.mu.Unlock()
		v.set(svc("a", "2")...)
		require.Empty(t, c.take())
		require.Equal(t, []string{"cluster [] -[gone]"}, show(c.subscribe(snapshot.Cluster, "gone")))
	})
}

func TestDeltaChangeOfAClusterBringsItsAssignmentOfTheSameVersion(t *testing.T) {
	v := shopView()
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.open(delta)
		c.ack(c.subscribe(snapshot.Cluster)...)
		c.ack(c.subscribe(snapshot.Endpoint, "a", "b")...)
		c.ack(c.subscribe(snapshot.Secret, "bundle/td")...)
		v.set(res(snapshot.Cluster, "a", "2", child(snapshot.Endpoint, "a"), child(snapshot.Secret, "bundle/td")))
		require.Equal(t, []string{"cluster [a=2] -[]", "endpoint [a=1] -[]"}, show(c.take()), "and no secret, which it has")
	})
}

func TestDeltaClusterWithoutAssignmentGetsAnEmptyOne(t *testing.T) {
	v := newView("acme")
	v.set(res(snapshot.Cluster, "a", "1", child(snapshot.Endpoint, "a")))
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.open(delta)
		c.subscribe(snapshot.Endpoint, "a")
		require.Equal(t, []string{"cluster [a=1] -[]", "endpoint [a=] -[]"}, show(c.subscribe(snapshot.Cluster)))
	})
}

func TestDeltaRemovalsGoLast(t *testing.T) {
	v := shopView()
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.open(delta)
		for _, step := range []struct {
			typ   snapshot.Type
			names []string
		}{
			{snapshot.Cluster, nil},
			{snapshot.Endpoint, []string{"a", "b"}},
			{snapshot.Secret, []string{"bundle/td"}},
			{snapshot.Listener, nil},
			{snapshot.Extension, []string{"rbac-http-80"}},
			{snapshot.Route, []string{"http-80"}},
		} {
			c.ack(c.subscribe(step.typ, step.names...)...)
		}
		set := append(svc("c", "1"), res(snapshot.Route, "http-80", "2"))
		snapshot.Publish(
			snapshot.Update{Layer: v.View, Set: set, Remove: []snapshot.Child{child(snapshot.Cluster, "a"), child(snapshot.Endpoint, "a")}},
			snapshot.Update{Layer: v.Listeners, Remove: []snapshot.Child{child(snapshot.Listener, "l")}})
		require.Equal(t, []string{
			"cluster [c=1] -[]",
			"endpoint [c=1] -[]",
			"route [http-80=2] -[]",
			"endpoint [a=] -[]",
			"listener [] -[l]",
			"cluster [] -[a]",
		}, show(c.take()))
	})
}

func TestDeltaReconnectWithEqualVersionsIsSilent(t *testing.T) {
	v := shopView()
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.open(delta)
		require.Empty(t, c.back(snapshot.Cluster, nil, svc("a", "1")[0], svc("b", "1")[0]))
		require.Empty(t, c.back(snapshot.Endpoint, []string{"a", "b"}, svc("a", "1")[1], svc("b", "1")[1]))
		require.Empty(t, c.back(snapshot.Route, []string{"http-80"}, res(snapshot.Route, "http-80", "1")))
		v.set(res(snapshot.Route, "http-80", "2"))
		require.Equal(t, []string{"route [http-80=2] -[]"}, show(c.take()), "and goes on from there")
	})
}

func TestDeltaReconnectGetsWhatDiffers(t *testing.T) {
	bubble(t, shopView(), func(t *testing.T, w *world) {
		c := w.open(delta)
		require.Equal(t, []string{
			"cluster [a=1] -[]",
			"cluster [] -[left]",
		}, show(c.back(snapshot.Cluster, nil, res(snapshot.Cluster, "a", "0"), svc("b", "1")[0], res(snapshot.Cluster, "left", "1"))))
		require.Equal(t, []string{
			"endpoint [left=] -[]",
			"cluster [] -[left orphan]",
		}, show(c.back(snapshot.Endpoint, []string{"a", "b", "left", "orphan"}, svc("a", "1")[1], svc("b", "1")[1], res(snapshot.Endpoint, "left", "1")))[1:])
	})
}

func TestDeltaGoneInvisibleOrUnknown(t *testing.T) {
	bubble(t, newView("acme"), func(t *testing.T, w *world) {
		c := w.open(delta)
		require.Equal(t, []string{"endpoint [] -[x]"}, show(c.subscribe(snapshot.Endpoint, "x")))
		require.Equal(t, []string{"route [x=] -[]"}, show(c.subscribe(snapshot.Route, "x")))
		require.Equal(t, []string{"extension [rbac-http-9=deny] -[]"}, show(c.subscribe(snapshot.Extension, "rbac-http-9")))
		require.Empty(t, c.subscribe(snapshot.Secret, "x"))
		require.Equal(t, []string{"listener [] -[x]"}, show(c.subscribe(snapshot.Listener, "x")))
		require.Equal(t, []string{"cluster [] -[x]"}, show(c.subscribe(snapshot.Cluster, "x")))
	})
}

func TestDeltaGoneLater(t *testing.T) {
	v := shopView()
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.open(delta)
		c.subscribe(snapshot.Endpoint, "a")
		c.subscribe(snapshot.Route, "http-80")
		c.subscribe(snapshot.Extension, "rbac-http-80")
		c.subscribe(snapshot.Secret, "inbound")
		v.remove(child(snapshot.Endpoint, "a"), child(snapshot.Route, "http-80"), child(snapshot.Secret, "inbound"))
		require.Equal(t, []string{"route [http-80=] -[]", "endpoint [a=] -[]"}, show(c.take()))
		v.remove(child(snapshot.Extension, "rbac-http-80"))
		require.Equal(t, []string{"extension [rbac-http-80=deny] -[]"}, show(c.take()))
		c.request(&request{url: snapshot.Extension.URL(), unsubscribe: []string{"rbac-http-80"}})
		v.set(res(snapshot.Extension, "rbac-http-80", "1"))
		require.Empty(t, c.take(), "unsubscribed")
		v.set(res(snapshot.Secret, "inbound", "new"))
		require.Equal(t, []string{"secret [inbound=new] -[]"}, show(c.take()))
	})
}

// The same requests for the same name are answered with the same bytes, whether
// another tenant has a service of that name or nobody has.
func TestForeignNameAndRandomNameAreIdentical(t *testing.T) {
	const name = "rbac-http-8080"
	frames := func(mode protocol, exists, has bool) [][]byte {
		mine, foreign := shopView(), newView("globex")
		if exists {
			for typ := range snapshot.NumTypes {
				foreign.set(res(typ, name, "theirs"))
			}
		}
		var out [][]byte
		bubble(t, mine, func(t *testing.T, w *world) {
			other := identity.Workload{TrustDomain: "globex.example", Namespace: "g-shop", ServiceAccount: "web"}
			w.store.others = map[identity.Workload]*snapshot.Binding{other: foreign.Binding}
			theirs := w.prepare(mode)
			w.start(theirs, other)
			theirs.request(&request{url: snapshot.Cluster.URL(), subscribe: []string{name}, names: []string{name}})
			c := w.open(mode)
			for typ := range snapshot.NumTypes {
				r := &request{url: typ.URL(), subscribe: []string{name}, names: []string{name}}
				if has {
					r.has = map[string]string{name: res(typ, name, "theirs").Version()}
				}
				out = append(out, raws(c.request(r))...)
			}
			foreign.set(res(snapshot.Cluster, name, "changed"), res(snapshot.Extension, name, "changed"))
			out = append(out, raws(c.take())...)
		})
		return out
	}
	for _, mode := range []protocol{delta, state} {
		for _, has := range []bool{false, true} {
			require.Equal(t, frames(mode, false, has), frames(mode, true, has))
			require.NotEmpty(t, frames(mode, true, has))
		}
	}
}

func TestDeltaFirstRequestMayCarryANonce(t *testing.T) {
	bubble(t, shopView(), func(t *testing.T, w *world) {
		c := w.open(delta)
		require.Equal(t, "cluster [a=1 b=1] -[]", show(c.request(&request{url: snapshot.Cluster.URL(), nonce: "17"}))[0])
	})
}

func TestDeltaSubscriptionsCountWithAStaleNonce(t *testing.T) {
	bubble(t, shopView(), func(t *testing.T, w *world) {
		c := w.open(delta)
		c.subscribe(snapshot.Endpoint, "a")
		require.Equal(t, []string{"endpoint [b=1] -[]"}, show(c.request(&request{url: snapshot.Endpoint.URL(), nonce: "999", subscribe: []string{"b"}})))
	})
}

func TestUnknownTypeKeepsTheStreamAndGetsNoAnswer(t *testing.T) {
	for _, mode := range []protocol{delta, state} {
		bubble(t, shopView(), func(t *testing.T, w *world) {
			c := w.open(mode)
			require.Empty(t, c.request(&request{url: "type.googleapis.com/some.Thing", subscribe: []string{"*"}}))
			require.NotEmpty(t, c.request(&request{url: snapshot.Cluster.URL()}))
		})
	}
}

func TestReconnectDuringWarmingGetsClustersUnasked(t *testing.T) {
	for _, mode := range []protocol{delta, state} {
		v := shopView()
		bubble(t, v, func(t *testing.T, w *world) {
			c := w.open(mode)
			first := c.request(&request{url: snapshot.Endpoint.URL(), subscribe: []string{"a", "b", "orphan"}, names: []string{"a", "b", "orphan"}})
			require.Len(t, first, 1)
			time.Sleep(unaskedAfter - time.Millisecond)
			require.Empty(t, c.take())
			time.Sleep(time.Millisecond)
			got := c.take()
			require.Equal(t, "cluster [a=1 b=1] -[]", show(got)[0])
			require.Equal(t, "endpoint [a=1 b=1] -[]", show(got)[1])
			if mode == delta {
				require.Equal(t, "cluster [] -[orphan]", show(got)[len(got)-1])
				// The request comes at last: subscription, versions and ACK in one.
				require.Empty(t, c.request(&request{url: snapshot.Cluster.URL(), nonce: got[0].Nonce,
					has: map[string]string{"a": svc("a", "1")[0].Version(), "b": svc("b", "1")[0].Version()}}))
			}
			v.set(svc("c", "1")...)
			require.Contains(t, show(c.take())[0], "c=1")
		})
	}
}

func TestHeldAndUnboundStreamsWaitInSilence(t *testing.T) {
	v := shopView()
	held := *v.Binding
	held.Held = true
	bubble(t, view{}, func(t *testing.T, w *world) {
		c := w.open(delta)
		require.Empty(t, c.back(snapshot.Cluster, nil, svc("a", "1")[0], res(snapshot.Cluster, "left", "1")))
		w.store.bind(&held)
		require.Empty(t, c.take())
		require.Empty(t, c.subscribe(snapshot.Endpoint, "a", "x"))
		w.store.bind(v.Binding)
		require.Equal(t, []string{
			"cluster [b=1] -[]",
			"endpoint [a=1 b=1] -[x]",
			"cluster [] -[left x]",
		}, show(c.take()))
	})
}

func TestChangeOfBindingSendsOnlyDifferences(t *testing.T) {
	before, after := shopView(), newView("acme")
	after.set(svc("a", "1")...)
	after.set(svc("b", "2")...)
	after.set(svc("c", "1")...)
	for name, sub := range map[string][]string{"wildcard": nil, "named": {"a", "b", "c"}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, before, func(t *testing.T, w *world) {
				c := w.open(delta)
				c.ack(c.subscribe(snapshot.Cluster, sub...)...)
				c.ack(c.subscribe(snapshot.Endpoint, "a", "b")...)
				c.ack(c.subscribe(snapshot.Listener)...)
				c.ack(c.subscribe(snapshot.Route, "http-80")...)
				c.ack(c.subscribe(snapshot.Extension, "rbac-http-80")...)
				w.store.bind(after.Binding)
				require.Equal(t, []string{
					"cluster [b=2 c=1] -[]",
					"endpoint [b=2 c=1] -[]",
					"extension [rbac-http-80=deny] -[]",
					"route [http-80=] -[]",
					"listener [] -[l]",
				}, show(c.take()))
			})
		})
	}
}

func TestNodeIsReadOnceAndDecidesNothing(t *testing.T) {
	bubble(t, shopView(), func(t *testing.T, w *world) {
		c := w.open(delta)
		c.subscribe(snapshot.Cluster)
		c.node = nodeWith("globex-x/p", map[string]any{"capture": "explicit"})
		c.subscribe(snapshot.Endpoint, "a")
		require.Equal(t, []snapshot.Proxy{{Workload: shop, Pod: "web-1"}}, w.store.proxies())
	})
}
