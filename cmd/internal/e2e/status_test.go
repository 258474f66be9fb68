package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/xds/adsclient"
)

// said is what "bailiwick status -o json" prints.
type said struct {
	Objects []struct {
		Kind, Namespace, Name string
		Conditions            []metav1.Condition
	}
	Held []struct{ Kind, Namespace, Name string }
}

func (f *fixture) status() said {
	f.t.Helper()
	got := run(f.t, nil, "status", "-o", "json", "--admin-address", f.server.Admin.String())
	require.Contains(f.t, []int{0, 1}, got.code, got.stderr)
	var s said
	require.NoError(f.t, json.Unmarshal([]byte(got.stdout), &s))
	return s
}

// condition is "Status/Reason" of one condition of one object.
func (s *said) condition(object, kind string) string {
	for _, o := range s.Objects {
		for _, c := range o.Conditions {
			if o.Kind+" "+o.Namespace+"/"+o.Name == object && c.Type == kind {
				return string(c.Status) + "/" + c.Reason
			}
		}
	}
	return "none"
}

// says waits until an object's condition is as expected.
func (f *fixture) says(object, kind, want string) {
	f.t.Helper()
	f.until(fmt.Sprintf("%s is %s %s", object, kind, want), func() error {
		s := f.status()
		if got := s.condition(object, kind); got != want {
			return fmt.Errorf("it is %s", got)
		}
		return nil
	})
}

// client is a proxy of a Pod that is no Envoy, and answers as it likes.
func (f *fixture) client(name string, answer func(*adsclient.Message) adsclient.Verdict) *adsclient.Client {
	f.t.Helper()
	p := f.newPod(f.world(), name)
	config := f.envoyConfig(p)
	config.SotW = false
	c, err := mesh.DialADS(f.ctx, config, func(c *adsclient.Config) {
		c.Follow, c.OnResponse = adsclient.FollowReferences, answer
	})
	require.NoError(f.t, err)
	f.t.Cleanup(func() { _ = c.Close() })
	return c
}

const (
	acmePolicy   = "AccessPolicy acme-shop/acme-shop-orders-policy"
	globexPolicy = "AccessPolicy globex-shop/globex-shop-orders-policy"
)

