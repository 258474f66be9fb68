package xds

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
)

// picky answers responses the way an Envoy does that refuses content with
// "bad" in it, until nothing more comes. It returns all frames with a "!"
// before those that were refused, and applies what it accepts to have.
type picky struct {
	*client
	names map[string][]string // subscriptions per type (sotw)
	have  map[string]map[string]string
	log   []string
	// explains is true for a client whose text names what it refuses.
	explains bool
}

func newPicky(c *client) *picky {
	return &picky{client: c, names: map[string][]string{}, have: map[string]map[string]string{}}
}

func (p *picky) settle(fs []frameOf) []string {
	p.t.Helper()
	p.log = nil
	for len(fs) > 0 {
		f := fs[0]
		fs = fs[1:]
		bad := slices.ContainsFunc(f.Resources, func(r string) bool { return strings.Contains(r, "bad") })
		r := &request{url: urlOf(f.Type), nonce: f.Nonce, names: p.names[f.Type], version: f.version}
		line := f.String()
		if bad {
			line = "!" + line
			r.failed, r.version = &statuspb.Status{Code: 13, Message: p.complaint(f)}, ""
		} else {
			p.apply(f)
		}
		p.log = append(p.log, line)
		fs = append(fs, p.request(r)...)
		require.Less(p.t, len(p.log), 400, "the server does not settle")
	}
	return p.log
}

func (p *picky) complaint(f frameOf) string {
	text := "bad content"
	for _, r := range f.Resources {
		if name, bad := strings.CutSuffix(r, "=bad"); bad && p.explains {
			text += "; " + name + ": not taken"
		}
	}
	return text
}

func (p *picky) apply(f frameOf) {
	m := p.have[f.Type]
	if m == nil || (p.mode == state && (f.Type == "cluster" || f.Type == "listener")) {
		m = map[string]string{}
		p.have[f.Type] = m
	}
	for _, r := range f.Resources {
		name, text, _ := strings.Cut(r, "=")
		m[name] = text
	}
	for _, name := range f.Removed {
		delete(m, name)
	}
}

func many(typ snapshot.Type, n int, bad ...int) []*snapshot.Resource {
	var rs []*snapshot.Resource
	for i := range n {
		text := "1"
		if slices.Contains(bad, i) {
			text = "bad"
		}
		rs = append(rs, res(typ, fmt.Sprintf("rbac-%02d", i), text))
	}
	return rs
}

func allNames(rs []*snapshot.Resource) []string {
	var out []string
	for _, r := range rs {
		out = append(out, r.Name())
	}
	return out
}

func TestNackedBatchGoesOutAgainOnePerResponse(t *testing.T) {
	rs := many(snapshot.Endpoint, 4, 2)
	bubble(t, newView("acme").set(rs...), func(t *testing.T, w *world) {
		p := newPicky(w.open(delta))
		require.Equal(t, []string{
			"!endpoint [rbac-00=1 rbac-01=1 rbac-02=bad rbac-03=1] -[]",
			"endpoint [rbac-00=1] -[]",
			"endpoint [rbac-01=1] -[]",
			"!endpoint [rbac-02=bad] -[]",
			"endpoint [rbac-03=1] -[]",
		}, p.settle(p.subscribe(snapshot.Endpoint, allNames(rs)...)))
	})
}

func TestNackedBatchOverSixteenIsHalved(t *testing.T) {
	for _, mode := range []protocol{delta, state} {
		rs := many(snapshot.Endpoint, 40, 7, 33)
		bubble(t, newView("acme").set(rs...), func(t *testing.T, w *world) {
			p := newPicky(w.open(mode))
			p.names["endpoint"] = allNames(rs)
			log := p.settle(p.request(&request{url: snapshot.Endpoint.URL(), subscribe: allNames(rs), names: allNames(rs)}))
			require.Len(t, p.have["endpoint"], 38)
			require.LessOrEqual(t, len(log), 1+2+4+2*10+2)
			refusals := w.srv.Streams()[0].Refused
			require.Len(t, refusals, 2)
			require.Equal(t, "rbac-07", refusals[0].Resource)
			require.Equal(t, rs[7].Origins(), refusals[0].Origins)
		})
	}
}

