package xds

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"google.golang.org/protobuf/encoding/protowire"

	"bailiwick.dev/bailiwick/snapshot"
)

// Field numbers of envoy.service.discovery.v3.{Delta,}DiscoveryResponse
// besides the resources, whose tag is part of a resource's frame.
const (
	fieldVersionInfo = 1 // DiscoveryResponse
	fieldTypeURL     = 4 // both
	fieldRemoved     = 6 // DeltaDiscoveryResponse
)

// body is a response without its nonce, encoded once and immutable.
type body struct {
	typ       snapshot.Type
	bytes     []byte
	resources []*snapshot.Resource
	removed   []string
	// version is the version_info of a state-of-the-world response: a hash of
	// the content and nothing else.
	version string
}

// encodeBody puts a response together from encoded resources.
func encodeBody(mode protocol, t snapshot.Type, resources []*snapshot.Resource, removed []string) *body {
	b := &body{typ: t, resources: resources, removed: removed}
	url := t.URL()
	size := protowire.SizeTag(fieldTypeURL) + protowire.SizeBytes(len(url))
	for _, r := range resources {
		size += len(frame(mode, r))
	}
	for _, name := range removed {
		size += protowire.SizeTag(fieldRemoved) + protowire.SizeBytes(len(name))
	}
	if mode == state {
		b.version = setVersion(resources)
		size += protowire.SizeTag(fieldVersionInfo) + protowire.SizeBytes(len(b.version))
	}
	out := make([]byte, 0, size)
	if mode == state {
		out = protowire.AppendTag(out, fieldVersionInfo, protowire.BytesType)
		out = protowire.AppendString(out, b.version)
	}
	for _, r := range resources {
		out = append(out, frame(mode, r)...)
	}
	out = protowire.AppendTag(out, fieldTypeURL, protowire.BytesType)
	out = protowire.AppendString(out, url)
	for _, name := range removed {
		out = protowire.AppendTag(out, fieldRemoved, protowire.BytesType)
		out = protowire.AppendString(out, name)
	}
	b.bytes = out
	return b
}

func frame(mode protocol, r *snapshot.Resource) []byte {
	if mode == state {
		return r.StateFrame()
	}
	return r.DeltaFrame()
}

// setVersion is 128 bits of a hash over names and versions.
func setVersion(resources []*snapshot.Resource) string {
	h := sha256.New()
	for _, r := range resources {
		h.Write([]byte(r.Name()))
		h.Write([]byte{0})
		h.Write([]byte(r.Version()))
		h.Write([]byte{0})
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:16])
}

// batch is what one step of a flush has to say, shared by all streams that
// stand where its key says. It is filled inside Attachment.Read by whoever
// comes first (others wait: filling never blocks), and encoded outside.
type batch struct {
	id      uint64
	collect sync.Once
	// What follows is written by collect and constant afterwards.

	// lost is true when a layer no longer remembers what the stream has.
	lost bool
	// resources go out in the step itself, each group in a response of its
	// own; sorted by name within a group.
	groups [][]*snapshot.Resource
	// gone go out in the step's first response (delta).
	gone []string
	// late and removed go out behind all other steps.
	late    []*snapshot.Resource
	removed []string
	// empty asks for a response even without content.
	empty bool
	// fresh are the resources whose children have to follow.
	fresh []*snapshot.Resource
	// full is the whole set, for types of which a state-of-the-world response
	// is one; groups[0] may hold what is about to be removed besides.
	full   []*snapshot.Resource
	isFull bool

	encode   sync.Once
	bodies   []*body // of the step itself
	lateBody *body
	rmBody   *body
	// noted is what the memo counts for it, guarded by the memo's lock.
	noted int64
}

// collectOnce fills the batch with what q asks for. Should that panic, the
// batch says that it is lost rather than that there is nothing.
func (b *batch) collectOnce(q *query) {
	b.collect.Do(func() {
		b.lost = true
		b.lost = !q.fill(b)
	})
}

// build encodes the batch once. Count is called for each body made.
func (b *batch) build(mode protocol, t snapshot.Type, count func(*body)) {
	b.encode.Do(func() {
		add := func(rs []*snapshot.Resource, gone []string) *body {
			e := encodeBody(mode, t, rs, gone)
			count(e)
			return e
		}
		gone := b.gone
		for _, g := range b.groups {
			b.bodies = append(b.bodies, add(g, gone))
			gone = nil
		}
		if len(gone) > 0 || (b.empty && len(b.bodies) == 0 && len(b.removed) == 0 && len(b.late) == 0) {
			b.bodies = append(b.bodies, add(nil, gone))
		}
		if len(b.late) > 0 {
			b.lateBody = add(b.late, nil)
		}
		switch {
		case b.isFull && len(b.removed) > 0:
			b.rmBody = add(b.full, nil)
		case len(b.removed) > 0:
			b.rmBody = add(nil, b.removed)
		}
	})
}

// nothing reports whether no response comes of the batch.
func (b *batch) nothing() bool {
	return len(b.groups) == 0 && len(b.gone) == 0 && len(b.late) == 0 && len(b.removed) == 0 && !b.empty
}

func sortResources(rs []*snapshot.Resource) {
	slices.SortFunc(rs, func(a, b *snapshot.Resource) int { return cmp.Compare(a.Name(), b.Name()) })
}

// memo remembers batches for the streams that are about to need the same. It
// is bounded by count and by bytes; what it forgets is made again.
type memo struct {
	ids      atomic.Uint64
	maxBytes int64

	mu    sync.Mutex
	lru   *simplelru.LRU[batchKey, *batch] // guarded by mu
	bytes int64                            // guarded by mu
}

func newMemo(entries int, maxBytes int64) (*memo, error) {
	m := &memo{maxBytes: maxBytes}
	lru, err := simplelru.NewLRU(entries, func(_ batchKey, b *batch) { m.bytes -= b.noted })
	if err != nil {
		return nil, err
	}
	m.lru = lru
	return m, nil
}

// get returns the batch of a key, an unfilled one if there was none.
func (m *memo) get(k batchKey) *batch {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b, ok := m.lru.Get(k); ok {
		return b
	}
	b := &batch{id: m.ids.Add(1)}
	m.lru.Add(k, b)
	return b
}

// private returns a batch that no other stream will find.
func (m *memo) private() *batch { return &batch{id: m.ids.Add(1)} }

// note accounts for what was encoded since the batch was added and forgets
// the least recently used beyond the bound.
func (m *memo) note(k batchKey, b *batch, size int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if cur, ok := m.lru.Peek(k); !ok || cur != b {
		return
	}
	b.noted += size
	m.bytes += size
	for m.bytes > m.maxBytes && m.lru.Len() > 1 {
		m.lru.RemoveOldest()
	}
}
