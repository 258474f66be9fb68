package attack

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/xds/adsclient"
)

// victims are what the victim's proxies are sent, all of it.
func (w *world) victims() map[string][]string {
	w.t.Helper()
	out := map[string][]string{}
	for _, id := range []string{globexWeb, globexOrders} {
		out[id] = w.said(w.proxy(adsclient.Delta, id, options{}))
	}
	return out
}

// plant writes a file into the attacker's folder, waits until a text is in the
// log, calls check, and takes the file away again.
func (w *world) plant(text, logs string, check func()) {
	w.t.Helper()
	before := w.victims()
	w.write("tenants/acme/planted.yaml", text)
	if logs != "" {
		w.logged(logs)
	}
	w.changesArrive() // so that it was read
	require.Equal(w.t, before, w.victims())
	require.Zero(w.t, w.metric("bailiwick_xds_panics_total")+w.metric("bailiwick_snapshot_panics_total")+w.metric("bailiwick_source_panics_total"))
	if check != nil {
		check()
	}
	w.remove("tenants/acme/planted.yaml")
	w.changesArrive()
}

const (
	service = "apiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: acme-web}\nspec: {clusterIP: None, ports: [{name: http, port: 80}]}\n---\n"
	policy  = "apiVersion: bailiwick.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: %s, namespace: acme-web}\nspec: {selector: {matchLabels: {app: acme-web-orders-app}}, action: Allow, rules: [%s]}\n---\n"
)

// references are objects of acme-web that name things of globex in every field
// that can name any.
const references = `apiVersion: bailiwick.dev/v1alpha1
kind: ServiceRequest
metadata: {name: take, namespace: acme-web}
spec: {to: {namespace: globex-shop, service: orders, all: true}}
---
apiVersion: bailiwick.dev/v1alpha1
kind: ServiceRequest
metadata: {name: take-web, namespace: acme-web}
spec: {to: {namespace: globex-web, service: globex-web, all: true}}
---
apiVersion: bailiwick.dev/v1alpha1
kind: ServiceGrant
metadata: {name: offer, namespace: acme-web}
spec: {from: [{tenant: globex, namespaces: [globex-web]}], to: [{service: globex-orders, all: true}]}
---
apiVersion: bailiwick.dev/v1alpha1
kind: AccessPolicy
metadata: {name: refers, namespace: acme-web}
spec:
  selector: {matchLabels: {app: acme-web-orders-app}}
  action: Allow
  rules:
  - from: [{tenant: globex, namespace: globex-web, serviceAccount: globex-web-web-account}, {namespace: globex-shop}, {tenant: globex}]
    hosts: [web.globex-web.svc.cluster.local]
  - from: [{spiffeID: "spiffe://globex.example/ns/globex-web/sa/globex-web-web-account"}]
    notHosts: [orders.globex-shop]
  - from: [{spiffeIDPrefix: "spiffe://globex.example/ns/globex-shop/"}]
    jwt: {provider: globex-idp, claims: [{path: [role], values: [admin]}]}
---
apiVersion: bailiwick.dev/v1alpha1
kind: AccessPolicy
metadata: {name: refuses, namespace: acme-web}
spec:
  selector: {matchLabels: {app: acme-web-orders-app}}
  action: Deny
  rules: [{from: [{namespace: globex-web, serviceAccount: globex-web-web-account}], notFrom: [{tenant: globex, namespace: globex-shop, serviceAccount: globex-x}, {spiffeID: "spiffe://globex.example/ns/a/sa/b"}, {spiffeIDPrefix: "spiffe://globex.example/ns/a/"}]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: planted, namespace: acme-web, labels: {kubernetes.io/service-name: orders}}
addressType: IPv4
ports: [{name: http-acme-web, port: 8080}]
endpoints:
- {addresses: [127.40.3.1], targetRef: {kind: Pod, namespace: globex-shop, name: orders-0}}
- {addresses: [127.40.4.1]}
---
`

