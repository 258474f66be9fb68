package attack

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"bailiwick.dev/bailiwick/snapshot"
)

// base is what a server holds that nobody troubles.
type base struct{ heap, goroutines, streams float64 }

func (w *world) base() base {
	return base{w.heap(), w.metric("go_goroutines"), w.metric("bailiwick_xds_streams")}
}

// bounded requires that n connections cost no more than their buffers.
func (b base) bounded(w *world, n int) {
	w.t.Helper()
	require.Less(w.t, w.heap()-b.heap, float64(slack+n*(1<<20)), "the heap, with %d of them", n)
	require.LessOrEqual(w.t, w.metric("go_goroutines")-b.goroutines, float64(8*n+10))
}

// returns waits until nothing of them is left.
func (b base) returns(w *world) {
	w.t.Helper()
	w.until("all is forgotten", func() error {
		heap, goroutines, streams := w.heap()-b.heap, w.metric("go_goroutines")-b.goroutines, w.metric("bailiwick_xds_streams")-b.streams
		if heap > slack || goroutines > 5 || streams > 0 {
			return fmt.Errorf("%.0f bytes and %.0f goroutines more, %.0f streams", heap, goroutines, streams)
		}
		return nil
	})
}

// rude is a connection of a valid identity that speaks HTTP/2 by the frame.
type rude struct {
	*tls.Conn
	w *world
}

// rude opens a stream of ADS that asks for all clusters and listeners, with room
// for far more than anybody will read.
func (w *world) rude() *rude {
	w.t.Helper()
	raw, err := net.Dial("tcp", w.server.XDS.String())
	require.NoError(w.t, err)
	require.NoError(w.t, raw.(*net.TCPConn).SetReadBuffer(4096))
	r := &rude{tls.Client(raw, w.tls(acmeInside, options{})), w}
	w.t.Cleanup(func() { _ = r.Close() })
	require.NoError(w.t, r.SetDeadline(time.Now().Add(patience)))
	require.NoError(w.t, r.Handshake())
	room := append([]byte{0, 4}, binary.BigEndian.AppendUint32(nil, 1<<30)...)
	out := append([]byte(preface), frame(4, 0, 0, room)...)
	out = append(out, frame(8, 0, 0, binary.BigEndian.AppendUint32(nil, 1<<30))...)
	out = append(out, frame(1, 4, 1, headers("/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"))...)
	_, err = r.Write(out)
	require.NoError(w.t, err)
	node := &corev3.Node{Id: podOf(acmeInside)}
	r.say(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: snapshot.Cluster.URL()})
	r.say(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: snapshot.Listener.URL()})
	return r
}

// say sends a message; that the server has hung up is no matter.
func (r *rude) say(m proto.Message) {
	raw, err := proto.Marshal(m)
	require.NoError(r.w.t, err)
	message := append([]byte{0}, binary.BigEndian.AppendUint32(nil, uint32(len(raw)))...)
	_, _ = r.Write(frame(0, 0, 1, append(message, raw...)))
}

// rudeStreams are those that do not read, that read a byte at a time, that never
// answer, and that refuse without end, while the tenant's services change.
func rudeStreams(w *world) {
	*w = *newWorld(w.t, w.cluster, nil)
	w.changesArrive()
	for _, c := range []struct {
		what  string
		reads bool          // all that comes
		on    func(r *rude) // with each change
	}{
		{"does not read", false, func(*rude) {}},
		{"reads a byte at a time", false, func(r *rude) { _, _ = r.Read(make([]byte, 1)) }},
		{"never answers", true, func(*rude) {}},
		{"refuses without end", true, func(r *rude) {
			for i := range 20 {
				r.say(&discoveryv3.DeltaDiscoveryRequest{
					TypeUrl: snapshot.Cluster.URL(), ResponseNonce: fmt.Sprint(i), ErrorDetail: &statuspb.Status{Code: 3, Message: strings.Repeat("no", 100)},
				})
			}
		}},
	} {
		w.t.Logf("one who %s", c.what)
		before := w.base()
		var all []*rude
		for range 8 {
			r := w.rude()
			if all = append(all, r); c.reads {
				go func() { _, _ = io.Copy(io.Discard, r) }() // ends with the connection
			}
		}
		for i := range 20 {
			var services strings.Builder
			for s := range 50 {
				fmt.Fprintf(&services, service, fmt.Sprintf("s%d-%d", i%2, s))
			}
			w.write("tenants/acme/changes.yaml", services.String())
			for _, r := range all {
				c.on(r)
			}
		}
		w.changesArrive()
		before.bounded(w, len(all))
		for _, r := range all {
			_ = r.NetConn().(*net.TCPConn).SetLinger(0)
			_ = r.NetConn().Close()
		}
		w.remove("tenants/acme/changes.yaml")
		w.changesArrive()
		before.returns(w)
	}
}

// connectionStorm opens and drops connections as fast as it can: some before the
// handshake, some after it, some with a stream.
func connectionStorm(w *world) {
	before := w.served()
	n := 200
	if os.Getenv("BAILIWICK_SOAK") == "full" {
		n = 5000
	}
	start := w.base()
	config := w.tls(acmeInside, options{})
	var group sync.WaitGroup
	for k := range 4 {
		group.Go(func() {
			for i := k; i < n; i += 4 {
				raw, err := net.Dial("tcp", w.server.XDS.String())
				if err != nil {
					continue // the backlog is full, which is an answer
				}
				conn := tls.Client(raw, config)
				_ = conn.SetDeadline(time.Now().Add(patience))
				switch i / 4 % 3 {
				case 0:
					_, _ = io.WriteString(raw, "\x16\x03\x01")
				case 1:
					_ = conn.Handshake()
				case 2:
					_, _ = conn.Write(append(append([]byte(preface), frame(4, 0, 0, nil)...), frame(1, 4, 1, headers("/x"))...))
				}
				_ = raw.(*net.TCPConn).SetLinger(0)
				_ = raw.Close()
			}
		})
	}
	group.Wait()
	start.returns(w)
	w.stillServed(before)
}
