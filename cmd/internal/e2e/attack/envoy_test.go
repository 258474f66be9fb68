package attack

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/xds/adsclient"
	"bailiwick.dev/bailiwick/xds/bootstrap/envoytest"
)

// sidecar is a workload's real Envoy with its application.
type sidecar struct {
	id    string
	at    mesh.Addresses
	envoy *mesh.Envoy
}

// address is the Pod's, see the fixtures.
func address(id string) netip.Addr {
	last := map[string][2]byte{acmeOrders: {1, 1}, acmeWeb: {1, 2}, acmeInside: {2, 1}, globexOrders: {3, 1}, globexWeb: {4, 1}}[id]
	return netip.AddrFrom4([4]byte{127, byte(built.network), last[0], last[1]})
}

// sidecar starts the Envoy of an identity and an application on each port, and
// waits until it is LIVE.
func (w *world) sidecar(id string, ports ...uint16) *sidecar {
	w.t.Helper()
	binary := envoytest.Binary(w.t)
	at, err := mesh.AddressesOf(address(id))
	require.NoError(w.t, err)
	for _, port := range ports {
		app, err := mesh.StartEcho(w.ctx, podOf(id), netip.AddrPortFrom(at.App, port))
		require.NoError(w.t, err)
		w.t.Cleanup(app.Stop)
	}
	parts := strings.Split(strings.TrimPrefix(id, "spiffe://"), "/")
	s := &sidecar{id: id, at: at}
	s.envoy, err = mesh.StartEnvoy(w.ctx, mesh.EnvoyConfig{
		Binary: binary, Dir: filepath.Join(w.root, "envoy", strings.ReplaceAll(podOf(id), "/", ".")),
		Workload: identity.Workload{TrustDomain: parts[0], Namespace: parts[2], ServiceAccount: parts[4]},
		Pod:      filepath.Base(podOf(id)), CA: w.ca, At: at, XDS: []netip.AddrPort{w.server.XDS}, ServerID: w.server.ID,
		StatsPrefixes: []string{"cluster."},
	})
	require.NoError(w.t, err)
	w.t.Cleanup(s.envoy.Stop)
	require.NoError(w.t, s.envoy.WaitLive(w.ctx))
	return s
}

// certificate is any certificate, by the CA of a trust domain.
func (w *world) certificate(by, id string, o identity.IssueOptions) tls.Certificate {
	w.t.Helper()
	cert, key, err := w.ca.Authority(by).Issue(id, o)
	require.NoError(w.t, err)
	pair, err := tls.X509KeyPair(cert, key)
	require.NoError(w.t, err)
	return pair
}

// raw sends a request on a connection of its own past any proxy of the caller,
// byte for byte, and returns status and what the application saw. Status 0 is a
// connection that was refused.
func (w *world) raw(cert tls.Certificate, to *sidecar, port uint16, request string) (int, mesh.Answer) {
	w.t.Helper()
	conn, err := mesh.DialDirect(w.ctx, netip.AddrPortFrom(to.at.Pod, port), cert, nil, nil)
	if err != nil {
		return 0, mesh.Answer{}
	}
	defer func() { _ = conn.Close() }()
	require.NoError(w.t, conn.SetDeadline(time.Now().Add(patience)))
	_, _ = io.WriteString(conn, request) // refused connections show below
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		var late net.Error
		require.False(w.t, errors.As(err, &late) && late.Timeout(), "no answer to %q", request)
		return 0, mesh.Answer{}
	}
	defer func() { _ = resp.Body.Close() }()
	var a mesh.Answer
	if resp.StatusCode == http.StatusOK {
		require.NoError(w.t, json.NewDecoder(resp.Body).Decode(&a))
	}
	return resp.StatusCode, a
}

func get(path string, headers ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n"
}

// code is raw without what the application saw.
func (w *world) code(cert tls.Certificate, to *sidecar) int {
	w.t.Helper()
	status, _ := w.raw(cert, to, 8080, get("/"))
	return status
}

// untilCode waits for a status.
func (w *world) untilCode(cert tls.Certificate, to *sidecar, want int) {
	w.t.Helper()
	w.until(fmt.Sprint("the answer is ", want), func() error {
		if got := w.code(cert, to); got != want {
			return fmt.Errorf("it is %d", got)
		}
		return nil
	})
}

