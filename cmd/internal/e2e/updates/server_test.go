package updates

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/xds"
	"bailiwick.dev/bailiwick/xds/bootstrap/envoytest"
)

// planted is package xds over layers that a test fills itself, past all checks.
type planted struct {
	t    *testing.T
	ctx  context.Context
	root string
	ca   *mesh.CA
	id   string
	addr netip.AddrPort
	log  *lockedBuffer
	told *observer

	store *store
	srv   *xds.Server
	lis   *doors
	stop  func()
}

// plant starts a server without any layers.
func plant(t *testing.T) *planted {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	p := &planted{
		t: t, ctx: ctx, root: t.TempDir(), id: "spiffe://" + serverDomain + mesh.ServerWorkload,
		log: &lockedBuffer{}, told: &observer{}, store: &store{of: map[identity.Workload]*snapshot.Binding{}},
	}
	var err error
	p.ca, err = mesh.NewCA(filepath.Join(p.root, "ca"), serverDomain, "acme.example", "globex.example", "third.example", "fourth.example")
	require.NoError(t, err)
	p.addr, err = mesh.FreePort(ctx, netip.MustParseAddr("127.0.0.1"))
	require.NoError(t, err)
	p.serve()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("the server's log:\n%s", p.log)
		}
	})
	return p
}

// serve starts a server that remembers nothing of another before it, over the
// same store and at the same address.
func (p *planted) serve() {
	p.t.Helper()
	var err error
	p.srv, err = xds.NewServer(xds.Config{
		Store: p.store, Observer: p.told,
		Logger: slog.New(slog.NewTextHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	require.NoError(p.t, err)
	src, err := p.ca.Source(p.id, identity.IssueOptions{})
	require.NoError(p.t, err)
	var config net.ListenConfig
	lis, err := config.Listen(p.ctx, "tcp", p.addr.String())
	require.NoError(p.t, err)
	p.lis = &doors{Listener: lis, conns: map[net.Conn]struct{}{}}
	ctx, cancel := context.WithCancel(p.ctx)
	ended := make(chan error, 1)
	srv, doors, domains := p.srv, p.lis, p.ca.TrustDomains()
	go func() { ended <- srv.Serve(ctx, doors, src, domains) }() // ends with ctx
	var once sync.Once
	p.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				p.t.Errorf("the server: %v", err)
			}
			_ = src.Close()
		})
	}
}

// envoy runs the Envoy of a Pod.
func (p *planted) envoy(pod *pod, sotw bool) {
	p.t.Helper()
	runEnvoy(p.ctx, p.t, pod, mesh.EnvoyConfig{
		Binary: envoytest.Binary(p.t), Dir: filepath.Join(p.root, pod.name), CA: p.ca,
		XDS: []netip.AddrPort{p.addr}, ServerID: p.id, SotW: sotw,
	})
}

// status is the server's dump of a Pod's stream, nil if there is none.
func (p *planted) status(pod *pod) *xds.StreamStatus {
	for _, s := range p.srv.Streams() {
		if s.Pod == pod.name && s.Workload == pod.workload {
			return &s
		}
	}
	return nil
}

// doors are a listener that can hang up and stay shut for a while.
type doors struct {
	net.Listener

	mu    sync.Mutex
	shut  bool
	conns map[net.Conn]struct{} // guarded by mu
}

func (d *doors) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		d.mu.Lock()
		shut := d.shut
		if !shut {
			d.conns[c] = struct{}{}
		}
		d.mu.Unlock()
		if !shut {
			return c, nil
		}
		_ = c.Close()
	}
}

// hangUp closes all connections and lets no new one in.
func (d *doors) hangUp() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shut = true
	for c := range d.conns {
		_ = c.Close()
	}
	clear(d.conns)
}

func (d *doors) open() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shut = false
}

// store binds each workload to layers of the test's.
type store struct {
	mu sync.Mutex
	of map[identity.Workload]*snapshot.Binding // guarded by mu
}

func (s *store) set(w identity.Workload, b *snapshot.Binding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of[w] = b
}

// Attach implements xds.Store. Workloads without layers wait.
func (s *store) Attach(p snapshot.Proxy) *snapshot.Attachment {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := snapshot.NewAttachment(p, func(a *snapshot.Attachment) { a.Bind(nil) })
	if b := s.of[p.Workload]; b != nil {
		a.Bind(b)
	}
	return a
}

// sent says what a stream got and answered, in order.
type sent struct {
	xds.Report
	answered bool
	nack     string
}

// observer counts what the server tells.
type observer struct {
	mu    sync.Mutex
	sents []sent // guarded by mu
	// onNack is called for each NACK before the server goes on; guarded by mu.
	onNack func(xds.Report)
}

func (o *observer) Sent(r xds.Report) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sents = append(o.sents, sent{Report: r})
}

func (o *observer) Acked(r xds.Report) { o.answer(r, "") }

func (o *observer) Nacked(r xds.Report, detail string) {
	if r.Part != "" {
		return // the same NACK, told again with its cause
	}
	o.answer(r, detail)
	o.mu.Lock()
	hook := o.onNack
	o.mu.Unlock()
	if hook != nil {
		hook(r)
	}
}

func (o *observer) answer(r xds.Report, nack string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.sents {
		if s := &o.sents[i]; s.Stream == r.Stream && s.Nonce == r.Nonce {
			s.answered, s.nack = true, nack
		}
	}
}

// hook sets what is called for each NACK.
func (o *observer) hook(f func(xds.Report)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.onNack = f
}

// clear forgets what has been so far.
func (o *observer) clear() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sents = nil
}

// of is what a Pod's streams got since the last clear.
func (o *observer) of(p *pod) (found []sent) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.sents {
		if s.Pod == p.name && s.Workload == p.workload {
			found = append(found, s)
		}
	}
	return found
}

// lockedBuffer is written by the server and read by the test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