// foreignReferences writes every kind that can refer, with the victim's names
// and with those of nobody: neither does anything, and both read the same.
func foreignReferences(w *world) {
	require.Empty(w.t, unreferred(w.t, references), "fields that can name things of others, and no attack does so with")
	w.renew(nil)
	had := map[string][]string{}
	said := map[string][]string{}
	for _, tenant := range []string{"globex", "nobody"} {
		neutral := strings.NewReplacer(tenant, "someXX")
		before := len(w.problems())
		w.plant(strings.ReplaceAll(references, "globex", tenant), "NotAvailable", func() {
			own := w.proxy(adsclient.Delta, acmeInside, options{})
			for typ := range snapshot.NumTypes {
				for name, e := range own.State(typ.URL()) {
					had[tenant] = append(had[tenant], name+" "+neutral.Replace(string(e.Any)))
				}
			}
			slices.Sort(had[tenant])
		})
		for _, line := range w.problems()[before:] {
			said[tenant] = append(said[tenant], neutral.Replace(line))
		}
		slices.Sort(said[tenant])
		said[tenant] = slices.Compact(said[tenant])
	}
	require.Equal(w.t, had["nobody"], had["globex"], "what came of it")
	require.Equal(w.t, said["nobody"], said["globex"], "what was said of it")
	require.Greater(w.t, len(said["globex"]), 2)
}

// problems are what was said of objects of acme-web.
func (w *world) problems() (out []string) {
	for line := range strings.Lines(w.server.LogTail(10000)) {
		if at := strings.Index(line, "kind="); at >= 0 && strings.Contains(line, "object has a problem") && strings.Contains(line, "namespace=acme-web") {
			out = append(out, line[at:])
		}
	}
	return out
}

func invalidUTF8(w *world) {
	w.renew(nil)
	for _, text := range []string{
		"apiVersion: v1\nkind: Service\nmetadata: {name: bad, namespace: acme-web, annotations: {a: \"\xff\"}}\nspec: {clusterIP: None, ports: [{name: http, port: 80}]}\n",
		"apiVersion: v1\nkind: Service\nmetadata: {name: \"b\\xffd\", namespace: acme-web}\nspec: {ports: [{port: 80}]}\n",
		"apiVersion: bailiwick.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: bad, namespace: acme-web}\nspec: {selector: {matchLabels: {a: \"\\ud800\"}}, action: Allow, rules: [{from: [{all: true}]}]}\n",
	} {
		w.plant(text, "planted.yaml", nil)
	}
}

func brokenObjects(w *world) {
	w.renew(nil)
	for _, text := range []string{
		fmt.Sprintf(policy, "empty", "{}") + fmt.Sprintf(policy, "nobody", "{from: []}") + fmt.Sprintf(service, "good"),
		fmt.Sprintf(policy, "method", `{from: [{all: true}], methods: ["G ET"]}`), fmt.Sprintf(policy, "id", `{from: [{spiffeID: "spiffe://"}]}`),
		fmt.Sprintf(policy, "path", `{from: [{all: true}], paths: [{exact: "no/slash"}]}`), fmt.Sprintf(policy, "port", `{from: [{all: true}], ports: [99999]}`),
		"apiVersion: v1\nkind: Service\nmetadata: {name: x, namespace: acme-web}\nspec: {type: ExternalName, externalName: orders.globex-shop.svc.cluster.local}\n",
		"apiVersion: v1\nkind: Service\nmetadata: {name: x, namespace: acme-web}\nspec: {ports: [{port: -1}, {port: 0}]}\n",
		"apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: acme-web}\nstatus: {podIP: not-an-ip}\n",
	} {
		w.plant(text, "planted.yaml", nil)
	}
}

