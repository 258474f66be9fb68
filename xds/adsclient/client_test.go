package adsclient_test

import (
	"context"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/xds/adsclient"
	"bailiwick.dev/bailiwick/xds/xdstest"
)

func TestDeltaState(t *testing.T) {
	f := newFake(t)
	config := f.config(adsclient.Delta)
	config.Node = &corev3.Node{Id: "shop/web-1"}
	c := f.dial(config)

	require.NoError(t, c.Wildcard(clusters))
	first := <-f.delta
	require.Equal(t, "shop/web-1", first.GetNode().GetId())
	require.Empty(t, first.GetResourceNamesSubscribe())
	require.Empty(t, first.GetInitialResourceVersions())

	a, b := cluster("a", "1"), cluster("b", "1")
	f.respond("n1", clusters, nil, a, b)
	answer := <-f.delta
	require.Equal(t, "n1", answer.GetResponseNonce())
	require.Nil(t, answer.GetErrorDetail())
	require.Nil(t, answer.GetNode(), "the node goes out once")
	state := c.State(clusters)
	require.Equal(t, string(a.Value()), string(state["a"].Value()), "the bytes as they came")
	require.Equal(t, a.Version(), state["a"].Acked)

	a2 := cluster("a", "2")
	f.respond("n2", clusters, []string{"b"}, a2)
	<-f.delta
	require.Equal(t, []string{"a"}, c.Names(clusters))
	require.Equal(t, a2.Version(), c.State(clusters)["a"].Version)

	log := c.Log()
	require.Len(t, log, 2)
	require.Equal(t, []string{"a", "b"}, log[0].Names())
	require.Equal(t, []string{"b"}, log[1].Removed)
	require.Equal(t, log[1].Size, len(log[1].Raw))
	c.Look(func(v adsclient.View) {
		require.Equal(t, adsclient.Total{Messages: 2, Resources: 3, Removed: 1, Bytes: log[0].Size + log[1].Size}, v.Total(clusters))
		require.Equal(t, v.Total(clusters), v.Total(""))
	})
}

func TestWhatWasNotAskedForIsOnlyInTheLog(t *testing.T) {
	f := newFake(t)
	c := f.dial(f.config(adsclient.Delta))
	require.NoError(t, c.Subscribe(endpoints, "a"))
	require.Equal(t, []string{"a"}, (<-f.delta).GetResourceNamesSubscribe())
	f.respond("1", endpoints, nil, assignment("a", "1"), assignment("b", "1"))
	require.Equal(t, "1", (<-f.delta).GetResponseNonce())
	require.Equal(t, []string{"a"}, c.Names(endpoints))
	require.Equal(t, []string{"a", "b"}, c.Log()[0].Names())

	require.NoError(t, c.Unsubscribe(endpoints, "a"))
	require.Equal(t, []string{"a"}, (<-f.delta).GetResourceNamesUnsubscribe())
	require.Empty(t, c.Names(endpoints))
}

func TestDeltaReconnectStatesWhatWasAcknowledged(t *testing.T) {
	f := newFake(t)
	config := f.config(adsclient.Delta)
	config.Node = &corev3.Node{Id: "shop/web-1"}
	refuse := map[string]adsclient.Verdict{"2": adsclient.Nack("b is bad", "b"), "3": adsclient.Nack("undecodable")}
	config.OnResponse = func(m *adsclient.Message) adsclient.Verdict { return refuse[m.Nonce] }
	c := f.dial(config)
	require.NoError(t, c.Wildcard(clusters))
	require.NoError(t, c.Subscribe(endpoints, "x"))
	require.NoError(t, c.Unsubscribe(endpoints, "x"))
	for range 3 {
		<-f.delta
	}
	a, b := cluster("a", "1"), cluster("b", "1")
	f.respond("1", clusters, nil, a, b)
	<-f.delta
	f.respond("2", clusters, nil, cluster("b", "2"), cluster("d", "1"), cluster("a", "2"))
	require.Equal(t, "b is bad", (<-f.delta).GetErrorDetail().GetMessage())
	f.respond("3", clusters, []string{"a"}, cluster("e", "1"))
	require.Equal(t, "undecodable", (<-f.delta).GetErrorDetail().GetMessage())

	state := c.State(clusters)
	require.Equal(t, []string{"a", "b", "d"}, c.Names(clusters), "the rest of a refused response is applied where the bad one is known")
	require.Equal(t, b.Version(), state["b"].Version)
	require.Equal(t, a.Version(), state["a"].Acked, "what is live is not what was acknowledged")
	require.NotEqual(t, a.Version(), state["a"].Version)

	require.NoError(t, c.Reconnect(t.Context(), adsclient.Reconnection{}))
	again := <-f.delta
	require.Equal(t, clusters, again.GetTypeUrl())
	require.Equal(t, "shop/web-1", again.GetNode().GetId())
	require.Equal(t, map[string]string{"a": a.Version(), "b": b.Version()}, again.GetInitialResourceVersions())

	require.NoError(t, c.Reconnect(t.Context(), adsclient.Reconnection{Forget: true, Fresh: true}))
	again = <-f.delta
	require.Empty(t, again.GetInitialResourceVersions())
	require.Empty(t, c.Names(clusters))
	require.NoError(t, c.Subscribe(endpoints, "y"))
	require.Equal(t, []string{"y"}, (<-f.delta).GetResourceNamesSubscribe(), "a type of which nothing is subscribed is not asked for again: empty would mean all")
}

