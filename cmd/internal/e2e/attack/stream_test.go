package attack

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/stretchr/testify/require"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"

	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/xds/adsclient"
)

// forged is a node that claims to be the victim in every field that there is.
func forged(id string) *corev3.Node {
	fields, _ := structpb.NewStruct(map[string]any{
		"tenant": "globex", "NAMESPACE": "globex-shop", "TRUST_DOMAIN": "globex.example", "SERVICE_ACCOUNT": "globex-shop-orders-account",
		"bailiwick": map[string]any{"tenant": "globex", "namespace": "globex-shop", "spiffe_id": globexOrders},
	})
	return &corev3.Node{
		Id: id, Cluster: "globex", UserAgentName: "globex", Metadata: fields, ClientFeatures: []string{"globex"},
		Locality: &corev3.Locality{Region: "globex", Zone: "globex-shop-zone"},
	}
}

func forgedNode(w *world) {
	w.protocols(func(w *world, p adsclient.Protocol) {
		honest := w.said(w.proxy(p, acmeInside, options{}))
		none := w.said(w.proxy(p, acmeInside, options{node: &corev3.Node{}}))
		require.NotEqual(w.t, honest, none, "its Pod brings the inbound side")
		require.Equal(w.t, honest, w.said(w.proxy(p, acmeInside, options{node: forged(podOf(acmeInside))})))
		for _, id := range []string{podOf(globexOrders), podOf(acmeWeb), "acme-web/../globex-shop/orders-0", "acme-web/orders-0/x", "/orders-0", "\n", strings.Repeat("x", 5000)} {
			require.Equal(w.t, none, w.said(w.proxy(p, acmeInside, options{node: forged(id)})), "node id %.40q", id)
		}
	})
}

func nodeMidStream(w *world) {
	w.protocols(func(w *world, p adsclient.Protocol) {
		honest := w.said(w.proxy(p, acmeInside, options{}))
		c := w.proxy(p, acmeInside, options{})
		c.SetNode(forged(podOf(globexOrders)))
		require.Equal(w.t, honest, w.said(c))
	})
}

// connection is a gRPC connection with a certificate, or with none.
func (w *world) connection(config *tls.Config) *grpc.ClientConn {
	w.t.Helper()
	conn, err := grpc.NewClient(w.server.XDS.String(), grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithNoProxy())
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// every is every method of every service that this program has ever heard of,
// and some that others have.
func every() []string {
	methods := []string{
		"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "/envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus",
		"/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus", "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats",
		"envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources", "/", "",
	}
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				if s.FullName() != "envoy.service.discovery.v3.AggregatedDiscoveryService" {
					methods = append(methods, fmt.Sprintf("/%s/%s", s.FullName(), s.Methods().Get(j).Name()))
				}
			}
		}
		return true
	})
	return methods
}

func otherMethods(w *world) {
	for _, id := range []string{acmeInside, "spiffe://acme.example/ns/nobody/sa/x"} {
		conn := w.connection(w.tls(id, options{}))
		for _, method := range every() {
			require.Contains(w.t, []codes.Code{codes.PermissionDenied, codes.Unimplemented}, w.call(conn, method), "%q as %s", method, id)
		}
	}
	none := w.tls(acmeInside, options{})
	none.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	conn := w.connection(none)
	for _, method := range append(every()[:8], "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources") {
		require.Equal(w.t, codes.Unavailable, w.call(conn, method), "%q with no certificate", method)
	}
}

