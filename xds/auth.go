package xds

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"bailiwick.dev/bailiwick/identity"
	askv1 "bailiwick.dev/bailiwick/xds/ask"
)

// Listener wraps lis so that whoever serves an RPC can close its connection:
// gRPC has no way to, and a client that opens its next stream on the same
// connection would go on with the certificate of the handshake.
func Listener(lis net.Listener) net.Listener { return listener{lis} }

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return conn{c}, nil
}

// conn has a remote address that leads back to it. gRPC hands that to handlers.
type conn struct{ net.Conn }

func (c conn) RemoteAddr() net.Addr { return connAddr{c.Conn.RemoteAddr(), c.Conn} }

type connAddr struct {
	net.Addr
	conn net.Conn
}

// hangUp closes the connection of an RPC.
func hangUp(ctx context.Context) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return
	}
	if a, ok := p.Addr.(connAddr); ok {
		_ = a.conn.Close() // nothing is left to be said on it
	}
}

// remote is the address of the other end of an RPC's connection.
func remote(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	return p.Addr.String()
}

// addressOf is remote as an IP address.
func addressOf(ctx context.Context) (netip.Addr, bool) {
	at, err := netip.ParseAddrPort(remote(ctx))
	return at.Addr().Unmap().WithZone(""), err == nil
}

type peerKey struct{}

// peerFrom returns the peer that an interceptor has authenticated.
func peerFrom(ctx context.Context) (identity.Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(identity.Peer)
	return p, ok
}

// authenticate decides whether an RPC may go on, from the certificate of its
// connection alone.
func (s *Server) authenticate(ctx context.Context, allowed []string) (identity.Peer, error) {
	who, err := identity.FromContext(ctx)
	refuse := func(reason string, code codes.Code, text string) (identity.Peer, error) {
		s.metrics.refused.WithLabelValues(reason).Inc()
		s.log.Warn("RPC refused", "reason", reason, "spiffe_id", who.Workload.String(), "err", err)
		return identity.Peer{}, status.Error(code, text)
	}
	switch {
	case errors.Is(err, identity.ErrExpired):
		hangUp(ctx)
		return refuse(refusedExpired, codes.Unauthenticated, "the certificate has expired")
	case errors.Is(err, identity.ErrNotWorkload):
		return refuse(refusedNotWorkload, codes.PermissionDenied, "the SPIFFE ID is not that of a workload (spiffe://<trust domain>/ns/<namespace>/sa/<service account>)")
	case err != nil:
		return refuse(refusedNoIdentity, codes.Unauthenticated, "no verified SPIFFE ID")
	case !slices.Contains(allowed, who.Workload.TrustDomain):
		return refuse(refusedDomain, codes.PermissionDenied, "the trust domain is not served here")
	}
	return who, nil
}

// known are the methods that there are: everything else is refused, whatever
// somebody registers one day.
func known(method string) bool {
	return method == "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources" ||
		method == "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
}

func (s *Server) streamInterceptor(allowed []string) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
		ctx := ss.Context()
		defer s.recovered(&err, info.FullMethod)
		if !known(info.FullMethod) {
			s.metrics.refused.WithLabelValues(refusedMethod).Inc()
			return status.Error(codes.PermissionDenied, "no such method for anybody")
		}
		who, err := s.authenticate(ctx, allowed)
		if err != nil {
			return err
		}
		// The identity ends with its certificate, and the connection with it;
		// by itself, since the stream may be blocked in a write.
		expiry := time.AfterFunc(time.Until(who.NotAfter), func() {
			s.log.Info("certificate expired: connection closed", "spiffe_id", who.Workload.String())
			hangUp(ctx)
		})
		defer expiry.Stop()
		err = handler(srv, identified{ss, context.WithValue(ctx, peerKey{}, who)})
		if errors.Is(err, errFinal) {
			s.log.Info("tenant changed: connection closed", "spiffe_id", who.Workload.String())
			hangUp(ctx)
			return told(err)
		}
		if errors.Is(err, errAged) {
			hangUp(ctx)
			return told(err)
		}
		if errors.Is(err, errElsewhere) {
			s.metrics.refused.WithLabelValues(refusedAddress).Inc()
			s.log.Warn("stream refused: no Pod of the identity has the connection's address", "spiffe_id", who.Workload.String(), "address", remote(ctx))
			hangUp(ctx)
			return told(err)
		}
		return err
	}
}

// askable are the unary methods that there are.
func askable(method string) bool {
	return method == askv1.Ask_Explain_FullMethodName || method == askv1.Ask_Matrix_FullMethodName || method == askv1.Ask_Whoami_FullMethodName
}

// unaryInterceptor authenticates what tenants ask and refuses everything else.
func (s *Server) unaryInterceptor(allowed []string) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
		defer s.recovered(&err, info.FullMethod)
		who, err := s.authenticate(ctx, allowed)
		if err != nil {
			return nil, err
		}
		if !askable(info.FullMethod) {
			s.metrics.refused.WithLabelValues(refusedMethod).Inc()
			return nil, status.Errorf(codes.PermissionDenied, "no method %s for anybody", info.FullMethod)
		}
		return handler(context.WithValue(ctx, peerKey{}, who), req)
	}
}

// asker is the verified workload of an RPC.
func asker(ctx context.Context) (identity.Workload, bool) {
	who, ok := peerFrom(ctx)
	return who.Workload, ok
}

// recovered turns a panic into an error of that stream alone.
func (s *Server) recovered(err *error, method string) {
	if r := recover(); r != nil {
		s.caught(r, err, method)
	}
}

func (s *Server) caught(r any, err *error, where string) {
	s.metrics.panics.Inc()
	s.log.Error("panic in a stream", "method", where, "panic", r, "stack", string(debug.Stack()))
	*err = status.Error(codes.Internal, "internal error")
}

// identified is a ServerStream whose context knows the peer.
type identified struct {
	grpc.ServerStream
	ctx context.Context
}

func (i identified) Context() context.Context { return i.ctx }
