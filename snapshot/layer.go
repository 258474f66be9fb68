package snapshot

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Variant is what a proxy's own listeners depend on of what it says of itself:
// where they bind, and whether it may be told to fetch public keys. Nothing of
// it widens what the proxy is given. The zero value is transparent capture.
type Variant struct {
	// Explicit binds sockets instead of relying on iptables.
	Explicit bool
	// Bind is where outbound listeners bind, App where the application
	// listens; both are set for Explicit only.
	Bind, App netip.Addr
	// FiltersAddresses is set for releases that can refuse internal addresses
	// when they resolve a name. No other is told to fetch anything, and to those
	// no token is good whose keys are to be fetched.
	FiltersAddresses bool
}

var layerIDs atomic.Uint64

// group is what is swapped together: layers with one lock, one generation and
// one set of attachments. A view and its listener variants are one group, a
// workload layer is a group of its own.
type group struct {
	mu sync.RWMutex
	// gen counts the publications, guarded by mu. It starts at 1, so that 0
	// means that a stream has nothing of the group yet.
	gen uint64
	// readers are the attachments to wake, guarded by mu.
	readers map[*Attachment]struct{}
	// stamps are when the events behind the last publications came, guarded by mu.
	stamps [stamps]stamp
}

// stamps is of how many publications a group knows the time: a stream that is
// further behind counts from the oldest of them.
const stamps = 4

type stamp struct {
	gen uint64
	at  time.Time
}

func newGroup() *group { return &group{gen: 1, readers: map[*Attachment]struct{}{}} }

// Layer is a set of resources of all types with one generation. The publisher
// alone changes it; streams read it inside Attachment.Read. A nil Layer reads as
// an empty one that never changes.
type Layer struct {
	group  *group
	id     uint64
	tables [NumTypes]table
}

type table struct {
	entries map[string]entry
	// changed is the generation of the last change.
	changed uint64
	// log holds a record per change in the order of generations; a record is
	// stale once its name has a newer one.
	log []change
	// gone holds the generation at which a name was removed, while a record of
	// it is in the log.
	gone map[string]uint64
	// floor is the generation up to which the log has been forgotten.
	floor uint64
}

type entry struct {
	res *Resource
	gen uint64
}

type change struct {
	gen  uint64
	name string
}

func newLayer(g *group) *Layer { return &Layer{group: g, id: layerIDs.Add(1)} }

// ID is unique among the layers of this process; with generations it keys
// shared response bodies.
func (l *Layer) ID() uint64 {
	if l == nil {
		return 0
	}
	return l.id
}

// Generation is the layer's current one. Call it inside Attachment.Read.
func (l *Layer) Generation() uint64 { return l.group.gen }

// Changed reports whether anything of type t changed after generation from.
// Call it inside Attachment.Read.
func (l *Layer) Changed(t Type, from uint64) bool { return l != nil && l.tables[t].changed > from }

// Event is when the oldest of the events came, as far as that is remembered,
// that changed the layer's group after generation from; zero if that is not
// known. Call it inside Attachment.Read.
func (l *Layer) Event(from uint64) time.Time {
	var first time.Time
	if l == nil {
		return first
	}
	for _, s := range l.group.stamps {
		if s.gen > from && (first.IsZero() || s.at.Before(first)) {
			first = s.at
		}
	}
	return first
}

// Get returns the resource of that name, or nil. Call it inside Attachment.Read.
func (l *Layer) Get(t Type, name string) *Resource {
	if l == nil {
		return nil
	}
	return l.tables[t].entries[name].res
}

// GetSince returns the resource of that name and whether it is the same as in
// generation from, at which a stream may have got it. Call it inside
// Attachment.Read.
func (l *Layer) GetSince(t Type, name string, from uint64) (r *Resource, same bool) {
	if l == nil {
		return nil, false
	}
	e := l.tables[t].entries[name]
	return e.res, e.res != nil && e.gen <= from
}

// Len is the number of resources of type t. Call it inside Attachment.Read.
func (l *Layer) Len(t Type) int { return len(l.tables[t].entries) }