func TestRefusedContentIsNotSentAgainUntilItChanges(t *testing.T) {
	for _, mode := range []protocol{delta, state} {
		v := newView("acme").set(res(snapshot.Secret, "s", "bad"))
		bubble(t, v, func(t *testing.T, w *world) {
			p := newPicky(w.open(mode))
			p.names["secret"] = []string{"s"}
			p.settle(p.request(&request{url: snapshot.Secret.URL(), subscribe: []string{"s"}, names: []string{"s"}}))
			v.set(res(snapshot.Secret, "other", "1"))
			require.Empty(t, p.take())
			require.Empty(t, p.request(&request{url: snapshot.Secret.URL(), subscribe: []string{"s"}, names: []string{"s"}}))
			v.set(res(snapshot.Secret, "s", "good"))
			require.Equal(t, []string{"secret [s=good] -[]"}, p.settle(p.take()))
			require.Empty(t, w.srv.Streams()[0].Refused)
		})
	}
}

func TestRefusedRBACClosesThePort(t *testing.T) {
	v := newView("acme").set(res(snapshot.Extension, "rbac-http-80", "1"))
	bubble(t, v, func(t *testing.T, w *world) {
		p := newPicky(w.open(delta))
		p.settle(p.subscribe(snapshot.Extension, "rbac-http-80"))
		v.set(res(snapshot.Extension, "rbac-http-80", "bad"))
		require.Equal(t, []string{"!extension [rbac-http-80=bad] -[]", "extension [rbac-http-80=deny] -[]"}, p.settle(p.take()))
		require.Equal(t, []string{"extension [rbac-http-80=deny] -[]"}, p.settle(p.subscribe(snapshot.Extension, "rbac-http-80")))
		v.set(res(snapshot.Extension, "rbac-http-80", "2"))
		require.Equal(t, []string{"extension [rbac-http-80=2] -[]"}, p.settle(p.take()))
	})
}

func TestRefusedDenyAllEnds(t *testing.T) {
	v := newView("acme").set(res(snapshot.Extension, "rbac-http-80", "1"))
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.open(delta)
		f := c.nack(c.subscribe(snapshot.Extension, "rbac-http-80")[0])
		require.Equal(t, []string{"extension [rbac-http-80=deny] -[]"}, show(f))
		require.Empty(t, c.nack(f[0]))
		require.Empty(t, c.subscribe(snapshot.Extension, "rbac-http-80"))
	})
}

func TestASuspectIsSentAloneBehindItsSiblings(t *testing.T) {
	v := newView("acme").set(many(snapshot.Endpoint, 3, 1)...)
	bubble(t, v, func(t *testing.T, w *world) {
		names := []string{"rbac-00", "rbac-01", "rbac-02"}
		liar := newPicky(w.open(delta))
		liar.settle(liar.subscribe(snapshot.Endpoint, names...))

		honest := w.open(delta)
		require.Equal(t, []string{"endpoint [rbac-00=1 rbac-02=1] -[]", "endpoint [rbac-01=bad] -[]"}, show(honest.subscribe(snapshot.Endpoint, names...)), "withheld from nobody")
		v.set(res(snapshot.Endpoint, "rbac-01", "2"), res(snapshot.Endpoint, "rbac-00", "2"))
		require.Equal(t, []string{"endpoint [rbac-00=2] -[]", "endpoint [rbac-01=2] -[]"}, show(honest.take()))

		stranger := w.prepare(delta)
		other := newView("globex").set(many(snapshot.Endpoint, 3)...)
		who := identity.Workload{TrustDomain: "globex.example", Namespace: "g", ServiceAccount: "g"}
		w.store.others = map[identity.Workload]*snapshot.Binding{who: other.Binding}
		w.start(stranger, who)
		require.Equal(t, []string{"endpoint [rbac-00=1 rbac-01=1 rbac-02=1] -[]"}, show(stranger.subscribe(snapshot.Endpoint, names...)), "another tenant")
	})
}

