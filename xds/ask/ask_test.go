package ask

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
	"bailiwick.dev/bailiwick/tenancy/read"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var web = identity.Workload{TrustDomain: "acme.example", Namespace: "acme-web", ServiceAccount: "web"}

// model is one that the test owns.
type model struct {
	*tenancy.Model
	err error
}

func (m model) Ask(_ context.Context, _ identity.Workload, f func(*tenancy.Model)) error {
	if m.err == nil {
		f(m.Model)
	}
	return m.err
}

func newModel(services int) model {
	m := tenancy.NewModel(tenancy.Config{TrustDomains: []string{"acme.example", "globex.example"}})
	put := func(kind tenancy.Kind, ns, name string, o tenancy.Object) {
		m.Apply(tenancy.Event{Ref: tenancy.Ref{Kind: kind, Key: tenancy.Key{Namespace: ns, Name: name}}, Object: o})
	}
	for _, tenant := range []string{"acme", "globex"} {
		put(tenancy.KindTenant, "", tenant, &tenancy.Tenant{TrustDomain: tenant + ".example"})
		put(tenancy.KindNamespace, "", tenant+"-web", &tenancy.Namespace{Tenant: tenant})
		put(tenancy.KindPod, tenant+"-web", "web", &tenancy.Pod{ServiceAccount: "web", IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}})
		for i := range services {
			svc := &tenancy.Service{}
			for port := range 50 {
				svc.Ports = append(svc.Ports, tenancy.ServicePort{Name: fmt.Sprint("p", port), Port: uint16(port + 1)})
			}
			put(tenancy.KindService, tenant+"-web", fmt.Sprint("s", i), svc)
		}
	}
	return model{Model: m}
}

type whoKey struct{}

func as(w identity.Workload) context.Context {
	return context.WithValue(context.Background(), whoKey{}, w)
}

func peer(ctx context.Context) (identity.Workload, bool) {
	w, ok := ctx.Value(whoKey{}).(identity.Workload)
	return w, ok
}

func question(namespace string) *ExplainRequest {
	return &ExplainRequest{From: web.String(), Namespace: namespace, Service: "s0", Port: 1}
}

func TestRefuses(t *testing.T) {
	s := NewServer(Config{Source: newModel(1), ClusterDomain: "cluster.local", Peer: peer})
	_, err := s.Explain(context.Background(), question("acme-web"))
	require.Equal(t, codes.Unauthenticated, status.Code(err))
	for name, m := range map[string]*ExplainRequest{
		"no caller":       {Namespace: "a", Service: "b", Port: 1},
		"no workload":     {From: "spiffe://acme.example/x", Namespace: "a", Service: "b", Port: 1},
		"no namespace":    {From: web.String(), Service: "b", Port: 1},
		"no port":         {From: web.String(), Namespace: "a", Service: "b"},
		"port too large":  {From: web.String(), Namespace: "a", Service: "b", Port: 1 << 16},
		"escaped slash":   {From: web.String(), Namespace: "a", Service: "b", Port: 1, Path: "/a%2Fb"},
		"no JSON":         {From: web.String(), Namespace: "a", Service: "b", Port: 1, TokenProvider: "idp", Claims: "["},
		"a book of a ask": {From: web.String(), Namespace: "a", Service: "b", Port: 1, Path: "/" + strings.Repeat("a", maxRequest)},
	} {
		_, err := s.Explain(as(web), m)
		require.Equal(t, codes.InvalidArgument, status.Code(err), name)
	}
	_, err = s.Whoami(as(identity.Workload{TrustDomain: "globex.example", Namespace: "acme-web", ServiceAccount: "web"}), &WhoamiRequest{})
	require.Equal(t, codes.NotFound, status.Code(err))

	absent := NewServer(Config{Source: model{err: errors.New("not yet")}, Peer: peer})
	_, err = absent.Whoami(as(web), &WhoamiRequest{})
	require.Equal(t, codes.Unavailable, status.Code(err))
}

// A matrix has bounds, because the goroutine that serves everybody makes it.
func TestMatrixIsBounded(t *testing.T) {
	s := NewServer(Config{Source: newModel(maxCells / 50), Peer: peer})
	m, err := s.Matrix(as(web), &MatrixRequest{})
	require.NoError(t, err)
	require.Len(t, m.GetServices(), maxCells)
	s = NewServer(Config{Source: newModel(maxCells/50 + 1), Peer: peer})
	_, err = s.Matrix(as(web), &MatrixRequest{})
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
}

// A tenant that asks too much is refused, and hinders no other.
func TestQuestionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(Config{Source: newModel(1), Peer: peer})
		other := identity.Workload{TrustDomain: "globex.example", Namespace: "globex-web", ServiceAccount: "web"}
		ask := func(w identity.Workload) codes.Code {
			_, err := s.Explain(as(w), question("acme-web"))
			return status.Code(err)
		}
		for range burst {
			require.Equal(t, codes.OK, ask(web))
		}
		require.Equal(t, codes.ResourceExhausted, ask(web))
		require.Equal(t, codes.OK, ask(other))
		time.Sleep(time.Second)
		for range perSecond {
			require.Equal(t, codes.OK, ask(web))
		}
		require.Equal(t, codes.ResourceExhausted, ask(web))
	})
}