// nearNames are close to those who may call orders of globex-shop: web and
// orders of acme-shop, by a grant.
func nearNames(w *world) {
	to := w.sidecar(globexOrders, 8080)
	w.untilCode(w.certificate("acme.example", acmeWeb, identity.IssueOptions{}), to, http.StatusOK)
	for _, id := range []string{
		"acme-sho/sa/web", "acme-shop-evil/sa/web", "acme-shop-/sa/web", "acme.shop/sa/web", "acmexshop/sa/web", "acme/sa/web", "sa/sa/web", "ns/sa/acme-shop",
		"acme-web/sa/acme-shop", "xacme-shop/sa/web", "acme-shop%2fsa/web", "acme-shop/../acme-shop/sa/web", "acme-web/ns/acme-shop/sa/web",
		"ACME-SHOP/sa/web", "acme-shop//sa/web", "globex-shop/sa/globex-shop-orders-account",
	} {
		cert := w.certificate("acme.example", "spiffe://acme.example/ns/"+id, identity.IssueOptions{AnyID: true})
		require.Contains(w.t, []int{0, http.StatusForbidden}, w.code(cert, to), id)
	}
	// web of globex-web is let in by its very name.
	w.untilCode(w.certificate("globex.example", globexWeb, identity.IssueOptions{}), to, http.StatusOK)
	for _, id := range []string{globexWeb + "2", globexWeb + "-x", globexWeb + ".x", globexWeb + "/x", globexWeb[:len(globexWeb)-1], strings.Replace(globexWeb, "/sa/", "/sa/x", 1)} {
		require.Contains(w.t, []int{0, http.StatusForbidden}, w.code(w.certificate("globex.example", id, identity.IssueOptions{AnyID: true}), to), id)
	}
	for _, id := range []string{"spiffe://acme.example.evil/ns/acme-shop/sa/web", "spiffe://xacme.example/ns/acme-shop/sa/web", "spiffe://acme/ns/acme-shop/sa/web", "https://acme.example/ns/acme-shop/sa/web"} {
		cert := w.certificate("acme.example", id, identity.IssueOptions{AnyID: true})
		require.Contains(w.t, []int{0, http.StatusForbidden}, w.code(cert, to), id)
	}
}

// samePath is the granted path, in the trust domain of somebody else.
func samePath(w *world) {
	to := w.sidecar(globexOrders, 8080)
	w.untilCode(w.certificate("acme.example", acmeWeb, identity.IssueOptions{}), to, http.StatusOK)
	path := strings.TrimPrefix(acmeWeb, "spiffe://acme.example")
	require.Zero(w.t, w.code(w.certificate("platform.example", "spiffe://platform.example"+path, identity.IssueOptions{}), to))
	require.Contains(w.t, []int{0, 403}, w.code(w.certificate("globex.example", "spiffe://globex.example"+path, identity.IssueOptions{}), to))
	// The other's CA signs the very ID.
	require.Zero(w.t, w.code(w.certificate("globex.example", acmeWeb, identity.IssueOptions{AnyID: true}), to))
	require.Zero(w.t, w.code(w.certificate("platform.example", acmeWeb, identity.IssueOptions{AnyID: true}), to))
	impostor, err := identity.NewAuthority("acme.example")
	require.NoError(w.t, err)
	cert, key, err := impostor.Issue(acmeWeb, identity.IssueOptions{})
	require.NoError(w.t, err)
	pair, err := tls.X509KeyPair(cert, key)
	require.NoError(w.t, err)
	require.Zero(w.t, w.code(pair, to))
}