func TestStateOfTheWorld(t *testing.T) {
	f := newFake(t)
	config := f.config(adsclient.SotW)
	refuse := map[string]adsclient.Verdict{"3": adsclient.Nack("b is bad", "b")}
	config.OnResponse = func(m *adsclient.Message) adsclient.Verdict { return refuse[m.Nonce] }
	c := f.dial(config)
	require.NoError(t, c.Wildcard(clusters))
	require.Empty(t, (<-f.state).GetResourceNames())
	f.whole("1", "v1", clusters, cluster("a", "1"), cluster("b", "1"), cluster("d", "1"))
	ack := <-f.state
	require.Equal(t, []string{"1", "v1"}, []string{ack.GetResponseNonce(), ack.GetVersionInfo()})
	f.whole("2", "v2", clusters, cluster("a", "2"), cluster("b", "1"))
	<-f.state
	require.Equal(t, []string{"a", "b"}, c.Names(clusters), "what is absent is gone")
	f.whole("3", "v3", clusters, cluster("a", "3"), cluster("b", "2"))
	nack := <-f.state
	require.Equal(t, []string{"3", "v2"}, []string{nack.GetResponseNonce(), nack.GetVersionInfo()}, "a NACK states the version before")
	require.NotNil(t, nack.GetErrorDetail())
	state := c.State(clusters)
	require.Equal(t, string(cluster("a", "3").Value()), string(state["a"].Value()))
	require.Equal(t, string(cluster("b", "1").Value()), string(state["b"].Value()), "the bad one keeps what it had")

	require.NoError(t, c.Subscribe(endpoints, "b", "a"))
	require.Equal(t, []string{"a", "b"}, (<-f.state).GetResourceNames())
	f.whole("4", "e1", endpoints, assignment("a", "1"), assignment("b", "1"))
	<-f.state
	f.whole("5", "e2", endpoints, assignment("a", "2"))
	require.Equal(t, []string{"a", "b"}, (<-f.state).GetResourceNames(), "an ACK repeats the subscription")
	require.Equal(t, []string{"a", "b"}, c.Names(endpoints), "absence says nothing of other types")

	require.NoError(t, c.Reconnect(t.Context(), adsclient.Reconnection{Silent: []string{endpoints}}))
	again := <-f.state
	require.Equal(t, []string{clusters, "v2", ""}, []string{again.GetTypeUrl(), again.GetVersionInfo(), again.GetResponseNonce()})
	require.NoError(t, c.Subscribe(endpoints, "d"))
	again = <-f.state
	require.Equal(t, []string{"a", "b", "d"}, again.GetResourceNames())
	require.Equal(t, "e2", again.GetVersionInfo())

	require.ErrorIs(t, c.Unsubscribe(clusters, "*"), adsclient.ErrUnsayable)
	require.NoError(t, c.Subscribe(clusters, "b"))
	require.Equal(t, []string{"b"}, (<-f.state).GetResourceNames())
	require.Equal(t, []string{"b"}, c.Names(clusters), "a list takes the place of all")
}

func TestHoldAndAnswer(t *testing.T) {
	f := newFake(t)
	config := f.config(adsclient.Delta)
	config.OnResponse = func(*adsclient.Message) adsclient.Verdict { return adsclient.Hold() }
	c := f.dial(config)
	require.NoError(t, c.Wildcard(clusters))
	<-f.delta
	f.respond("1", clusters, nil, cluster("a", "1"))
	f.respond("2", clusters, nil, cluster("a", "2"))
	require.NoError(t, c.Wait(t.Context(), func(v adsclient.View) bool { return len(v.Log()) == 2 }))
	require.Empty(t, c.Names(clusters))
	require.Empty(t, f.delta)
	log := c.Log()
	require.NoError(t, c.Answer(log[0], adsclient.Ack()))
	require.Equal(t, "1", (<-f.delta).GetResponseNonce())
	require.NoError(t, c.Answer(log[1], adsclient.Nack("no")))
	require.Equal(t, "no", (<-f.delta).GetErrorDetail().GetMessage())
	require.Equal(t, cluster("a", "1").Version(), c.State(clusters)["a"].Version)

	require.NoError(t, c.Reconnect(t.Context(), adsclient.Reconnection{}))
	require.ErrorIs(t, c.Answer(log[1], adsclient.Ack()), adsclient.ErrEnded, "it came by another stream")
}