// One question is answered at a time; who waits may leave.
func TestOneQuestionAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy := slow{model: newModel(1), begun: make(chan struct{}), proceed: make(chan struct{})}
		s := NewServer(Config{Source: busy, Peer: peer})
		answered := make(chan error, 2)
		ask := func(ctx context.Context) { // ends with ctx, or its answer
			_, err := s.Whoami(ctx, &WhoamiRequest{})
			answered <- err
		}
		go ask(as(web))
		<-busy.begun
		ctx, leave := context.WithCancel(as(web))
		go ask(ctx)
		synctest.Wait()
		leave()
		require.Equal(t, codes.Canceled, status.Code(<-answered))
		close(busy.proceed)
		require.NoError(t, <-answered)
	})
}

// slow answers when it is told to.
type slow struct {
	model
	begun, proceed chan struct{}
}

func (s slow) Ask(ctx context.Context, w identity.Workload, f func(*tenancy.Model)) error {
	s.begun <- struct{}{}
	<-s.proceed
	return s.model.Ask(ctx, w, f)
}

// Where streams are bound to Pods, so are questions.
func TestBoundToPods(t *testing.T) {
	at := netip.MustParseAddr("10.0.0.1")
	s := NewServer(Config{Source: newModel(1), Peer: peer, From: func(context.Context) (netip.Addr, bool) { return at, true }})
	_, err := s.Whoami(as(web), &WhoamiRequest{})
	require.NoError(t, err)
	at = netip.MustParseAddr("10.0.0.2")
	_, err = s.Whoami(as(web), &WhoamiRequest{})
	require.Equal(t, codes.PermissionDenied, status.Code(err))
	s = NewServer(Config{Source: newModel(1), Peer: peer, From: func(context.Context) (netip.Addr, bool) { return netip.Addr{}, false }})
	_, err = s.Whoami(as(web), &WhoamiRequest{})
	require.Equal(t, codes.PermissionDenied, status.Code(err))
}

// Nothing is lost on the way, but for places in files, which are the server's.
func TestMessagesHoldEverything(t *testing.T) {
	text := rapid.StringMatching(`[a-z]{0,5}`)
	texts := rapid.SliceOfN(text, 1, 3)
	rapid.Check(t, func(t *rapid.T) {
		d := func(l string) string { return text.Draw(t, l) }
		n := func(l string) int { return rapid.IntRange(-1, 1<<40).Draw(t, l) }
		a := read.Answer{
			From: d("from"), To: d("to"), Request: d("request"), Verdict: d("verdict"), Visible: d("visible"), Why: d("why"), By: d("by"),
			Looked: []read.Looked{{Policy: d("policy"), Action: d("action"), Outcome: d("outcome")}}, Unknown: texts.Draw(t, "unknown"), Change: texts.Draw(t, "change"),
		}
		require.Equal(t, a, answerOf(responseOf(a)))
		m := read.Matrix{Callers: []read.Caller{{Tenant: d("t"), Namespace: d("n"), Account: d("a")}}, Services: []read.Column{{Tenant: d("t"), Namespace: d("n"), Service: d("s"), Port: 80}}, Cells: [][]string{{d("cell")}}}
		back, err := matrixOf(matrixResponse(m))
		require.NoError(t, err)
		require.Equal(t, m, back)
		w := read.Whoami{
			Tenant: d("t"), TrustDomain: d("td"), Namespaces: texts.Draw(t, "namespaces"), Outbound: d("o"), Visibility: d("v"), DefaultAction: d("d"), TLSMinimum: d("tls"),
			Quiet: time.Duration(rapid.IntRange(0, 1<<20).Draw(t, "quiet")) * time.Millisecond, Max: time.Second, Limits: []read.Limit{{Name: d("l"), Used: n("used"), Most: n("most")}},
		}
		require.Equal(t, w, whoamiOf(whoamiResponse(w)))
		q := read.Question{From: web, Namespace: "a" + d("n"), Service: "a" + d("s"), Port: 80, Request: policy.Request{Method: d("m"), Path: "/" + d("p"), Host: d("h"), Headers: map[string]string{"x": d("x")}}}
		if rapid.Bool().Draw(t, "token") {
			q.Request.Token = &policy.Token{Provider: "idp", Claims: map[string]any{"a": map[string]any{"b": d("claim")}, "c": []any{d("one"), d("two")}}}
		}
		message, err := requestOf(q)
		require.NoError(t, err)
		same, err := questionOf(message)
		require.NoError(t, err)
		require.Equal(t, q, same)
	})
	_, err := matrixOf(&MatrixResponse{Callers: []*Caller{{}}})
	require.Error(t, err)
	_, err = matrixOf(&MatrixResponse{Callers: []*Caller{{}}, Rows: []*Row{{Cells: []string{"x"}}}})
	require.Error(t, err)
}
