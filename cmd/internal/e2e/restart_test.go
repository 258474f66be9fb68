package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/xds"
)

// load is requests without end, each of which should be let in.
type load struct {
	f    *fixture
	good atomic.Int64
	// failed holds the first outcome of each kind that was not as it should be.
	mu     sync.Mutex
	failed map[string]int // guarded by mu
	stop   func()
}

// loadEvery is the pause of a worker between two requests, so that they leave
// the processor to those that they are for.
const loadEvery = 2 * time.Millisecond

// load sends requests through a Pod's proxy, one worker per URL; wants are the
// outcomes. It ends with the test, or with stop.
func (f *fixture) load(from *pod, wants map[string]string) *load {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.ctx)
	l := &load{f: f, failed: map[string]int{}}
	var workers sync.WaitGroup
	l.stop = func() { cancel(); workers.Wait() }
	f.t.Cleanup(l.stop)
	for url, want := range wants {
		f.untilGet(from, url, want)
		workers.Go(func() { // ends with ctx
			tick := time.NewTicker(loadEvery)
			defer tick.Stop()
			for ctx.Err() == nil {
				if got := f.get(from, url); got == want {
					l.good.Add(1)
				} else if ctx.Err() == nil {
					l.mu.Lock()
					l.failed[url+": "+got]++
					l.mu.Unlock()
				}
				<-tick.C
			}
		})
	}
	return l
}

// more waits for as many more good requests, none of which was under way before.
func (l *load) more(n int64) {
	l.f.t.Helper()
	goal := l.good.Load() + n
	l.f.until(fmt.Sprintf("%d more requests are answered", n), func() error {
		if good := l.good.Load(); good < goal {
			return fmt.Errorf("%d are missing, failed: %v", goal-good, l.failures())
		}
		return nil
	})
}

func (l *load) failures() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := map[string]int{}
	for k, v := range l.failed {
		found[k] = v
	}
	return found
}

// clean requires that no request has failed.
func (l *load) clean() {
	l.f.t.Helper()
	require.Empty(l.f.t, l.failures(), "requests failed")
}

// metric sums the server's metric over all series that have these labels, each
// written as name="value".
func (f *fixture) metric(name string, labels ...string) float64 {
	f.t.Helper()
	raw, err := f.server.Metrics(f.ctx)
	require.NoError(f.t, err)
	sum := 0.0
series:
	for line := range strings.Lines(string(raw)) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), name)
		if !ok || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(rest, label) {
				continue series
			}
		}
		value, err := strconv.ParseFloat(rest[strings.LastIndex(rest, " ")+1:], 64)
		require.NoError(f.t, err)
		sum += value
	}
	return sum
}

// streams waits until the server has a stream of every Envoy.
func (f *fixture) streams() {
	f.t.Helper()
	f.until("all proxies are connected", func() error {
		if n := f.metric("bailiwick_xds_streams"); int(n) != len(f.pods) {
			return errors.New(strconv.Itoa(int(n)) + " are")
		}
		return nil
	})
}

// killServer ends the server as a crash does, and starts it again once requests
// have gone on without it. It returns when all proxies are back.
func (f *fixture) killServer(l *load) {
	f.t.Helper()
	f.server.Kill()
	l.more(50)
	require.NoError(f.t, f.server.Restart(f.ctx))
	require.NoError(f.t, f.server.WaitReady(f.ctx))
	f.streams()
}

// deniesLate is a policy that changes what RBAC is given for port 8080 of every
// Pod of a namespace, and nothing else.
const deniesLate = `apiVersion: bailiwick.dev/v1alpha1
kind: AccessPolicy
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  selector: {matchLabels: {}}
  action: Deny
  rules:
  - from: [{all: true}]
    ports: [8080]
    paths: [{prefix: /%[1]s}]
`

// denyLate writes such a policy and waits until the Pods' proxies have it.
func (f *fixture) denyLate(tenant, namespace, name string, pods ...string) {
	f.t.Helper()
	f.write("tenants/"+tenant+"/"+name+".yaml", fmt.Sprintf(deniesLate, name, namespace))
	for _, p := range pods {
		f.mentions(f.pods[p], namespace+"/"+name, true)
	}
}

// A server that was killed loses nobody a request, and sends nothing again to
// proxies that say what they have.
func TestServerKilledAndStarted(t *testing.T) {
	f := setUp(t)
	f.start(shopWeb, shopOrders, globexOrders, globexWeb)
	web, orders := f.pods[shopWeb], f.pods[globexOrders]
	acme := f.load(web, map[string]string{
		"http://orders:8080/": answeredBy(f.pods[shopOrders], web),
		grantedURL:            answeredBy(orders, web),
	})
	globex := f.load(f.pods[globexWeb], map[string]string{
		"http://orders.globex-shop:8080/": answeredBy(orders, f.pods[globexWeb]),
	})
	acme.more(50)
	globex.more(50)
	require.Positive(t, f.metric("bailiwick_xds_responses_total", `tenant="acme"`))

	f.killServer(acme)
	globex.more(50)
	// What changes now shows that everybody's stream goes on, and is all there is:
	// one resource for each of acme's proxies, which speak delta.
	f.denyLate("acme", "acme-shop", "late-at-acme", shopWeb, shopOrders)
	f.denyLate("globex", "globex-web", "late-at-globex", globexWeb)
	require.Equal(t, map[string]int{"extension": 2}, f.responses("acme"))
	require.Positive(t, f.responses("globex")["cluster"], "a proxy without versions is sent everything")
	acme.more(50)
	globex.more(50)

	// And back again, with the directory changed meanwhile.
	f.server.Kill()
	acme.more(50)
	f.remove("tenants/acme/late-at-acme.yaml")
	require.NoError(t, f.server.Restart(f.ctx))
	require.NoError(t, f.server.WaitReady(f.ctx))
	f.mentions(web, "acme-shop/late-at-acme", false)
	f.mentions(f.pods[shopOrders], "acme-shop/late-at-acme", false)
	require.Equal(t, map[string]int{"extension": 2}, f.responses("acme"))
	acme.more(50)
	acme.clean()
	globex.clean()
	for _, p := range f.pods {
		f.holds(p)
	}
}

