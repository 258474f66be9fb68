package xds

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/tenancy"
)

// The whole way, from events to frames: the model, the publisher and the
// server together, inside a synctest bubble.

const meshDomain = "mesh.example"

func meshBundle(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func put(kind tenancy.Kind, ns, name string, o tenancy.Object) tenancy.Event {
	return tenancy.Event{Ref: tenancy.Ref{Kind: kind, Key: tenancy.Key{Namespace: ns, Name: name}}, Object: o}
}

func meshSlice(tenant, service int, ready bool) tenancy.Event {
	return put(tenancy.KindEndpointSlice, fmt.Sprintf("ns-%03d", tenant), fmt.Sprint("s", service), &tenancy.EndpointSlice{
		Service: fmt.Sprint("s", service), Ports: []tenancy.SlicePort{{Name: "http", Port: 8080}},
		Endpoints: []tenancy.Endpoint{{
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(tenant), byte(service)})},
			Ready:     ready, Serving: ready, PodName: fmt.Sprint("s", service),
		}},
	})
}

func meshTenant(tenant, services int) []tenancy.Event {
	name, ns := fmt.Sprintf("tenant-%03d", tenant), fmt.Sprintf("ns-%03d", tenant)
	events := []tenancy.Event{
		put(tenancy.KindTenant, "", name, &tenancy.Tenant{TrustDomain: meshDomain}),
		put(tenancy.KindNamespace, "", ns, &tenancy.Namespace{Tenant: name}),
	}
	for i := range services {
		svc := fmt.Sprint("s", i)
		events = append(events,
			put(tenancy.KindPod, ns, svc, &tenancy.Pod{
				ServiceAccount: svc, Labels: map[string]string{"app": svc},
				IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(tenant), byte(i)})},
			}),
			put(tenancy.KindService, ns, svc, &tenancy.Service{
				ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{172, 16, byte(tenant), byte(i)})},
				Ports:      []tenancy.ServicePort{{Name: "http", Port: 80, Protocol: tenancy.HTTP1}},
			}),
			meshSlice(tenant, i, true))
	}
	return events
}

// mesh is a world whose store is a running publisher.
type mesh struct {
	*world
	publisher *snapshot.Publisher
}

func newMesh(t *testing.T, bundle []byte, events []tenancy.Event) *mesh {
	t.Helper()
	return newMeshOf(t, []string{meshDomain}, bundle, events)
}

