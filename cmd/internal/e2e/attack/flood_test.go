package attack

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/xds/adsclient"
)

// Files of the mesh that attacks change.
const (
	tenantsFile = "platform/tenants.yaml"
	requestFile = "tenants/acme/request.yaml"
	grantFile   = "tenants/globex/grant.yaml"
)

// slack is what the heap may differ by without anything having been kept.
const slack = 16 << 20

// stillServed requires that the victim's proxies get what they did before.
func (w *world) stillServed(before []string) {
	w.t.Helper()
	require.Equal(w.t, before, w.said(w.proxy(adsclient.Delta, globexWeb, options{})))
	require.Zero(w.t, w.metric("bailiwick_xds_panics_total")+w.metric("bailiwick_snapshot_panics_total"))
}

func (w *world) served() []string {
	w.t.Helper()
	return w.said(w.proxy(adsclient.Delta, globexWeb, options{}))
}

// exhausts requires that a stream ends for having asked for too much.
func (w *world) exhausts(c *adsclient.Client) {
	w.t.Helper()
	err := w.ended(c)
	require.Equal(w.t, codes.ResourceExhausted, status.Code(err), "%v", err)
	require.NotContains(w.t, err.Error(), "globex")
}

func manyNames(w *world) {
	before := w.served()
	names := make([]string, 250_000)
	for i := range names {
		names[i] = fmt.Sprintf("n%06d", i)
	}
	w.protocols(func(w *world, p adsclient.Protocol) {
		var held []float64
		for range 2 {
			c, err := w.dial(p, acmeInside, options{})
			require.NoError(w.t, err)
			if p == adsclient.SotW {
				_ = c.Send(&discoveryv3.DiscoveryRequest{TypeUrl: snapshot.Endpoint.URL(), ResourceNames: names})
			} else {
				_ = c.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: snapshot.Endpoint.URL(), ResourceNamesSubscribe: names})
			}
			w.exhausts(c)
			require.NoError(w.t, c.Close())
			held = append(held, w.heap())
		}
		require.Less(w.t, held[1]-held[0], float64(slack), "names are kept: %v", held)
	})
	w.stillServed(before)
}

func nodeSpray(w *world) {
	before := w.served()
	spray := func(n int) {
		for i := range n {
			c, err := w.dial(adsclient.Delta, acmeInside, options{node: &corev3.Node{Id: fmt.Sprintf("acme-web/%d-%s", i, strings.Repeat("y", 10000))}})
			require.NoError(w.t, err)
			w.said(c)
			require.NoError(w.t, c.Close())
		}
		w.until("streams end with their clients", func() error {
			if n := w.metric("bailiwick_xds_streams"); n > 1 {
				return fmt.Errorf("%v are open", n)
			}
			return nil
		})
	}
	spray(20)
	base := w.heap()
	spray(300)
	require.Less(w.t, w.heap()-base, float64(slack))
	w.stillServed(before)
}

// slowReader reads nothing after the first message, while things change.
func slowReader(w *world) {
	release := make(chan struct{})
	defer close(release)
	for _, p := range []adsclient.Protocol{adsclient.Delta, adsclient.SotW} {
		c, err := w.dial(p, acmeInside, options{answers: func(*adsclient.Message) adsclient.Verdict {
			<-release
			return adsclient.Ack()
		}})
		require.NoError(w.t, err)
		require.NoError(w.t, c.Wildcard(snapshot.Cluster.URL()))
		require.NoError(w.t, c.Wildcard(snapshot.Listener.URL()))
	}
	w.changesArrive()
}

// changesArrive requires that changes of both tenants reach readers.
func (w *world) changesArrive() {
	w.t.Helper()
	for _, c := range []struct{ id, file, name string }{
		{acmeOrders, "tenants/acme/more.yaml", "more.acme-shop.svc.cluster.local:80"},
		{globexWeb, "tenants/globex/more.yaml", "more.globex-web.svc.cluster.local:80"},
	} {
		reader := w.proxy(adsclient.Delta, c.id, options{})
		namespace := strings.Split(c.name, ".")[1]
		w.write(c.file, "apiVersion: v1\nkind: Service\nmetadata: {name: more, namespace: "+namespace+"}\nspec: {clusterIP: None, ports: [{name: http, port: 80}]}\n")
		has := func(want bool) {
			err := reader.Wait(w.bounded(), func(v adsclient.View) bool { return v.Has(snapshot.Cluster.URL(), c.name) == want })
			require.NoError(w.t, err, "%v", want)
		}
		has(true)
		w.remove(c.file)
		has(false)
		require.NoError(w.t, reader.Close())
	}
}