// call opens an RPC, sends an empty message and returns with what it ended.
func (w *world) call(conn *grpc.ClientConn, method string) codes.Code {
	w.t.Helper()
	s, err := conn.NewStream(w.bounded(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err == nil {
		_ = s.SendMsg(&emptypb.Empty{}) // what became of it is told below
		err = s.RecvMsg(&emptypb.Empty{})
	}
	return status.Code(err)
}

func stolenToken(w *world) {
	const token = "Bearer eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6Z2xvYmV4LXNob3A6Z2xvYmV4In0.x"
	// With a certificate of its own the token changes nothing.
	conn := w.connection(w.tls(acmeInside, options{}))
	ask := func(headers ...string) string {
		ctx := metadata.AppendToOutgoingContext(w.bounded(), headers...)
		s, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
		require.NoError(w.t, err)
		require.NoError(w.t, s.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: podOf(acmeInside)}, TypeUrl: snapshot.Cluster.URL()}))
		m, err := s.Recv()
		require.NoError(w.t, err)
		raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		require.NoError(w.t, err)
		return string(raw)
	}
	require.Equal(w.t, ask(), ask("authorization", token, "x-tenant-id", "globex", "x-forwarded-client-cert", "URI="+globexOrders, "x-spiffe-id", globexOrders))
	none := w.tls(acmeInside, options{})
	none.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	s, err := w.connection(none).NewStream(metadata.AppendToOutgoingContext(w.bounded(), "authorization", token),
		&grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources")
	if err == nil {
		err = s.RecvMsg(&emptypb.Empty{})
	}
	require.Equal(w.t, codes.Unavailable, status.Code(err))
}

// belongings are names of the victim by type, with their versions, as its own
// proxies have them.
func (w *world) belongings(p adsclient.Protocol) map[snapshot.Type]map[string]string {
	w.t.Helper()
	out := map[snapshot.Type]map[string]string{}
	for _, id := range []string{globexWeb, globexOrders} {
		c := w.proxy(p, id, options{})
		for typ := range snapshot.NumTypes {
			for name, e := range c.State(typ.URL()) {
				if strings.Contains(name, "globex") || strings.HasPrefix(name, "10.96.") {
					if out[typ] == nil {
						out[typ] = map[string]string{}
					}
					out[typ][name] = e.Version
				}
			}
		}
		require.NoError(w.t, c.Close())
	}
	require.NotEmpty(w.t, out[snapshot.Cluster])
	require.NotEmpty(w.t, out[snapshot.Endpoint])
	require.NotEmpty(w.t, out[snapshot.Secret])
	// What has no tenant in its name.
	out[snapshot.Listener] = map[string]string{"10.96.3.1_8080": "x", "10.96.4.1_8080": "x"}
	out[snapshot.Route] = map[string]string{"http-9090": "x"}
	out[snapshot.Extension] = map[string]string{"rbac-http-9090": "x"}
	delete(out[snapshot.Secret], "bundle/acme.example")
	return out
}

// exchange sends requests on a stream of their own and returns all answers.
func (w *world) exchange(p adsclient.Protocol, requests ...proto.Message) []string {
	w.t.Helper()
	c, err := w.dial(p, acmeInside, options{})
	require.NoError(w.t, err)
	w.said(c) // from here on the server knows who asks
	for _, r := range requests {
		require.NoError(w.t, c.Send(r))
	}
	out := w.said(c)
	require.NoError(w.t, c.Close())
	return out
}

// subscribe is a first request for one name.
func subscribe(p adsclient.Protocol, typ snapshot.Type, name string) proto.Message {
	node := &corev3.Node{Id: podOf(acmeInside)}
	if p == adsclient.SotW {
		return &discoveryv3.DiscoveryRequest{Node: node, TypeUrl: typ.URL(), ResourceNames: []string{name}}
	}
	return &discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: typ.URL(), ResourceNamesSubscribe: []string{name}}
}

// alone is a world in which there is no victim.
func (w *world) alone() *world {
	return newWorld(w.t, w.cluster, nil, func(w *world) {
		require.NoError(w.t, os.RemoveAll(filepath.Join(w.dir, "tenants/globex")))
		w.remove("platform/namespace-globex-shop.yaml")
		w.remove("platform/namespace-globex-web.yaml")
		tenants := w.read("platform/tenants.yaml")
		w.write("platform/tenants.yaml", tenants[:strings.Index(tenants, "---")])
	})
}