// odd are certificates that are no SVID of one workload.
func odd() map[string]struct {
	id string
	o  identity.IssueOptions
} {
	return map[string]struct {
		id string
		o  identity.IssueOptions
	}{
		"no URI SAN":          {"", identity.IssueOptions{NoURI: true}},
		"DNS SAN":             {"", identity.IssueOptions{NoURI: true, DNSNames: []string{"web.acme-shop.svc.cluster.local"}}},
		"DNS SAN like an ID":  {"", identity.IssueOptions{NoURI: true, DNSNames: []string{acmeWeb}}},
		"two URI SANs":        {acmeWeb, identity.IssueOptions{ExtraURIs: []string{acmeOrders}}},
		"the same twice":      {acmeWeb, identity.IssueOptions{ExtraURIs: []string{acmeWeb}}},
		"and another's":       {acmeWeb, identity.IssueOptions{ExtraURIs: []string{globexWeb}}},
		"another's first":     {globexWeb, identity.IssueOptions{AnyID: true, ExtraURIs: []string{acmeWeb}}},
		"a comma in the path": {acmeWeb + "," + globexWeb, identity.IssueOptions{AnyID: true}},
		"expired":             {acmeWeb, identity.IssueOptions{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}},
	}
}

func oddCertificates(w *world) {
	to := w.sidecar(globexOrders, 8080)
	w.untilCode(w.certificate("acme.example", acmeWeb, identity.IssueOptions{}), to, http.StatusOK)
	for name, c := range odd() {
		require.Contains(w.t, []int{0, http.StatusForbidden}, w.code(w.certificate("acme.example", c.id, c.o), to), name)
		for _, p := range []adsclient.Protocol{adsclient.Delta, adsclient.SotW} {
			stream, err := w.dial(p, c.id, options{by: "acme.example", issue: c.o})
			if err != nil {
				continue // no handshake
			}
			_ = stream.Wildcard(snapshot.Cluster.URL())
			require.Error(w.t, w.ended(stream), name)
			require.Empty(w.t, stream.Log(), name)
		}
	}
}

// mintedNamespace: acme's CA, which is accepted, signs for namespaces of globex.
func mintedNamespace(w *world) {
	w.seesNothing("spiffe://acme.example/ns/globex-shop/sa/globex-shop-orders-account", options{})
	to := w.sidecar(globexOrders, 8080)
	w.untilCode(w.certificate("acme.example", acmeWeb, identity.IssueOptions{}), to, http.StatusOK)
	for _, path := range []string{"/ns/globex-web/sa/globex-web-web-account", "/ns/globex-shop/sa/globex-shop-orders-account"} {
		require.Equal(w.t, http.StatusForbidden, w.code(w.certificate("acme.example", "spiffe://acme.example"+path, identity.IssueOptions{}), to), path)
	}
	// And as the server that a caller is led to.
	to.envoy.Stop()
	caller := w.sidecar(acmeWeb)
	w.notBelieved(caller, w.certificate("acme.example", "spiffe://acme.example/ns/globex-shop/sa/globex-shop-orders-account", identity.IssueOptions{}))
	w.notBelieved(caller, w.certificate("globex.example", globexWeb, identity.IssueOptions{}))
}

// notBelieved requires that a caller says nothing to who is in the place of orders
// of globex-shop with a certificate.
func (w *world) notBelieved(caller *sidecar, cert tls.Certificate) {
	w.t.Helper()
	require.False(w.t, w.believed(caller, "orders.globex-shop.svc.cluster.local", globexOrders, cert), "something was said to somebody else")
}

// twoNames is a certificate of acme that also names globex, at all three places.
func twoNames(w *world) {
	to := w.sidecar(globexOrders, 8080)
	w.untilCode(w.certificate("acme.example", acmeWeb, identity.IssueOptions{}), to, http.StatusOK)
	for _, ids := range [][2]string{{acmeWeb, globexOrders}, {acmeWeb, globexWeb}} {
		for _, by := range []string{"acme.example", "globex.example"} {
			o := identity.IssueOptions{AnyID: true, ExtraURIs: []string{ids[1]}}
			require.Contains(w.t, []int{0, http.StatusForbidden}, w.code(w.certificate(by, ids[0], o), to), "%v by %s", ids, by)
			if stream, err := w.dial(adsclient.Delta, ids[0], options{by: by, issue: o}); err == nil {
				_ = stream.Wildcard(snapshot.Cluster.URL())
				require.Error(w.t, w.ended(stream))
				require.Empty(w.t, stream.Log())
			}
		}
	}
	to.envoy.Stop()
	caller := w.sidecar(acmeWeb)
	w.notBelieved(caller, w.certificate("acme.example", acmeWeb, identity.IssueOptions{ExtraURIs: []string{globexOrders}}))
	w.notBelieved(caller, w.certificate("acme.example", globexOrders, identity.IssueOptions{AnyID: true, ExtraURIs: []string{acmeWeb}}))
}

