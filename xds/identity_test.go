package xds_test

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/structpb"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/xds"
	"bailiwick.dev/bailiwick/xds/adsclient"
	"bailiwick.dev/bailiwick/xds/xdstest"
)

// Two tenants with a trust domain each, the real publisher, the server on
// loopback, certificates of real authorities: what decides is who somebody is,
// and nothing that they say.

const webID = "spiffe://acme.example/ns/acme-shop/sa/web"

type twoTenants struct {
	t       *testing.T
	mesh    *xdstest.Mesh
	running *xdstest.Running
}

func newTwoTenants(t *testing.T) *twoTenants {
	mesh, err := xdstest.NewMesh("acme.example", "globex.example", "unlisted.example")
	require.NoError(t, err)
	domains := []string{"acme.example", "globex.example"}
	p, err := snapshot.NewPublisher(snapshot.Config{
		Model:   tenancy.NewModel(tenancy.Config{ClusterDomain: "cluster.local", TrustDomains: domains, Limits: tenancy.DefaultLimits()}),
		Builder: snapshot.NewBuilder(snapshot.BuilderConfig{ClusterDomain: "cluster.local"}),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }() // ends with cancel
	var events []tenancy.Event
	for i, tenant := range []string{"acme", "globex"} {
		domain := tenant + ".example"
		events = append(events, object(tenancy.KindTrustBundle, "", domain, &tenancy.TrustBundle{PEM: mesh.Authorities[domain].Bundle()}))
		events = append(events, tenantObjects(tenant, byte(i))...)
	}
	p.Apply(events)
	p.Synced()
	running, err := mesh.Serve(xds.Config{Store: p, Limits: p.Limits}, domains...)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, running.Stop())
		cancel()
		require.NoError(t, <-ended)
	})
	return &twoTenants{t: t, mesh: mesh, running: running}
}

func object(kind tenancy.Kind, namespace, name string, o tenancy.Object) tenancy.Event {
	return tenancy.Event{Ref: tenancy.Ref{Kind: kind, Key: tenancy.Key{Namespace: namespace, Name: name}}, Object: o}
}

// tenantObjects are those of a tenant with one namespace and two services, in
// which every name says whose it is.
func tenantObjects(tenant string, n byte) []tenancy.Event {
	namespace := tenant + "-shop"
	events := []tenancy.Event{
		object(tenancy.KindTenant, "", tenant, &tenancy.Tenant{TrustDomain: tenant + ".example"}),
		object(tenancy.KindNamespace, "", namespace, &tenancy.Namespace{Tenant: tenant}),
	}
	for i, app := range []string{"web", "orders"} {
		name, ip := tenant+"-"+app, netip.AddrFrom4([4]byte{10, 0, n, byte(i + 1)})
		events = append(events,
			object(tenancy.KindPod, namespace, app+"-1", &tenancy.Pod{ServiceAccount: app, Labels: map[string]string{"app": app}, IPs: []netip.Addr{ip}}),
			object(tenancy.KindService, namespace, name, &tenancy.Service{
				ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{172, 16, n, byte(i + 1)})},
				Ports:      []tenancy.ServicePort{{Name: "http", Port: 80, Protocol: tenancy.HTTP1}},
			}),
			object(tenancy.KindEndpointSlice, namespace, name, &tenancy.EndpointSlice{
				Service: name, Ports: []tenancy.SlicePort{{Name: "http", Port: 8080}},
				Endpoints: []tenancy.Endpoint{{Addresses: []netip.Addr{ip}, Ready: true, Serving: true, PodName: app + "-1"}},
			}))
	}
	return events
}

// client opens a stream with a certificate.
func (w *twoTenants) client(protocol adsclient.Protocol, authority *identity.Authority, id string, o identity.IssueOptions, node *corev3.Node) (*adsclient.Client, error) {
	w.t.Helper()
	config := w.running.Config
	var err error
	config.TLS, err = w.mesh.TLS(authority, id, o)
	require.NoError(w.t, err)
	config.Protocol, config.Node, config.Follow = protocol, node, adsclient.FollowLikeEnvoy
	return adsclient.Dial(w.t.Context(), config)
}

// web opens a stream of acme's web and returns it when it has everything, with
// all that it was sent. Each request follows from the answers before it, so
// that the same things said make the same messages.
func (w *twoTenants) web(protocol adsclient.Protocol, node, later *corev3.Node) (*adsclient.Client, []*adsclient.Message) {
	w.t.Helper()
	c, err := w.client(protocol, w.mesh.Authorities["acme.example"], webID, identity.IssueOptions{}, node)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { require.NoError(w.t, c.Close()) })
	return c, complete(w.t, c, later)
}

