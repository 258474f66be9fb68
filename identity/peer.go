package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

var (
	// ErrNoIdentity is returned when the connection has no verified client
	// certificate, or one without exactly one URI SAN that is a SPIFFE ID.
	ErrNoIdentity = errors.New("peer has no SPIFFE identity")
	// ErrExpired is returned when the certificate was good at the handshake and
	// has expired since: the connection has to end, because a new stream on it
	// would go on using it.
	ErrExpired = errors.New("certificate of the peer has expired")
)

// Peer is the other end of a connection as its certificate names it.
type Peer struct {
	Workload Workload
	// NotAfter is when the leaf certificate expires. Whoever serves the peer
	// ends the connection then.
	NotAfter time.Time
}

// FromContext returns the peer of a gRPC call on a connection that was made with
// [ServerTLS]. It reads the connection's certificate and never a message. The
// error wraps [ErrNoIdentity], [ErrNotWorkload] or [ErrExpired]; with the last
// one the Peer is returned as well, to be logged.
func FromContext(ctx context.Context) (Peer, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Peer{}, fmt.Errorf("%w: not a network call", ErrNoIdentity)
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return Peer{}, fmt.Errorf("%w: the connection is not TLS", ErrNoIdentity)
	}
	return fromState(info.State, time.Now())
}

// fromState does not use credentials.TLSInfo.SPIFFEID: that is nil for IDs that
// this package wants to tell apart.
func fromState(state tls.ConnectionState, now time.Time) (Peer, error) {
	if len(state.PeerCertificates) == 0 {
		return Peer{}, fmt.Errorf("%w: no client certificate", ErrNoIdentity)
	}
	leaf := state.PeerCertificates[0]
	id, err := x509svid.IDFromCert(leaf)
	if err != nil {
		return Peer{}, fmt.Errorf("%w: %w", ErrNoIdentity, err)
	}
	workload, err := ParseWorkload(id)
	if err != nil {
		return Peer{}, err
	}
	who := Peer{Workload: workload, NotAfter: leaf.NotAfter}
	if !now.Before(leaf.NotAfter) {
		return who, fmt.Errorf("%w at %s", ErrExpired, leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return who, nil
}
