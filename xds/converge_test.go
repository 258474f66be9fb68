package xds

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/snapshot"
)

// proxyModel is a client with the state that a proxy keeps over reconnects. It
// refuses whatever has "bad" in it, as a whole, and takes nothing it has not
// asked for.
type proxyModel struct {
	*client
	open     func() *client
	asked    [snapshot.NumTypes]bool
	wildcard [snapshot.NumTypes]bool
	names    [snapshot.NumTypes]map[string]bool
	have     [snapshot.NumTypes]map[string]string
	versions [snapshot.NumTypes]map[string]string
	lastSeen [snapshot.NumTypes]*frameOf
	good     [snapshot.NumTypes]string // last accepted version_info
	pending  []frameOf
	oracle   func(frameOf)
}

func newModel(open func() *client, oracle func(frameOf)) *proxyModel {
	m := &proxyModel{open: open, oracle: oracle}
	for t := range snapshot.NumTypes {
		m.names[t], m.have[t], m.versions[t] = map[string]bool{}, map[string]string{}, map[string]string{}
	}
	m.client = open()
	return m
}

func (m *proxyModel) queue(fs []frameOf) {
	for _, f := range fs {
		m.oracle(f)
		m.pending = append(m.pending, f)
	}
}

func (m *proxyModel) wants(t snapshot.Type, name string) bool {
	return m.wildcard[t] || m.names[t][name]
}

func (m *proxyModel) subscribeTo(t snapshot.Type, name string) {
	first := !m.asked[t]
	m.asked[t] = true
	if first && isSet(t) {
		name = "" // as Envoy does
		m.wildcard[t] = true
	}
	if name != "" {
		m.names[t][name] = true
	}
	if m.mode == delta {
		r := &request{url: t.URL()}
		if name != "" {
			r.subscribe = []string{name}
		}
		m.queue(m.request(r))
		return
	}
	m.state(t, nil)
}

// state sends the whole subscription.
func (m *proxyModel) state(t snapshot.Type, failed *statuspb.Status) {
	r := &request{url: t.URL(), failed: failed, version: m.good[t]}
	if !m.wildcard[t] {
		r.names = keys(m.names[t])
	}
	if f := m.lastSeen[t]; f != nil {
		r.nonce = f.Nonce
	}
	m.queue(m.request(r))
}

func (m *proxyModel) unsubscribeFrom(t snapshot.Type, name string) {
	if !m.names[t][name] || m.wildcard[t] {
		return
	}
	delete(m.names[t], name)
	delete(m.have[t], name)
	delete(m.versions[t], name)
	if m.mode == delta {
		m.queue(m.request(&request{url: t.URL(), unsubscribe: []string{name}}))
		return
	}
	m.state(t, nil)
}

// answer takes the oldest response that has no answer yet.
func (m *proxyModel) answer() {
	f := m.pending[0]
	m.pending = m.pending[1:]
	t, _ := snapshot.TypeOf(urlOf(f.Type))
	bad := slices.ContainsFunc(f.Resources, func(r string) bool { return strings.Contains(r, "bad") })
	var failed *statuspb.Status
	if bad {
		failed = &statuspb.Status{Code: 13, Message: "bad"}
	} else {
		m.apply(t, f)
	}
	m.lastSeen[t] = &f
	if m.mode == delta {
		m.queue(m.request(&request{url: t.URL(), nonce: f.Nonce, failed: failed}))
		return
	}
	if !bad {
		m.good[t] = f.version
	}
	m.state(t, failed)
}

func (m *proxyModel) apply(t snapshot.Type, f frameOf) {
	if m.mode == state && isSet(t) {
		clear(m.have[t])
	}
	vs := versionsOf(m.mode, f)
	for _, r := range f.Resources {
		name, text, _ := strings.Cut(r, "=")
		if m.wants(t, name) {
			m.have[t][name], m.versions[t][name] = text, vs[name]
		}
	}
	for _, name := range f.Removed {
		delete(m.have[t], name)
		delete(m.versions[t], name)
	}
}