// pathTricks: acme-web's orders denies /acme-web-denied to everybody.
func pathTricks(w *world) {
	to := w.sidecar(acmeInside, 8081)
	cert := w.certificate("acme.example", acmeWeb, identity.IssueOptions{})
	ask := func(path string) (int, mesh.Answer) { return w.raw(cert, to, 8081, get(path)) }
	w.until("it answers", func() error {
		if status, _ := ask("/fine"); status != http.StatusOK {
			return fmt.Errorf("%d", status)
		}
		return nil
	})
	const denied = "/acme-web-denied"
	paths := []string{
		denied, denied + "/x", denied + "?q", denied + "#f", denied + ";p=1", "//acme-web-denied", "///acme-web-denied/x", "/./acme-web-denied", "/x/../acme-web-denied",
		"/x/%2e%2e/acme-web-denied", "/x/%2E./acme-web-denied", "/%2facme-web-denied", "/x/..%2facme-web-denied", "/x/..%5cacme-web-denied", `/x/..\acme-web-denied`,
		`\acme-web-denied`, "/acme-web-denied%2fx", "/acme-web-denied%00", "/acme-web-denied%20", "/acme-web-denied/.", "/acme-web-denied/..;/", "/acme-web-denied%3b", "/acme-web-denied%3fq",
		"http://other.example/acme-web-denied", "/acme-web-denied%23", "/%252facme-web-denied", "/acme%2dweb-denied", "/acme-web-denied\t",
	}
	for c := range 256 { // one letter of it in every encoding
		paths = append(paths, fmt.Sprintf("/acme-web-denied%%%02x", c), fmt.Sprintf("/acme-web-denied%%%02X/x", c), fmt.Sprintf("/%%%02xcme-web-denied", c))
	}
	for _, path := range paths {
		status, seen := ask(path)
		if status != http.StatusOK {
			require.Contains(w.t, []int{0, 400, 403, 404, 426}, status, path)
			continue
		}
		// Let in: then the application does not read it as what is denied.
		read := seen.Path
		for _, drop := range []string{"?", "#", ";"} {
			read, _, _ = strings.Cut(read, drop)
		}
		read = decoded(read)
		require.False(w.t, read == denied || strings.HasPrefix(read, denied+"/"), "%q was let in as %q", path, seen.Path)
	}
}

