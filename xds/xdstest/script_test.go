package xdstest_test

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/xds/adsclient"
	"bailiwick.dev/bailiwick/xds/xdstest"
)

// script draws one step, does it, and says what it was.
func script(p *pair, rt *rapid.T) string {
	switch kind := rapid.IntRange(0, 11).Draw(rt, "kind"); kind {
	case 0, 1, 2, 3:
		rs := publish(p, rt, "publish")
		p.set(rs...)
		return "publish " + list(rs)
	case 4, 5:
		return p.drop(drawName(rt))
	case 6, 7, 8:
		t, name := drawName(rt)
		p.silent[t] = false
		p.each(func(c *adsclient.Client) error { return c.Subscribe(t.URL(), name) })
		return fmt.Sprintf("subscribe %s %s", t, name)
	case 9:
		t, name := drawName(rt)
		p.each(func(c *adsclient.Client) error { return unsubscribe(c, t, name) })
		return fmt.Sprintf("unsubscribe %s %s", t, name)
	case 10:
		return wildcard(p, rt)
	default:
		forget := rapid.Bool().Draw(rt, "forget")
		p.silent = p.wasSilent
		p.each(func(c *adsclient.Client) error { c.Disconnect(); return nil })
		what := outage(p, rt)
		p.each(func(c *adsclient.Client) error {
			return c.Reconnect(p.ctx, adsclient.Reconnection{Forget: forget})
		})
		p.outages = p.outages || !forget
		return fmt.Sprintf("reconnect after %s, forget %v", what, forget)
	}
}

// begin publishes something of everything and lets the clients ask for most of it,
// as a proxy does.
func (p *pair) begin() {
	for t := range snapshot.NumTypes {
		for _, name := range universe(t)[:3] {
			p.model[xdstest.Child(t, name)] = "one"
			p.set(xdstest.Resource(t, name, "one", children(t, name)...))
		}
		if t == snapshot.Cluster || t == snapshot.Listener {
			p.silent[t], p.wasSilent[t] = true, true
			p.each(func(c *adsclient.Client) error { return c.Wildcard(t.URL()) })
			continue
		}
		p.each(func(c *adsclient.Client) error { return c.Subscribe(t.URL(), universe(t)[:2]...) })
	}
	p.settle()
	p.equal("at the beginning")
}

// outage changes what is served while nobody is there.
func outage(p *pair, rt *rapid.T) string {
	what := ""
	for range rapid.IntRange(0, 2).Draw(rt, "outage") {
		if rapid.Bool().Draw(rt, "gone") {
			t, name := drawName(rt)
			what += p.drop(t, name) + "; "
			continue
		}
		rs := publish(p, rt, "meanwhile")
		p.set(rs...)
		what += "publish " + list(rs)
	}
	return what
}

// drop removes a resource at both servers.
func (p *pair) drop(t snapshot.Type, name string) string {
	key := xdstest.Child(t, name)
	delete(p.model, key)
	p.blurred[key] = true
	p.remove(key)
	return fmt.Sprintf("remove %s %s", t, name)
}

// wildcard subscribes to all of a type, in the way of Envoy or by name, or ends
// that. Secrets never are: fences would come by themselves.
func wildcard(p *pair, rt *rapid.T) string {
	t := rapid.SampledFrom([]snapshot.Type{snapshot.Cluster, snapshot.Listener, snapshot.Endpoint, snapshot.Route, snapshot.Extension}).Draw(rt, "type")
	switch rapid.IntRange(0, 2).Draw(rt, "wildcard") {
	case 0:
		p.silent[t], p.wasSilent[t] = true, true
		p.each(func(c *adsclient.Client) error { return c.Wildcard(t.URL()) })
		return fmt.Sprintf("wildcard %s", t)
	case 1:
		p.silent[t] = false
		p.each(func(c *adsclient.Client) error { return c.Subscribe(t.URL(), "*") })
		return fmt.Sprintf("subscribe %s *", t)
	default:
		if p.silent[t] {
			return "nothing" // the stock server would not hear it
		}
		p.each(func(c *adsclient.Client) error { return unsubscribe(c, t, "*") })
		return fmt.Sprintf("unsubscribe %s *", t)
	}
}

// unsubscribe ends a subscription if there is one: no client ends what it never
// began, and by an empty first request it would begin one.
func unsubscribe(c *adsclient.Client, t snapshot.Type, name string) error {
	names, all := c.Subscriptions(t.URL())
	if !all && len(names) == 0 {
		return nil
	}
	if err := c.Unsubscribe(t.URL(), name); !errors.Is(err, adsclient.ErrUnsayable) {
		return err
	}
	return nil
}

// publish draws resources of any types, some of them poisoned.
func publish(p *pair, rt *rapid.T, label string) []*snapshot.Resource {
	var rs []*snapshot.Resource
	taken := map[snapshot.Child]bool{}
	for range rapid.IntRange(1, 4).Draw(rt, label) {
		t, name := drawName(rt)
		text := rapid.SampledFrom([]string{"one", "two", "three", "four", poison}).Draw(rt, "text")
		key := xdstest.Child(t, name)
		if taken[key] {
			continue
		}
		taken[key] = true
		p.model[key] = text
		if text != poison {
			delete(p.blurred, key)
		}
		rs = append(rs, xdstest.Resource(t, name, text, children(t, name)...))
	}
	require.NotEmpty(rt, rs)
	return rs
}

// children are those of a cluster and of a listener as our builders name them.
func children(t snapshot.Type, name string) []snapshot.Child {
	switch t {
	case snapshot.Cluster:
		return []snapshot.Child{xdstest.Child(snapshot.Endpoint, name), xdstest.Child(snapshot.Secret, "a")}
	case snapshot.Listener:
		return []snapshot.Child{xdstest.Child(snapshot.Route, name), xdstest.Child(snapshot.Extension, "rbac-http-1"), xdstest.Child(snapshot.Secret, "b")}
	default:
		return nil
	}
}

func drawName(rt *rapid.T) (snapshot.Type, string) {
	t := snapshot.Type(rapid.IntRange(0, int(snapshot.NumTypes)-1).Draw(rt, "type"))
	return t, rapid.SampledFrom(universe(t)).Draw(rt, "name")
}

func list(rs []*snapshot.Resource) string {
	out := ""
	for _, r := range rs {
		text := ""
		if bytes.Contains(r.Value(), []byte(poison)) {
			text = " poisoned"
		}
		out += fmt.Sprintf("%s %s %s%s; ", r.Type(), r.Name(), r.Version()[:4], text)
	}
	return out
}