func bombs(w *world) {
	w.renew(nil)
	laughs := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'k'; c++ {
		laughs += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 9), ","))
	}
	for _, text := range []string{
		laughs, strings.Repeat("[", 100000), strings.Repeat("a: {", 50000), "a: &a [*a]\n", strings.Repeat("- ", 200000),
		"x: \"" + strings.Repeat("y", 4<<20) + "\"\n",
		fmt.Sprintf(policy, "regex", `{from: [{spiffeID: "spiffe://acme.example/(a+)+$"}], headers: [{name: "x", prefix: "`+strings.Repeat("(a|", 300)+`"}]}`),
		fmt.Sprintf(policy, "many", strings.TrimSuffix(strings.Repeat("{from: [{all: true}]},", 5000), ",")),
	} {
		w.plant(text, "planted.yaml", nil)
	}
}

// series are the names and labels of all metrics.
func (w *world) series() []string {
	text, err := w.server.Metrics(w.ctx)
	require.NoError(w.t, err)
	var out []string
	for line := range strings.Lines(string(text)) {
		if i := strings.LastIndexByte(strings.TrimSpace(line), ' '); i > 0 && line[0] != '#' {
			out = append(out, line[:i])
		}
	}
	slices.Sort(out)
	return out
}

func metricLabels(w *world) {
	w.said(w.proxy(adsclient.Delta, acmeInside, options{}))
	_ = w.exchange(adsclient.Delta, subscribe(adsclient.Delta, snapshot.Secret, "first"))
	before := len(w.series())
	for i := range 20 {
		node := forged(fmt.Sprintf("kanary-%d\"} 1\nevil{a=\"", i))
		node.UserAgentName = "kanary\nfake_metric 1"
		c, err := w.dial(adsclient.Delta, acmeInside, options{node: node})
		require.NoError(w.t, err)
		require.NoError(w.t, c.Subscribe(snapshot.Cluster.URL(), fmt.Sprintf("kanary-%d", i)))
		require.NoError(w.t, c.Subscribe(fmt.Sprintf("type.googleapis.com/kanary.%d", i), "x"))
		w.said(c)
	}
	after := w.series()
	require.NotContains(w.t, strings.Join(after, "\n"), "kanary")
	require.NotContains(w.t, strings.Join(after, "\n"), "evil")
	require.Less(w.t, len(after)-before, 20, "series for what clients say")
}

func logInjection(w *world) {
	const fake = "\ntime=9999-01-01T00:00:00Z level=INFO msg=\"access granted\" tenant=globex\x1b[2J"
	for _, p := range []adsclient.Protocol{adsclient.Delta, adsclient.SotW} {
		node := forged("acme-web/orders-0" + fake)
		node.Metadata.Fields["bailiwick"].GetStructValue().Fields["capture"] = structpb.NewStringValue(fake)
		c, err := w.dial(p, acmeInside, options{node: node, answers: func(*adsclient.Message) adsclient.Verdict { return adsclient.Nack(fake) }})
		require.NoError(w.t, err)
		require.NoError(w.t, c.Wildcard(snapshot.Cluster.URL()))
		require.NoError(w.t, c.Subscribe("type.googleapis.com/"+fake, fake))
		require.NoError(w.t, c.Wait(w.bounded(), func(v adsclient.View) bool { return v.Total("").Messages > 1 }))
	}
	w.logged("access granted")
	for line := range strings.Lines(w.server.LogTail(10000)) {
		require.False(w.t, strings.HasPrefix(line, "time=9999"), line)
		require.NotContains(w.t, line, "\x1b")
	}
}

