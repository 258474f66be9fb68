package xds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"

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
	// ack is set for one that acknowledges and says nothing else (delta).
	ack bool

	// Delta.
	subscribe, unsubscribe []string
	has                    map[string]string

	// State of the world.
	names   []string
	version string
}

// wire is a stream's connection to its client.
type wire interface {
	// recv blocks until a request arrives or the stream is over.
	recv() (*request, error)
	// send hands a response to the transport; it blocks while the client does
	// not read.
	send(*message) error
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

// stream serves one client. One goroutine owns all of it.
type stream struct {
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
	// thaw, if set, ends the silence towards a client with state when it is closed.
	thaw <-chan struct{}
	// returning is true for a client that has state from an earlier stream.
	returning bool
	status    *streamStatus
	refusals  int // in status
}

// run serves until the client goes, the context ends or an error occurs. It
// returns nil when the client closed the stream in order.
func (s *stream) run(ctx context.Context) error {
	requests, failed := s.receive(ctx)
	defer func() {
		if s.att != nil {
			s.att.Close()
		}
		s.ticket.release()
	}()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	s.leaving = s.srv.leaving(time.Now())
	for {
		var wake <-chan struct{}
		if s.att != nil {
			wake = s.att.Wake()
		}
		s.arm(timer)
		var err error
		select {
		case req := <-requests:
			err = s.handle(req)
		case <-wake:
			s.srv.metrics.wakes.Add(1)
			err = s.flush()
		case <-timer.C:
			err = s.tick(time.Now())
		case <-s.thaw:
			s.thaw = nil
			err = s.flush()
		case err := <-failed:
			return err
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-s.leaving.stopping:
			s.leaving.stop(time.Now(), s.srv.drain)
		}
		if err != nil {
			return err
		}
		if s.leaving.due(time.Now()) {
			return s.leaving.err
		}
		if s.done() {
			return errFinal
		}
	}
}

// receive reads requests in a goroutine of its own, which ends when recv
// fails: at the latest when the RPC is over.
func (s *stream) receive(ctx context.Context) (<-chan *request, <-chan error) {
	requests, failed := make(chan *request), make(chan error, 1)
	go func() {
		// A panic here is not on the goroutine that the interceptor guards.
		defer func() {
			if r := recover(); r != nil {
				var err error
				s.srv.caught(r, &err, "receive")
				failed <- err
			}
		}()
		for {
			req, err := s.wire.recv()
			if err != nil {
				failed <- closedInOrder(err)
				return
			}
			select {
			case requests <- req:
			case <-ctx.Done():
				return
			}
		}
	}()
	return requests, failed
}

// handle takes one request.
func (s *stream) handle(req *request) error {
	now := time.Now()
	if err := s.admit(req, now); err != nil {
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
	if req.ack && st.requested && s.acknowledged(t, st, req.nonce) {
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

// acknowledged takes an ACK that says nothing else, and reports whether there is
// nothing else to do: nothing waits for it, and the store has woken the stream
// for whatever is new there.
func (s *stream) acknowledged(t snapshot.Type, st *typeState, nonce string) bool {
	if st.faults != nil || s.waits(t) || s.final {
		return false
	}
	if in, ok := st.take(nonce); ok {
		s.accept(t, st, in)
	}
	return st.faults == nil
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

// arm sets the timer to the next deadline.
func (s *stream) arm(timer *time.Timer) {
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
	if next.IsZero() {
		timer.Stop()
		return
	}
	timer.Reset(time.Until(next))
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
	st.unacked += len(b.bytes)
	if err := s.wire.send(m); err != nil {
		return fmt.Errorf("send %s response: %w", t, err)
	}
	s.srv.metrics.sent(s.meters, t, m.size())
	s.srv.metrics.eventSent.observe(t, event)
	if o := s.srv.observer; o != nil {
		o.Sent(s.report(t, s.nonces, b))
	}
	return nil
}