// An Envoy that refuses a secret takes its bytes for known from then on, and
// acknowledges them when they come again: only the first answer can be believed.
func TestSecretsAreAloneSoThatTheFirstNackTells(t *testing.T) {
	v := newView("acme").set(res(snapshot.Secret, "a", "1"), res(snapshot.Secret, "b", "1"), res(snapshot.Secret, "c", "1"))
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.open(delta)
		sent := c.subscribe(snapshot.Secret, "a", "b", "c")
		require.Equal(t, []string{"secret [a=1] -[]", "secret [b=1] -[]", "secret [c=1] -[]"}, show(sent))
		again := c.subscribe(snapshot.Secret, "b")
		c.ack(sent[0])
		require.Empty(t, c.nack(sent[1]))
		require.Empty(t, c.ack(sent[2], again[0]))
		refused := w.srv.Streams()[0].Refused
		require.Len(t, refused, 1)
		require.Equal(t, "b", refused[0].Resource)
	})
}

// What a client builds after it refused a secret, it builds from the refused
// bytes: so it is given the former ones back, and what it refused for their sake
// goes out again when there are better ones.
func TestARefusedSecretSpoilsNothingThatComesLater(t *testing.T) {
	cluster := func(text string) *snapshot.Resource {
		return res(snapshot.Cluster, "a", text, child(snapshot.Secret, "s"))
	}
	v := newView("acme").set(cluster("1"), res(snapshot.Secret, "s", "1"))
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.open(delta)
		c.ack(c.subscribe(snapshot.Cluster)...)
		c.ack(c.subscribe(snapshot.Secret, "s")...)

		v.set(res(snapshot.Secret, "s", "bad"))
		again := c.nack(c.take()[0])
		require.Equal(t, []string{"secret [s=1] -[]"}, show(again))
		require.Empty(t, c.ack(again...))
		require.Len(t, w.srv.Streams()[0].Refused, 1)

		v.set(cluster("2"))
		require.Empty(t, c.nack(c.take()[0]))
		require.Len(t, w.srv.Streams()[0].Refused, 2)
		v.set(res(snapshot.Secret, "s", "3"))
		sent := c.take()
		require.Equal(t, []string{"secret [s=3] -[]"}, show(sent))
		more := c.ack(sent...)
		require.Equal(t, "cluster [a=2] -[]", show(more)[0])
		c.ack(more...)
		require.Empty(t, w.srv.Streams()[0].Refused)
	})
}

func TestWhatIsWantedNoMoreIsRefusedNoMore(t *testing.T) {
	v := newView("acme").set(res(snapshot.Secret, "s", "bad"))
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.open(delta)
		c.nack(c.subscribe(snapshot.Secret, "s")[0])
		require.Len(t, w.srv.Streams()[0].Refused, 1)
		c.request(&request{url: snapshot.Secret.URL(), unsubscribe: []string{"s"}})
		require.Empty(t, w.srv.Streams()[0].Refused)
	})
}

func TestNackConcernsNoOtherStream(t *testing.T) {
	v := shopView()
	bubble(t, v, func(t *testing.T, w *world) {
		liar, honest := w.open(delta), w.open(delta)
		honest.subscribe(snapshot.Cluster)
		for _, f := range liar.subscribe(snapshot.Cluster) {
			for _, g := range liar.nack(f) {
				liar.nack(g)
			}
		}
		require.Empty(t, honest.take())
		v.set(svc("a", "2")...)
		require.Equal(t, "cluster [a=2] -[]", show(only(snapshot.Cluster, honest.take()))[0])
	})
}

