package ask

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/read"
)

// Source lends the Model to a question. The function runs on the goroutine that
// owns the Model, before Ask returns nil; an error says that there is nothing to
// read yet. [snapshot.Publisher] is one.
type Source interface {
	Ask(ctx context.Context, w identity.Workload, f func(*tenancy.Model)) error
}

// Config is what a Server needs. From is optional.
type Config struct {
	Source Source
	// ClusterDomain ends service names.
	ClusterDomain string
	// Peer returns the verified workload of an RPC.
	Peer func(context.Context) (identity.Workload, bool)
	// From returns the address that an RPC comes from. If it is set, nobody is
	// answered but at an address of a Pod of the workload.
	From func(context.Context) (netip.Addr, bool)
}

// The bounds of what one tenant may ask, because answers are made by the
// goroutine that serves everybody.
const (
	maxRequest = 64 << 10
	maxCells   = 10_000
	// perSecond questions of one tenant, with a burst of burst.
	perSecond = 2
	burst     = 20
	// maxTenants are remembered; more than that are forgotten all at once.
	maxTenants = 10_000
)

// Server implements the service.
type Server struct {
	UnimplementedAskServer
	config Config
	// turn has room for the one question that is being answered: what there is to
	// be served goes between any two.
	turn chan struct{}

	mu     sync.Mutex
	tokens map[string]*tokens // by tenant, "" for nobody's; guarded by mu
}

// tokens is how many questions are left.
type tokens struct {
	left float64
	at   time.Time
}

// NewServer makes a Server.
func NewServer(c Config) *Server {
	return &Server{config: c, turn: make(chan struct{}, 1), tokens: map[string]*tokens{}}
}

// Explain implements the RPC.
func (s *Server) Explain(ctx context.Context, m *ExplainRequest) (*ExplainResponse, error) {
	q, err := questionOf(m)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	var a read.Answer
	if err := s.ask(ctx, m, func(r *read.Reader) error { a = r.Explain(q); return nil }); err != nil {
		return nil, err
	}
	return responseOf(a), nil
}

// Matrix implements the RPC.
func (s *Server) Matrix(ctx context.Context, m *MatrixRequest) (*MatrixResponse, error) {
	var out read.Matrix
	err := s.ask(ctx, m, func(r *read.Reader) error {
		if n := r.Size(); n > maxCells {
			return status.Errorf(codes.ResourceExhausted, "the matrix would have %d cells, more than %d: make it from the objects (--config-dir)", n, maxCells)
		}
		out = r.Matrix()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return matrixResponse(out), nil
}

// Whoami implements the RPC.
func (s *Server) Whoami(ctx context.Context, m *WhoamiRequest) (*WhoamiResponse, error) {
	var out read.Whoami
	err := s.ask(ctx, m, func(r *read.Reader) error {
		var ok bool
		if out, ok = r.Whoami(); !ok {
			return status.Error(codes.NotFound, "no tenant has this trust domain and namespace")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return whoamiResponse(out), nil
}

var errElsewhere = status.Error(codes.PermissionDenied, "the connection does not come from an address of a Pod of this identity")

// ask has f answer for whoever asks.
func (s *Server) ask(ctx context.Context, m proto.Message, f func(*read.Reader) error) error {
	who, ok := s.config.Peer(ctx)
	if !ok {
		return status.Error(codes.Unauthenticated, "no verified identity")
	}
	var from netip.Addr
	if s.config.From != nil {
		if from, ok = s.config.From(ctx); !ok {
			return errElsewhere
		}
	}
	if proto.Size(m) > maxRequest {
		return status.Errorf(codes.InvalidArgument, "a question of more than %d bytes", maxRequest)
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
	var answer error
	err := s.config.Source.Ask(ctx, who, func(model *tenancy.Model) {
		tenant, _ := model.Resolve(who)
		if !s.take(tenant, time.Now()) {
			answer = status.Errorf(codes.ResourceExhausted, "more than %d questions per second of one tenant: ask again later", perSecond)
			return
		}
		if s.config.From != nil && !model.HasPodAt(who, from) {
			answer = errElsewhere
			return
		}
		answer = f(read.New(model, read.Of(model, who), s.config.ClusterDomain, nil))
	})
	switch {
	case err == nil:
		return answer
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	default:
		return status.Error(codes.Unavailable, err.Error())
	}
}

// take reports whether a tenant may ask once more.
func (s *Server) take(tenant string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tokens[tenant]
	if t == nil {
		if len(s.tokens) >= maxTenants {
			clear(s.tokens)
		}
		t = &tokens{left: burst, at: now}
		s.tokens[tenant] = t
	}
	t.left = min(burst, t.left+now.Sub(t.at).Seconds()*perSecond)
	t.at = now
	if t.left < 1 {
		return false
	}
	t.left--
	return true
}