// settle answers until nothing more comes.
func (m *proxyModel) settle(t fataler) {
	for range 2000 {
		m.queue(m.take())
		if len(m.pending) == 0 {
			return
		}
		m.answer()
	}
	t.Fatalf("it does not settle")
}

// reconnect opens a new stream and says what it has.
func (m *proxyModel) reconnect() {
	m.stop()
	synctest.Wait()
	m.pending = nil
	m.client = m.open()
	for t := range snapshot.NumTypes {
		m.lastSeen[t] = nil
		if !m.asked[t] {
			continue
		}
		if !m.wildcard[t] && len(m.names[t]) == 0 {
			m.asked[t] = false // no reason to mention it
			continue
		}
		if m.mode == state {
			m.state(t, nil)
			continue
		}
		names := keys(m.names[t])
		if m.wildcard[t] && len(names) > 0 {
			names = append(names, star)
		}
		m.queue(m.request(&request{url: t.URL(), subscribe: names, has: maps.Clone(m.versions[t])}))
	}
}

// universe is what a test publishes: two views with the same few names.
var universe = []string{"rbac-http-1", "rbac-http-2", "rbac-http-3", "rbac-tcp-4"}

func draw(t *rapid.T, bad bool) *snapshot.Resource {
	texts := []string{"1", "2", "3"}
	if bad {
		texts = append(texts, "bad")
	}
	text := func(l string) string { return rapid.SampledFrom(texts).Draw(t, l) }
	typ := snapshot.Type(rapid.IntRange(0, int(snapshot.NumTypes)-1).Draw(t, "type"))
	name := rapid.SampledFrom(universe).Draw(t, "name")
	switch typ {
	case snapshot.Route:
		var hosts []*snapshot.Part
		for _, h := range []string{"x", "y", "z"} {
			if rapid.Bool().Draw(t, "host") {
				hosts = append(hosts, host(h, text("domain")))
			}
		}
		return routes(name, hosts...)
	case snapshot.Cluster:
		return res(typ, name, text("text"), child(snapshot.Endpoint, name), child(snapshot.Secret, "rbac-tcp-4"))
	case snapshot.Listener:
		return res(typ, name, text("text"), child(snapshot.Route, name), child(snapshot.Extension, name), child(snapshot.Secret, "rbac-http-3"))
	default:
		return res(typ, name, text("text"))
	}
}

// A client that answers what it gets ends with exactly what its view holds of
// what it subscribed to, whatever happened and however late its answers were:
// but for what it refuses, of which it keeps an older state or has none.
func TestClientsConverge(t *testing.T) {
	for _, mode := range []protocol{delta, state} {
		for _, bad := range []bool{false, true} {
			t.Run(fmt.Sprint(mode, " bad ", bad), func(t *testing.T) {
				rapid.Check(t, func(rt *rapid.T) { converge(t, rt, mode, bad) })
			})
		}
	}
}

// op is one step of a script, drawn before it runs.
type op struct {
	kind, rare, view, answers int
	near                      bool
	typ                       snapshot.Type
	name                      string
	res                       *snapshot.Resource
}

// GoString makes the scripts that rapid prints readable.
func (o op) GoString() string {
	switch o.kind {
	case 0, 1, 2:
		return fmt.Sprintf("set(%d, %v %s=%s)", o.view, o.res.Type(), o.res.Name(), textOf(o.res))
	case 3:
		return fmt.Sprintf("remove(%d, %v %s)", o.view, o.typ, o.name)
	case 4, 5:
		return fmt.Sprintf("subscribe(%v %s)", o.typ, o.name)
	case 9:
		return fmt.Sprintf("near(%d, %v, %s=%s)", o.view, o.near, o.name, o.typ)
	case 6:
		return fmt.Sprintf("unsubscribe(%v %s)", o.typ, o.name)
	case 7:
		return fmt.Sprintf("answer(%d)", o.answers)
	}
	return [...]string{fmt.Sprintf("bind(%d, %v)", o.view, o.near), "reconnect", "sleep"}[o.rare]
}