func TestCompositeGoesOutFromItsAcceptedParts(t *testing.T) {
	for _, mode := range []protocol{delta, state} {
		v := newView("acme").set(routes("http-80", host("a", "1"), host("b", "1"), host("gone", "1")))
		bubble(t, v, func(t *testing.T, w *world) {
			p := newPicky(w.open(mode))
			p.names["route"] = []string{"http-80"}
			p.settle(p.request(&request{url: snapshot.Route.URL(), subscribe: []string{"http-80"}, names: []string{"http-80"}}))

			v.set(routes("http-80", host("a", "2"), host("b", "bad"), host("c", "1"), host("d", "bad")))
			require.Equal(t, []string{
				"!route [http-80=a:2 b:bad c:1 d:bad ] -[]",
				"route [http-80=a:1 b:1 ] -[]",            // what is gone goes at once
				"route [http-80=a:2 b:1 ] -[]",            // a
				"!route [http-80=a:2 b:bad ] -[]",         // b
				"route [http-80=a:2 b:1 c:1 ] -[]",        // c
				"!route [http-80=a:2 b:1 c:1 d:bad ] -[]", // d
			}, p.settle(p.take()))
			refused := w.srv.Streams()[0].Refused
			require.Len(t, refused, 1)
			require.Equal(t, []string{"b", "d"}, refused[0].Parts)

			v.set(routes("http-80", host("a", "3"), host("b", "bad"), host("c", "1"), host("d", "bad")))
			require.Equal(t, []string{"route [http-80=a:3 b:1 c:1 ] -[]"}, p.settle(p.take()), "refused parts stay out, at no cost to the others")
			v.set(routes("http-80", host("a", "3"), host("b", "4"), host("c", "1"), host("d", "bad")))
			require.Equal(t, []string{"route [http-80=a:3 b:4 c:1 ] -[]"}, p.settle(p.take()))
			v.set(routes("http-80", host("a", "3"), host("b", "4"), host("c", "1"), host("d", "5")))
			require.Equal(t, []string{"route [http-80=a:3 b:4 c:1 d:5 ] -[]"}, p.settle(p.take()))
			require.Empty(t, w.srv.Streams()[0].Refused)
		})
	}
}

func TestCompositeThatChangesWhileItIsTakenApart(t *testing.T) {
	v := newView("acme").set(routes("http-80", host("a", "1")))
	bubble(t, v, func(t *testing.T, w *world) {
		p := newPicky(w.open(delta))
		p.settle(p.subscribe(snapshot.Route, "http-80"))
		v.set(routes("http-80", host("a", "2"), host("b", "bad")))
		f := p.take()
		next := p.nack(f[0])
		require.Equal(t, []string{"route [http-80=a:2 ] -[]"}, show(next))
		v.set(routes("http-80", host("a", "2"), host("b", "3"), host("c", "1")))
		require.Empty(t, p.take(), "an answer is awaited")
		p.settle(next)
		require.Equal(t, "a:2 b:3 c:1 ", p.have["route"]["http-80"])
		require.Empty(t, w.srv.Streams()[0].Refused)
	})
}

func TestCompositeNeverAccepted(t *testing.T) {
	v := newView("acme").set(routes("http-80", host("a", "1"), host("b", "bad"), host("c", "1")))
	bubble(t, v, func(t *testing.T, w *world) {
		p := newPicky(w.open(delta))
		p.settle(p.subscribe(snapshot.Route, "http-80"))
		require.Equal(t, "a:1 c:1 ", p.have["route"]["http-80"])
	})
}

func TestNackedClustersBringTheirAssignmentsAgain(t *testing.T) {
	v := newView("acme").set(svc("a", "1")...).set(svc("b", "bad")...)
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.open(delta)
		f := c.subscribe(snapshot.Cluster)
		c.ack(c.subscribe(snapshot.Endpoint, "a")...)
		require.Equal(t, []string{"cluster [a=1] -[]", "cluster [b=bad] -[]", "endpoint [a=1 b=bad] -[]"}, show(c.nack(f[0])))
	})
}

