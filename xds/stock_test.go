package xds

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/snapshot"
)

// stock is go-control-plane's own server over the resources of a view.
type stock struct {
	t     *testing.T
	cache cachev3.SnapshotCache
	count int
}

func newStock(t *testing.T) *stock {
	return &stock{t: t, cache: cachev3.NewSnapshotCache(false, cachev3.IDHash{}, nil)}
}

// sync gives the stock server what a view holds.
func (s *stock) sync(v view) {
	all := map[resourcev3.Type][]types.Resource{}
	for t := range snapshot.NumTypes {
		all[t.URL()] = nil
		v.All(t, func(r *snapshot.Resource) {
			m, err := (&anypb.Any{TypeUrl: t.URL(), Value: r.Value()}).UnmarshalNew()
			require.NoError(s.t, err)
			all[t.URL()] = append(all[t.URL()], m)
		})
	}
	s.count++
	snap, err := cachev3.NewSnapshot(fmt.Sprint(s.count), all)
	require.NoError(s.t, err)
	require.NoError(s.t, s.cache.SetSnapshot(context.Background(), "acme-shop/web-1", snap))
}

func (s *stock) open(w *world, mode protocol) *client {
	c := w.prepare(mode)
	srv := serverv3.NewServer(c.ctx, s.cache, nil)
	go func() { // ends with c.stop
		if mode == delta {
			c.done <- srv.DeltaStreamHandler(stockDelta{c: c}, resourcev3.AnyType)
		} else {
			c.done <- srv.StreamHandler(stockState{c: c}, resourcev3.AnyType)
		}
	}()
	s.t.Cleanup(c.stop)
	return c
}

type stockDelta struct {
	grpc.ServerStream
	c *client
}

func (s stockDelta) Context() context.Context { return s.c.ctx }

func (s stockDelta) Send(m *discoveryv3.DeltaDiscoveryResponse) error {
	m = proto.CloneOf(m)
	m.SystemVersionInfo = "" // it has one; decode expects none
	return s.c.deliver(m)
}

func (s stockDelta) Recv() (*discoveryv3.DeltaDiscoveryRequest, error) {
	r, err := s.c.recv()
	if err != nil {
		return nil, err
	}
	return &discoveryv3.DeltaDiscoveryRequest{Node: r.node, TypeUrl: r.url, ResponseNonce: r.nonce, ErrorDetail: r.failed,
		ResourceNamesSubscribe: r.subscribe, ResourceNamesUnsubscribe: r.unsubscribe, InitialResourceVersions: r.has}, nil
}

type stockState struct {
	grpc.ServerStream
	c *client
}

func (s stockState) Context() context.Context { return s.c.ctx }

func (s stockState) Send(m *discoveryv3.DiscoveryResponse) error { return s.c.deliver(m) }

func (s stockState) Recv() (*discoveryv3.DiscoveryRequest, error) {
	r, err := s.c.recv()
	if err != nil {
		return nil, err
	}
	return &discoveryv3.DiscoveryRequest{Node: r.node, TypeUrl: r.url, ResponseNonce: r.nonce, ErrorDetail: r.failed,
		ResourceNames: r.names, VersionInfo: r.version}, nil
}

func (c *client) deliver(m proto.Message) error {
	raw, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return c.send(&message{body: raw})
}

// The same client with the same script ends every step in the same state at
// our server and at go-control-plane's. Where they are known to differ, the
// client's state is not compared:
//   - a name that is gone: we send the assignment, route or RBAC that says so
//     and leave secrets alone, the stock server removes (delta) or is silent;
//   - a client that drops all names of a type is sent every resource of it
//     by the stock server's next change (state of the world), unasked for: the
//     client does not take it.
func TestEqualToTheStockServer(t *testing.T) {
	for _, mode := range []protocol{delta, state} {
		t.Run(mode.String(), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				ops := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) op { return drawOp(t, false) }), 1, 30).Draw(rt, "ops")
				found := &problems{}
				synctest.Test(t, func(t *testing.T) { compare(t, found, mode, ops) })
				if found.first != "" {
					rt.Fatalf("%s", found.first)
				}
			})
		})
	}
}

func compare(t *testing.T, found *problems, mode protocol, ops []op) {
	v := newView("acme")
	w, other := newWorld(t, v), newStock(t)
	other.sync(v)
	none := func(frameOf) {}
	pair := []*proxyModel{
		newModel(func() *client { return w.open(mode) }, none),
		newModel(func() *client { return other.open(w, mode) }, none),
	}
	for i, o := range ops {
		switch o.kind {
		case 0, 1, 2:
			v.set(o.res)
			other.sync(v)
		case 3:
			v.remove(child(o.typ, o.name))
			other.sync(v)
		}
		for _, m := range pair {
			switch {
			case o.kind == 4 || o.kind == 5:
				m.subscribeTo(o.typ, o.name)
			case o.kind == 6:
				m.unsubscribeFrom(o.typ, o.name)
			case o.kind == 8 && o.rare == 1:
				m.reconnect()
			}
			m.settle(found)
		}
		same(found, i, v, pair[0], pair[1])
	}
	for _, m := range pair {
		m.stop()
	}
	synctest.Wait()
}

func same(found *problems, step int, v view, ours, theirs *proxyModel) {
	for typ := range snapshot.NumTypes {
		for _, name := range universe {
			if !ours.wants(typ, name) || (!isSet(typ) && v.Get(typ, name) == nil) {
				continue
			}
			if a, b := ours.have[typ][name], theirs.have[typ][name]; a != b {
				found.Fatalf("step %d: %v %s is %q here and %q there", step, typ, name, a, b)
			}
		}
	}
}
