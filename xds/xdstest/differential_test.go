package xdstest_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/xds"
	"bailiwick.dev/bailiwick/xds/adsclient"
	"bailiwick.dev/bailiwick/xds/xdstest"
)

// poison is content that the clients of these tests refuse.
const poison = "refuse-this"

// side is one of the two servers with its client.
type side struct {
	name   string
	server *xdstest.Running
	client *adsclient.Client
}

// pair is both servers over the same resources, with a client each that does
// the same.
type pair struct {
	t        require.TestingT
	ctx      context.Context
	protocol adsclient.Protocol
	view     xdstest.View
	stock    *xdstest.Oracle
	sides    [2]*side // ours, theirs
	// fences counts the secrets that were made to find out that nothing moves.
	fences int
	// model is what both servers hold.
	model map[snapshot.Child]string
	// blurred are resources of which the two clients may rightly have different
	// old versions: gone once, and poisoned since.
	blurred map[snapshot.Child]bool
	// silent are types of which all was asked for by an empty request, as far as
	// the stock server remembers; wasSilent those for which that was ever done.
	silent, wasSilent [snapshot.NumTypes]bool
	// outages is true after the clients came back with what they had.
	outages bool
}

// certificates are made once: they are the slowest part of a script.
var certificates = sync.OnceValues(func() (*xdstest.Mesh, error) { return xdstest.NewMesh("acme.example") })

func newPair(ctx context.Context, t require.TestingT, protocol adsclient.Protocol) *pair {
	mesh, err := certificates()
	require.NoError(t, err)
	p := &pair{t: t, ctx: ctx, protocol: protocol, view: xdstest.NewView("acme"), stock: xdstest.NewOracle(), model: map[snapshot.Child]string{}, blurred: map[snapshot.Child]bool{}}
	limits := tenancy.DefaultLimits()
	limits.RequestsPerSecond = 1 << 20
	ours, err := mesh.Serve(xds.Config{
		Store:  &xdstest.Store{Choose: func(snapshot.Proxy) *snapshot.Binding { return p.view.Binding }},
		Limits: func(string) tenancy.Limits { return limits },
	}, "acme.example")
	require.NoError(t, err)
	ours.Config.TLS, err = mesh.TLS(mesh.Authorities["acme.example"], "spiffe://acme.example/ns/shop/sa/web", identity.IssueOptions{})
	require.NoError(t, err)
	p.sides = [2]*side{{name: "ours", server: ours}, {name: "theirs", server: p.stock.Start()}}
	for _, s := range p.sides {
		config := s.server.Config
		config.Protocol, config.OnResponse, config.WaitForReady = protocol, judge, true
		s.client, err = adsclient.Dial(ctx, config)
		require.NoError(t, err)
	}
	return p
}

// judge refuses poison and takes the rest, as Envoy does where it can tell
// which resource is bad.
func judge(m *adsclient.Message) adsclient.Verdict {
	var bad []string
	for _, r := range m.Resources {
		if bytes.Contains(r.Any, []byte(poison)) {
			bad = append(bad, r.Name)
		}
	}
	if len(bad) > 0 {
		return adsclient.Nack("it is poisoned", bad...)
	}
	return adsclient.Ack()
}

func (p *pair) close() {
	for _, s := range p.sides {
		if s.client != nil {
			require.NoError(p.t, s.client.Close())
		}
		require.NoError(p.t, s.server.Stop())
	}
}

// set publishes at both servers.
func (p *pair) set(rs ...*snapshot.Resource) {
	p.view.Set(rs...)
	require.NoError(p.t, p.stock.Set(rs...))
}

func (p *pair) remove(names ...snapshot.Child) {
	p.view.Remove(names...)
	require.NoError(p.t, p.stock.Remove(names...))
}

// each lets both clients do the same.
func (p *pair) each(f func(*adsclient.Client) error) {
	for _, s := range p.sides {
		require.NoError(p.t, f(s.client), s.name)
	}
}

// settle waits until neither client has anything to come. Both servers take a
// stream's requests one after the other and write what is due before they take
// the next. So a secret is published that the client has never asked for, and
// asked for: when it arrives, the server has taken all requests before it, the
// answers to responses among them. If it was the only thing to arrive twice in
// a row (ours writes some types behind secrets), there is nothing more.
func (p *pair) settle() {
	for _, s := range p.sides {
		for quiet, rounds := 0, 0; quiet < 2; rounds++ {
			require.Less(p.t, rounds, 200, "%s never comes to rest", s.name)
			if p.fence(s) {
				quiet++
			} else {
				quiet = 0
			}
		}
	}
}

// fence reports whether nothing but the answer arrived.
func (p *pair) fence(s *side) bool {
	p.fences++
	name, url := fmt.Sprintf("fence-%d", p.fences), snapshot.Secret.URL()
	p.set(xdstest.Resource(snapshot.Secret, name, "fence"))
	before, after := 0, 0
	s.client.Look(func(v adsclient.View) { before = v.Total("").Messages })
	require.NoError(p.t, s.client.Subscribe(url, name))
	require.NoError(p.t, s.client.Wait(p.ctx, func(v adsclient.View) bool {
		after = v.Total("").Messages
		return v.Has(url, name)
	}), "%s does not answer", s.name)
	require.NoError(p.t, s.client.Unsubscribe(url, name))
	return after == before+1
}