// What becomes of objects is said of each by the proxies of its own tenant: a
// real Envoy that takes all, one that refuses everything and tells lies about
// others, and one that never says a word.
func TestStatusSaysWhatBecomesOfObjects(t *testing.T) {
	f := setUp(t)
	f.says(acmePolicy, "Accepted", "True/Accepted")
	f.says(acmePolicy, "Programmed", "Unknown/NoProxies")
	f.start(shopOrders)
	f.says(acmePolicy, "Programmed", "True/Programmed")
	f.says("ServiceRequest acme-shop/acme-shop-request", "ResolvedRefs", "True/ResolvedRefs")
	f.says("ServiceRequest acme-shop/acme-shop-request", "Programmed", "True/Programmed")
	f.says(globexPolicy, "Programmed", "Unknown/NoProxies")

	f.client(globexOrders, func(*adsclient.Message) adsclient.Verdict {
		return adsclient.Nack("acme-shop-orders-policy of acme-shop is to blame, kanary-of-a-liar")
	})
	f.says(globexPolicy, "Programmed", "False/Refused")
	f.says("Tenant /globex", "Programmed", "False/Refused")
	mute := f.client("acme-web/orders-0", func(*adsclient.Message) adsclient.Verdict { return adsclient.Hold() })
	f.says("AccessPolicy acme-web/acme-web-orders-policy", "Programmed", "False/Pending")

	s := f.status()
	require.Equal(t, "True/Programmed", s.condition(acmePolicy, "Programmed"), "moved by nobody but the proxies of its namespace")
	text, err := json.Marshal(s)
	require.NoError(t, err)
	require.NotContains(t, string(text), "kanary-of-a-liar", "no proxy puts words into a status")
	for _, o := range s.Objects {
		own := o.Namespace + o.Name
		for _, c := range o.Conditions {
			require.False(t, strings.Contains(own, "globex") && strings.Contains(c.Message, "acme"), c.Message)
			require.False(t, strings.Contains(own, "acme") && strings.Contains(c.Message, "globex"), c.Message)
		}
	}

	list := run(t, nil, "proxies", "--admin-address", f.server.Admin.String())
	require.Equal(t, 0, list.code, list.stderr)
	lines := strings.Split(strings.TrimSpace(list.stdout), "\n")
	require.Len(t, lines, 4, list.stdout)
	require.Regexp(t, `^TENANT +PROXY +REPLICA +SENT +ACKED +NACKED +WAITS +REFUSED +AGE$`, lines[0])
	require.Regexp(t, `^acme +acme-shop/orders-0 .* 0 +- +0 +\d+s$`, lines[1], "Envoy has taken everything")
	require.Regexp(t, `^acme +acme-web/orders-0 \S* *\S+ +\d+ +0 +0 +\d+s +0 +\d+s$`, lines[2])
	require.Regexp(t, `^globex +globex-shop/orders-0 `, lines[3])

	dump := run(t, nil, "dump", "globex-shop/orders-0", "--admin-address", f.server.Admin.String())
	require.Equal(t, 0, dump.code, dump.stderr)
	require.Contains(t, dump.stdout, "AccessPolicy globex-shop/globex-shop-orders-policy")
	require.Contains(t, dump.stdout, "kanary-of-a-liar", "the platform reads what it said")
	require.NotContains(t, dump.stdout, "@type")
	f.dumpsContents()
	none := run(t, nil, "dump", "globex-shop/absent", "--admin-address", f.server.Admin.String())
	require.Equal(t, 1, none.code)

	require.NoError(t, mute.Close())
	f.says("AccessPolicy acme-web/acme-web-orders-policy", "Programmed", "Unknown/NoProxies")
	f.write("tenants/acme/late.yaml", `apiVersion: bailiwick.dev/v1alpha1
kind: ServiceRequest
metadata: {name: late, namespace: acme-web}
spec: {to: {namespace: globex-shop, service: orders, ports: [8080]}}
---
apiVersion: bailiwick.dev/v1alpha1
kind: ServiceRequest
metadata: {name: nowhere, namespace: acme-web}
spec: {to: {namespace: nowhere, service: orders, ports: [8080]}}
---
apiVersion: bailiwick.dev/v1alpha1
kind: AccessPolicy
metadata: {name: broken, namespace: acme-web}
spec: {selector: {}, action: Alow, rules: [{from: [{all: true}]}]}
`)
	f.says("ServiceRequest acme-web/late", "ResolvedRefs", "False/NotAvailable")
	f.says("ServiceRequest acme-web/nowhere", "ResolvedRefs", "False/NotAvailable")
	f.says("AccessPolicy acme-web/broken", "Accepted", "False/Invalid")
	// What another object changes is said of this one as well.
	grant := f.read("tenants/globex/grant.yaml")
	f.remove("tenants/globex/grant.yaml")
	f.says("ServiceRequest acme-shop/acme-shop-request", "ResolvedRefs", "False/NotAvailable")
	f.write("tenants/globex/grant.yaml", grant)
	f.says("ServiceRequest acme-shop/acme-shop-request", "ResolvedRefs", "True/ResolvedRefs")
	table := run(t, nil, "status", "--admin-address", f.server.Admin.String())
	require.Equal(t, 1, table.code)
	require.Regexp(t, `AccessPolicy +acme-web/broken +False +- +\S+ +Invalid +spec.action: "Alow" is none of Allow, Deny`, table.stdout)
	require.NotContains(t, table.stdout, acmePolicy)
	f.remove("tenants/acme/late.yaml")
	f.says("AccessPolicy acme-web/broken", "Accepted", "none")
}

