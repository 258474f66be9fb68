package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/read"
)

// What explain says of a call is what real Envoys make of it: every workload
// calls every HTTP port in several ways, and is allowed, refused by the
// destination, or finds nothing there.
func (f *fixture) checkExplained() {
	world := f.world()
	type port struct {
		service tenancy.Key
		number  uint16
	}
	var ports []port
	for ref, o := range world {
		if service, ok := o.(*tenancy.Service); ok {
			for _, p := range service.Ports {
				if p.Protocol.IsHTTP() && f.answers(ref.Key, p.Port) {
					ports = append(ports, port{ref.Key, p.Port})
				}
			}
		}
	}
	slices.SortFunc(ports, func(a, b port) int {
		return slices.Compare([]string{a.service.Namespace, a.service.Name}, []string{b.service.Namespace, b.service.Name})
	})
	what := map[int]string{http.StatusOK: read.Allowed, http.StatusForbidden: "refused", http.StatusBadGateway: "not there"}
	seen := map[string]int{}
	for _, from := range f.pods {
		for _, to := range ports {
			for _, r := range []struct{ method, path string }{{"GET", "/"}, {"POST", "/"}, {"GET", "/acme-web-denied/x"}} {
				url := fmt.Sprintf("http://%s.%s.svc.cluster.local:%d%s", to.service.Name, to.service.Namespace, to.number, r.path)
				o, err := send(f.ctx, from.through.Transport, r.method, url)
				if errors.Is(err, syscall.ECONNREFUSED) { // no service that it may know has this port
					o, err = outcome{status: http.StatusBadGateway}, nil
				}
				require.NoError(f.t, err, url)
				said := f.explained(from, to.service, to.number, r.method, r.path)
				require.Equal(f.t, what[o.status], said, "%s %s from %s: %s", r.method, url, from.name, o)
				seen[said]++
			}
		}
	}
	require.Len(f.t, seen, 3, "calls of all outcomes were made: %v", seen)
}

// answers reports whether all Pods behind a service port run here, and any.
func (f *fixture) answers(service tenancy.Key, port uint16) bool {
	here, elsewhere := 0, 0
	eachBackend(f.world(), service, port, func(pod tenancy.Key, _ netip.AddrPort) {
		if f.pods[pod.Namespace+"/"+pod.Name] != nil {
			here++
		} else {
			elsewhere++
		}
	})
	return here > 0 && elsewhere == 0
}

// explained is what the command line says of a call.
func (f *fixture) explained(from *pod, service tenancy.Key, port uint16, method, path string) string {
	f.t.Helper()
	got := run(f.t, nil, "explain", "--config-dir", f.dir, "--allow-loopback-endpoints", "-o", "json", "--from", from.workload.String(),
		"--to", fmt.Sprintf("%s/%s:%d", service.Namespace, service.Name, port), "--method", method, "--path", path)
	var a read.Answer
	require.NoError(f.t, json.Unmarshal([]byte(got.stdout), &a), got.stderr)
	switch {
	case got.code == 0:
		return a.Verdict
	case a.Visible == read.Hidden:
		return "not there"
	default:
		require.Equal(f.t, read.Denied, a.Verdict)
		return "refused"
	}
}

// asking are the flags of whoever asks the server as the workload of a Pod.
func (f *fixture) asking(p *pod) []string {
	f.t.Helper()
	dir := f.t.TempDir()
	require.NoError(f.t, f.ca.WriteSVID(dir, p.workload.String()))
	return []string{
		"--server", f.server.XDS.String(), "--server-id", f.server.ID, "--trust-bundle", f.ca.BundleFile(serverDomain),
		"--cert", filepath.Join(dir, mesh.CertFile), "--key", filepath.Join(dir, mesh.KeyFile),
	}
}

// What a tenant is answered by the server, as whom its certificate says, is what
// the objects say in its scope, and names nothing more than its proxies know.
func (f *fixture) checkAsked() {
	for _, asker := range []*pod{f.pods[shopWeb], f.pods[globexWeb]} {
		tenant, _, _ := strings.Cut(asker.name, "-")
		server := f.asking(asker)
		directory := []string{"--config-dir", f.dir, "--tenant", tenant, "--allow-loopback-endpoints"}
		both := func(args ...string) string {
			asked := run(f.t, nil, append(slices.Clone(args), server...)...)
			require.Empty(f.t, asked.stderr)
			read := run(f.t, nil, append(slices.Clone(args), directory...)...)
			places := regexp.MustCompile(`\n *"at": "[^"]*",`)
			require.Equal(f.t, places.ReplaceAllString(read.stdout, ""), places.ReplaceAllString(asked.stdout, ""))
			require.Equal(f.t, read.code, asked.code)
			return asked.stdout
		}
		all := both("matrix") + both("whoami")
		if tenant == "acme" { // what the grant reveals
			all = strings.NewReplacer("globex-shop/orders:8080", "", "tenant globex", "").Replace(all)
		}
		for _, word := range foreign(asker) {
			require.NotContains(f.t, strings.ReplaceAll(all, "acme-shop/*", ""), word, "%s is told of", asker.name)
		}
		for _, from := range []*pod{f.pods[webOrders], f.pods[globexWeb], f.pods[shopWeb]} {
			for _, to := range []string{"acme-shop/orders:8080", "globex-shop/orders:8080", "globex-web/web:8080", "nobody/nothing:80"} {
				both("explain", "-o", "json", "--from", from.workload.String(), "--to", to)
			}
		}
		for _, to := range []string{"acme-shop/orders:8080", "globex-web/web:8080", "nobody/nothing:80"} {
			both("explain", "-o", "json", "--from", "plaintext", "--to", to)
		}
	}
}
