package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
)

// brokenYAML does not parse: the error is in line 3.
const brokenYAML = "apiVersion: v1\nkind: Service\nmetadata: @late\n"

// policiesFile holds acme's policies.
const policiesFile = "tenants/acme/policies.yaml"

// unready waits until the server says that it is not ready, and why.
func (f *fixture) unready(logs string) {
	f.t.Helper()
	f.logged(logs)
	req, err := http.NewRequestWithContext(f.ctx, http.MethodGet, fmt.Sprintf("http://%s/readyz", f.server.Health), http.NoBody)
	require.NoError(f.t, err)
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	require.NoError(f.t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(f.t, err)
	require.Equal(f.t, http.StatusServiceUnavailable, resp.StatusCode)
	require.Contains(f.t, string(body), "see the log")
}

// What the platform's folder says decides about everybody, so that without it
// nobody is served; and as soon as it is mended, everybody is.
func TestServerWaitsForThePlatformsFolder(t *testing.T) {
	t.Run("broken", func(t *testing.T) {
		f := newFixture(t)
		good := f.read("platform/tenants.yaml")
		f.write("platform/tenants.yaml", brokenYAML)
		f.serve()
		f.unready(`level=ERROR .*platform/tenants\.yaml:3: document 1: cannot be parsed`)
		f.write("platform/tenants.yaml", good)
		require.NoError(t, f.server.WaitReady(f.ctx))
	})
	t.Run("absent", func(t *testing.T) {
		f := newFixture(t)
		platform, away := filepath.Join(f.dir, "platform"), filepath.Join(t.TempDir(), "platform")
		require.NoError(t, os.Rename(platform, away))
		f.serve()
		f.unready(`level=ERROR .*/objects/platform: `)
		require.NoError(t, os.Rename(away, platform))
		require.NoError(t, f.server.WaitReady(f.ctx))
	})
}

// A tenant's file that cannot be read at the start holds up that tenant, whose
// proxies keep what they have, and nobody else.
func TestTenantsFileBrokenAtStart(t *testing.T) {
	f := setUp(t)
	f.start(shopWeb, shopOrders, globexOrders)
	web := f.pods[shopWeb]
	l := f.load(web, map[string]string{"http://orders:8080/": answeredBy(f.pods[shopOrders], web)})
	l.more(20)
	good := f.read(policiesFile)
	f.server.Kill()
	f.write(policiesFile, brokenYAML)
	require.NoError(t, f.server.Restart(f.ctx))
	require.NoError(t, f.server.WaitReady(f.ctx))
	f.logged(`level=ERROR .*tenants/acme/policies\.yaml:3: document 1: cannot be parsed`)
	f.logged(`msg="directory read".* waiting_tenants=1`)
	f.denyLate("globex", "globex-shop", "late-at-globex", globexOrders)
	l.more(20)
	require.Empty(t, f.responses("acme"), "a tenant that waits was sent something")

	f.write(policiesFile, good)
	f.denyLate("acme", "acme-shop", "late-at-acme", shopWeb, shopOrders)
	l.more(20)
	l.clean()
}

// What breaks while the server runs keeps its last good state, is named in the
// log, and holds nothing else up.
func TestBrokenWhileRunning(t *testing.T) {
	f := setUp(t)
	f.start(shopWeb, shopOrders, globexOrders)
	web, orders := f.pods[shopWeb], f.pods[shopOrders]
	l := f.load(web, map[string]string{
		"http://orders:8080/": answeredBy(orders, web),
		grantedURL:            answeredBy(f.pods[globexOrders], web),
	})
	good := f.read(policiesFile)

	f.run("file", func() {
		f.write(policiesFile, brokenYAML)
		f.logged(`level=ERROR .*tenants/acme/policies\.yaml:3: document 1: cannot be parsed`)
		f.denyLate("acme", "acme-shop", "late-at-acme", shopOrders)
		f.denyLate("globex", "globex-shop", "late-at-globex", globexOrders)
		l.more(20)
		f.mentions(orders, "acme-shop/acme-shop-orders-policy", true)
		f.write(policiesFile, good)
		f.logged("read again without an error")
	})
	f.run("object", func() {
		f.write("tenants/acme/late-at-acme.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: late, namespace: acme-shop}\nspec: {port: [8080]}\n")
		f.logged(`level=ERROR .*tenants/acme/late-at-acme\.yaml:.*Service acme-shop/late: spec\.port`)
		// The policy that was in the file is gone: it is not in it any more.
		f.mentions(orders, "acme-shop/late-at-acme", false)
		l.more(20)
		f.remove("tenants/acme/late-at-acme.yaml")
	})
	f.run("directory", func() {
		require.NoError(f.t, os.Rename(f.dir, f.dir+".away"))
		f.logged(`level=ERROR .*/objects: cannot be read`)
		l.more(20)
		require.NoError(f.t, os.Rename(f.dir+".away", f.dir))
		f.denyLate("acme", "acme-shop", "late-again", shopOrders)
	})
	f.run("certificate", func() {
		cert := filepath.Join(f.root, "server", mesh.CertFile)
		before := f.serial(f.server.XDS, serverDomain)
		require.NoError(f.t, os.WriteFile(cert, []byte("not a certificate"), 0o644))
		f.logged(`level=(ERROR|WARN) .*certificate .*/server/cert\.pem .*PEM`)
		require.Equal(f.t, before, f.serial(f.server.XDS, serverDomain))
		f.rotated(f.server.XDS, serverDomain, f.server.Rotate)
	})
	l.more(20)
	l.clean()
	for _, p := range f.pods {
		f.holds(p)
	}
}
