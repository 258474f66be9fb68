package xds

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/tenancy"
)

// Observer is told what goes to and comes from clients. Its methods are called
// during the streams' turns, concurrently, and must not block. What a client
// says may be a lie: it is good for the status of objects of the client's own
// tenant and for nothing else.
type Observer interface {
	// Sent is called after a response was handed to the transport.
	Sent(Report)
	// Acked is called when a client acknowledged a response.
	Acked(Report)
	// Nacked is called when a client refused a response, with its text. When
	// the cause is known, because it was refused alone, Origins are set.
	Nacked(r Report, detail string)
}

// Report is about one response on one stream.
type Report struct {
	// Stream tells streams of this process apart.
	Stream   uint64
	Workload identity.Workload
	// Pod is what the client's node claims, among the Pods of Workload.
	Pod    string
	Tenant string
	Type   snapshot.Type
	// Nonce counts the responses of a stream from 1.
	Nonce     uint64
	Resources []*snapshot.Resource
	Removed   []string
	// Part is the refused part of a composite, Origins the objects it was made from.
	Part    string
	Origins []tenancy.Ref
}

func (s *stream) report(t snapshot.Type, nonce uint64, b *body) Report {
	return Report{
		Stream: s.id, Workload: s.who.Workload, Pod: s.att.Proxy().Pod, Tenant: s.tenant,
		Type: t, Nonce: nonce, Resources: b.resources, Removed: b.removed,
	}
}

// StreamStatus is what the platform's dump shows of a stream.
type StreamStatus struct {
	ID       uint64
	Workload identity.Workload
	// Pod is what the client's node claims, empty before its first request.
	Pod      string
	Tenant   string
	Protocol string
	// Envoy is the release that the client's node claims, empty if it claims none.
	Envoy  string
	Opened time.Time
	// Behind is set while the store has something that the stream has not looked
	// at, or that waits because the client acknowledges nothing.
	Behind  bool
	Types   [snapshot.NumTypes]TypeStatus
	Refused []Refusal
}

// TypeStatus counts the responses of one type.
type TypeStatus struct {
	Sent, Acked, Nacked uint64
	// LastSent is zero if nothing was.
	LastSent   time.Time
	Unanswered []Unanswered `json:",omitempty"`
}

// Unanswered is a response without ACK or NACK. It is listed before it is
// handed to the transport, so that a client that does not read shows, too.
type Unanswered struct {
	Nonce     uint64
	Since     time.Time
	Resources []*snapshot.Resource `json:"-"`
}

// Refusal is content that a client does not take, and the objects it was made
// from: the cause of whatever is missing at that client.
type Refusal struct {
	Type     snapshot.Type
	Resource string
	Version  string
	// Parts are the keys of refused parts; empty if the whole was refused.
	Parts   []string
	Detail  string
	Origins []tenancy.Ref
}

// streamStatus is the part of a stream that others may read.
type streamStatus struct {
	mu  sync.Mutex
	now StreamStatus // guarded by mu
	// att, seen and waits say up to where the stream has looked; guarded by mu.
	att   *snapshot.Attachment
	seen  cursor
	waits bool
}

func (s *streamStatus) setTenant(tenant string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Tenant = tenant
}

func (s *streamStatus) attached(pod, release string, att *snapshot.Attachment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Pod, s.now.Envoy, s.att = pod, release, att
}

// looked notes up to where the stream has looked, and whether something waits.
func (s *streamStatus) looked(at cursor, waits bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen, s.waits = at, waits
}

func (s *streamStatus) sending(t snapshot.Type, nonce uint64, b *body, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ts := &s.now.Types[t]
	ts.Sent++
	ts.LastSent = now
	ts.Unanswered = append(ts.Unanswered, Unanswered{nonce, now, b.resources})
}

// answered counts the answer to a response. Older ones are answered with it.
func (s *streamStatus) answered(t snapshot.Type, nonce uint64, ack bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ts := &s.now.Types[t]
	if ack {
		ts.Acked++
	} else {
		ts.Nacked++
	}
	ts.Unanswered = slices.DeleteFunc(ts.Unanswered, func(u Unanswered) bool { return u.Nonce <= nonce })
}

func (s *streamStatus) get() StreamStatus {
	s.mu.Lock()
	now, att, seen, waits := s.now, s.att, s.seen, s.waits
	for t := range now.Types {
		now.Types[t].Unanswered = slices.Clone(now.Types[t].Unanswered)
	}
	s.mu.Unlock()
	// The layers' locks are taken by themselves: streams take ours inside them.
	if att == nil {
		return now
	}
	at := cursor{}
	att.Read(func(b *snapshot.Binding) {
		at.binding, at.gens = b, b.Generations()
	})
	now.Behind = waits || at != seen
	return now
}

// publish lets the dump see what the client refuses. It costs nothing while
// that is nothing.
func (s *stream) publish() {
	var refused []Refusal
	defer func() { s.refusals = len(refused) }()
	for t := range s.types {
		f := s.types[t].faults
		if f == nil {
			continue
		}
		for name, e := range f.exceptions {
			r := Refusal{Type: snapshot.Type(t), Resource: name, Version: e.version, Detail: e.detail, Origins: e.origin}
			for key := range e.parts {
				r.Parts = append(r.Parts, key)
			}
			slices.Sort(r.Parts)
			refused = append(refused, r)
		}
	}
	if len(refused) == 0 && s.refusals == 0 {
		return
	}
	slices.SortFunc(refused, func(a, b Refusal) int {
		if a.Type != b.Type {
			return int(a.Type) - int(b.Type)
		}
		return strings.Compare(a.Resource, b.Resource)
	})
	s.status.mu.Lock()
	defer s.status.mu.Unlock()
	s.status.now.Refused = refused
}

// origins prints objects for the log of the platform.
func origins(refs []tenancy.Ref) []string {
	out := make([]string, 0, len(refs))
	for _, r := range refs {
		out = append(out, fmt.Sprintf("%v %s/%s", r.Kind, r.Key.Namespace, r.Key.Name))
	}
	return out
}
