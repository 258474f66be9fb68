package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// workloadAPISource follows the stream of a SPIFFE Workload API.
type workloadAPISource struct {
	holder
	log    *slog.Logger
	client *workloadapi.Client

	first     chan struct{} // closed by the first good update
	firstOnce sync.Once
	lastErr   atomic.Pointer[error]

	cancel    context.CancelFunc
	closeOnce sync.Once
	closeErr  error
	ended     chan struct{}
}

// NewWorkloadAPISource takes the own SVID and the bundles (of the own and of all
// federated trust domains) from the SPIFFE Workload API at addr, such as
// unix:///run/spire/agent.sock; an empty addr means the environment variable
// SPIFFE_ENDPOINT_SOCKET. It blocks until the first SVID has come or ctx is
// done; ctx does not bound the source's life. Of several SVIDs the first is
// used, as the Workload API specification (section 5.3) says. An update that
// cannot be read leaves everything as it was. A nil log discards.
func NewWorkloadAPISource(ctx context.Context, addr string, log *slog.Logger) (Source, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var options []workloadapi.ClientOption
	if addr != "" {
		if err := workloadapi.ValidateAddress(addr); err != nil {
			return nil, fmt.Errorf("workload API address %q: %w", addr, err)
		}
		options = append(options, workloadapi.WithAddr(addr))
	}
	client, err := workloadapi.New(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("connect to the workload API: %w", err)
	}
	watching, cancel := context.WithCancel(context.Background())
	s := &workloadAPISource{
		holder: newHolder(), log: log, client: client,
		first: make(chan struct{}), cancel: cancel, ended: make(chan struct{}),
	}
	go s.run(watching) // ends when Close cancels watching
	select {
	case <-s.first:
		return s, nil
	case <-ctx.Done():
		err := ctx.Err()
		if last := s.lastErr.Load(); last != nil {
			err = fmt.Errorf("%w; last answer: %w", err, *last)
		}
		return nil, errors.Join(fmt.Errorf("no SVID from the workload API (is this workload registered?): %w", err), s.Close())
	}
}

func (s *workloadAPISource) Close() error {
	s.closeOnce.Do(func() {
		s.cancel()
		<-s.ended
		s.closeErr = s.client.Close()
	})
	return s.closeErr
}

// run keeps the watch up. The client retries by itself, but gives up when the
// agent answers InvalidArgument or Canceled; an agent that is being upgraded
// must not end the rotation for good.
func (s *workloadAPISource) run(ctx context.Context) {
	defer close(s.ended)
	for {
		err := s.client.WatchX509Context(ctx, s)
		if ctx.Err() != nil {
			return
		}
		s.log.Error("workload API ended the watch, trying again", "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// OnX509ContextUpdate is called by the client, one call at a time.
func (s *workloadAPISource) OnX509ContextUpdate(update *workloadapi.X509Context) {
	svid := update.DefaultSVID()
	bundles := make(map[string]*x509bundle.Bundle)
	for _, bundle := range update.Bundles.Bundles() {
		name := bundle.TrustDomain().Name()
		err := checkBundle(bundle)
		if err == nil {
			bundles[name] = bundle
			continue
		}
		s.log.Error("cannot use a trust bundle of the workload API", "trust_domain", name, "err", err)
		if last := s.current.Load(); last != nil && last.bundles[name] != nil && len(bundle.X509Authorities()) > 0 {
			bundles[name] = last.bundles[name]
		}
	}
	s.set(svid, bundles)
	s.log.Info("identity received from the workload API", "spiffe_id", svid.ID.String(),
		"not_after", svid.Certificates[0].NotAfter, "trust_domains", len(bundles))
	s.firstOnce.Do(func() { close(s.first) })
}

// OnX509ContextWatchError is called by the client for every failed attempt and
// for an update that cannot be read; it goes on by itself.
func (s *workloadAPISource) OnX509ContextWatchError(err error) {
	if status.Code(err) == codes.Canceled {
		return // our own Close, or told by run
	}
	s.lastErr.Store(&err)
	s.log.Warn("workload API", "err", err)
}