func complete(t *testing.T, c *adsclient.Client, later *corev3.Node) []*adsclient.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	require.NoError(t, c.Wait(ctx, func(v adsclient.View) bool {
		for typ := range snapshot.NumTypes {
			if len(v.Missing(typ.URL())) > 0 {
				return false
			}
		}
		return v.Total(snapshot.Listener.URL()).Messages > 0
	}))
	if later != nil {
		c.SetNode(later)
	}
	// The answer to this one is the last message.
	require.NoError(t, c.Subscribe(snapshot.Endpoint.URL(), "end"))
	var log []*adsclient.Message
	require.NoError(t, c.Wait(ctx, func(v adsclient.View) bool {
		log = slices.Clone(v.Log())
		last := log[len(log)-1]
		return slices.Contains(append(last.Names(), last.Removed...), "end")
	}))
	return log
}

// transcript is all that was received, in its order.
func transcript(log []*adsclient.Message) []string {
	var out []string
	for _, m := range log {
		out = append(out, m.TypeURL+"\x00"+string(m.Raw))
	}
	return out
}

// clean fails if a word of another tenant is anywhere in what was received.
func clean(t *testing.T, log []*adsclient.Message, words ...string) {
	t.Helper()
	for _, m := range log {
		for _, word := range words {
			require.False(t, bytes.Contains(m.Raw, []byte(word)), "%q in a message of %s", word, m.TypeURL)
		}
	}
}

func metadata(t *testing.T, fields map[string]any) *structpb.Struct {
	t.Helper()
	s, err := structpb.NewStruct(fields)
	require.NoError(t, err)
	return s
}

func TestANodeDecidesNothing(t *testing.T) {
	w := newTwoTenants(t)
	liar := &corev3.Node{
		Id: "acme-shop/web-1", Cluster: "globex", UserAgentName: "globex",
		Locality: &corev3.Locality{Region: "globex", Zone: "globex-shop"},
		Metadata: metadata(t, map[string]any{
			"tenant": "globex", "NAMESPACE": "globex-shop", "TRUST_DOMAIN": "globex.example",
			"bailiwick": map[string]any{"tenant": "globex", "namespace": "globex-shop", "spiffe_id": "spiffe://globex.example/ns/globex-shop/sa/web"},
		}),
		ClientFeatures: []string{"globex"},
	}
	stranger := &corev3.Node{Id: "globex-shop/web-1", Cluster: "globex", Metadata: liar.GetMetadata()}
	for _, protocol := range []adsclient.Protocol{adsclient.Delta, adsclient.SotW} {
		t.Run(protocol.String(), func(t *testing.T) {
			honest, log := w.web(protocol, &corev3.Node{Id: "acme-shop/web-1"}, nil)
			require.Contains(t, honest.Names(snapshot.Cluster.URL()), "acme-orders.acme-shop.svc.cluster.local:80")
			require.Contains(t, honest.Names(snapshot.Extension.URL()), "rbac-http-8080", "its Pod's inbound side is there")
			clean(t, log, "globex")

			_, lied := w.web(protocol, liar, nil)
			require.Equal(t, transcript(log), transcript(lied))
			_, turned := w.web(protocol, &corev3.Node{Id: "acme-shop/web-1"}, stranger)
			require.Equal(t, transcript(log), transcript(turned), "nor does another node in the middle of a stream")

			nobody, none := w.web(protocol, nil, nil)
			require.Empty(t, nobody.Names(snapshot.Extension.URL()), "no Pod, no inbound side")
			clean(t, none, "globex")
			for _, id := range []string{"globex-shop/web-1", "acme-shop/orders-1", "acme-shop/../globex-shop/web-1", "/web-1", "acme-shop/web-1/x", "acme-shop/" + strings.Repeat("x", 5000), "\n"} {
				_, other := w.web(protocol, &corev3.Node{Id: id, Cluster: "globex", Metadata: stranger.GetMetadata()}, nil)
				require.Equal(t, transcript(none), transcript(other), "node id %.40q", id)
			}
		})
	}
}

// Metadata may choose the proxy's own listeners. What others may see of it, and
// it of others, stays.
func TestMetadataShapesOwnListenersOnly(t *testing.T) {
	w := newTwoTenants(t)
	for _, protocol := range []adsclient.Protocol{adsclient.Delta, adsclient.SotW} {
		t.Run(protocol.String(), func(t *testing.T) {
			usual, _ := w.web(protocol, &corev3.Node{Id: "acme-shop/web-1"}, nil)
			explicit, log := w.web(protocol, &corev3.Node{Id: "acme-shop/web-1", Metadata: metadata(t, map[string]any{
				"bailiwick": map[string]any{"capture": "explicit", "bind_address": "127.0.0.9", "app_address": "127.0.0.8"},
			})}, nil)
			clean(t, log, "globex")
			require.NotEqual(t, usual.Names(snapshot.Listener.URL()), explicit.Names(snapshot.Listener.URL()))
			for _, typ := range []snapshot.Type{snapshot.Cluster, snapshot.Endpoint, snapshot.Secret, snapshot.Extension, snapshot.Route} {
				require.Equal(t, outside(usual, typ), outside(explicit, typ), typ)
			}
		})
	}
}