func foreignNames(w *world) {
	alone := w.alone()
	w.protocols(func(w *world, p adsclient.Protocol) {
		for typ, names := range w.belongings(p) {
			for name := range names {
				got := w.exchange(p, subscribe(p, typ, name))
				require.NotContains(w.t, strings.ReplaceAll(strings.Join(got, ""), name, ""), "globex")
				require.Equal(w.t, alone.in(w.t).exchange(p, subscribe(p, typ, name)), got, "%s %q: as if nobody had it", typ, name)
			}
		}
	})
}

func wildcards(w *world) {
	w.protocols(func(w *world, p adsclient.Protocol) {
		own := w.proxy(p, acmeInside, options{})
		for typ := range snapshot.NumTypes {
			for _, name := range []string{
				"*", "", "xdstp://globex.example/" + strings.TrimPrefix(typ.URL(), "type.googleapis.com/") + "/*", "xdstp:///" + typ.URL() + "/*?tenant=globex",
				"globex*", "*.globex-shop.svc.cluster.local:8080", "../globex",
			} {
				got := strings.Join(w.exchange(p, subscribe(p, typ, name)), "")
				require.NotContains(w.t, strings.ReplaceAll(got, name, ""), "globex", "%s %q", typ, name)
			}
		}
		c, err := w.dial(p, acmeInside, options{})
		require.NoError(w.t, err)
		for typ := range snapshot.NumTypes {
			require.NoError(w.t, c.Wildcard(typ.URL()))
		}
		w.said(c)
		for typ := range snapshot.NumTypes {
			if typ == snapshot.Cluster || typ == snapshot.Listener {
				require.Equal(w.t, own.Names(typ.URL()), c.Names(typ.URL()), typ)
				continue
			}
			require.Subset(w.t, own.Names(typ.URL()), without(c.Names(typ.URL()), "end-"), typ)
		}
	})
}

func without(names []string, prefix string) []string {
	return slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, prefix) })
}

func oracles(w *world) {
	alone := w.alone()
	w.protocols(func(w *world, p adsclient.Protocol) {
		for typ, names := range w.belongings(p) {
			for name, version := range names {
				stated := func(w *world, version string) []string {
					node := &corev3.Node{Id: podOf(acmeInside)}
					if p == adsclient.SotW {
						return w.exchange(p, &discoveryv3.DiscoveryRequest{
							Node: node, TypeUrl: typ.URL(), ResourceNames: []string{name}, VersionInfo: version, ResponseNonce: "7",
						})
					}
					return w.exchange(p, &discoveryv3.DeltaDiscoveryRequest{
						Node: node, TypeUrl: typ.URL(), ResourceNamesSubscribe: []string{name}, ResponseNonce: "7",
						InitialResourceVersions: map[string]string{name: version},
					})
				}
				got := stated(w, version)
				require.Equal(w.t, stated(w, strings.Repeat("r", len(version))), got, "%s %q: its true version is as good as any", typ, name)
				require.Equal(w.t, stated(alone.in(w.t), version), got, "%s %q: as if nobody had it", typ, name)
			}
		}
	})
}

func secretTheft(w *world) {
	w.protocols(func(w *world, p adsclient.Protocol) {
		for _, name := range []string{
			"default", "ROOTCA", "inbound", "bundle/globex.example", "bundle/platform.example", globexOrders, acmeInside,
			"kubernetes://globex-tls", "kubernetes-gateway://globex-shop/cert", "file-cert:/etc/passwd", "key",
		} {
			got := w.exchange(p, subscribe(p, snapshot.Secret, name))
			text := strings.ReplaceAll(strings.Join(got, ""), name, "")
			require.NotContains(w.t, text, "PRIVATE KEY")
			require.NotContains(w.t, text, "globex")
			require.NotContains(w.t, text, "private_key")
		}
		// Whoever has the grant has the bundle with which to verify, and no more.
		c := w.proxy(p, acmeWeb, options{})
		require.Contains(w.t, c.Names(snapshot.Secret.URL()), "bundle/globex.example")
		require.NotContains(w.t, strings.Join(w.said(c), ""), "PRIVATE KEY")
	})
}

