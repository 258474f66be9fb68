package xds

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"bailiwick.dev/bailiwick/snapshot"
)

// fataler is what the oracle fails.
type fataler interface{ Fatalf(string, ...any) }

func textOf(r *snapshot.Resource) string {
	return text(&anypb.Any{TypeUrl: r.Type().URL(), Value: r.Value()})
}

// versionsOf reads the versions of a delta response.
func versionsOf(mode protocol, f frameOf) map[string]string {
	out := map[string]string{}
	if mode == state {
		return out
	}
	var m discoveryv3.DeltaDiscoveryResponse
	if err := proto.Unmarshal(f.raw, &m); err != nil {
		panic(err)
	}
	for _, r := range m.GetResources() {
		out[r.GetName()] = r.GetVersion()
	}
	return out
}

// membership checks that a response holds nothing that was in none of the
// views: everything that is published for others has "foreign" in it, and
// absent things have no content at all.
func membership(t fataler) func(frameOf) {
	return func(f frameOf) {
		if strings.Contains(string(f.raw), "foreign") {
			t.Fatalf("a foreign resource: %v", f)
		}
		seen := map[string]bool{}
		for _, r := range f.Resources {
			name, _, _ := strings.Cut(r, "=")
			if seen[name] {
				t.Fatalf("%s stands twice in %v", name, f)
			}
			seen[name] = true
		}
		for _, name := range f.Removed {
			if seen[name] {
				t.Fatalf("%s is sent and removed in %v", name, f)
			}
		}
	}
}

// script turns fuzz bytes into choices.
type script struct{ b []byte }

func (s *script) next(n int) int {
	if len(s.b) == 0 {
		return 0
	}
	v := int(s.b[0]) % n
	s.b = s.b[1:]
	return v
}

var fuzzNames = []string{"a", "b", "rbac-http-1", "*", "", "foreignest", "c"}

func (s *script) names() []string {
	var out []string
	for range s.next(4) {
		out = append(out, fuzzNames[s.next(len(fuzzNames))])
	}
	return out
}

func (s *script) request(c *client) *request {
	urls := make([]string, 0, snapshot.NumTypes+1)
	for t := range snapshot.NumTypes {
		urls = append(urls, t.URL())
	}
	urls = append(urls, "type.googleapis.com/unknown")
	r := &request{url: urls[s.next(len(urls))], subscribe: s.names(), unsubscribe: s.names(), names: s.names(), node: c.node}
	switch s.next(5) {
	case 0:
	case 1:
		r.nonce = "x"
	default:
		r.nonce = fmt.Sprint(s.next(20))
	}
	if s.next(3) == 0 {
		r.failed = &statuspb.Status{Code: 13, Message: "no"}
	}
	if s.next(4) == 0 {
		r.has = map[string]string{}
		for _, n := range s.names() {
			r.has[n] = res(snapshot.Cluster, n, "1").Version()
		}
	}
	return r
}

// FuzzStream drives a stream with any sequence of requests, changes and
// bindings: no panic, no response that does not parse, nothing of others, and
// bounded memory of what is unanswered.
func FuzzStream(f *testing.F) {
	f.Add([]byte{0}, false)
	f.Add([]byte("a long enough sequence of bytes to get somewhere, and then some more"), true)
	f.Add([]byte{1, 0, 0, 0, 0, 2, 1, 1, 3, 4, 1, 0, 0, 0, 0, 3, 0, 2, 1, 4, 0, 0, 0, 0, 3, 1, 0}, false)
	f.Fuzz(func(t *testing.T, b []byte, sotw bool) {
		mode := delta
		if sotw {
			mode = state
		}
		if len(b) > 2000 {
			b = b[:2000]
		}
		synctest.Test(t, func(t *testing.T) { fuzzStream(t, &script{b}, mode) })
	})
}

func fuzzStream(t *testing.T, s *script, mode protocol) {
	mine := [2]view{shopView(), newView("")}
	foreign := newView("globex")
	for typ := range snapshot.NumTypes {
		for _, n := range []string{"a", "b", "c", "rbac-http-1"} {
			foreign.set(res(typ, n, "foreign"))
		}
	}
	w := newWorld(t, mine[0], func(c *Config) { c.MaxUnacked = 4000 })
	c := w.open(mode)
	check := membership(t)
	for len(s.b) > 0 {
		switch s.next(6) {
		case 0:
			typ := snapshot.Type(s.next(int(snapshot.NumTypes)))
			name := []string{"a", "b", "c", "rbac-http-1"}[s.next(4)]
			r := res(typ, name, fmt.Sprint(s.next(3)), child(snapshot.Endpoint, name), child(snapshot.Secret, name), child(snapshot.Route, name), child(snapshot.Extension, name))
			if typ == snapshot.Route {
				r = routes(name, host("x", fmt.Sprint(s.next(3))), host("y", fmt.Sprint(s.next(3))))
			}
			mine[s.next(2)].set(r)
		case 1:
			mine[s.next(2)].remove(child(snapshot.Type(s.next(int(snapshot.NumTypes))), "a"))
		case 2:
			w.store.bind(mine[s.next(2)].Binding)
		case 3:
			time.Sleep(time.Duration(s.next(30)) * time.Second)
		default:
			select {
			case c.in <- s.request(c):
			case err := <-c.done:
				if code := status.Code(err); code != codes.ResourceExhausted && code != codes.Unavailable {
					t.Fatalf("the stream ended with %v", err)
				}
				return
			}
		}
		for _, f := range c.take() {
			if strings.Contains(strings.Join(f.Removed, " "), "foreignest") || strings.Contains(strings.Join(f.Resources, " "), "foreignest") {
				continue // the client's own word
			}
			check(f)
		}
	}
	c.stop()
	synctest.Wait()
}
