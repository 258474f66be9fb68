package xds

import (
	"testing"

	"github.com/stretchr/testify/require"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"

	"bailiwick.dev/bailiwick/snapshot"
)

func last(fs []frameOf) *frameOf { return &fs[len(fs)-1] }

// only returns the frames of a type.
func only(t snapshot.Type, fs []frameOf) []frameOf {
	var out []frameOf
	for _, f := range fs {
		if f.Type == t.String() {
			out = append(out, f)
		}
	}
	return out
}

func TestStateStart(t *testing.T) {
	bubble(t, shopView(), func(t *testing.T, w *world) {
		c := w.open(state)
		require.Equal(t, []string{"cluster [a=1 b=1] -[]"}, show(c.want(snapshot.Cluster, nil)), "what it has not asked for it would drop")
		require.Equal(t, []string{"endpoint [a=1 b=1] -[]"}, show(c.want(snapshot.Endpoint, nil, "a", "b")))
		require.Equal(t, []string{"secret [bundle/td=pem] -[]"}, show(c.want(snapshot.Secret, nil, "bundle/td")))
		require.Equal(t, []string{"listener [l=1] -[]", "secret [inbound=pem] -[]"}, show(c.want(snapshot.Listener, nil)))
	})
}

func TestStateEmptyClustersAndListenersAreAnswered(t *testing.T) {
	bubble(t, newView("acme"), func(t *testing.T, w *world) {
		c := w.open(state)
		require.Equal(t, []string{"cluster [] -[]"}, show(c.want(snapshot.Cluster, nil)))
		require.Equal(t, []string{"listener [] -[]"}, show(c.want(snapshot.Listener, nil)))
		require.Empty(t, c.want(snapshot.Route, nil))
	})
}

func TestStateGrowingListsWithoutNonce(t *testing.T) {
	v := newView("acme").set(res(snapshot.Extension, "rbac-1", "1"), res(snapshot.Extension, "rbac-2", "1"))
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.open(state)
		require.Equal(t, []string{"extension [rbac-1=1] -[]"}, show(c.want(snapshot.Extension, nil, "rbac-1")))
		require.Equal(t, []string{"extension [rbac-2=1] -[]"}, show(c.want(snapshot.Extension, nil, "rbac-2", "rbac-1")), "only what is new")
		require.Empty(t, c.want(snapshot.Extension, nil, "rbac-1", "rbac-2"))
	})
}

func TestStateStaleNonceIsIgnored(t *testing.T) {
	v := shopView()
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.open(state)
		first := c.want(snapshot.Endpoint, nil, "a")
		v.set(res(snapshot.Endpoint, "a", "2"))
		second := c.take()
		require.Empty(t, c.want(snapshot.Endpoint, last(first), "a", "b"), "answers an outdated response")
		require.Equal(t, []string{"endpoint [b=1] -[]"}, show(c.want(snapshot.Endpoint, last(second), "a", "b")))
	})
}

func TestStateEmptyNamesAfterNamesMeanNothing(t *testing.T) {
	v := shopView()
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.open(state)
		f := c.want(snapshot.Cluster, nil, "a")
		require.Equal(t, []string{"cluster [a=1] -[]"}, show(f))
		require.Empty(t, c.want(snapshot.Cluster, last(f)), "it has dropped them itself")
		v.set(svc("a", "2")...)
		require.Empty(t, c.take())
	})
}

func TestStateExplicitWildcard(t *testing.T) {
	v := shopView()
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.open(state)
		f := c.want(snapshot.Cluster, nil, "*", "a")
		require.Equal(t, []string{"cluster [a=1 b=1] -[]"}, show(f))
		require.Empty(t, c.want(snapshot.Cluster, last(f), "*", "a"))
		require.Equal(t, []string{"cluster [a=1] -[]"}, show(c.want(snapshot.Cluster, last(f), "a")))
	})
}

func TestStateReconnectGetsEverything(t *testing.T) {
	bubble(t, shopView(), func(t *testing.T, w *world) {
		c := w.open(state)
		r := &request{url: snapshot.Cluster.URL(), version: "anything"}
		require.Equal(t, []string{"cluster [a=1 b=1] -[]"}, show(c.request(r)))
		r = &request{url: snapshot.Route.URL(), version: "anything", names: []string{"http-80"}}
		require.Equal(t, []string{"route [http-80=1] -[]"}, show(c.request(r)))
	})
}