// Many services that go at once are held until that is confirmed, while what is
// revoked in the same change is revoked at once; nobody else notices, and the
// server stays ready.
func TestRemovalsAreHeldUntilConfirmed(t *testing.T) {
	f := newFixture(t)
	var many strings.Builder
	for i := range 30 {
		fmt.Fprintf(&many, "---\napiVersion: v1\nkind: Service\nmetadata: {name: many-%d, namespace: acme-shop}\nspec: {ports: [{name: http, port: 8080}]}\n", i)
	}
	f.write("tenants/acme/many.yaml", many.String())
	f.serve()
	require.NoError(t, f.server.WaitReady(f.ctx))
	c := f.client(shopOrders, nil)
	knows := func(service string) bool {
		return slices.Contains(c.Names(mesh.ClusterType), service+".svc.cluster.local:8080")
	}
	f.until("the proxy knows everything", func() error {
		if !knows("many-29.acme-shop") || !knows("orders.globex-shop") {
			return fmt.Errorf("it knows %v", c.Names(mesh.ClusterType))
		}
		return nil
	})

	f.remove("tenants/globex/grant.yaml")
	f.remove("tenants/acme/many.yaml")
	f.until("the grant is revoked", func() error {
		if knows("orders.globex-shop") {
			return errors.New("not yet")
		}
		return nil
	})
	f.until("the rest is held", func() error {
		if s := f.status(); len(s.Held) != 30 {
			return fmt.Errorf("held are %v", s.Held)
		}
		return nil
	})
	f.logged(`level=ERROR msg="removal held: .*" kind=Service objects=30`)
	require.True(t, knows("many-29.acme-shop"))
	require.NoError(t, f.server.WaitReady(f.ctx))
	metrics, err := f.server.Metrics(f.ctx)
	require.NoError(t, err)
	require.Contains(t, string(metrics), `bailiwick_removals_held{kind="Service"} 30`)

	got := run(t, nil, "confirm", "--admin-address", f.server.Admin.String())
	require.Equal(t, 0, got.code, got.stderr)
	require.Equal(t, "30 objects are removed\n", got.stdout)
	f.until("they are gone", func() error {
		if knows("many-29.acme-shop") || knows("many-0.acme-shop") {
			return errors.New("not yet")
		}
		return nil
	})
	require.Empty(t, f.status().Held)

	// A Tenant is held by itself, as long as namespaces are labelled as its own.
	tenants := f.read("platform/tenants.yaml")
	f.write("platform/tenants.yaml", "# none\n")
	f.until("both Tenants are held", func() error {
		if s := f.status(); len(s.Held) != 2 {
			return fmt.Errorf("held are %v", s.Held)
		}
		return nil
	})
	require.True(t, knows("orders.acme-shop"))
	f.write("platform/tenants.yaml", tenants)
	f.until("nothing is held", func() error {
		if s := f.status(); len(s.Held) != 0 {
			return fmt.Errorf("held are %v", s.Held)
		}
		return nil
	})
}

// dumpsContents: the platform reads what is in the resources of a proxy, all or
// some, and it is what the proxy holds.
func (f *fixture) dumpsContents() {
	f.t.Helper()
	ask := func(args ...string) ended {
		f.t.Helper()
		return run(f.t, nil, append([]string{"dump", shopOrders, "--admin-address", f.server.Admin.String()}, args...)...)
	}
	type dumped struct {
		Given []struct {
			Resources []struct {
				Type, Name string
				Content    map[string]any
			}
		}
	}
	all := ask("--contents", "-o", "json")
	require.Equal(f.t, 0, all.code, all.stderr)
	var d dumped
	require.NoError(f.t, json.Unmarshal([]byte(all.stdout), &d))
	types := map[string]int{}
	for _, r := range d.Given[0].Resources {
		require.NotEmpty(f.t, r.Content["@type"], "%s %s", r.Type, r.Name)
		types[r.Type]++
	}
	require.Len(f.t, types, 6, "of every type")
	require.NotContains(f.t, all.stdout, "PRIVATE KEY")

	const name = "orders.acme-shop.svc.cluster.local:8080"
	some := ask("--contents", "--type", "cluster", "--name", name, "-o", "json")
	require.Equal(f.t, 0, some.code, some.stderr)
	d = dumped{}
	require.NoError(f.t, json.Unmarshal([]byte(some.stdout), &d))
	require.Len(f.t, d.Given[0].Resources, 1)
	require.Equal(f.t, "type.googleapis.com/envoy.config.cluster.v3.Cluster", d.Given[0].Resources[0].Content["@type"])
	require.Equal(f.t, name, d.Given[0].Resources[0].Content["name"])
	text := ask("--contents", "--type", "endpoint")
	require.Equal(f.t, 0, text.code, text.stderr)
	require.Contains(f.t, text.stdout, "\n  \"@type\": \"type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment\"")
	require.NotContains(f.t, text.stdout, "config.cluster.v3")
	require.Equal(f.t, 2, ask("--type", "clusters").code)
}