// newMeshOf is newMesh with other trust domains, all of one bundle.
func newMeshOf(t *testing.T, domains []string, bundle []byte, events []tenancy.Event) *mesh {
	t.Helper()
	p, err := snapshot.NewPublisher(snapshot.Config{
		Model:   tenancy.NewModel(tenancy.Config{ClusterDomain: "cluster.local", TrustDomains: domains, Limits: tenancy.DefaultLimits()}),
		Builder: snapshot.NewBuilder(snapshot.BuilderConfig{ClusterDomain: "cluster.local"}),
		Logger:  slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	m := &mesh{newWorld(t, view{}, func(c *Config) { c.Store = p }), p}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { _ = p.Run(ctx) }() // ends with cancel
	t.Cleanup(cancel)
	for _, domain := range domains {
		p.Apply([]tenancy.Event{put(tenancy.KindTrustBundle, "", domain, &tenancy.TrustBundle{PEM: bundle})})
	}
	p.Apply(events)
	p.Synced()
	synctest.Wait()
	return m
}

// connect starts the stream of a tenant's first Pod and subscribes as Envoy does.
func (m *mesh) connect(mode protocol, tenant, services int) *client {
	m.t.Helper()
	return m.connectAs(mode, tenant, services, &corev3.Node{Id: fmt.Sprintf("ns-%03d/s0", tenant)})
}

// connectAs is connect with a node of the client's choice.
func (m *mesh) connectAs(mode protocol, tenant, services int, node *corev3.Node) *client {
	m.t.Helper()
	c := m.prepare(mode)
	ns := fmt.Sprintf("ns-%03d", tenant)
	c.node = node
	m.start(c, identity.Workload{TrustDomain: meshDomain, Namespace: ns, ServiceAccount: "s0"})
	var names []string
	for i := range services {
		names = append(names, fmt.Sprintf("s%d.%s.svc.cluster.local:80", i, ns))
	}
	for _, r := range []*request{
		{url: snapshot.Cluster.URL()},
		{url: snapshot.Endpoint.URL(), subscribe: names, names: names},
		{url: snapshot.Listener.URL()},
		{url: snapshot.Route.URL(), subscribe: []string{"http-80"}, names: []string{"http-80"}},
	} {
		c.first = append(c.first, c.request(r)...)
	}
	return c
}

// The same of allocations, on the whole way and with the client's ACK.
func TestAllocationsOfAnEventDoNotGrowWithTheMesh(t *testing.T) {
	bundle := meshBundle(t)
	cost := func(tenants int) (each float64) {
		synctest.Test(t, func(t *testing.T) {
			const services, changes = 5, 40
			var events []tenancy.Event
			for i := range tenants {
				events = append(events, meshTenant(i, services)...)
			}
			m := newMesh(t, bundle, events)
			var cs []*client
			for i := range tenants {
				c := m.connect(delta, i, services)
				c.ack(c.first...)
				cs = append(cs, c)
			}
			var before, after runtime.MemStats
			for i := range changes + 5 {
				if i == 5 { // the first ones fill caches
					runtime.ReadMemStats(&before)
				}
				m.publisher.Apply([]tenancy.Event{meshSlice(0, 1, i%2 == 1)})
				got := cs[0].take()
				require.Len(t, got, 1)
				cs[0].ack(got...)
				time.Sleep(snapshot.DefaultQuiet)
			}
			runtime.ReadMemStats(&after)
			each = float64(after.Mallocs-before.Mallocs) / changes
		})
		return each
	}
	small, large := cost(3), cost(50)
	require.InEpsilon(t, small, large, 0.05)
}

// What an event costs in encodes, messages, bytes and wake-ups, must not
// depend on how many tenants there are that do not see it.
func TestWireCostOfAnEventDoesNotGrowWithTheMesh(t *testing.T) {
	bundle := meshBundle(t)
	cost := func(tenants int) (got []Counts) {
		synctest.Test(t, func(t *testing.T) {
			const services = 5
			var events []tenancy.Event
			for i := range tenants {
				events = append(events, meshTenant(i, services)...)
			}
			m := newMesh(t, bundle, events)
			for i := range tenants {
				m.connect(delta, i, services)
			}
			for _, ev := range []tenancy.Event{
				meshSlice(0, 1, false),
				put(tenancy.KindService, "ns-000", "s2", nil),
				put(tenancy.KindServiceGrant, "ns-000", "offer", &tenancy.ServiceGrant{
					From: []tenancy.GrantFrom{{Tenant: "tenant-001", All: true}},
					To:   []tenancy.GrantTo{{Service: "s1", Ports: tenancy.PortSet{All: true}}},
				}),
				put(tenancy.KindServiceRequest, "ns-001", "take", &tenancy.ServiceRequest{
					Namespace: "ns-000", Service: "s1", Ports: tenancy.PortSet{All: true},
				}),
			} {
				synctest.Wait()
				start := m.srv.Counts()
				m.publisher.Apply([]tenancy.Event{ev})
				synctest.Wait()
				got = append(got, m.srv.Counts().less(start))
			}
		})
		return got
	}
	small, large := cost(3), cost(60)
	require.Equal(t, small, large)
	require.Equal(t, uint64(1), small[0].Encodes[snapshot.Endpoint])
	require.Equal(t, uint64(1), small[0].Wakes)
	require.Zero(t, small[2], "a grant that nobody requested costs nobody anything")
	require.NotZero(t, small[3].Sends[snapshot.Cluster])
}

func (c Counts) less(o Counts) Counts {
	for t := range snapshot.NumTypes {
		c.Encodes[t] -= o.Encodes[t]
		c.Sends[t] -= o.Sends[t]
		c.Bytes[t] -= o.Bytes[t]
	}
	c.Wakes -= o.Wakes
	return c
}

// Whatever a tenant without a live grant does or suffers, another one's stream
// carries the same bytes in the same order: names, versions, nonces and all.
func TestNonInterference(t *testing.T) {
	const services = 3
	bundle := meshBundle(t)
	// run returns all frames of tenant 1, which changes itself a little, while
	// there are deeds of tenant 0, or against it, before each of those steps.
	run := func(t *testing.T, mode protocol, deeds [][]deed) [][]byte {
		var out [][]byte
		synctest.Test(t, func(t *testing.T) {
			m := newMesh(t, bundle, append(meshTenant(0, services), meshTenant(1, services)...))
			a, b := &rascal{mesh: m, mode: mode}, m.connect(mode, 1, services)
			a.connect()
			out = append(out, raws(b.first)...)
			own := [][]tenancy.Event{
				{meshSlice(1, 1, false)}, {put(tenancy.KindService, "ns-001", "s2", nil)}, {meshSlice(1, 1, true)},
			}
			for i, events := range own {
				if deeds != nil {
					for _, d := range deeds[i] {
						m.publisher.Apply(d.events)
						a.attack(d.attack)
						a.take()
					}
				}
				m.publisher.Apply(events)
				out = append(out, raws(b.take())...)
			}
			time.Sleep(time.Minute) // of the bubble's clock: whatever was gathered is out
			out = append(out, raws(b.take())...)
		})
		return out
	}
	for _, mode := range []protocol{delta, state} {
		quiet := run(t, mode, nil)
		require.NotEmpty(t, quiet)
		everything := [][]deed{{{attack: lie}, {attack: flood}, {attack: overflow}}, {{events: allGone()}}, {{events: meshTenant(0, services)}, {attack: overflow}}}
		require.Equal(t, quiet, run(t, mode, everything))
		rapid.Check(t, func(rt *rapid.T) {
			deeds := make([][]deed, 3)
			for i := range deeds {
				deeds[i] = rapid.SliceOfN(rapid.Custom(drawDeed), 0, 12).Draw(rt, "deeds")
			}
			require.Equal(rt, quiet, run(t, mode, deeds))
		})
	}
}

// deed is what happens to tenant 0: events, and then an attack by its proxy.
type deed struct {
	events []tenancy.Event
	attack attack
}

// attack is what a proxy does beside what a proxy does.
type attack int

const (
	none     attack = iota
	lie             // refuses everything with a forged text
	flood           // asks and asks for others' names
	overflow        // the same until it is cut off, which takes too long to be drawn often
)

// drawDeed is an event of tenant 0, its end with all that it has, its return, or
// an attack.
func drawDeed(t *rapid.T) deed {
	switch rapid.IntRange(0, 9).Draw(t, "deed") {
	case 0: // in any order, as controllers do it
		return deed{events: rapid.Permutation(allGone()).Draw(t, "gone")}
	case 1:
		return deed{events: meshTenant(0, 3)}
	case 2, 3:
		return deed{attack: attack(rapid.IntRange(int(lie), int(flood)).Draw(t, "attack"))}
	default:
		return deed{events: []tenancy.Event{drawChurn(t)}}
	}
}

// allGone removes tenant 0 with whatever drawChurn may have made.
func allGone() []tenancy.Event {
	const ns = "ns-000"
	events := []tenancy.Event{
		put(tenancy.KindTenant, "", "tenant-000", nil), put(tenancy.KindNamespace, "", ns, nil), put(tenancy.KindServiceGrant, ns, "offer", nil),
		put(tenancy.KindServiceRequest, ns, "take", nil), put(tenancy.KindAccessPolicy, ns, "p", nil),
	}
	for i := range 5 {
		name := fmt.Sprint("s", i)
		events = append(events, put(tenancy.KindService, ns, name, nil), put(tenancy.KindPod, ns, name, nil),
			put(tenancy.KindEndpointSlice, ns, name, nil), put(tenancy.KindNamespace, "", fmt.Sprint("more-", i), nil))
	}
	return events
}

// rascal is a proxy of tenant 0 that comes back when it is cut off.
type rascal struct {
	mesh *mesh
	mode protocol
	c    *client
	over bool
	// lied is set once it refused what it got.
	lied bool
	// last are the frames that it did not answer.
	last []frameOf
}

func (r *rascal) connect() {
	r.c, r.over, r.lied, r.last = r.mesh.prepare(r.mode), false, false, nil
	node := &corev3.Node{Id: "ns-000/s0"}
	r.mesh.start(r.c, identity.Workload{TrustDomain: meshDomain, Namespace: "ns-000", ServiceAccount: "s0"})
	r.try(&request{url: snapshot.Cluster.URL(), node: node})
	r.try(&request{url: snapshot.Listener.URL()})
	r.try(&request{url: snapshot.Route.URL(), subscribe: []string{"http-80"}, names: []string{"http-80"}})
}

// try sends a request, if the stream lives.
func (r *rascal) try(req *request) {
	select {
	case r.c.in <- req:
	case err := <-r.c.done:
		r.over = true
		r.c.done <- err // for whoever else looks
	}
}

func (r *rascal) take() { r.last = append(r.last, r.c.take()...) }

func (r *rascal) attack(a attack) {
	const few, many = 50, 1200 // many are more than a stream may ask at once
	if a != none && r.over {
		r.connect()
	}
	switch a {
	case lie:
		r.take()
		require.True(r.mesh.t, r.lied || len(r.last) > 0, "there is something to refuse")
		r.lied = true
		for range 20 { // what is refused comes again, in parts
			frames := r.last
			r.last = nil
			for _, f := range frames {
				r.try(&request{url: urlOf(f.Type), nonce: f.Nonce, failed: &statuspb.Status{Code: 13, Message: "s0.ns-001.svc.cluster.local:80 of tenant-001: bad"}})
			}
			r.take()
		}
	case flood, overflow:
		n := few
		if a == overflow {
			n = many
		}
		for i := range n {
			names := []string{fmt.Sprintf("s%d.ns-001.svc.cluster.local:80", i%4), fmt.Sprint("random-", i)}
			r.try(&request{url: snapshot.Endpoint.URL(), subscribe: names, names: names})
		}
		if synctest.Wait(); a == overflow {
			require.NotEmpty(r.mesh.t, r.c.done, "it is cut off")
		}
	}
}

// drawChurn is something that tenant 0 or the platform may do to tenant 0.
func drawChurn(t *rapid.T) tenancy.Event {
	const ns = "ns-000"
	svc := fmt.Sprint("s", rapid.IntRange(0, 4).Draw(t, "service"))
	switch rapid.IntRange(0, 8).Draw(t, "churn") {
	case 0:
		return meshSlice(0, rapid.IntRange(0, 2).Draw(t, "slice"), rapid.Bool().Draw(t, "ready"))
	case 1:
		return put(tenancy.KindService, ns, svc, nil)
	case 2:
		return put(tenancy.KindService, ns, svc, &tenancy.Service{Ports: []tenancy.ServicePort{
			{Name: "http", Port: uint16(rapid.IntRange(80, 90).Draw(t, "port")), Protocol: tenancy.HTTP1},
		}})
	case 3: // an offer that nobody takes
		return put(tenancy.KindServiceGrant, ns, "offer", &tenancy.ServiceGrant{
			From: []tenancy.GrantFrom{{Tenant: "tenant-001", All: true}},
			To:   []tenancy.GrantTo{{Service: svc, Ports: tenancy.PortSet{All: true}}},
		})
	case 4: // a request for what nobody offers
		return put(tenancy.KindServiceRequest, ns, "take", &tenancy.ServiceRequest{
			Namespace: "ns-001", Service: svc, Ports: tenancy.PortSet{All: true},
		})
	case 5:
		return put(tenancy.KindAccessPolicy, ns, "p", &tenancy.AccessPolicy{
			Action: tenancy.Deny, Rules: []tenancy.AccessRule{{Sources: []tenancy.AccessSource{{Tenant: "tenant-001"}}}},
		})
	case 6:
		return put(tenancy.KindTenant, "", "tenant-000", &tenancy.Tenant{
			TrustDomain: meshDomain, Outbound: tenancy.AllowAny, Suspended: rapid.Bool().Draw(t, "suspended"),
		})
	case 7:
		return put(tenancy.KindTenant, "", "tenant-000", nil)
	default:
		return put(tenancy.KindNamespace, "", fmt.Sprint("more-", rapid.IntRange(0, 3).Draw(t, "namespace")), &tenancy.Namespace{Tenant: "tenant-000"})
	}
}

// What a proxy says of itself changes no byte, but for the choice of its own
// listeners and of the inbound clusters behind them.
func TestForgedNodeChangesNoByte(t *testing.T) {
	const services = 2
	bundle := meshBundle(t)
	metadata := func(m map[string]any) *structpb.Struct {
		s, err := structpb.NewStruct(m)
		require.NoError(t, err)
		return s
	}
	first := func(mode protocol, node *corev3.Node) (frames []frameOf) {
		synctest.Test(t, func(t *testing.T) {
			m := newMesh(t, bundle, append(meshTenant(0, services), meshTenant(1, services)...))
			frames = m.connectAs(mode, 1, services, node).first
		})
		return frames
	}
	for _, mode := range []protocol{delta, state} {
		honest := first(mode, &corev3.Node{Id: "ns-001/s0"})
		require.NotEmpty(t, honest)
		for name, node := range map[string]*corev3.Node{
			"cluster":  {Id: "ns-001/s0", Cluster: "tenant-000"},
			"locality": {Id: "ns-001/s0", Locality: &corev3.Locality{Region: "ns-000", Zone: "tenant-000"}},
			"metadata": {Id: "ns-001/s0", Metadata: metadata(map[string]any{
				"NAMESPACE": "ns-000", "tenant": "tenant-000", "bailiwick": map[string]any{"tenant": "tenant-000", "namespace": "ns-000"},
			})},
		} {
			require.Equal(t, raws(honest), raws(first(mode, node)), "%s, %s", name, mode)
		}
		// Another tenant's Pod is as good as none.
		nobody := first(mode, &corev3.Node{})
		require.Equal(t, raws(nobody), raws(first(mode, &corev3.Node{Id: "ns-000/s0"})))
		require.NotEqual(t, raws(nobody), raws(honest), "the own Pod brings the inbound side")

		explicit := first(mode, &corev3.Node{Id: "ns-001/s0", Metadata: metadata(map[string]any{
			"bailiwick": map[string]any{"capture": "explicit", "bind_address": "127.0.0.9", "app_address": "127.0.0.8"},
		})})
		for _, typ := range []string{"endpoint", "route"} {
			require.Equal(t, rawsOf(honest, typ), rawsOf(explicit, typ))
		}
		require.NotEqual(t, rawsOf(honest, "listener"), rawsOf(explicit, "listener"))
	}
}

// rawsOf are the messages of one type without their nonces.
func rawsOf(frames []frameOf, typ string) (out [][]byte) {
	for _, f := range frames {
		if f.Type == typ {
			out = append(out, bytes.TrimSuffix(f.raw, []byte(f.Nonce)))
		}
	}
	return out
}
