package xds

import (
	"slices"
	"strconv"

	"bailiwick.dev/bailiwick/snapshot"
)

// star subscribes to all resources of a type.
const star = "*"

// onDelta takes a DeltaDiscoveryRequest. Its subscriptions count whatever its
// nonce: they are changes, and none may be lost.
func (s *stream) onDelta(t snapshot.Type, st *typeState, req *request, first bool) {
	if in, ok := st.take(req.nonce); ok {
		if req.failed == nil {
			s.accept(t, st, in)
		} else {
			last := len(in) - 1
			s.accept(t, st, in[:last])
			s.refuse(t, st, in[last:], req.failed.GetMessage())
		}
	}
	all := slices.Contains(req.subscribe, star)
	if first {
		// Only these two types mean everything by saying nothing.
		all = all || (isSet(t) && len(req.subscribe) == 0)
		s.returns(st, req)
	}
	if slices.Contains(req.unsubscribe, star) && !all {
		st.wildcard, st.all = false, false
	}
	if all {
		// An empty answer is an answer, and at the start Envoy waits for it;
		// but a client that said what it has is told only what differs.
		st.empty = len(req.has) == 0 && !st.unasked
		st.wildcard, st.all = true, true
	}
	subscribe, unsubscribe := without(req.subscribe, star), without(req.unsubscribe, star)
	st.names = s.srv.names.change(st.names, subscribe, unsubscribe)
	st.forget(unsubscribe)
	if st.wildcard {
		// The name goes on to be served by the wildcard, and the client has to
		// learn how.
		st.asked = s.srv.names.change(st.asked, slices.Concat(subscribe, unsubscribe), nil)
	} else {
		st.asked = s.srv.names.change(st.asked, subscribe, unsubscribe)
	}
	if first && s.returning {
		s.orphans(t, st)
	}
}

// returns takes what the first request of a type says of an earlier stream.
func (s *stream) returns(st *typeState, req *request) {
	owed := st.owed
	st.owed = nil
	if len(req.has) == 0 {
		return
	}
	s.returning = true
	v := &versions{of: req.has}
	for name := range owed.all() {
		// Its cluster was sent on this stream and warms until it comes again.
		delete(v.of, name)
	}
	for name, version := range req.has {
		h := s.srv.names.hashPair(name, version)
		v.sum[0], v.sum[1] = v.sum[0]+h[0], v.sum[1]+h[1]
	}
	st.has = v
}

// orphans finds clusters that the client has without saying so: those that
// were applied from a response that it refused are missing in what it says of
// clusters, but it subscribes to their assignments.
func (s *stream) orphans(t snapshot.Type, st *typeState) {
	c, e := &s.types[snapshot.Cluster], &s.types[snapshot.Endpoint]
	if t != snapshot.Cluster && t != snapshot.Endpoint || !(c.requested || c.unasked) || !c.wildcard {
		return
	}
	if t == snapshot.Cluster && st.unasked {
		return // told with what was sent unasked
	}
	c.orphans = e.names
}

// take finds the response that a nonce answers and forgets it together with
// those before it, as responses are answered in order.
func (st *typeState) take(nonce string) ([]inflight, bool) {
	if nonce == "" {
		return nil, false
	}
	n, err := strconv.ParseUint(nonce, 10, 64)
	if err != nil {
		return nil, false
	}
	i := slices.IndexFunc(st.inflight, func(f inflight) bool { return f.nonce == n })
	if i < 0 {
		return nil, false
	}
	taken := st.inflight[: i+1 : i+1]
	st.inflight = st.inflight[i+1:]
	if len(st.inflight) == 0 {
		st.inflight = nil
	}
	for _, f := range taken {
		st.unacked -= len(f.body.bytes)
	}
	return taken, true
}

func without(names []string, name string) []string {
	if !slices.Contains(names, name) {
		return names
	}
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name })
}