// All calls f for every resource of type t, in no order. Call it inside
// Attachment.Read.
func (l *Layer) All(t Type, f func(*Resource)) {
	if l == nil {
		return
	}
	for _, e := range l.tables[t].entries {
		f(e.res)
	}
}

// Since calls f once for each name of type t that changed after generation
// from, newest first, with its resource, or with nil if it is gone. From 0 it
// calls f for every resource. Its cost is that of the changes. It returns
// false, without having called f, when the layer no longer remembers from: then
// the stream has to be closed. Call it inside Attachment.Read.
func (l *Layer) Since(t Type, from uint64, f func(name string, r *Resource)) bool {
	if l == nil {
		return true
	}
	tb := &l.tables[t]
	if from == 0 {
		for name, e := range tb.entries {
			f(name, e.res)
		}
		return true
	}
	if from < tb.floor {
		return false
	}
	for i := len(tb.log) - 1; i >= 0 && tb.log[i].gen > from; i-- {
		c := tb.log[i]
		if e, ok := tb.entries[c.name]; ok {
			if e.gen == c.gen {
				f(c.name, e.res)
			}
		} else if tb.gone[c.name] == c.gen {
			f(c.name, nil)
		}
	}
	return true
}

// Had calls f for each name of type t that a stream at generation from has got
// from this layer and that has left it since. Together with All it tells what
// the stream holds when it moves to another layer. It returns false when the
// layer no longer remembers.
func (l *Layer) Had(t Type, from uint64, f func(name string)) bool {
	if l == nil {
		return true
	}
	tb := &l.tables[t]
	if from < tb.floor && from != 0 {
		return false
	}
	for name, gen := range tb.gone {
		if gen > from && from != 0 {
			f(name)
		}
	}
	return true
}

// set stores r, or removes the name if r is nil, at generation gen. It reports
// whether anything changed: an equal version stops the change here. The
// caller holds the group's lock for writing.
func (l *Layer) set(t Type, name string, r *Resource, gen uint64) bool {
	tb := &l.tables[t]
	old, had := tb.entries[name]
	switch {
	case r == nil && !had:
		return false
	case r == nil:
		delete(tb.entries, name)
		if tb.gone == nil {
			tb.gone = map[string]uint64{}
		}
		tb.gone[name] = gen
	case had && old.res.version == r.version:
		return false
	default:
		if tb.entries == nil {
			tb.entries = map[string]entry{}
		}
		tb.entries[name] = entry{r, gen}
		delete(tb.gone, name)
	}
	tb.changed = gen
	tb.log = append(tb.log, change{gen, name})
	return true
}

// logSlack is how many records a log may hold beyond twice its live entries
// before it is compacted.
const logSlack = 64

// maxTombstones is how many removed names a table remembers for streams that
// are behind; beyond it they are forgotten and those streams closed.
const maxTombstones = 4096

// long reports whether a log is long enough to pay for the walk of trim.
func (l *Layer) long() bool {
	for t := range l.tables {
		if l.tables[t].long() {
			return true
		}
	}
	return false
}

func (tb *table) long() bool { return len(tb.log) > 2*len(tb.entries)+logSlack }

// trim forgets what no reader is behind in logs that have grown long. The caller holds the group's lock for writing; low is the
// lowest generation that a reader may ask for.
func (l *Layer) trim(low uint64) {
	for t := range l.tables {
		tb := &l.tables[t]
		if !tb.long() {
			continue
		}
		keep := tb.log[:0:0]
		for _, c := range tb.log {
			e, live := tb.entries[c.name]
			current := (live && e.gen == c.gen) || (!live && tb.gone[c.name] == c.gen)
			if current && c.gen > low {
				keep = append(keep, c)
			} else if !live && tb.gone[c.name] == c.gen {
				delete(tb.gone, c.name)
			}
		}
		tb.log, tb.floor = keep, max(tb.floor, low)
		if len(tb.gone) > maxTombstones {
			tb.floor, tb.log, tb.gone = tb.changed, nil, nil
		}
	}
}