func TestStateChangedClusterBringsItsAssignment(t *testing.T) {
	v := shopView()
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.open(state)
		c.want(snapshot.Cluster, nil)
		c.want(snapshot.Endpoint, nil, "a", "b")
		v.set(res(snapshot.Cluster, "a", "2", child(snapshot.Endpoint, "a")))
		require.Equal(t, []string{"cluster [a=2 b=1] -[]", "endpoint [a=1] -[]"}, show(c.take()))
		v.set(svc("c", "1")...)
		require.Equal(t, []string{"cluster [a=2 b=1 c=1] -[]", "endpoint [c=1] -[]"}, show(c.take()), "unasked")
	})
}

func TestStateRemovedClustersStayUntilRoutesHaveLeftThem(t *testing.T) {
	v := shopView()
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.open(state)
		c.want(snapshot.Cluster, nil)
		c.want(snapshot.Endpoint, nil, "a", "b")
		c.want(snapshot.Route, nil, "http-80")
		snapshot.Publish(snapshot.Update{Layer: v.View, Set: append(svc("c", "1"), res(snapshot.Route, "http-80", "2")),
			Remove: []snapshot.Child{child(snapshot.Cluster, "a"), child(snapshot.Endpoint, "a")}})
		require.Equal(t, []string{
			"cluster [a=1 b=1 c=1] -[]",
			"endpoint [c=1] -[]",
			"route [http-80=2] -[]",
			"endpoint [a=] -[]",
			"cluster [b=1 c=1] -[]",
		}, show(c.take()))
		v.remove(child(snapshot.Cluster, "b"), child(snapshot.Cluster, "c"))
		require.Equal(t, []string{"cluster [] -[]"}, show(c.take()))
	})
}

func TestStateGoneInvisibleOrUnknown(t *testing.T) {
	bubble(t, newView("acme"), func(t *testing.T, w *world) {
		c := w.open(state)
		require.Equal(t, []string{"endpoint [x=] -[]"}, show(c.want(snapshot.Endpoint, nil, "x")))
		require.Equal(t, []string{"route [x=] -[]"}, show(c.want(snapshot.Route, nil, "x")))
		require.Equal(t, []string{"extension [rbac-http-9=deny] -[]"}, show(c.want(snapshot.Extension, nil, "rbac-http-9")))
		require.Empty(t, c.want(snapshot.Secret, nil, "x"))
		require.Equal(t, []string{"cluster [] -[]"}, show(c.want(snapshot.Cluster, nil, "x")))
	})
}

func TestStateOneACKAnswersAllBefore(t *testing.T) {
	v := shopView()
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.open(state)
		c.want(snapshot.Endpoint, nil, "a")
		v.set(res(snapshot.Endpoint, "a", "2"))
		f := c.take()
		c.want(snapshot.Endpoint, last(f), "a")
		require.InDelta(t, 2, answers(w, "acme", snapshot.Endpoint, resultACK), 0)
	})
}

// An Envoy whose clusters warm answers w1 (good), w2 (bad) and w3 (good) with
// one request: the version and nonce of w3 and the error of w2.
func TestStateErrorWithTheNonceOfALaterGoodOne(t *testing.T) {
	v := shopView()
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.open(state)
		f := c.want(snapshot.Endpoint, nil, "a", "b")
		require.Empty(t, c.want(snapshot.Endpoint, last(f), "a", "b"))
		v.set(res(snapshot.Endpoint, "a", "bad"))
		c.take()
		v.set(res(snapshot.Endpoint, "b", "2"))
		f = c.take()
		require.Equal(t, []string{"endpoint [b=2] -[]"}, show(f))
		again := c.request(&request{url: snapshot.Endpoint.URL(), names: []string{"a", "b"}, nonce: f[0].Nonce, version: f[0].version,
			failed: &statuspb.Status{Code: 13, Message: "bad"}})
		require.Empty(t, again, "only one can have been meant")
		refused := w.srv.Streams()[0].Refused
		require.Len(t, refused, 1)
		require.Equal(t, "a", refused[0].Resource)
	})
}