func drawOp(t *rapid.T, bad bool) op {
	return op{
		kind: rapid.IntRange(0, 9).Draw(t, "op"), rare: rapid.IntRange(0, 2).Draw(t, "rare"), near: rapid.Bool().Draw(t, "near"),
		view: rapid.IntRange(0, 1).Draw(t, "view"), answers: rapid.IntRange(1, 6).Draw(t, "answers"),
		typ:  snapshot.Type(rapid.IntRange(0, int(snapshot.NumTypes)-1).Draw(t, "type")),
		name: rapid.SampledFrom(universe).Draw(t, "name"), res: draw(t, bad),
	}
}

// problems collects what a script that runs in a bubble finds.
type problems struct{ first string }

func (p *problems) Fatalf(format string, args ...any) {
	if p.first == "" {
		p.first = fmt.Sprintf(format, args...)
	}
}

func converge(t *testing.T, rt *rapid.T, mode protocol, bad bool) {
	ops := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) op { return drawOp(t, bad) }), 1, 40).Draw(rt, "ops")
	found := &problems{}
	synctest.Test(t, func(t *testing.T) {
		views := [2]view{newView("acme"), newView("acme")}
		places := [2]view{views[0].near(), views[1].near()}
		current := views[0]
		w := newWorld(t, current)
		m := newModel(func() *client { return w.open(mode) }, membership(found))
		m.subscribeTo(snapshot.Cluster, "")
		for _, o := range ops {
			switch o.kind {
			case 0, 1, 2:
				views[o.view].set(o.res)
			case 3:
				views[o.view].remove(child(o.typ, o.name))
			case 4, 5:
				m.subscribeTo(o.typ, o.name)
			case 6:
				m.unsubscribeFrom(o.typ, o.name)
			case 7:
				m.queue(m.take())
				for range min(len(m.pending), o.answers) {
					m.answer()
				}
			case 8:
				switch o.rare {
				case 0:
					current = views[o.view]
					if o.near {
						current = places[o.view]
					}
					w.store.bind(current.Binding)
				case 1:
					m.reconnect()
				default:
					time.Sleep(1500 * time.Millisecond)
				}
			case 9:
				u := snapshot.Update{Layer: places[o.view].Near}
				if o.near {
					u.Set = []*snapshot.Resource{res(snapshot.Endpoint, o.name, o.typ.String())}
				} else {
					u.Remove = []snapshot.Child{child(snapshot.Endpoint, o.name)}
				}
				snapshot.Publish(u)
			}
		}
		m.settle(found)
		m.check(found, current, bad)
		m.stop()
		synctest.Wait()
	})
	if found.first != "" {
		rt.Fatalf("%s", found.first)
	}
}

func (m *proxyModel) check(t fataler, v view, bad bool) {
	for typ := range snapshot.NumTypes {
		if !m.asked[typ] {
			continue
		}
		for _, name := range universe {
			if !m.wants(typ, name) {
				continue
			}
			got, has := m.have[typ][name]
			r := v.Get(typ, name)
			switch {
			case r == nil && typ == snapshot.Secret:
			case r == nil:
				if has && got != "" && got != "deny" {
					t.Fatalf("%v %s is gone and the client has %q", typ, name, got)
				}
			case bad && typ == snapshot.Route:
				checkHosts(t, name, got, textOf(r))
			default:
				want := textOf(r)
				if want == "bad" {
					if typ == snapshot.Extension && got != "deny" {
						t.Fatalf("RBAC %s was refused and is not closed but %q", name, got)
					}
					continue
				}
				if got != want || (!has && want != "") {
					t.Fatalf("%v %s is %q and the client has %q (%v)", typ, name, want, got, has)
				}
			}
		}
	}
}

// checkHosts wants every good host as it is, and no host that is gone.
func checkHosts(t fataler, name, got, want string) {
	have := map[string]string{}
	for _, h := range strings.Fields(got) {
		k, text, _ := strings.Cut(h, ":")
		have[k] = text
	}
	for _, h := range strings.Fields(want) {
		k, text, _ := strings.Cut(h, ":")
		if text != "bad" && have[k] != text {
			t.Fatalf("route %s is %q and the client has %q", name, want, got)
		}
		delete(have, k)
	}
	if len(have) > 0 {
		t.Fatalf("route %s is %q and the client still has %q", name, want, got)
	}
}
