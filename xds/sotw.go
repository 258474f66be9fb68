package xds

import (
	"slices"
	"strconv"

	"bailiwick.dev/bailiwick/snapshot"
)

// onState takes a DiscoveryRequest. Its names are a whole subscription, so one
// that answers an outdated response is outdated as a whole; but a client that
// has seen no response yet sends growing lists without a nonce, and each of
// them counts.
func (s *stream) onState(t snapshot.Type, st *typeState, req *request, first bool) {
	if first {
		st.stated = req.version
	}
	if in, ok := st.take(req.nonce); ok {
		s.judge(t, st, in, req)
	}
	if req.nonce != "" && st.last != 0 && req.nonce != strconv.FormatUint(st.last, 10) {
		return
	}
	wildcard := slices.Contains(req.names, star)
	if len(req.names) == 0 {
		// Nothing means everything only before any names were given.
		wildcard = isSet(t) && (first || st.legacy)
		st.legacy = wildcard
	} else {
		st.legacy = false
	}
	names := without(req.names, star)
	add, remove := st.names.diff(names)
	if wildcard && !st.wildcard || first {
		st.all = st.all || wildcard
		st.empty = st.empty || isSet(t)
	} else if isSet(t) && (len(add) > 0 || st.wildcard != wildcard) {
		st.empty = true
	}
	st.wildcard = wildcard
	st.names = s.srv.names.change(st.names, add, remove)
	st.forget(remove)
	st.asked = s.srv.names.change(st.asked, add, remove)
}

// judge takes the answer to a response. An Envoy that could not answer while
// clusters warmed gives one answer for several responses: the version it holds
// and the nonce of the last one, with the error of any of them.
func (s *stream) judge(t snapshot.Type, st *typeState, in []inflight, req *request) {
	if req.failed == nil {
		s.accept(t, st, in)
		return
	}
	last := len(in) - 1
	if last > 0 && req.version == in[last].body.version {
		s.refuse(t, st, in[:last], req.failed.GetMessage())
		s.accept(t, st, in[last:])
		return
	}
	s.refuse(t, st, in, req.failed.GetMessage())
}

// diff returns what makes names of s.
func (s *nameSet) diff(names []string) (add, remove []string) {
	for _, n := range names {
		if !s.has(n) {
			add = append(add, n)
		}
	}
	if len(add) == 0 && s.len() == len(names) {
		return nil, nil // the rule: an ACK repeats the subscription
	}
	wanted := make(map[string]struct{}, len(names))
	for _, n := range names {
		wanted[n] = struct{}{}
	}
	for n := range s.all() {
		if _, ok := wanted[n]; !ok {
			remove = append(remove, n)
		}
	}
	return add, remove
}