// bigTenant changes thousands of services at once, again and again.
func bigTenant(w *world) {
	const services = 1500
	flood := func(port int) {
		var all strings.Builder
		for i := range services {
			fmt.Fprintf(&all, "apiVersion: v1\nkind: Service\nmetadata: {name: s%d, namespace: acme-web}\nspec: {clusterIP: None, ports: [{name: http, port: %d}]}\n---\n", i, port)
		}
		w.write("tenants/acme/flood.yaml", all.String())
	}
	w.renew(nil)
	victim := w.proxy(adsclient.Delta, globexWeb, options{})
	flood(8000)
	attacker := w.proxy(adsclient.Delta, acmeInside, options{})
	require.NoError(w.t, attacker.Wait(w.bounded(), func(v adsclient.View) bool { return len(v.Names(snapshot.Cluster.URL())) > services }))
	messages := len(victim.Log())
	for i := range 3 {
		flood(8001 + i)
		w.write("tenants/globex/more.yaml", fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: more%d, namespace: globex-web}\nspec: {clusterIP: None, ports: [{name: http, port: 80}]}\n", i))
		name := fmt.Sprintf("more%d.globex-web.svc.cluster.local:80", i)
		require.NoError(w.t, victim.Wait(w.bounded(), func(v adsclient.View) bool { return v.Has(snapshot.Cluster.URL(), name) }))
	}
	w.said(victim)
	// Per change of its own a handful of messages, whatever the others do.
	require.LessOrEqual(w.t, len(victim.Log())-messages, 3*6+1)
	ownWindow(w)
}

// ownWindow has acme use up its immediate builds, so that what it changes next is
// gathered for long: the victim's change is there while acme's is not.
func ownWindow(w *world) {
	w.renew([]string{"--debounce-quiet", "25s", "--debounce-max", "25s"})
	victim, attacker := w.proxy(adsclient.Delta, globexWeb, options{}), w.proxy(adsclient.Delta, acmeInside, options{})
	const last = 12
	for i := range last + 1 {
		absorbed := w.metric("bailiwick_snapshot_events_total")
		w.write("tenants/acme/tick.yaml", fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: tick%d, namespace: acme-web}\nspec: {clusterIP: None, ports: [{name: http, port: 80}]}\n", i))
		w.until("the change is absorbed", func() error {
			if w.metric("bailiwick_snapshot_events_total") == absorbed {
				return fmt.Errorf("it is not")
			}
			return nil
		})
	}
	w.write("tenants/globex/more.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: more, namespace: globex-web}\nspec: {clusterIP: None, ports: [{name: http, port: 80}]}\n")
	require.NoError(w.t, victim.Wait(w.bounded(), func(v adsclient.View) bool {
		return v.Has(snapshot.Cluster.URL(), "more.globex-web.svc.cluster.local:80")
	}))
	w.said(attacker) // whatever was on its way is there
	require.NotContains(w.t, attacker.Names(snapshot.Cluster.URL()), fmt.Sprintf("tick%d.acme-web.svc.cluster.local:80", last), "nothing was gathered: it shows nothing")
}

func ackFlood(w *world) {
	before := w.served()
	w.protocols(func(w *world, p adsclient.Protocol) {
		for _, failed := range []bool{false, true} {
			c, err := w.dial(p, acmeInside, options{})
			require.NoError(w.t, err)
			w.said(c)
			for range 20000 {
				if c.Send(answer(p, failed)) != nil {
					break // the reason is the stream's end
				}
			}
			w.exhausts(c)
		}
	})
	w.stillServed(before)
}

