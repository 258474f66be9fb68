package xds

import (
	"errors"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// errAged ends a stream, and its connection, that has been open long enough.
var errAged = errors.New("the stream has reached its age: connect again")

// ageJitter is how much, as a share, streams' ages differ either way, so that
// those that came together do not leave together.
const ageJitter = 0.1

// leaving is when and why a stream ends although its client has done nothing:
// for its age, or because the server stops. Until then it is served.
type leaving struct {
	at time.Time // zero for never
	// stops is true once the server's signal was heard.
	stops bool
	err   error
}

func (s *Server) leaving(now time.Time) leaving {
	l := leaving{err: errAged}
	if s.maxAge > 0 {
		share := 1 + ageJitter*(2*rand.Float64()-1)
		l.at = now.Add(time.Duration(share * float64(s.maxAge)))
	}
	return l
}

// stop is the server's signal: the stream leaves some time within drain.
func (l *leaving) stop(now time.Time, drain time.Duration) {
	if l.stops {
		return
	}
	l.stops, l.err = true, status.Error(codes.Unavailable, "the server is shutting down")
	at := now
	if drain > 0 {
		at = now.Add(rand.N(drain))
	}
	if l.at.IsZero() || at.Before(l.at) {
		l.at = at
	}
}

func (l *leaving) due(now time.Time) bool { return !l.at.IsZero() && !now.Before(l.at) }