func TestStateSetRepeatsWhatWasAccepted(t *testing.T) {
	v := newView("acme").set(res(snapshot.Cluster, "a", "1"), res(snapshot.Cluster, "b", "1"))
	bubble(t, v, func(t *testing.T, w *world) {
		p := newPicky(w.open(state))
		p.settle(p.want(snapshot.Cluster, nil))
		v.set(res(snapshot.Cluster, "a", "2"), res(snapshot.Cluster, "b", "bad"), res(snapshot.Cluster, "c", "bad"), res(snapshot.Cluster, "d", "1"))
		p.settle(p.take())
		require.Equal(t, map[string]string{"a": "2", "b": "1", "d": "1"}, p.have["cluster"], "as last accepted, or left out")
		refused := w.srv.Streams()[0].Refused
		require.Len(t, refused, 2)

		v.set(res(snapshot.Cluster, "a", "3"))
		require.Equal(t, []string{"cluster [a=3 b=1 d=1] -[]"}, p.settle(p.take()))
		// A suspect with new content goes out behind its siblings.
		v.set(res(snapshot.Cluster, "a", "4"), res(snapshot.Cluster, "b", "5"))
		require.Equal(t, []string{"cluster [a=4 b=1 d=1] -[]", "cluster [a=4 b=5 d=1] -[]"}, p.settle(p.take()))
		v.set(res(snapshot.Cluster, "c", "6"))
		p.settle(p.take())
		require.Equal(t, map[string]string{"a": "4", "b": "5", "c": "6", "d": "1"}, p.have["cluster"])
		require.Empty(t, w.srv.Streams()[0].Refused)
	})
}

func TestUnansweredClustersCountAsRefused(t *testing.T) {
	v := newView("acme").set(svc("a", "1")...).set(svc("b", "1")...)
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.open(delta)
		c.subscribe(snapshot.Cluster)
		time.Sleep(clusterGrace - time.Millisecond)
		require.Empty(t, c.take())
		time.Sleep(time.Millisecond)
		f := c.take()
		require.Equal(t, []string{"cluster [a=1] -[]", "cluster [b=1] -[]"}, show(only(snapshot.Cluster, f)))
		require.InDelta(t, 1, answers(w, "acme", snapshot.Cluster, resultTimeout), 0)
		c.ack(f...)
		time.Sleep(time.Minute)
		require.Empty(t, c.take())
	})
}

// An Envoy that waits for one cluster answers for none. Only the one that lacks
// something is to blame.
func TestAClusterIsNotBlamedForAnother(t *testing.T) {
	v := newView("acme").set(svc("a", "1")...).set(
		res(snapshot.Cluster, "b", "1", child(snapshot.Secret, "bundle/zz")),
		res(snapshot.Secret, "bundle/zz", "1"), res(snapshot.Secret, "bundle/td", "1"))
	bubble(t, v, func(t *testing.T, w *world) {
		c := w.open(delta)
		answer := func(fs []frameOf) {
			for _, f := range fs {
				if f.Type != "cluster" && !slices.Contains(f.Resources, "bundle/zz=1") {
					c.ack(f)
				}
			}
		}
		answer(c.subscribe(snapshot.Cluster))
		answer(c.subscribe(snapshot.Endpoint, "a"))
		answer(c.subscribe(snapshot.Secret, "bundle/td", "bundle/zz"))
		time.Sleep(clusterGrace)
		again := c.take()
		require.Len(t, only(snapshot.Cluster, again), 2, "one per response")
		answer(again)
		time.Sleep(clusterGrace)
		answer(c.take())
		refused := w.srv.Streams()[0].Refused
		require.Len(t, refused, 1)
		require.Equal(t, "b", refused[0].Resource)
	})
}

func TestNackIsLoggedWithItsCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		w := newWorld(t, newView("acme").set(res(snapshot.Secret, "s", "bad")), func(c *Config) {
			c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		})
		p := newPicky(w.open(delta))
		p.settle(p.subscribe(snapshot.Secret, "s"))
		require.Contains(t, log.String(), "bad content")
		require.Contains(t, log.String(), "acme-shop/s")
		p.stop()
		synctest.Wait()
	})
}

// A client of whole sets that comes back has clusters in use. One that it
// refuses then costs it none of the others, not for a moment.
func TestStateSetOfAReturningClient(t *testing.T) {
	set := func(v view, bad ...string) {
		for _, name := range []string{"a", "b", "c", "d"} {
			text := "2"
			if slices.Contains(bad, name) {
				text = "bad"
			}
			v.set(res(snapshot.Cluster, name, text))
		}
	}
	for _, c := range []struct {
		name     string
		explains bool
		bad      []string
		version  string
		want     []string
	}{
		{"it names the bad one", true, []string{"c"}, "of another server", []string{
			"!cluster [a=2 b=2 c=bad d=2] -[]",
			"cluster [a=2 b=2 d=2] -[]",
			"!cluster [a=2 b=2 c=bad d=2] -[]",
		}},
		{"it names two", true, []string{"a", "c"}, "of another server", []string{
			"!cluster [a=bad b=2 c=bad d=2] -[]",
			"cluster [b=2 d=2] -[]",
			"!cluster [a=bad b=2 d=2] -[]",
			"!cluster [b=2 c=bad d=2] -[]",
		}},
		{"it names none", false, []string{"b"}, "of another server", []string{
			"!cluster [a=2 b=bad c=2 d=2] -[]",
			"!cluster [b=bad c=2 d=2] -[]",
			"cluster [a=2 c=2 d=2] -[]",
			"!cluster [a=2 b=bad c=2 d=2] -[]",
		}},
		{"all are bad", false, []string{"a", "b", "c", "d"}, "of another server", nil},
		{"the server knows what it has", false, []string{"c"}, "", []string{
			"!cluster [a=2 b=2 c=bad d=2] -[]",
			"cluster [a=2 b=1 c=1 d=1] -[]",
			"cluster [a=2 b=2 c=1 d=1] -[]",
			"!cluster [a=2 b=2 c=bad d=1] -[]",
			"cluster [a=2 b=2 c=1 d=2] -[]",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newView("acme")
			for _, name := range []string{"a", "b", "c", "d"} {
				v.set(res(snapshot.Cluster, name, "1"))
			}
			bubble(t, v, func(t *testing.T, w *world) {
				before := newPicky(w.open(state))
				first := before.want(snapshot.Cluster, nil)
				before.settle(first)
				before.stop()
				version := first[0].version
				if c.version != "" {
					version = c.version
				}
				set(v, c.bad...)
				p := newPicky(w.open(state))
				p.explains, p.have = c.explains, before.have
				log := p.settle(p.request(&request{url: snapshot.Cluster.URL(), version: version}))
				if c.want != nil {
					require.Equal(t, c.want, log)
				}
				want := map[string]string{"a": "2", "b": "2", "c": "2", "d": "2"}
				for _, name := range c.bad {
					delete(want, name)
					if c.version == "" {
						want[name] = "1"
					}
				}
				require.Equal(t, want, p.have["cluster"])
				require.Len(t, w.srv.Streams()[len(w.srv.Streams())-1].Refused, len(c.bad))
			})
		})
	}
}

func TestATextNamesWholeNamesOnly(t *testing.T) {
	text := "Error adding/updating cluster(s) orders.shop.svc.cluster.local:80: bad; web-2: worse."
	require.True(t, mentions(text, "orders.shop.svc.cluster.local:80"))
	require.True(t, mentions(text, "web-2"))
	require.False(t, mentions(text, "web"))
	require.False(t, mentions(text, "orders.shop.svc.cluster.local:8"))
	require.False(t, mentions(text, ""))
}
