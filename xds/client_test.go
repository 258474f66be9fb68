package xds

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
)

// frameOf is a response as it was on the wire.
type frameOf struct {
	Type      string
	Nonce     string
	Resources []string // name=version, or name=text where that is not known
	Removed   []string
	version   string
	raw       []byte
}

func (f frameOf) String() string { return fmt.Sprintf("%s %v -%v", f.Type, f.Resources, f.Removed) }

// client drives one stream in memory, inside a synctest bubble.
type client struct {
	t    *testing.T
	mode protocol
	in   chan *request
	ctx  context.Context
	stop context.CancelFunc
	done chan error

	mu     sync.Mutex
	frames []frameOf // guarded by mu
	gate   chan struct{}
	node   *corev3.Node
	first  []frameOf // what came of the first requests in a mesh
}

func (c *client) recv() (*request, error) {
	select {
	case r, ok := <-c.in:
		if !ok {
			return nil, io.EOF
		}
		return r, nil
	case <-c.ctx.Done():
		return nil, c.ctx.Err()
	}
}

func (c *client) end(error) { c.stop() }

func (c *client) send(m *message) error {
	if c.gate != nil {
		select {
		case <-c.gate:
		case <-c.ctx.Done():
			return c.ctx.Err()
		}
	}
	f := decode(c.mode, slices.Concat(m.body, m.suffix))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frames = append(c.frames, f)
	return nil
}

func decode(mode protocol, raw []byte) frameOf {
	f := frameOf{raw: raw}
	short := func(url string) string {
		t, ok := snapshot.TypeOf(url)
		if !ok {
			return url
		}
		return t.String()
	}
	if mode == delta {
		var m discoveryv3.DeltaDiscoveryResponse
		if err := proto.Unmarshal(raw, &m); err != nil {
			panic(err)
		}
		f.Type, f.Nonce, f.Removed = short(m.GetTypeUrl()), m.GetNonce(), m.GetRemovedResources()
		if m.GetSystemVersionInfo() != "" {
			panic("a version of the system")
		}
		for _, r := range m.GetResources() {
			f.Resources = append(f.Resources, r.GetName()+"="+text(r.GetResource()))
		}
		return f
	}
	var m discoveryv3.DiscoveryResponse
	if err := proto.Unmarshal(raw, &m); err != nil {
		panic(err)
	}
	f.Type, f.Nonce, f.version = short(m.GetTypeUrl()), m.GetNonce(), m.GetVersionInfo()
	for _, r := range m.GetResources() {
		f.Resources = append(f.Resources, nameOf(r)+"="+text(r))
	}
	return f
}

// text is what res was given.
func text(a *anypb.Any) string {
	m, err := a.UnmarshalNew()
	if err != nil {
		panic(err)
	}
	switch m := m.(type) {
	case *clusterv3.Cluster:
		return m.GetAltStatName()
	case *endpointv3.ClusterLoadAssignment:
		return slices.Collect(func(yield func(string) bool) {
			for k := range m.GetNamedEndpoints() {
				if !yield(k) {
					return
				}
			}
			yield("")
		})[0]
	case *tlsv3.Secret:
		return m.GetGenericSecret().GetSecret().GetInlineString()
	case *listenerv3.Listener:
		return m.GetStatPrefix()
	case *corev3.TypedExtensionConfig:
		var s wrapperspb.StringValue
		if m.GetTypedConfig().UnmarshalTo(&s) != nil {
			return "deny"
		}
		return s.GetValue()
	case *routev3.RouteConfiguration:
		out := ""
		for _, h := range m.GetInternalOnlyHeaders() {
			out += h
		}
		for _, h := range m.GetVirtualHosts() {
			out += h.GetName() + ":" + h.GetDomains()[0] + " "
		}
		return out
	}
	return ""
}

func nameOf(a *anypb.Any) string {
	m, err := a.UnmarshalNew()
	if err != nil {
		panic(err)
	}
	switch m := m.(type) {
	case interface{ GetClusterName() string }:
		return m.GetClusterName()
	case interface{ GetName() string }:
		return m.GetName()
	}
	return ""
}

// open starts a stream of shop. It ends with the test.
func (w *world) open(mode protocol) *client {
	c := w.prepare(mode)
	w.start(c, shop)
	return c
}

func (w *world) prepare(mode protocol) *client {
	c := &client{t: w.t, mode: mode, in: make(chan *request), done: make(chan error, 1)}
	c.ctx, c.stop = context.WithCancel(w.t.Context())
	c.node = &corev3.Node{Id: "acme-shop/web-1"}
	return c
}

func (w *world) start(c *client, who identity.Workload) {
	go func() { // ends with c.stop
		st, err := w.srv.open(c.mode, identity.Peer{Workload: who, NotAfter: time.Now().Add(time.Hour)}, netip.Addr{}, c)
		if err == nil {
			err = w.srv.serveStream(st)
		}
		c.done <- err
	}()
	w.t.Cleanup(func() { c.stop() })
}

// take returns what has arrived since the last call, once nothing moves any more.
func (c *client) take() []frameOf {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.frames
	c.frames = nil
	return out
}

// request sends one and returns what comes of it.
func (c *client) request(r *request) []frameOf {
	c.t.Helper()
	if c.node != nil {
		r.node, c.node = c.node, nil
	}
	select {
	case c.in <- r:
	case err := <-c.done:
		c.done <- err
		c.t.Fatalf("the stream is over: %v", err)
	}
	return c.take()
}

// subscribe sends a delta request that subscribes.
func (c *client) subscribe(t snapshot.Type, names ...string) []frameOf {
	c.t.Helper()
	return c.request(&request{url: t.URL(), subscribe: names})
}

// back sends the first delta request of a type after a reconnect.
func (c *client) back(t snapshot.Type, names []string, has ...*snapshot.Resource) []frameOf {
	c.t.Helper()
	v := map[string]string{}
	for _, r := range has {
		v[r.Name()] = r.Version()
	}
	return c.request(&request{url: t.URL(), subscribe: names, has: v})
}

// want sends a state-of-the-world subscription, as the ACK of the frame if one is given.
func (c *client) want(t snapshot.Type, last *frameOf, names ...string) []frameOf {
	c.t.Helper()
	r := &request{url: t.URL(), names: names}
	if last != nil {
		r.nonce, r.version = last.Nonce, last.version
	}
	return c.request(r)
}

// ack acknowledges frames (delta).
func (c *client) ack(fs ...frameOf) []frameOf {
	c.t.Helper()
	var out []frameOf
	for _, f := range fs {
		out = append(out, c.request(&request{url: urlOf(f.Type), nonce: f.Nonce})...)
	}
	return out
}

func (c *client) nack(f frameOf) []frameOf {
	c.t.Helper()
	return c.request(&request{url: urlOf(f.Type), nonce: f.Nonce, failed: &statuspb.Status{Code: 13, Message: "bad"}})
}

func urlOf(short string) string {
	for t := range snapshot.NumTypes {
		if t.String() == short {
			return t.URL()
		}
	}
	return short
}

// show prints frames one per line element, in their order.
func show(fs []frameOf) []string {
	out := make([]string, 0, len(fs))
	for _, f := range fs {
		out = append(out, f.String())
	}
	return out
}

// raws are the bytes of frames.
func raws(fs []frameOf) [][]byte {
	var out [][]byte
	for _, f := range fs {
		out = append(out, f.raw)
	}
	return out
}

func keys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