// responses are those that the server has sent to a tenant since it started, by
// type.
func (f *fixture) responses(tenant string) map[string]int {
	f.t.Helper()
	found := map[string]int{}
	for _, kind := range []string{"cluster", "endpoint", "listener", "route", "secret", "extension"} {
		n := f.metric("bailiwick_xds_responses_total", `tenant="`+tenant+`"`, `type="`+kind+`"`)
		if n > 0 {
			found[kind] = int(n)
		}
	}
	return found
}

// serial is that of the certificate that somebody shows.
func (f *fixture) serial(at netip.AddrPort, trustDomain string) string {
	conn, err := mesh.DialDirect(f.ctx, at, f.certificate(f.pods[shopWeb]), f.ca.Roots(trustDomain), nil)
	if err != nil {
		return "none: " + err.Error()
	}
	defer func() { _ = conn.Close() }()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// rotated calls rotate and waits until somebody shows another certificate.
func (f *fixture) rotated(at netip.AddrPort, trustDomain string, rotate func() error) {
	f.t.Helper()
	before := f.serial(at, trustDomain)
	require.Regexp(f.t, "^[0-9]+$", before)
	require.NoError(f.t, rotate())
	f.until("another certificate is shown at "+at.String(), func() error {
		if now := f.serial(at, trustDomain); now == before || strings.HasPrefix(now, "none") {
			return errors.New(now)
		}
		return nil
	})
}

// stream is the server's stream of a Pod's proxy.
func (f *fixture) stream(p *pod) (xds.StreamStatus, error) {
	f.t.Helper()
	raw, err := f.server.Dump(f.ctx, "/streams")
	require.NoError(f.t, err)
	var all []xds.StreamStatus
	require.NoError(f.t, json.Unmarshal(raw, &all))
	for _, s := range all {
		if s.Workload == p.workload {
			return s, nil
		}
	}
	return xds.StreamStatus{}, errors.New("the server has no stream of " + p.name)
}

// Certificates are replaced under load: nobody notices but those who look.
func TestRotation(t *testing.T) {
	f := setUp(t)
	f.start(shopWeb, shopOrders, globexOrders)
	web, orders, idle := f.pods[shopWeb], f.pods[shopOrders], f.pods[globexOrders]
	l := f.load(web, map[string]string{"http://orders:8080/": answeredBy(orders, web)})
	l.more(50)
	inbound := func(p *pod) netip.AddrPort { return netip.AddrPortFrom(p.at.Pod, 8080) }

	// The server's: for new connections, while streams go on.
	before, err := f.stream(web)
	require.NoError(t, err)
	f.rotated(f.server.XDS, serverDomain, f.server.Rotate)
	l.more(50)
	now, err := f.stream(web)
	require.NoError(t, err)
	require.Equal(t, before, now)

	// The proxies': new connections in both directions have it, among them those
	// to the server.
	f.rotated(inbound(orders), "acme.example", orders.envoy.Rotate)
	l.more(50)
	const short = 8 * time.Second
	end := time.Now().Add(short)
	for _, p := range []*pod{web, idle} {
		f.rotated(inbound(p), p.workload.TrustDomain, func() error {
			return p.envoy.RotateWith(identity.IssueOptions{NotAfter: end})
		})
	}
	f.killServer(l)
	before, err = f.stream(web)
	require.NoError(t, err)
	_, err = f.stream(idle)
	require.NoError(t, err)
	require.True(t, before.Opened.Before(end), "this machine is too slow for a certificate of %v", short)
	f.rotated(inbound(web), "acme.example", web.envoy.Rotate)

	// The connection ends with the certificate that it was made with. Who has a
	// new one by then is back at once; who has not, is not let in until then.
	f.until("the stream of "+web.name+" is another", func() error {
		now, err = f.stream(web)
		if err == nil && now.ID == before.ID {
			err = errors.New("it is the same")
		}
		return err
	})
	// X.509 knows whole seconds only.
	require.False(t, now.Opened.Before(end.Truncate(time.Second)), "the connection ended before the certificate: %v < %v", now.Opened, end)
	f.refusedAsExpired(idle)
	f.denyLate("acme", "acme-shop", "late-at-acme", shopWeb, shopOrders)
	require.NoError(t, idle.envoy.Rotate())
	f.streams()
	f.denyLate("globex", "globex-shop", "late-at-globex", globexOrders)
	l.more(50)
	l.clean()
}

// refusedAsExpired waits until a Pod's proxy has tried to connect in vain.
func (f *fixture) refusedAsExpired(p *pod) {
	f.t.Helper()
	tries := func() uint64 {
		stats, err := p.envoy.Stats(f.ctx)
		require.NoError(f.t, err)
		return stats["cluster.xds.upstream_cx_total"]
	}
	f.until(p.name+" is not connected", func() error {
		if s, err := f.stream(p); err == nil {
			return fmt.Errorf("stream %d is open", s.ID)
		}
		return nil
	})
	goal := tries() + 3
	f.until(p.name+" has tried to connect", func() error {
		_, err := f.stream(p)
		require.Error(f.t, err, "the server serves a proxy whose certificate has expired")
		if now := tries(); now < goal {
			return fmt.Errorf("%d times missing", goal-now)
		}
		return nil
	})
}
