package xds

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
)

// Times of the protocol.
const (
	// unaskedAfter is how long a stream that asks for assignments may go
	// without asking for clusters before it gets them unasked: an Envoy whose
	// cluster was warming when it reconnected does not ask.
	unaskedAfter = time.Second
	// finalGrace is how long the last, empty view may stay without its ACK.
	finalGrace = 5 * time.Second
	// clusterGrace is how long clusters may stay without ACK or NACK, behind
	// their assignments and secrets, before that counts as a NACK.
	clusterGrace = 20 * time.Second
)

// errFinal ends a stream, and its connection, whose identity lost its tenant.
var errFinal = errors.New("the identity's tenant has changed")

// errElsewhere ends a stream, and its connection, that comes from an address
// where no Pod of its identity is.
var errElsewhere = errors.New("the connection does not come from a Pod of this identity")

// request is what a stream reads of a request of either flavour.
type request struct {
	url    string
	node   *corev3.Node
	nonce  string
	failed *statuspb.Status
	size   int
	// ack is set for one that acknowledges and, but for names that may be the same
	// as before, says nothing else.
	ack bool
	// raw is one that is still to be decoded.
	raw []byte
	// admitted is set when it was found to be within the limits.
	admitted bool

	// Delta.
	subscribe, unsubscribe []string
	has                    map[string]string

	// State of the world.
	names   []string
	version string
}

// inflight is a response without an answer yet.
type inflight struct {
	nonce uint64
	body  *body
	at    time.Time
	// event is when what it says came to the store, zero if a client asked.
	event time.Time
	// search is set for a try of what is being taken apart.
	search bool
}

// typeState is what a stream remembers of one type. Apart from what is waiting
// to be answered or acknowledged, and from what this client refused, it does
// not grow with what there is to serve.
type typeState struct {
	// requested is true after the first request, unasked after the type was
	// sent in full without one.
	requested, unasked bool
	wildcard           bool
	legacy             bool // the wildcard was an empty first request (sotw)
	names              *nameSet
	at                 cursor
	// all, asked, empty, has and orphans wait to be answered; see query.
	all, empty     bool
	asked, orphans *nameSet
	has            *versions
	// owed are assignments of clusters that were sent before the first request.
	owed *nameSet

	inflight []inflight
	unacked  int
	// last is the nonce of the last response, 0 for none.
	last uint64

	// full is what a state-of-the-world client was last sent as a set.
	full *batch
	// faults are set while the client has refused something.
	faults *faults
	// accepted are the composites that the client has acknowledged; good is
	// the last set that it has (sotw).
	accepted map[string]*snapshot.Resource
	good     *body
	// stated is the version_info with which the client began the type (sotw): of
	// the set that it took last on an earlier stream.
	stated string
}

// stream serves one client. Whoever has its turn owns all of it.
type stream struct {
	turns turns

	srv    *Server
	log    *slog.Logger
	id     uint64
	mode   protocol
	who    identity.Peer
	from   netip.Addr // where the connection comes from, if that matters
	wire   wire
	att    *snapshot.Attachment
	ticket *ticket
	budget *bucket

	types  [snapshot.NumTypes]typeState
	nonces uint64
	// tenant and final are those of the binding that was last served.
	tenant string
	meters *meters
	served bool
	final  bool
	// unaskedAt and closeAt are deadlines, zero for none.
	unaskedAt, closeAt time.Time
	leaving            leaving
	// frozen is true while a client with state is told nothing; gone, if set, is
	// closed when the stream ends.
	frozen bool
	gone   chan struct{}
	// returning is true for a client that has state from an earlier stream.
	returning bool
	status    *streamStatus
	refusals  int // in status
}

// run serves until the client goes, the context ends or an error occurs. It
// returns nil when the client closed the stream in order. Its goroutine waits for
// requests for as long as the stream lives: little should stand on its stack.
func (s *stream) run() error {
	for {
		req, err := s.receive()
		if err == nil {
			err = s.take(req)
		}
		if err != nil {
			return s.leave(closedInOrder(err))
		}
	}
}

// receive returns the next request. A bug in the decoder is an error of this stream.
func (s *stream) receive() (req *request, err error) {
	defer s.srv.recovered(&err, "receive")
	return s.wire.recv()
}

// close gives back what the stream holds. Nobody has it any more.
func (s *stream) close() {
	if s.att != nil {
		s.att.Close()
	}
	s.ticket.release()
	if s.turns.timer != nil {
		s.turns.timer.Stop()
	}
	if s.gone != nil {
		close(s.gone)
	}
}

// handle takes one request.
func (s *stream) handle(req *request) error {
	now := time.Now()
	if !req.admitted {
		if err := s.admit(req, now); err != nil {
			return err
		}
	}
	if err := req.decode(s.mode); err != nil {
		return err
	}
	if s.att == nil {
		s.attach(req.node)
	}
	t, ok := snapshot.TypeOf(req.url)
	if !ok {
		s.srv.metrics.unknownType.Inc()
		s.log.Debug("request for a type that is not served", "type_url", req.url)
		return nil
	}
	st := &s.types[t]
	if s.acknowledged(t, st, req) {
		return nil
	}
	first := !st.requested
	st.requested = true
	s.consider(req, first)
	s.expectClusters(t, now)
	if s.mode == state {
		s.onState(t, st, req, first)
	} else {
		s.onDelta(t, st, req, first)
	}
	if n := st.names.len(); n > s.limits().SubscribedNames {
		return s.srv.metrics.over(s.tenant, "subscribedNames", "%d names of type %s are subscribed, more than the tenant's limit", n, t)
	}
	return s.flush()
}

