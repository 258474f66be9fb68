package xds

// always is closed: what is served is up to date.
func always() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// upToDate reports whether a channel of Config.Fresh is closed.
func upToDate(fresh <-chan struct{}) bool {
	select {
	case <-fresh:
		return true
	default:
		return false
	}
}

// consider freezes a client that says what it has, to a server that knows less
// than there is: it may come from another replica that has taken away what this
// one would give back. It is left as it is until the server is up to date, and
// then told the difference. A client that has nothing is served.
func (s *stream) consider(req *request, first bool) {
	if s.frozen || !first || (len(req.has) == 0 && req.version == "") {
		return
	}
	if fresh := s.srv.fresh(); !upToDate(fresh) {
		s.frozen = true
		if s.gone == nil {
			s.gone = make(chan struct{})
		}
		go func() { // ends with the stream at the latest
			select {
			case <-fresh:
				s.post(thawed)
			case <-s.gone:
			}
		}()
		s.srv.metrics.frozen.Inc()
		s.log.Info("a client that has state is left as it is: the source is not up to date")
	}
}