// equal compares what the clients have, of what they are subscribed to.
func (p *pair) equal(step string) {
	ours, theirs := p.sides[0].client, p.sides[1].client
	for t := range snapshot.NumTypes {
		a, b := ours.State(t.URL()), theirs.State(t.URL())
		for _, name := range universe(t) {
			key := xdstest.Child(t, name)
			text, exists := p.model[key]
			mine, iHave := a[name]
			other, otherHas := b[name]
			set := t == snapshot.Cluster || t == snapshot.Listener
			switch {
			case !exists && set:
				require.False(p.t, iHave, "%s: we left %s %s, which is gone", step, t, name)
				// The stock server does not send again what a client applied from a
				// response that it refused, so that it is not told that it goes.
				require.False(p.t, otherHas && !p.outages, "%s: they left %s %s, which is gone", step, t, name)
			case !exists:
				p.revoked(step, key, mine, iHave)
			case text == poison && t == snapshot.Extension:
				// RBAC that a client refuses is closed at that client, where the
				// stock server leaves what it had.
				_, all := ours.Subscriptions(t.URL())
				require.Equal(p.t, all || subscribed(ours, t, name), iHave, "%s: %s", step, name)
				require.Equal(p.t, iHave, bytes.Equal(snapshot.Absent(t, name).Value(), mine.Value()), "%s: %s is refused and open", step, name)
			case text == poison && p.incomparable(key, otherHas):
				require.NotContains(p.t, string(mine.Any), poison)
			case otherHas && p.protocol == adsclient.Delta && other.Acked != other.Version:
				// What was applied from a refused response; the stock server believes
				// that the client has what it states.
				if text != poison {
					p.published(step, key, mine)
				}
			default:
				if absent := snapshot.Absent(t, name); text == poison && iHave && absent != nil && bytes.Equal(absent.Value(), mine.Value()) {
					mine, iHave = adsclient.Entry{}, false // told that it is not there, before it was poisoned
				}
				require.Equal(p.t, otherHas, iHave, "%s: %s %s at %s", step, t, name, p.sides[1].name)
				require.Equal(p.t, string(other.Value()), string(mine.Value()), "%s: %s %s", step, t, name)
				if text != poison && iHave {
					p.published(step, key, mine)
				}
			}
		}
	}
}

// incomparable reports whether the two clients may rightly have different old
// versions of what they refuse, or one of them none.
func (p *pair) incomparable(key snapshot.Child, otherHas bool) bool {
	switch key.Type {
	case snapshot.Secret:
		// It is followed by the one that the client last acknowledged, be it before
		// it subscribed.
		return true
	case snapshot.Cluster, snapshot.Listener:
		// So it is in a whole set, where the stock server's client has nothing if it
		// was not subscribed to it in between.
		return p.blurred[key] || p.protocol == adsclient.SotW && !otherHas
	default:
		return p.blurred[key]
	}
}

// published compares what our client has with what there is.
func (p *pair) published(step string, key snapshot.Child, mine adsclient.Entry) {
	require.Equal(p.t, string(p.view.Get(key.Type, key.Name).Value()), string(mine.Value()), "%s: %s %s is not as published", step, key.Type, key.Name)
}

// revoked looks at what our client has of a name that is not there: nothing, or
// what says so; but a secret, and an extension that is no RBAC of ours, stay.
func (p *pair) revoked(step string, key snapshot.Child, mine adsclient.Entry, iHave bool) {
	if !iHave || key.Type == snapshot.Secret {
		return
	}
	if p.protocol == adsclient.SotW && p.outages && !subscribed(p.sides[0].client, key.Type, key.Name) {
		// Subscribed by "*" only, which is no use in Envoy for these types: who
		// comes back cannot say what it has, so that nobody knows what is gone.
		return
	}
	absent := snapshot.Absent(key.Type, key.Name)
	require.NotNil(p.t, absent, "%s: %s %s is gone, and we keep it", step, key.Type, key.Name)
	require.Equal(p.t, string(absent.Value()), string(mine.Value()), "%s: %s %s is gone, and lives on", step, key.Type, key.Name)
}

func subscribed(c *adsclient.Client, t snapshot.Type, name string) bool {
	names, _ := c.Subscriptions(t.URL())
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

// universe are the names of a type that scripts use.
func universe(t snapshot.Type) []string {
	if t == snapshot.Extension {
		return []string{"rbac-http-1", "rbac-http-2", "rbac-tcp-3", "rbac-tcp-4"}
	}
	return []string{"a", "b", "c", "d"}
}

func TestSameStateAsTheStockServer(t *testing.T) {
	for _, protocol := range []adsclient.Protocol{adsclient.Delta, adsclient.SotW} {
		t.Run(protocol.String(), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				p := newPair(ctx, rt, protocol)
				defer p.close()
				if rapid.Bool().Draw(rt, "begin as a proxy") {
					p.begin()
				}
				p.set(publish(p, rt, "before")...)
				// Of changes that follow each other at once, a client may see the last.
				p.settle()
				for step := range rapid.IntRange(10, 30).Draw(rt, "steps") {
					what := script(p, rt)
					rt.Logf("step %d: %s", step, what)
					p.settle()
					p.equal(fmt.Sprintf("step %d, %s", step, what))
				}
			})
		})
	}
}