// decoded is a path as a lenient application reads it.
func decoded(path string) string {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		var c byte
		if path[i] == '%' && i+2 < len(path) {
			if n, err := fmt.Sscanf(path[i+1:i+3], "%02x", &c); n == 1 && err == nil {
				b.WriteByte(c)
				i += 2
				continue
			}
		}
		b.WriteByte(path[i])
	}
	path = b.String()
	return filepath.Clean(strings.ReplaceAll(path, `\`, "/"))
}

// spoofedHeaders are those that say who calls.
func spoofedHeaders(w *world) {
	to := w.sidecar(globexOrders, 8080)
	cert := w.certificate("acme.example", acmeWeb, identity.IssueOptions{})
	w.untilCode(cert, to, http.StatusOK)
	for _, header := range []string{
		"x-tenant-identity", "X-Tenant-Identity", "x_tenant_identity", "X-TENANT_IDENTITY", "x-tenant-identity ", "x-forwarded-client-cert",
		"x-envoy-internal", "x-envoy-original-path", "x-envoy-peer-metadata", "x-envoy-external-address", "x-envoy-retry-on", "x-envoy-upstream-rq-timeout-ms",
	} {
		for _, lines := range [][]string{{header + ": " + globexWeb}, {header + ": " + acmeWeb, header + ": " + globexWeb}, {header + ": By=x;URI=" + globexWeb}} {
			status, seen := w.raw(cert, to, 8080, get("/", lines...))
			if status != http.StatusOK {
				require.Contains(w.t, []int{0, 400, 403}, status, "%q", lines)
				continue
			}
			require.Equal(w.t, acmeWeb, seen.Peer, "%q", lines)
			for name, values := range seen.Headers {
				if strings.EqualFold(strings.ReplaceAll(name, "_", "-"), "x-tenant-identity") {
					require.Equal(w.t, []string{acmeWeb}, values, "%q", lines)
				}
				if strings.HasPrefix(strings.ToLower(name), "x-forwarded-client-cert") {
					require.NotContains(w.t, strings.Join(values, ""), globexWeb, "%q", lines)
				}
			}
		}
	}
	// What steers RBAC is the certificate: another method is not granted to it.
	status, _ := w.raw(cert, to, 8080, "POST / HTTP/1.1\r\nHost: o\r\nx-http-method-override: GET\r\nx-original-method: GET\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
	require.Equal(w.t, http.StatusForbidden, status)
}

// plantedEndpoints leads a service of acme to a Pod of globex: by an address
// without a Pod, and by a Pod that claims the address.
func plantedEndpoints(w *world) {
	w.renew(nil)
	to := w.sidecar(globexWeb, 8080)
	caller := w.sidecar(acmeWeb)
	slice := "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: planted, namespace: acme-shop, labels: {kubernetes.io/service-name: planted}}\naddressType: IPv4\nports: [{name: http, port: 8080}]\nendpoints: [{addresses: [127.40.4.1]%s}]\n---\n" +
		"apiVersion: v1\nkind: Service\nmetadata: {name: planted, namespace: acme-shop}\nspec: {clusterIP: None, ports: [{name: http, port: 8080}]}\n---\n"
	client := mesh.Through(caller.at.Bind)
	defer client.CloseIdleConnections()
	ask := func() {
		w.until("the planted service is there", func() error {
			resp, err := client.Get("http://planted.acme-shop.svc.cluster.local:8080/")
			if err != nil {
				return err
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			require.NotEqual(w.t, http.StatusOK, resp.StatusCode, "%s", body)
			if resp.StatusCode != http.StatusServiceUnavailable {
				return fmt.Errorf("%s %s", resp.Status, body)
			}
			return nil
		})
	}
	w.write("tenants/acme/planted.yaml", fmt.Sprintf(slice, ""))
	w.logged("PodPending")
	ask()
	w.write("tenants/acme/planted.yaml", fmt.Sprintf(slice, ", targetRef: {kind: Pod, name: fake}")+
		"apiVersion: v1\nkind: Pod\nmetadata: {name: fake, namespace: acme-shop}\nspec: {serviceAccountName: fake}\nstatus: {phase: Running, podIP: 127.40.4.1}\n")
	w.until("the endpoint is dialled", func() error {
		ask()
		stats, err := caller.envoy.Stats(w.ctx)
		if err != nil {
			return err
		}
		if failures(stats) == 0 {
			return errors.New("no handshake has failed")
		}
		return nil
	})
	served, err := to.envoy.Stats(w.ctx)
	require.NoError(w.t, err)
	require.Zero(w.t, served["cluster.inbound-8080.upstream_rq_total"], "the victim's application was reached")
}

// failures are the failed handshakes and connections to the planted service.
func failures(stats map[string]uint64) (n uint64) {
	for name, v := range stats {
		if strings.Contains(name, "planted") && (strings.Contains(name, "upstream_cx_connect_fail") || strings.Contains(name, "ssl.fail")) {
			n += v
		}
	}
	return n
}

func staleRevoke(w *world) {
	w.renew(nil)
	ask := w.open(w.certificate("acme.example", acmeWeb, identity.IssueOptions{}), w.sidecar(globexOrders, 8080))
	until := func(want int) {
		w.until(fmt.Sprint(want), func() error {
			if got := ask(); got != want {
				return fmt.Errorf("%d", got)
			}
			return nil
		})
	}
	until(http.StatusOK)
	for _, file := range []string{grantFile, requestFile, "tenants/globex/policy-granted.yaml"} {
		text := w.read(file)
		w.remove(file)
		until(http.StatusForbidden)
		for range 20 {
			require.Equal(w.t, http.StatusForbidden, ask(), "revoked is revoked")
		}
		w.write(file, text)
		until(http.StatusOK)
	}
}

// open keeps one connection past any proxy of the caller, and returns what asks
// on it for the status of a request.
func (w *world) open(cert tls.Certificate, to *sidecar) (ask func() int) {
	w.t.Helper()
	client := mesh.Direct(netip.AddrPortFrom(to.at.Pod, 8080), cert, nil, nil)
	w.t.Cleanup(client.CloseIdleConnections)
	conn, err := client.Transport.(*http.Transport).NewClientConn(w.ctx, "https", to.at.Pod.String()+":8080")
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = conn.Close() })
	return func() int {
		req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, "https://orders/", http.NoBody)
		require.NoError(w.t, err)
		resp, err := conn.RoundTrip(req)
		require.NoError(w.t, err, "the connection stays")
		_, _ = io.Copy(io.Discard, resp.Body)
		require.NoError(w.t, resp.Body.Close())
		return resp.StatusCode
	}
}

// stolenDenied has a thief with a connection of its own, past the proxy of the
// workload that the SVID is of, and a workload beside that one.
func stolenDenied(w *world) {
	w.renew(nil)
	to := w.sidecar(globexOrders, 8080)
	stolen := w.certificate("acme.example", acmeWeb, identity.IssueOptions{})
	w.untilCode(stolen, to, http.StatusOK)
	thief, beside := w.open(stolen, to), w.open(w.certificate("acme.example", acmeOrders, identity.IssueOptions{}), to)
	require.Equal(w.t, http.StatusOK, thief())
	require.Equal(w.t, http.StatusOK, beside())

	const file = "platform/stolen.yaml"
	w.write(file, `apiVersion: bailiwick.dev/v1alpha1
kind: ClusterAccessPolicy
metadata: {name: stolen}
spec:
  tier: Admin
  priority: 1000
  subjects: [{allTenants: true}]
  rules: [{action: Deny, from: [{spiffeID: "`+acmeWeb+`"}]}]
`)
	w.until("the thief is refused", func() error {
		require.Equal(w.t, http.StatusOK, beside(), "nobody else is")
		if got := thief(); got != http.StatusForbidden {
			return fmt.Errorf("it gets %d", got)
		}
		return nil
	})
	for range 20 {
		require.Equal(w.t, http.StatusForbidden, thief(), "refused is refused")
		require.Equal(w.t, http.StatusForbidden, w.code(stolen, to), "a new connection is no way around")
		require.Equal(w.t, http.StatusOK, beside())
	}
	// No Allow of a tenant is above it.
	w.write("tenants/globex/all.yaml", "apiVersion: bailiwick.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: everybody, namespace: globex-shop}\n"+
		"spec: {selector: {}, action: Allow, rules: [{from: [{all: true}]}]}\n")
	const post = "POST / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" // nothing else allows it
	w.until("the Allow is there", func() error {
		if got, _ := w.raw(w.certificate("acme.example", acmeOrders, identity.IssueOptions{}), to, 8080, post); got != http.StatusOK {
			return fmt.Errorf("it gets %d", got)
		}
		return nil
	})
	require.Equal(w.t, http.StatusForbidden, thief())
	w.remove(file)
	w.until("it is over", func() error {
		if got := thief(); got != http.StatusOK {
			return fmt.Errorf("it gets %d", got)
		}
		return nil
	})
}

// startGap calls from the first moment on a workload whose policies are not
// there yet.
func startGap(w *world) {
	files := []string{"tenants/globex/policies.yaml", "tenants/globex/policy-granted.yaml"}
	texts := map[string]string{}
	w.renew(nil, func(w *world) {
		for _, file := range files {
			texts[file] = w.read(file)
			w.remove(file)
		}
	})
	cert := w.certificate("acme.example", acmeWeb, identity.IssueOptions{})
	at, err := mesh.AddressesOf(address(globexOrders))
	require.NoError(w.t, err)
	early := &sidecar{at: at}
	stop, ended := make(chan struct{}), make(chan map[int]int, 1)
	go func() { // ends with stop
		seen := map[int]int{}
		for {
			select {
			case <-stop:
				ended <- seen
				return
			default:
				seen[w.code(cert, early)]++
			}
		}
	}()
	to := w.sidecar(globexOrders, 8080)
	w.untilCode(cert, to, http.StatusForbidden)
	close(stop)
	seen := <-ended
	require.Zero(w.t, seen[http.StatusOK], "%v", seen)
	for file, text := range texts {
		w.write(file, text)
	}
	w.untilCode(cert, to, http.StatusOK)
}