// outside is the state without the clusters that lead to the own application.
func outside(c *adsclient.Client, typ snapshot.Type) map[string]string {
	out := map[string]string{}
	for name, e := range c.State(typ.URL()) {
		if typ != snapshot.Cluster || !strings.HasPrefix(name, "inbound-") {
			out[name] = string(e.Any)
		}
	}
	return out
}

func TestForeignIdentitiesGetNothing(t *testing.T) {
	w := newTwoTenants(t)
	acme := w.mesh.Authorities["acme.example"]
	impostor, err := identity.NewAuthority("acme.example")
	require.NoError(t, err)
	past := time.Now().Add(-time.Hour)
	cases := map[string]struct {
		authority *identity.Authority
		id        string
		options   identity.IssueOptions
	}{
		"trust domain that is trusted but not listed": {w.mesh.Authorities["unlisted.example"], "spiffe://unlisted.example/ns/acme-shop/sa/web", identity.IssueOptions{}},
		"another tenant's trust domain":               {acme, "spiffe://globex.example/ns/globex-shop/sa/web", identity.IssueOptions{AnyID: true}},
		"two URI SANs":                                {acme, webID, identity.IssueOptions{ExtraURIs: []string{"spiffe://globex.example/ns/globex-shop/sa/web"}}},
		"the same URI SAN twice":                      {acme, webID, identity.IssueOptions{ExtraURIs: []string{webID}}},
		"no URI SAN":                                  {acme, "", identity.IssueOptions{NoURI: true}},
		"DNS SAN only":                                {acme, "", identity.IssueOptions{NoURI: true, DNSNames: []string{"web.acme-shop"}}},
		"root path":                                   {acme, "spiffe://acme.example", identity.IssueOptions{AnyID: true}},
		"not a workload's path":                       {acme, "spiffe://acme.example/ns/acme-shop/sa/web/x", identity.IssueOptions{}},
		"not a SPIFFE ID":                             {acme, "https://acme.example/ns/acme-shop/sa/web", identity.IssueOptions{AnyID: true}},
		"expired":                                     {acme, webID, identity.IssueOptions{NotBefore: past, NotAfter: past.Add(time.Minute)}},
		"not valid yet":                               {acme, webID, identity.IssueOptions{NotBefore: time.Now().Add(time.Hour)}},
		"signed by somebody else of that name":        {impostor, webID, identity.IssueOptions{}},
	}
	for _, protocol := range []adsclient.Protocol{adsclient.Delta, adsclient.SotW} {
		t.Run(protocol.String(), func(t *testing.T) {
			node := &corev3.Node{Id: "acme-shop/web-1"}
			good, before := w.web(protocol, node, nil)
			for name, c := range cases {
				t.Run(name, func(t *testing.T) { refused(t, w, protocol, c.authority, c.id, c.options) })
			}
			t.Run("another tenant's namespace", func(t *testing.T) {
				// An identity that is well proven and has no tenant: the empty view.
				c, err := w.client(protocol, acme, "spiffe://acme.example/ns/globex-shop/sa/web", identity.IssueOptions{}, &corev3.Node{Id: "globex-shop/web-1"})
				require.NoError(t, err)
				defer func() { require.NoError(t, c.Close()) }()
				log := complete(t, c, nil)
				clean(t, log, "globex", "acme")
				for typ := range snapshot.NumTypes {
					require.Subset(t, []string{"end"}, c.Names(typ.URL()), typ)
				}
			})
			require.NoError(t, good.Err())
			require.NoError(t, good.Subscribe(snapshot.Endpoint.URL(), "still"), "whoever was there is served on")
			_, after := w.web(protocol, node, nil)
			require.Equal(t, transcript(before), transcript(after), "and whoever comes, as before")
		})
	}
}

// refused opens a stream that must not carry a single message.
func refused(t *testing.T, w *twoTenants, protocol adsclient.Protocol, authority *identity.Authority, id string, o identity.IssueOptions) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := w.client(protocol, authority, id, o, &corev3.Node{Id: "acme-shop/web-1"})
	if err != nil {
		return // the handshake failed
	}
	defer func() { require.NoError(t, c.Close()) }()
	err = c.Wait(ctx, func(v adsclient.View) bool { return v.Total("").Messages > 0 })
	require.ErrorIs(t, err, adsclient.ErrEnded)
	require.Error(t, c.Err(), "ended, and not in order")
	require.Empty(t, c.Log())
}
