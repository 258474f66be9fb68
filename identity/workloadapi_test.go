package identity

import (
	"context"
	"encoding/pem"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// agent is a SPIFFE Workload API on a unix socket. A nil answer is the "no
// identity issued" of an agent that does not know the workload.
type agent struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	addr string

	mu      sync.Mutex
	answer  *workload.X509SVIDResponse
	changed chan struct{} // closed and replaced when answer changes
}

func newAgent(t *testing.T) *agent {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent.sock")
	a := &agent{addr: "unix://" + socket, changed: make(chan struct{})}
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	server := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(server, a)
	ended := make(chan struct{})
	go func() { // ends when the server is stopped
		defer close(ended)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() { server.Stop(); <-ended })
	return a
}

func (a *agent) set(answer *workload.X509SVIDResponse) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = answer
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *agent) FetchX509SVID(_ *workload.X509SVIDRequest, stream workload.SpiffeWorkloadAPI_FetchX509SVIDServer) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	if len(md["workload.spiffe.io"]) != 1 || md["workload.spiffe.io"][0] != "true" {
		return status.Error(codes.InvalidArgument, "security header missing")
	}
	for {
		a.mu.Lock()
		answer, changed := a.answer, a.changed
		a.mu.Unlock()
		if answer == nil {
			return status.Error(codes.PermissionDenied, "no identity issued")
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// der strips PEM; concatenated DER is what the Workload API carries.
func der(t *testing.T, pems ...[]byte) []byte {
	t.Helper()
	var out []byte
	for _, p := range pems {
		block, rest := pem.Decode(p)
		require.NotNil(t, block)
		require.Empty(t, rest)
		out = append(out, block.Bytes...)
	}
	return out
}

func svidAnswer(t *testing.T, a *Authority, federated ...*Authority) *workload.X509SVIDResponse {
	t.Helper()
	cert, key := issue(t, a, idServer, IssueOptions{})
	answer := &workload.X509SVIDResponse{
		Svids:            []*workload.X509SVID{{SpiffeId: idServer, X509Svid: der(t, cert), X509SvidKey: der(t, key), Bundle: der(t, a.Bundle())}},
		FederatedBundles: map[string][]byte{},
	}
	for _, f := range federated {
		answer.FederatedBundles["spiffe://"+f.TrustDomain()] = der(t, f.Bundle())
	}
	return answer
}

func openWorkloadAPI(t *testing.T, a *agent, j *journal) Source {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel() // the source must outlive the context of its construction
	s, err := NewWorkloadAPISource(ctx, a.addr, j.logger())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestWorkloadAPISourceRotates(t *testing.T) {
	mesh, acme, globex := newAuthority(t, "mesh.example"), newAuthority(t, "acme.example"), newAuthority(t, "globex.example")
	a, j := newAgent(t), newJournal()
	a.set(svidAnswer(t, mesh, acme, globex))
	s := openWorkloadAPI(t, a, j)
	require.Equal(t, map[string][]byte{
		"mesh.example": mesh.Bundle(), "acme.example": acme.Bundle(), "globex.example": globex.Bundle(),
	}, s.Bundles())

	before := serial(t, s)
	a.set(svidAnswer(t, mesh, acme, globex))
	awaitRotation(t, s, before)

	// A federation that ends is gone.
	a.set(svidAnswer(t, mesh, acme))
	for len(s.Bundles()) == 3 {
		await(t, s.Updated(), "the bundle's removal")
	}
	require.NotContains(t, s.Bundles(), "globex.example")
	_, err := s.GetX509BundleForTrustDomain(parseID(t, "spiffe://globex.example/x").TrustDomain())
	require.Error(t, err)
}

func TestWorkloadAPISourceKeepsWhatItHad(t *testing.T) {
	mesh, acme := newAuthority(t, "mesh.example"), newAuthority(t, "acme.example")
	a, j := newAgent(t), newJournal()
	a.set(svidAnswer(t, mesh, acme))
	s := openWorkloadAPI(t, a, j)
	before := serial(t, s)

	broken := svidAnswer(t, mesh, acme)
	broken.Svids[0].X509Svid = []byte("garbage")
	a.set(broken)
	j.await(t, "level=WARN")
	require.Equal(t, before, serial(t, s))

	// An authority that is none does not replace one, and holds nothing else back.
	leaf, _ := issue(t, acme, idShop, IssueOptions{})
	broken = svidAnswer(t, mesh, acme)
	broken.FederatedBundles["spiffe://acme.example"] = der(t, leaf)
	a.set(broken)
	awaitRotation(t, s, before)
	require.Equal(t, acme.Bundle(), s.Bundles()["acme.example"])
	require.Equal(t, 1, j.count("cannot use a trust bundle"))

	// An agent that forgets us changes nothing.
	before = serial(t, s)
	a.set(nil)
	j.await(t, "no identity issued")
	require.Equal(t, before, serial(t, s))
}

func TestWorkloadAPISourceWaitsForAnIdentity(t *testing.T) {
	mesh := newAuthority(t, "mesh.example")
	a, j := newAgent(t), newJournal()
	opened := make(chan Source, 1)
	go func() { // ends with the first SVID
		s, err := NewWorkloadAPISource(context.Background(), a.addr, j.logger())
		if err == nil {
			opened <- s
		}
		close(opened)
	}()
	j.await(t, "no identity issued")
	a.set(svidAnswer(t, mesh))
	s := <-opened
	require.NotNil(t, s)
	require.NotEmpty(t, serial(t, s))
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
}

func TestWorkloadAPISourceGivesUpWithTheContext(t *testing.T) {
	a, j := newAgent(t), newJournal()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failed := make(chan error, 1)
	go func() { // ends with the context
		_, err := NewWorkloadAPISource(ctx, a.addr, j.logger())
		failed <- err
	}()
	j.await(t, "no identity issued")
	cancel()
	err := <-failed
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "no identity issued")
	require.ErrorContains(t, err, "registered")
}

func TestWorkloadAPISourceRefusesBadAddresses(t *testing.T) {
	for _, addr := range []string{"/run/agent.sock", "http://localhost", "tcp://localhost:1"} {
		_, err := NewWorkloadAPISource(t.Context(), addr, nil)
		require.ErrorContains(t, err, "workload API address", addr)
	}
}