// statusTexts reads what is said of the attacker's objects: it names its own
// things, and of others' what it wrote itself.
func statusTexts(w *world) {
	w.renew(nil)
	words := regexp.MustCompile(`globex-[a-z-]*|10\.96\.[34]\.\d+|127\.\d+\.[34]\.\d+|10\.\d+\.[34]\.\d+`)
	canary := regexp.MustCompile(`kanary[a-z-]*globex[a-z-]*`)
	w.plant(fmt.Sprintf(policy, "odd", `{from: [{tenant: globex, namespace: globex-web}], hosts: [web.globex-web]}`)+
		"apiVersion: bailiwick.dev/v1alpha1\nkind: ServiceRequest\nmetadata: {name: take, namespace: acme-web}\nspec: {to: {namespace: globex-shop, service: orders, ports: [1, 8080]}}\n---\n"+
		"apiVersion: bailiwick.dev/v1alpha1\nkind: ServiceGrant\nmetadata: {name: offer, namespace: acme-web}\nspec: {from: [{tenant: globex, namespaces: [globex-web]}], to: [{service: none, all: true}]}\n",
		"NotAvailable", func() {
			said := 0
			for line := range strings.Lines(w.server.LogTail(10000)) {
				if !strings.Contains(line, "object has a problem") || !strings.Contains(line, "namespace=acme") {
					continue
				}
				said++
				for _, word := range words.FindAllString(line, -1) {
					require.Contains(w.t, []string{"globex-shop", "globex-web"}, word, line)
				}
			}
			require.Positive(w.t, said)
			if w.cluster != nil {
				for _, text := range w.statuses("acme-") {
					for _, word := range append(words.FindAllString(text, -1), canary.FindAllString(text, -1)...) {
						require.Contains(w.t, []string{"globex-shop", "globex-web"}, word, text)
					}
				}
			}
		})
}

// limitShield fills what can be filled just before the revocation comes.
func limitShield(w *world) {
	w.renew(nil, func(w *world) {
		w.replace(tenantsFile, "trustDomain:", "limits: {requests: 1, policies: 2, policiesPerWorkload: 1, grants: 1, services: 6, viewResources: 40}\n  trustDomain:")
	})
	var shield strings.Builder
	for i := range 50 {
		name := fmt.Sprintf("shield-%d", i)
		fmt.Fprintf(&shield, service+policy, name, name, "{from: [{all: true}]}")
		fmt.Fprintf(&shield, strings.ReplaceAll(policy, "acme-web", "acme-shop"), name, "{from: [{bad: true}], paths: 7}")
	}
	w.write("tenants/acme/shield.yaml", shield.String())
	w.write("tenants/globex/shield.yaml", strings.ReplaceAll(shield.String(), "acme", "globex"))
	w.logged("LimitExceeded")
	w.revoked(func() { w.remove(grantFile) })

	// A Deny is beyond all limits.
	producer := w.proxy(adsclient.Delta, acmeInside, options{})
	w.write("tenants/acme/deny.yaml", strings.ReplaceAll(fmt.Sprintf(policy, "late-deny", `{from: [{namespace: acme-shop}]}`), "Allow", "Deny"))
	require.NoError(w.t, producer.Wait(w.bounded(), func(v adsclient.View) bool {
		e, _ := v.Get(snapshot.Extension.URL(), "rbac-http-8081")
		return strings.Contains(string(e.Any), "late-deny")
	}))
}

// reusedNamespace has both tenants in one trust domain, where an SVID does not
// say whose the namespace was when it was made.
func reusedNamespace(w *world) {
	w.renew([]string{"--svid-max-ttl", "1h"}, shareDomain)
	const file = insideFile
	had := w.proxy(adsclient.Delta, acmeInside, options{})
	w.replace(file, "bailiwick.dev/tenant: acme", "bailiwick.dev/tenant: globex")
	require.Equal(w.t, codes.Unavailable, status.Code(w.ended(had)))
	w.logged("NameReserved")
	w.seesNothing(acmeInside, options{})
	// Nor does another uid help, or the way back by way of another tenant.
	w.replace(file, "bailiwick.dev/tenant: globex", "bailiwick.dev/tenant: acme")
	w.replace(file, "uid: kanary-uid-of-namespace-acme-web", "uid: made-again")
	w.settled()
	w.seesNothing(acmeInside, options{})
}

// shareDomain has both tenants in one trust domain, and lets globex have acme-web.
func shareDomain(w *world) {
	w.replace(tenantsFile, "globex.example", "acme.example")
	w.replace(tenantsFile, `["globex-"]`, `["globex-", acme-web]`)
}