func debugPorts(w *world) {
	pages := []string{"/dump", "/streams", "/debug/pprof/", "/debug/pprof/heap", "/debug/configz", "/config_dump", "/debug/vars", "/metrics/../dump"}
	for _, page := range pages {
		resp, err := http.Get("http://" + w.server.Health.String() + page)
		require.NoError(w.t, err)
		body, _ := io.ReadAll(resp.Body)
		require.NoError(w.t, resp.Body.Close())
		require.Equal(w.t, http.StatusNotFound, resp.StatusCode, page)
		require.NotContains(w.t, string(body), "globex")
	}
	transport := &http.Transport{TLSClientConfig: w.tls(acmeInside, options{}), ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	for _, page := range append(pages, "/metrics", "/readyz") {
		resp, err := (&http.Client{Transport: transport}).Get("https://" + w.server.XDS.String() + page)
		if err != nil {
			continue // gRPC has no word for it
		}
		body, _ := io.ReadAll(resp.Body)
		require.NoError(w.t, resp.Body.Close())
		require.NotEqual(w.t, http.StatusOK, resp.StatusCode, page)
		require.Empty(w.t, body, page)
	}
	text, err := w.run("serve", "--config-dir", w.dir, "--cert", "c", "--key", "k", "--trust-bundle", "a.example=b", "--admin-address", "0.0.0.0:0")
	require.Error(w.t, err)
	require.Contains(w.t, text, "want a loopback IP address")
}

// answer is an answer to a response that there was not.
func answer(p adsclient.Protocol, failed bool) proto.Message {
	var detail *statuspb.Status
	if failed {
		detail = &statuspb.Status{Code: int32(codes.InvalidArgument), Message: "globex-shop/orders is invalid"}
	}
	if p == adsclient.SotW {
		return &discoveryv3.DiscoveryRequest{TypeUrl: snapshot.Cluster.URL(), ResponseNonce: "1", VersionInfo: "1", ErrorDetail: detail}
	}
	return &discoveryv3.DeltaDiscoveryRequest{TypeUrl: snapshot.Cluster.URL(), ResponseNonce: "1", ErrorDetail: detail}
}

// liar NACKs whatever it gets, in the victim's name.
func liar(w *world) {
	w.unansweredBy(func(*adsclient.Message) adsclient.Verdict {
		return adsclient.Nack("Error adding/updating cluster(s) orders.globex-shop.svc.cluster.local:8080: spiffe://globex.example is invalid\nACCESS GRANTED")
	})
}

// mute answers nothing.
func mute(w *world) {
	w.unansweredBy(func(*adsclient.Message) adsclient.Verdict { return adsclient.Hold() })
}

// unansweredBy has proxies of both sides of the grant behave badly, and requires
// that the honest ones get the same bytes, and the revocation at once.
func (w *world) unansweredBy(answers func(*adsclient.Message) adsclient.Verdict) {
	w.renew(nil)
	misbehave := func(ids ...string) {
		for _, id := range ids {
			for _, p := range []adsclient.Protocol{adsclient.Delta, adsclient.SotW} {
				c, err := w.dial(p, id, options{answers: answers, follow: adsclient.FollowReferences})
				require.NoError(w.t, err)
				require.NoError(w.t, c.Wait(w.bounded(), func(v adsclient.View) bool { return v.Total("").Messages > 1 }))
			}
		}
	}
	honest := map[string][]string{}
	for _, id := range []string{globexWeb, globexOrders} {
		honest[id] = w.said(w.proxy(adsclient.Delta, id, options{}))
	}
	misbehave(acmeWeb, acmeInside, acmeOrders)
	for id, said := range honest {
		require.Equal(w.t, said, w.said(w.proxy(adsclient.Delta, id, options{})), id)
	}
	// Those of one's own tenant and identity hold nothing back either.
	misbehave(globexWeb, globexOrders)
	w.changesArrive()
	w.revoked(func() { w.remove(grantFile) })
}

// revoked requires that what revoke does takes the consumer out of the
// producer's RBAC and the service out of the consumer's clusters.
func (w *world) revoked(revoke func()) {
	w.t.Helper()
	const cluster, rbac = "orders.globex-shop.svc.cluster.local:8080", "rbac-http-8080"
	for _, p := range []adsclient.Protocol{adsclient.Delta} {
		consumer, producer := w.proxy(p, acmeWeb, options{}), w.proxy(p, globexOrders, options{})
		allows := func(v adsclient.View) bool {
			e, _ := v.Get(snapshot.Extension.URL(), rbac)
			return strings.Contains(string(e.Any), "spiffe://acme.example/ns/acme-shop/")
		}
		require.NoError(w.t, producer.Wait(w.bounded(), allows))
		require.NoError(w.t, consumer.Wait(w.bounded(), func(v adsclient.View) bool { return v.Has(snapshot.Cluster.URL(), cluster) }))
		revoke()
		require.NoError(w.t, producer.Wait(w.bounded(), func(v adsclient.View) bool { return v.Has(snapshot.Extension.URL(), rbac) && !allows(v) }))
		require.NoError(w.t, consumer.Wait(w.bounded(), func(v adsclient.View) bool { return !v.Has(snapshot.Cluster.URL(), cluster) }))
	}
}

// listening compares the victim's noisy minute with the listener's log.
func listening(w *world) {
	w.renew(nil)
	w.protocols(func(w *world, p adsclient.Protocol) {
		listener := w.proxy(p, acmeInside, options{})
		victim := w.proxy(p, globexWeb, options{})
		before := w.said(listener)
		for i := range 20 {
			name := fmt.Sprintf("noise-%d", i)
			w.write("tenants/globex/noise.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: "+name+", namespace: globex-web}\nspec: {clusterIP: None, ports: [{name: http, port: 80}]}\n")
			require.NoError(w.t, victim.Wait(w.bounded(), func(v adsclient.View) bool {
				return v.Has(snapshot.Cluster.URL(), name+".globex-web.svc.cluster.local:80")
			}))
		}
		w.remove("tenants/globex/noise.yaml")
		after := w.said(listener)
		require.Len(w.t, after, len(before)+1, "not one message but the answer to its own question")
	})
}

// oldEnvoy is marked where the platform looks, and served like any other.
func oldEnvoy(w *world) {
	node := func(minor uint32) *corev3.Node {
		return &corev3.Node{Id: podOf(acmeInside), UserAgentName: "envoy", UserAgentVersionType: &corev3.Node_UserAgentBuildVersion{
			UserAgentBuildVersion: &corev3.BuildVersion{Version: &typev3.SemanticVersion{MajorNumber: 1, MinorNumber: minor, Patch: 3}},
		}}
	}
	before := w.metric("bailiwick_xds_old_proxies_total")
	modern := w.said(w.proxy(adsclient.Delta, acmeInside, options{node: node(40)}))
	require.Equal(w.t, before, w.metric("bailiwick_xds_old_proxies_total"))
	require.Equal(w.t, modern, w.said(w.proxy(adsclient.Delta, acmeInside, options{node: node(30)})))
	require.Equal(w.t, before+1, w.metric("bailiwick_xds_old_proxies_total"))
	streams, err := w.server.Dump(w.ctx, "/streams")
	require.NoError(w.t, err)
	require.Contains(w.t, string(streams), "1.30.3")
}