// streamFlood needs limits that a test can reach.
func streamFlood(w *world) {
	w.renew(nil, func(w *world) {
		w.replace(tenantsFile, "trustDomain: acme.example", "trustDomain: acme.example\n  limits: {streamsPerID: 3, streams: 5}")
	})
	before := w.served()
	var open []*adsclient.Client
	for range 3 {
		open = append(open, w.proxy(adsclient.Delta, acmeInside, options{}))
	}
	over, err := w.dial(adsclient.SotW, acmeInside, options{})
	require.NoError(w.t, err)
	require.NoError(w.t, over.Wildcard(snapshot.Cluster.URL()))
	w.exhausts(over)
	// Another identity of the tenant comes in, up to the tenant's limit.
	w.proxy(adsclient.Delta, acmeWeb, options{})
	w.proxy(adsclient.SotW, acmeWeb, options{})
	over, err = w.dial(adsclient.Delta, acmeOrders, options{})
	require.NoError(w.t, err)
	require.NoError(w.t, over.Wildcard(snapshot.Cluster.URL()))
	w.exhausts(over)
	w.stillServed(before)
	// A stream that ends gives its place back.
	require.NoError(w.t, open[0].Close())
	w.until("the place is free", func() error {
		c, err := w.dial(adsclient.Delta, acmeInside, options{})
		require.NoError(w.t, err)
		require.NoError(w.t, c.Wildcard(snapshot.Cluster.URL()))
		ctx, cancel := context.WithTimeout(w.ctx, patience)
		defer cancel()
		err = c.Wait(ctx, func(v adsclient.View) bool { return v.Total("").Messages > 0 })
		if err != nil {
			_ = c.Close()
		}
		return err
	})
}

// frame is one HTTP/2 frame.
func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(payload)))[1:]
	head = append(head, kind, flags)
	return append(binary.BigEndian.AppendUint32(head, stream), payload...)
}

// headers open an RPC, in HPACK without Huffman.
func headers(path string) []byte {
	literal := func(s string) []byte { return append([]byte{byte(len(s))}, s...) }
	out := append([]byte{0x83, 0x87, 0x04}, literal(path)...)
	out = append(append(out, 0x01), literal("xds")...)
	out = append(append(out, 0x0f, 0x10), literal("application/grpc")...)
	return append(append(append(out, 0x00), literal("te")...), literal("trailers")...)
}

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

func rudeConnections(w *world) {
	before := w.served()
	base := w.heap()
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", w.server.XDS.String())
		require.NoError(w.t, err)
		w.t.Cleanup(func() { _ = conn.Close() })
		require.NoError(w.t, conn.SetDeadline(time.Now().Add(patience)))
		return conn
	}
	// Strangers: bytes that are no TLS, and handshakes that stall.
	for _, garbage := range []string{"GET / HTTP/1.1\r\n\r\n", preface, "\x16\x03\x01\xff\xff", strings.Repeat("\x00", 70000)} {
		conn := dial()
		_, _ = io.WriteString(conn, garbage)
		if len(garbage) > 5 { // that one waits for the rest of a record
			_, err := io.Copy(io.Discard, conn)
			require.False(w.t, err != nil && strings.Contains(err.Error(), "timeout"), "garbage is put up with")
		}
	}
	silent := make([]net.Conn, 200)
	for i := range silent {
		silent[i] = dial() // and says nothing
	}
	// A tenant: resets and settings as fast as they can be written.
	config := w.tls(acmeInside, options{})
	rpc := "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
	for _, flood := range []func(i int) []byte{
		func(i int) []byte {
			id := uint32(2*i + 1)
			return append(frame(1, 4, id, headers(rpc)), frame(3, 0, id, []byte{0, 0, 0, 8})...)
		},
		func(int) []byte { return frame(4, 0, 0, []byte{0, 4, 0, 1, 0, 0}) },
		func(int) []byte { return frame(6, 0, 0, make([]byte, 8)) },
	} {
		conn := tls.Client(dial(), config)
		require.NoError(w.t, conn.Handshake())
		_, err := conn.Write(append([]byte(preface), frame(4, 0, 0, nil)...))
		require.NoError(w.t, err)
		go func() { _, _ = io.Copy(io.Discard, conn) }() // ends with the connection
		for i := range 20000 {
			if _, err := conn.Write(flood(i)); err != nil {
				break // hung up on, as it should be
			}
		}
		_ = conn.Close()
	}
	w.stillServed(before)
	for _, conn := range silent {
		_, err := io.Copy(io.Discard, conn)
		require.False(w.t, err != nil && strings.Contains(err.Error(), "timeout"), "who says nothing is put up with")
	}
	w.until("all is forgotten", func() error {
		if now := w.heap(); now-base > 2*slack {
			return fmt.Errorf("%.0f bytes more", now-base)
		}
		return nil
	})
}