// settled waits until the directory was read after what was written.
func (w *world) settled() {
	w.t.Helper()
	reader := w.proxy(adsclient.Delta, acmeOrders, options{})
	w.write("tenants/acme/more.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: more, namespace: acme-shop}\nspec: {clusterIP: None, ports: [{name: http, port: 80}]}\n")
	require.NoError(w.t, reader.Wait(w.bounded(), func(v adsclient.View) bool {
		return v.Has(snapshot.Cluster.URL(), "more.acme-shop.svc.cluster.local:80")
	}))
	w.remove("tenants/acme/more.yaml")
}

// seesNothing requires that an identity is well known and has nothing.
func (w *world) seesNothing(id string, o options) {
	w.t.Helper()
	for _, p := range []adsclient.Protocol{adsclient.Delta, adsclient.SotW} {
		o.follow = adsclient.FollowReferences
		c, err := w.dial(p, id, o)
		require.NoError(w.t, err)
		said := strings.Join(w.said(c), "")
		require.NotContains(w.t, said, "acme")
		require.NotContains(w.t, said, "globex")
		for typ := range snapshot.NumTypes {
			require.Empty(w.t, without(c.Names(typ.URL()), "end-"), typ)
		}
		require.NoError(w.t, c.Close())
	}
}

func stolenSVID(w *world) {
	w.renew([]string{"--bind-stream-to-pod-ip"})
	at := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{127, byte(built.network), 1, last}) }
	w.protocols(func(w *world, p adsclient.Protocol) {
		for _, from := range []netip.Addr{{}, at(1), at(99)} { // the host, another Pod, nobody
			c, err := w.dial(p, acmeWeb, options{from: from})
			require.NoError(w.t, err)
			_ = c.Wildcard(snapshot.Cluster.URL())
			w.hungUp(c)
			require.Empty(w.t, c.Log(), "from %v", from)
		}
	})
	mine := w.proxy(adsclient.Delta, acmeWeb, options{from: at(2)})
	// With its Pod the stream ends.
	pod := "tenants/acme/shop-web.yaml"
	text := w.read(pod)
	w.replace(pod, "phase: Running", "phase: Failed")
	w.hungUp(mine)
	require.EqualValues(w.t, 7, w.metric("bailiwick_xds_refused_rpcs_total"))
	w.write(pod, text)
	w.until("the Pod is back", func() error {
		c, err := w.dial(adsclient.Delta, acmeWeb, options{from: at(2)})
		require.NoError(w.t, err)
		_ = c.Wildcard(snapshot.Cluster.URL())
		return c.Wait(w.bounded(), func(v adsclient.View) bool { return v.Total("").Messages > 0 })
	})
	// The platform takes everything away: on the open stream first.
	open := w.proxy(adsclient.Delta, acmeWeb, options{from: at(2)})
	producer := w.proxy(adsclient.Delta, globexOrders, options{from: netip.AddrFrom4([4]byte{127, byte(built.network), 3, 1})})
	w.replace(tenantsFile, "trustDomain: acme.example", "trustDomain: acme.example\n  suspended: true")
	require.Equal(w.t, codes.Unavailable, status.Code(w.ended(open)))
	require.Empty(w.t, open.Names(snapshot.Cluster.URL()), "told before it was hung up on")
	require.NoError(w.t, producer.Wait(w.bounded(), func(v adsclient.View) bool {
		e, ok := v.Get(snapshot.Extension.URL(), "rbac-http-8080")
		return ok && !strings.Contains(string(e.Any), "acme.example")
	}), "and nobody lets it in")
	w.seesNothing(acmeWeb, options{from: at(2)})
}

// hungUp requires that a stream was refused, with its connection: the reason
// may be lost with that.
func (w *world) hungUp(c *adsclient.Client) {
	w.t.Helper()
	require.Contains(w.t, []codes.Code{codes.PermissionDenied, codes.Unavailable}, status.Code(w.ended(c)))
}

