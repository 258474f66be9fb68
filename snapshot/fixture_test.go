package snapshot

import (
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
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy"
)

// mesh makes the events of a mesh in which every tenant has one namespace.
type mesh struct{ tenants, services int }

var authority = sync.OnceValue(func() []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
		URIs: []*url.URL{{Scheme: "spiffe", Host: "mesh.example"}},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
})

func tenantName(i int) string  { return fmt.Sprintf("t%d", i) }
func serviceName(i int) string { return fmt.Sprintf("s%d", i) }
func nsName(i int) string      { return fmt.Sprintf("ns%d", i) }

func ref(kind tenancy.Kind, ns, name string) tenancy.Ref {
	return tenancy.Ref{Kind: kind, Key: tenancy.Key{Namespace: ns, Name: name}}
}

func put(kind tenancy.Kind, ns, name string, o tenancy.Object) tenancy.Event {
	return tenancy.Event{Ref: ref(kind, ns, name), Object: o}
}

func gone(kind tenancy.Kind, ns, name string) tenancy.Event {
	return tenancy.Event{Ref: ref(kind, ns, name)}
}

func podIP(tenant, service int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(tenant / 200), byte(tenant % 200), byte(service)})
}

func slice(tenant, service int, ready bool) tenancy.Event {
	name := serviceName(service)
	return put(tenancy.KindEndpointSlice, nsName(tenant), name, &tenancy.EndpointSlice{
		Service: name, Ports: []tenancy.SlicePort{{Name: "http", Port: 8080}},
		Endpoints: []tenancy.Endpoint{
			{Addresses: []netip.Addr{podIP(tenant, service)}, Ready: true, Serving: true, PodName: name},
			{Addresses: []netip.Addr{podIP(tenant, service+100)}, Ready: ready, Serving: ready, PodName: name + "-b"},
		},
	})
}

func service(tenant, service int, port uint16) tenancy.Event {
	return put(tenancy.KindService, nsName(tenant), serviceName(service), &tenancy.Service{
		ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{172, byte(16 + tenant/200), byte(tenant % 200), byte(service)})},
		Ports:      []tenancy.ServicePort{{Name: "http", Port: port, Protocol: tenancy.HTTP1}},
	})
}

func (m mesh) tenant(i int) []tenancy.Event {
	ns := nsName(i)
	events := []tenancy.Event{
		put(tenancy.KindTenant, "", tenantName(i), &tenancy.Tenant{TrustDomain: "mesh.example"}),
		put(tenancy.KindNamespace, "", ns, &tenancy.Namespace{Tenant: tenantName(i)}),
	}
	for s := range m.services {
		for _, suffix := range []string{"", "-b"} {
			n := s
			if suffix != "" {
				n += 100
			}
			events = append(events, put(tenancy.KindPod, ns, serviceName(s)+suffix, &tenancy.Pod{
				ServiceAccount: serviceName(s), Labels: map[string]string{"app": serviceName(s)}, IPs: []netip.Addr{podIP(i, n)},
			}))
		}
		events = append(events, service(i, s, 80), slice(i, s, true),
			put(tenancy.KindAccessPolicy, ns, serviceName(s), &tenancy.AccessPolicy{
				MatchLabels: map[string]string{"app": serviceName(s)},
				Rules:       []tenancy.AccessRule{{Sources: []tenancy.AccessSource{{Namespace: ns}}}},
			}))
	}
	return events
}

func (m mesh) events() []tenancy.Event {
	events := []tenancy.Event{put(tenancy.KindTrustBundle, "", "mesh.example", &tenancy.TrustBundle{PEM: authority()})}
	for i := range m.tenants {
		events = append(events, m.tenant(i)...)
	}
	return events
}

// running is a publisher whose loop runs until the test ends.
type running struct {
	*Publisher
	t testing.TB
}

func newPublisher(t testing.TB) *Publisher {
	t.Helper()
	p, err := NewPublisher(Config{
		Model:   tenancy.NewModel(tenancy.Config{ClusterDomain: "cluster.local", TrustDomains: []string{"mesh.example"}, Limits: tenancy.DefaultLimits()}),
		Builder: NewBuilder(BuilderConfig{ClusterDomain: "cluster.local"}),
		Logger:  slog.New(slog.DiscardHandler),
		// So short that nothing is ever gathered: when is window_test's matter.
		Quiet: 1, Max: 1,
	})
	require.NoError(t, err)
	p.gather = 1
	return p
}

func start(t testing.TB, events []tenancy.Event) *running {
	t.Helper()
	return startWith(t, newPublisher(t), events)
}

func startWith(t testing.TB, p *Publisher, events []tenancy.Event) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }() // ends with cancel
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	p.Apply(events)
	p.Synced()
	<-p.Ready()
	return &running{p, t}
}

// settle returns once the loop has absorbed and built all that was handed in.
// The tests' changes are few enough to be built without waiting.
func (r *running) settle() *Dump {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	d, err := r.Dump(ctx)
	require.NoError(r.t, err)
	return d
}

func workloadOf(tenant, service int) identity.Workload {
	return identity.Workload{TrustDomain: "mesh.example", Namespace: nsName(tenant), ServiceAccount: serviceName(service)}
}

// connect attaches the proxy of a service's first Pod and waits for its binding.
func (r *running) connect(tenant, service int) *Attachment {
	r.t.Helper()
	a := r.Attach(Proxy{Workload: workloadOf(tenant, service), Pod: serviceName(service)})
	<-a.Wake()
	return a
}

// contents are the versions of all that a is bound to, by type and name.
func contents(a *Attachment) map[Child]string {
	out := map[Child]string{}
	a.Read(func(b *Binding) {
		for _, l := range b.Layers() {
			for t := range NumTypes {
				l.All(t, func(res *Resource) { out[Child{t, res.Name()}] = res.Version() })
			}
		}
	})
	return out
}
