package adsclient

import (
	"maps"
	"slices"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
)

// reference is a resource that another one names.
type reference struct{ url, name string }

// parent is a cluster or a listener.
type parent = reference

// follower makes subscriptions from what clusters and listeners name. It is
// guarded by the client's mu.
type follower struct {
	mode Following
	// refs are what each parent names, wanted how many parents name it.
	refs   map[parent][]reference
	wanted map[reference]int
	// warming holds for each cluster that is not warm what it waits for.
	warming map[string]map[reference]struct{}
	// clusters is true after the first answer to the request for clusters,
	// listeners after listeners have been asked for.
	clusters, listeners bool
	// owed are messages with clusters whose answer is withheld.
	owed []owed
}

// owed is an answer that has not been sent.
type owed struct {
	message *Message
	verdict Verdict
}

func newFollower(mode Following) *follower {
	return &follower{
		mode: mode, refs: map[parent][]reference{}, wanted: map[reference]int{},
		warming: map[string]map[reference]struct{}{},
	}
}

// startFollowing makes the requests that do not wait for anything.
func (c *Client) startFollowing() error {
	if c.follower == nil {
		return nil
	}
	if err := c.Wildcard(resourcev3.ClusterType); err != nil {
		return err
	}
	if c.config.Follow == FollowLikeEnvoy {
		return nil // listeners come when the clusters are warm
	}
	c.mu.Lock()
	c.follower.listeners = true
	c.mu.Unlock()
	return c.Wildcard(resourcev3.ListenerType)
}

// follow returns the requests that come of a message that was taken: new
// subscriptions, its answer, and what had to wait for it. The caller holds mu.
func (c *Client) follow(m *Message, v Verdict, changed map[string]bool) []proto.Message {
	f := c.follower
	var requests []proto.Message
	if setType(m.TypeURL) {
		requests = c.learn(m, v, changed)
	}
	f.arrived(m)
	late := m.TypeURL == resourcev3.ClusterType && f.mode == FollowLikeEnvoy && f.listeners
	if !late {
		requests = append(requests, c.answered(m, v))
	} else {
		f.owed = append(f.owed, owed{m, v})
	}
	if len(f.warming) > 0 {
		return requests
	}
	return append(requests, c.warmed()...)
}

// warmed returns the requests that wait for clusters to be warm.
func (c *Client) warmed() []proto.Message {
	f := c.follower
	requests := c.settle()
	clusters := c.typeOf(resourcev3.ClusterType)
	if clusters.asked && !clusters.started {
		// The stream began while clusters warmed.
		requests = append(requests, c.build(resourcev3.ClusterType, clusters, ask{subscribe: clusters.list()}))
	}
	if f.clusters && !f.listeners {
		f.listeners = true
		t := c.typeOf(resourcev3.ListenerType)
		t.wildcard, t.legacy = true, true
		requests = append(requests, c.build(resourcev3.ListenerType, t, ask{}))
	}
	return requests
}

// settle returns the answers that were withheld. A state-of-the-world client
// gives one for all: what it holds, the last nonce, the error of any.
func (c *Client) settle() []proto.Message {
	f := c.follower
	late := f.owed
	f.owed = nil
	if c.config.Protocol == SotW && len(late) > 1 {
		last := late[len(late)-1]
		for _, o := range late {
			if o.verdict.answer == nack {
				last.verdict = o.verdict
			} else {
				c.typeOf(o.message.TypeURL).version = o.message.Version
			}
		}
		late = []owed{last}
	}
	requests := make([]proto.Message, 0, len(late))
	for _, o := range late {
		requests = append(requests, c.answered(o.message, o.verdict))
	}
	return requests
}

// learn takes clusters or listeners and returns the requests that bring the
// subscriptions in line with them.
func (c *Client) learn(m *Message, v Verdict, changed map[string]bool) []proto.Message {
	f := c.follower
	f.clusters = f.clusters || m.TypeURL == resourcev3.ClusterType
	touched := map[reference]struct{}{}
	entries := c.typeOf(m.TypeURL).entries
	for _, r := range m.Resources {
		if _, ok := entries[r.Name]; ok && v.applies(r.Name) {
			f.set(parent{m.TypeURL, r.Name}, references(r), touched)
		}
	}
	// What is gone: by name (Delta), or by its absence (SotW).
	for p := range maps.Clone(f.refs) {
		if _, ok := entries[p.name]; p.url == m.TypeURL && !ok {
			f.set(p, nil, touched)
			delete(f.warming, p.name)
		}
	}
	if m.TypeURL == resourcev3.ClusterType {
		for _, r := range m.Resources {
			if changed[r.Name] && v.applies(r.Name) {
				f.warm(c, r)
			}
		}
	}
	return c.adjust(touched)
}

// set replaces what a parent names and notes what that concerns.
func (f *follower) set(p parent, refs []reference, touched map[reference]struct{}) {
	for _, r := range refs {
		f.wanted[r]++
		touched[r] = struct{}{}
	}
	for _, r := range f.refs[p] {
		if f.wanted[r]--; f.wanted[r] == 0 {
			delete(f.wanted, r)
		}
		touched[r] = struct{}{}
	}
	if len(refs) == 0 {
		delete(f.refs, p)
	} else {
		f.refs[p] = refs
	}
}

// warm notes what a new or changed cluster waits for: its assignment each time,
// a secret only if the client does not have it.
func (f *follower) warm(c *Client, r Resource) {
	waits := map[reference]struct{}{}
	for _, ref := range f.refs[parent{resourcev3.ClusterType, r.Name}] {
		_, known := c.typeOf(ref.url).entries[ref.name]
		if ref.url == resourcev3.EndpointType || !known {
			waits[ref] = struct{}{}
		}
	}
	if len(waits) == 0 {
		delete(f.warming, r.Name)
	} else {
		f.warming[r.Name] = waits
	}
}

// arrived ends the waiting for what a message holds.
func (f *follower) arrived(m *Message) {
	names := append(m.Names(), m.Removed...)
	for cluster, waits := range f.warming {
		for _, name := range names {
			delete(waits, reference{m.TypeURL, name})
		}
		if len(waits) == 0 {
			delete(f.warming, cluster)
		}
	}
}

// adjust returns the requests that subscribe to what is wanted and unsubscribe
// from what is not any more.
func (c *Client) adjust(touched map[reference]struct{}) []proto.Message {
	add, remove := map[string][]string{}, map[string][]string{}
	for r := range touched {
		_, subscribed := c.typeOf(r.url).names[r.name]
		_, wanted := c.follower.wanted[r]
		switch {
		case wanted && !subscribed:
			add[r.url] = append(add[r.url], r.name)
		case !wanted && subscribed:
			remove[r.url] = append(remove[r.url], r.name)
		}
	}
	var requests []proto.Message
	for _, url := range envoyOrder {
		if len(add[url])+len(remove[url]) == 0 {
			continue
		}
		slices.Sort(add[url])
		slices.Sort(remove[url])
		t := c.typeOf(url)
		t.unsubscribe(remove[url])
		t.subscribe(add[url], c.config.Protocol)
		a := ask{subscribe: add[url], unsubscribe: remove[url]}
		if c.config.Protocol == SotW {
			a.nonce = t.nonce
		}
		requests = append(requests, c.build(url, t, a))
	}
	return requests
}