func TestNodeMayChange(t *testing.T) {
	f := newFake(t)
	config := f.config(adsclient.Delta)
	config.Node = &corev3.Node{Id: "one"}
	c := f.dial(config)
	require.NoError(t, c.Wildcard(clusters))
	require.Equal(t, "one", (<-f.delta).GetNode().GetId())
	c.SetNode(&corev3.Node{Id: "two"})
	require.NoError(t, c.Subscribe(endpoints, "a"))
	require.Equal(t, "two", (<-f.delta).GetNode().GetId())
	require.NoError(t, c.Subscribe(endpoints, "b"))
	require.Nil(t, (<-f.delta).GetNode())
}

func TestEndOfAStream(t *testing.T) {
	f := newFake(t)
	f.refuse = status.Error(codes.PermissionDenied, "not you")
	c := f.dial(f.config(adsclient.Delta))
	err := c.Wait(t.Context(), func(adsclient.View) bool { return false })
	require.ErrorIs(t, err, adsclient.ErrEnded)
	<-c.Done()
	require.Equal(t, codes.PermissionDenied, status.Code(c.Err()))
	require.ErrorIs(t, c.Wildcard(clusters), adsclient.ErrEnded)
}

func TestDialFails(t *testing.T) {
	_, err := adsclient.Dial(t.Context(), adsclient.Config{Address: "127.0.0.1:1"})
	require.ErrorContains(t, err, "127.0.0.1:1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = adsclient.Dial(ctx, adsclient.Config{Address: "127.0.0.1:1", WaitForReady: true})
	require.ErrorContains(t, err, "context canceled")
	_, err = adsclient.Dial(t.Context(), adsclient.Config{Address: "127.0.0.1:1", Detail: adsclient.Counts, Follow: adsclient.FollowReferences})
	require.ErrorContains(t, err, "Full")
}

func TestLessDetail(t *testing.T) {
	f := newFake(t)
	config := f.config(adsclient.Delta)
	conn, err := grpc.NewClient("passthrough:///fake", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(config.Dialer))
	require.NoError(t, err)
	defer conn.Close()
	config = adsclient.Config{Conn: conn}
	for _, detail := range []adsclient.Detail{adsclient.Names, adsclient.Counts} {
		config.Detail = detail
		c, err := adsclient.Dial(t.Context(), config)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe(clusters, "*"))
		<-f.delta
		f.respond("1", clusters, []string{"x"}, cluster("a", "1"), cluster("b", "1"))
		require.Equal(t, "1", (<-f.delta).GetResponseNonce())
		c.Look(func(v adsclient.View) {
			total := v.Total(clusters)
			require.Equal(t, []int{1, 2, 1}, []int{total.Messages, total.Resources, total.Removed})
			if detail == adsclient.Counts {
				require.Empty(t, v.Log())
				require.Empty(t, v.Names(clusters))
				return
			}
			require.Nil(t, v.Log()[0].Raw)
			e, ok := v.Get(clusters, "a")
			require.True(t, ok)
			require.Nil(t, e.Any)
			require.Equal(t, cluster("a", "1").Version(), e.Version)
		})
		require.NoError(t, c.Close())
		require.NoError(t, c.Close(), "twice is once")
	}
}

// A client of the stock server ends with what that serves, in both flavours.
func TestAgainstTheStockServer(t *testing.T) {
	for _, protocol := range []adsclient.Protocol{adsclient.Delta, adsclient.SotW} {
		t.Run(protocol.String(), func(t *testing.T) {
			stock := xdstest.NewOracle()
			served := stock.Start()
			defer func() { require.NoError(t, served.Stop()) }()
			require.NoError(t, stock.Set(cluster("a", "1"), cluster("b", "1"), assignment("a", "1"), assignment("b", "1"),
				xdstest.Resource(snapshot.Listener, "l", "1")))
			config := served.Config
			config.Protocol, config.Follow = protocol, adsclient.FollowReferences
			c, err := adsclient.Dial(t.Context(), config)
			require.NoError(t, err)
			defer func() { require.NoError(t, c.Close()) }()
			require.NoError(t, c.Wait(t.Context(), func(v adsclient.View) bool {
				return v.Has(clusters, "a", "b") && v.Has(endpoints, "a", "b") && v.Has(listeners, "l")
			}))
			require.NoError(t, stock.Set(assignment("a", "2")))
			require.NoError(t, stock.Remove(xdstest.Child(snapshot.Cluster, "b")))
			require.NoError(t, c.Wait(t.Context(), func(v adsclient.View) bool {
				e, _ := v.Get(endpoints, "a")
				return string(e.Value()) == string(assignment("a", "2").Value()) && !v.Has(clusters, "b") && !v.Has(endpoints, "b")
			}))
			names, all := c.Subscriptions(endpoints)
			require.Equal(t, []string{"a"}, names, "nobody names the other one any more")
			require.False(t, all)

			require.NoError(t, c.Reconnect(t.Context(), adsclient.Reconnection{Forget: true}))
			require.NoError(t, c.Wait(t.Context(), func(v adsclient.View) bool {
				return v.Has(clusters, "a") && v.Has(endpoints, "a") && v.Has(listeners, "l")
			}))
		})
	}
}
