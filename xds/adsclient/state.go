package adsclient

import (
	"maps"
	"slices"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// star subscribes to all resources of a type.
const star = "*"

// Entry is a resource that the client has.
type Entry struct {
	Resource
	// Acked is the version that the client has acknowledged, empty for none.
	// It differs from Version after a response that was refused in part: the
	// rest of it is live, and yet the next stream does not state it.
	Acked string
}

// Total counts what was received of a type since the client was made.
type Total struct {
	Messages, Resources, Removed, Bytes int
}

// typeState is what a client knows of one type.
type typeState struct {
	// started is true after the first request on the present stream, asked
	// after one on any stream.
	started, asked bool
	// wildcard is true while all resources are subscribed; legacy, if that was
	// said by an empty first request.
	wildcard, legacy bool
	names            map[string]struct{}
	entries          map[string]Entry
	// version is the last that was acknowledged (SotW), nonce the last that was
	// received on the present stream.
	version, nonce string
}

func newTypeState() *typeState {
	return &typeState{names: map[string]struct{}{}, entries: map[string]Entry{}}
}

func (t *typeState) interested(name string) bool {
	_, ok := t.names[name]
	return ok || t.wildcard
}

// subscribe adds names and drops what is not subscribed any more.
func (t *typeState) subscribe(names []string, p Protocol) {
	for _, n := range names {
		if n == star {
			t.wildcard, t.legacy = true, false
		} else {
			t.names[n] = struct{}{}
		}
	}
	if t.legacy && p == SotW && len(names) > 0 {
		// A list of names takes the place of the empty one that meant all.
		t.wildcard, t.legacy = false, false
	}
	t.drop()
}

func (t *typeState) unsubscribe(names []string) {
	for _, n := range names {
		if n == star {
			t.wildcard, t.legacy = false, false
		} else {
			delete(t.names, n)
		}
	}
	t.drop()
}

func (t *typeState) drop() {
	maps.DeleteFunc(t.entries, func(name string, _ Entry) bool { return !t.interested(name) })
}

// list is the subscription as a first delta request or any SotW request says it.
func (t *typeState) list() []string {
	out := slices.Sorted(maps.Keys(t.names))
	if t.wildcard && (!t.legacy || len(out) > 0) {
		out = append([]string{star}, out...)
	}
	return out
}

// stated are the versions that a reconnecting delta client has.
func (t *typeState) stated() map[string]string {
	out := map[string]string{}
	for name, e := range t.entries {
		if e.Acked != "" {
			out[name] = e.Acked
		}
	}
	return out
}

// setType reports whether a SotW response of that type is the whole set, so
// that what is absent is gone.
func setType(url string) bool { return url == resourcev3.ClusterType || url == resourcev3.ListenerType }

// apply takes over what the verdict lets in, and returns the names of the
// resources that are new or have another version now.
func (t *typeState) apply(m *Message, p Protocol, v Verdict) map[string]bool {
	if v.answer == hold || v.answer == nack && v.bad == nil {
		return nil
	}
	before, changed := t.entries, map[string]bool{}
	if p == SotW && setType(m.TypeURL) {
		t.entries = make(map[string]Entry, len(m.Resources))
	}
	for _, r := range m.Resources {
		if !t.interested(r.Name) {
			continue
		}
		old, had := before[r.Name]
		changed[r.Name] = !had || string(old.Any) != string(r.Any)
		switch {
		case v.answer == ack:
			t.entries[r.Name] = Entry{Resource: r, Acked: r.Version}
		case v.applies(r.Name):
			t.entries[r.Name] = Entry{Resource: r, Acked: old.Acked}
		case had:
			t.entries[r.Name] = old
		}
	}
	for _, name := range m.Removed {
		delete(t.entries, name)
	}
	return changed
}

// View is a look at a client's state. It is valid only inside the function that
// it was handed to.
type View struct{ c *Client }

// Names are those of the resources that the client has of a type, sorted.
func (v View) Names(url string) []string {
	t := v.c.types[url]
	if t == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(t.entries))
}

// Has reports whether the client has all of these.
func (v View) Has(url string, names ...string) bool {
	for _, n := range names {
		if _, ok := v.Get(url, n); !ok {
			return false
		}
	}
	return true
}

// Get returns a resource that the client has.
func (v View) Get(url, name string) (Entry, bool) {
	t := v.c.types[url]
	if t == nil {
		return Entry{}, false
	}
	e, ok := t.entries[name]
	return e, ok
}

// Missing are the names that are subscribed to and that the client does not
// have, sorted.
func (v View) Missing(url string) []string {
	t := v.c.types[url]
	if t == nil {
		return nil
	}
	var out []string
	for name := range t.names {
		if _, ok := t.entries[name]; !ok {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Total is what was received of a type; of the empty type, of all of them.
func (v View) Total(url string) Total { return v.c.totals[url] }

// Log are the messages received so far, oldest first. It must not be written to.
func (v View) Log() []*Message { return v.c.log }