// quick takes an ACK and reports whether that is all there is to do.
func (s *stream) quick(req *request) (taken bool, err error) {
	defer s.srv.recovered(&err, "answer")
	if err := s.admit(req, time.Now()); err != nil {
		return false, err
	}
	req.admitted = true
	t, ok := snapshot.TypeOf(req.url)
	if !ok || s.att == nil || !s.acknowledged(t, &s.types[t], req) {
		return false, nil
	}
	return true, s.after()
}

// acknowledged takes an ACK that says nothing else, and reports whether there is
// nothing else to do: nothing waits for it, and the store has woken the stream for
// whatever is new there.
func (s *stream) acknowledged(t snapshot.Type, st *typeState, req *request) bool {
	if !req.ack || !st.requested || st.faults != nil || st.asks() || s.waits(t) || s.final {
		return false
	}
	if s.mode == state && !st.wants(req.names) {
		return false
	}
	if in, ok := st.take(req.nonce); ok {
		s.accept(t, st, in)
	}
	return st.faults == nil
}

// asks reports whether something waits to be answered.
func (st *typeState) asks() bool {
	return st.all || st.empty || st.asked != nil || st.has != nil || st.orphans != nil
}

// wants reports whether names are the subscription as it is (sotw).
func (st *typeState) wants(names []string) bool {
	if len(names) == 0 {
		return st.legacy && st.names.len() == 0
	}
	add, remove := st.names.diff(names)
	return !st.wildcard && len(add)+len(remove) == 0
}

// expectClusters starts the clock of a client that asks for what belongs to
// clusters but not for clusters.
func (s *stream) expectClusters(t snapshot.Type, now time.Time) {
	switch {
	case t == snapshot.Cluster:
		s.unaskedAt = time.Time{}
	case (t == snapshot.Endpoint || t == snapshot.Secret) && s.unaskedAt.IsZero():
		if c := &s.types[snapshot.Cluster]; !c.requested && !c.unasked {
			s.unaskedAt = now.Add(unaskedAfter)
			s.returning = true
		}
	}
}

// attach asks the store for what the client may have. Only the verified
// identity counts; the node may pick a Pod of it and shape its own listeners.
func (s *stream) attach(node *corev3.Node) {
	proxy := snapshot.Proxy{
		Workload: s.who.Workload,
		Pod:      podOf(node, s.who.Workload),
		Variant:  variantOf(node, s.log),
		Address:  s.from,
	}
	proxy.Variant.FiltersAddresses = filtersAddresses(node)
	s.log = s.log.With("pod", proxy.Pod)
	s.att = s.srv.store.Attach(proxy)
	s.att.OnWake(func() { s.post(woken) })
	release, old := releaseOf(node)
	s.status.attached(proxy.Pod, release, s.att)
	if old {
		s.srv.metrics.old.Inc()
		s.log.Warn("proxy is older than the oldest Envoy that is supported", "version", release)
	}
}

// tick does what is due at now.
func (s *stream) tick(now time.Time) error {
	if !s.unaskedAt.IsZero() && !now.Before(s.unaskedAt) {
		s.unaskedAt = time.Time{}
		c := &s.types[snapshot.Cluster]
		c.unasked, c.wildcard, c.all, c.empty = true, true, true, true
		c.orphans = s.types[snapshot.Endpoint].names
	}
	s.expire(now)
	return s.flush()
}

// next is the next deadline, zero for none.
func (s *stream) next() time.Time {
	next := s.unaskedAt
	consider := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	consider(s.closeAt)
	consider(s.leaving.at)
	if in := s.types[snapshot.Cluster].inflight; len(in) > 0 {
		consider(in[0].at.Add(clusterGrace))
	}
	return next
}

// done reports whether a client that lost its tenant has been told all there
// is to tell.
func (s *stream) done() bool {
	if !s.final {
		return false
	}
	if !time.Now().Before(s.closeAt) {
		return true
	}
	started := false
	for t := range s.types {
		st := &s.types[t]
		started = started || st.requested
		if len(st.inflight) > 0 {
			return false
		}
	}
	return started
}

// send writes one response and remembers it until it is answered.
func (s *stream) send(t snapshot.Type, b *body, search bool, event time.Time) error {
	s.nonces++
	m := newMessage(b.bytes, s.nonces)
	st := &s.types[t]
	st.last = s.nonces
	now := time.Now()
	st.inflight = append(st.inflight, inflight{nonce: s.nonces, body: b, at: now, event: event, search: search})
	s.status.sending(t, s.nonces, b, now)
	if err := s.hand(m); err != nil {
		return fmt.Errorf("send %s response: %w", t, err)
	}
	st.unacked += len(b.bytes)
	s.srv.metrics.sent(s.meters, t, m.size())
	s.srv.metrics.eventSent.observe(t, event)
	if o := s.srv.observer; o != nil {
		o.Sent(s.report(t, s.nonces, b))
	}
	return nil
}

// hand gives a response to the transport, which may take as long as the client
// pleases.
func (s *stream) hand(m *message) error {
	s.srv.crew.sends()
	defer s.srv.crew.sent()
	return s.wire.send(m)
}