func unwantedGifts(w *world) {
	w.renew(nil, func(w *world) {
		w.replace(tenantsFile, "trustDomain: acme.example", "trustDomain: acme.example\n  limits: {grants: 100}")
	})
	victim := w.proxy(adsclient.Delta, globexWeb, options{})
	before := w.said(victim)
	var gifts strings.Builder
	for i := range w.many(3000, 150) {
		fmt.Fprintf(&gifts, "apiVersion: bailiwick.dev/v1alpha1\nkind: ServiceGrant\nmetadata: {name: gift-%d, namespace: acme-web}\nspec: {from: [{tenant: globex, all: true}], to: [{service: orders, all: true}, {service: cache, all: true}]}\n---\n", i)
	}
	w.write("tenants/acme/gifts.yaml", gifts.String())
	w.logged("LimitExceeded")
	w.settled()
	require.Len(w.t, w.said(victim), len(before)+1, "no message but the answer to its own question")
	require.NoError(w.t, victim.Close())
	require.Equal(w.t, before, w.served(), "and whoever comes gets what was there before")
}

func toggling(w *world) {
	w.renew(nil)
	victim := w.proxy(adsclient.Delta, globexWeb, options{})
	before := w.said(victim)
	offer := "apiVersion: bailiwick.dev/v1alpha1\nkind: ServiceGrant\nmetadata: {name: gift, namespace: acme-web}\nspec: {from: [{tenant: globex, all: true}], to: [{service: orders, all: true}]}\n"
	own := w.proxy(adsclient.Delta, acmeInside, options{})
	for i := range w.many(300, 60) {
		text := fmt.Sprintf(policy, "toggled", `{from: [{all: true}]}`)
		if i%2 == 0 {
			text = offer + "---\n" + strings.ReplaceAll(text, "Allow", "Deny")
		}
		w.write("tenants/acme/toggled.yaml", text)
	}
	w.settled()
	require.Len(w.t, w.said(victim), len(before)+1)
	require.Less(w.t, len(own.Log()), 700, "decisions are gathered when they flood")
}

// sharedDirectory writes what is not its own into its folder.
func sharedDirectory(w *world) {
	w.renew(nil)
	before := w.victims()
	for _, text := range []string{
		strings.ReplaceAll(w.read("platform/namespace-globex-web.yaml"), "tenant: globex", "tenant: acme"),
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: acme-own, labels: {bailiwick.dev/tenant: acme}}\n",
		"apiVersion: bailiwick.dev/v1alpha1\nkind: Tenant\nmetadata: {name: globex}\nspec: {trustDomain: acme.example}\n",
		"apiVersion: bailiwick.dev/v1alpha1\nkind: Tenant\nmetadata: {name: acme}\nspec: {trustDomain: acme.example, defaultAction: AllowWithinTenant, namespaces: [globex-web]}\n",
		"apiVersion: bailiwick.dev/v1alpha1\nkind: ClusterServiceGrant\nmetadata: {name: all}\nspec: {tenants: [acme], to: [{namespace: globex-web, service: web, all: true}]}\n",
		"apiVersion: bailiwick.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: globex-shop-orders-policy, namespace: globex-shop}\nspec: {selector: {}, action: Allow, rules: [{from: [{all: true}]}]}\n",
		"apiVersion: bailiwick.dev/v1alpha1\nkind: ServiceGrant\nmetadata: {name: mine, namespace: globex-web}\nspec: {from: [{tenant: acme, all: true}], to: [{service: web, all: true}]}\n",
		"apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: globex-web}\nspec: {clusterIP: None, ports: [{name: http, port: 666}]}\n",
		strings.ReplaceAll(w.read("tenants/globex/web-web.yaml"), "globex-web-zone", "acme-zone"),
	} {
		w.write("tenants/acme/evil.yaml", text)
		w.logged("evil.yaml")
		w.settled()
		require.Equal(w.t, before, w.victims(), text)
	}
	// A link out of the folder leads nowhere.
	w.remove("tenants/acme/evil.yaml")
	require.NoError(w.t, os.Symlink(filepath.Join(w.dir, "tenants/globex/web-web.yaml"), filepath.Join(w.dir, "tenants/acme/link.yaml")))
	w.logged("link.yaml")
	require.Equal(w.t, before, w.victims())
}
