package xds

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy"
)

// canaries fills objects with strings that are nowhere else.
type canaries struct {
	n int
	// fixed are the values of fields that have to fit the rest of the mesh.
	fixed map[string]string
	// paths are the fields of the strings and addresses that were made, if not nil.
	paths map[string]string
}

func (c *canaries) made(path, text string) string {
	if c.paths != nil {
		c.paths[text] = path
	}
	return text
}

// everyObject is an object of each kind that there is. A kind that is missing here
// fails the test.
func everyObject() map[tenancy.Kind]tenancy.Object {
	return map[tenancy.Kind]tenancy.Object{
		tenancy.KindNamespace: &tenancy.Namespace{}, tenancy.KindService: &tenancy.Service{}, tenancy.KindEndpointSlice: &tenancy.EndpointSlice{},
		tenancy.KindPod: &tenancy.Pod{}, tenancy.KindTenant: &tenancy.Tenant{}, tenancy.KindServiceGrant: &tenancy.ServiceGrant{},
		tenancy.KindServiceRequest: &tenancy.ServiceRequest{}, tenancy.KindClusterServiceGrant: &tenancy.ClusterServiceGrant{},
		tenancy.KindAccessPolicy: &tenancy.AccessPolicy{}, tenancy.KindTrustBundle: &tenancy.TrustBundle{},
		tenancy.KindClusterAccessPolicy: &tenancy.ClusterAccessPolicy{}, tenancy.KindPeerTLS: &tenancy.PeerTLS{},
		tenancy.KindHoldings: &tenancy.Holdings{},
	}
}

// fill sets every field below v, whatever fields there are.
func (c *canaries) fill(path string, v reflect.Value) {
	if s, ok := c.fixed[path]; ok {
		v.SetString(s)
		return
	}
	switch v.Type() {
	case reflect.TypeFor[netip.Addr]():
		c.n++
		at := netip.AddrFrom4([4]byte{10, 77, byte(c.n >> 8), byte(c.n)})
		c.made(path, at.String())
		v.Set(reflect.ValueOf(at))
		return
	case reflect.TypeFor[netip.Prefix]():
		v.Set(reflect.ValueOf(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, 0, 0}), 16)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		c.n++
		v.SetString(c.made(path, fmt.Sprintf("kanary-%d", c.n)))
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				c.fill(path+"."+v.Type().Field(i).Name, v.Field(i))
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		c.fill(path, v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		c.fill(path, v.Index(0))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		c.fill(path, key)
		c.fill(path, value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Bool:
	case reflect.Uint8:
	case reflect.Uint16:
		v.SetUint(80)
	case reflect.Int, reflect.Int64:
		if !strings.Contains(path, ".Limits") {
			v.SetInt(1)
		}
	case reflect.Uint32, reflect.Uint64, reflect.Int32:
		v.Set(reflect.ValueOf(1).Convert(v.Type()))
	default:
		panic("a field that no canary fits: " + path)
	}
}

// Every string of one tenant's objects is a canary, whatever kinds and fields
// there are; none gets to another tenant's stream, while they come, change and
// go. Its own proxies do see some of them.
func TestNoCanaryLeavesItsTenant(t *testing.T) {
	for k := tenancy.Kind(1); k.String() != "Unknown"; k++ {
		require.Contains(t, everyObject(), k, "kind %s is not among the canaries", k)
	}
	bundle := meshBundle(t)
	for _, mode := range []protocol{delta, state} {
		synctest.Test(t, func(t *testing.T) {
			const ns = "ns-000"
			var logged bytes.Buffer
			m := newMesh(t, bundle, append(meshTenant(0, 2), meshTenant(1, 2)...))
			m.srv.log = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
			a, b := m.connect(mode, 0, 2), m.connect(mode, 1, 2)
			own, foreign := raws(a.first), raws(b.first)
			step := func(events ...tenancy.Event) {
				m.publisher.Apply(events)
				time.Sleep(time.Minute)
				synctest.Wait()
				own, foreign = append(own, raws(a.take())...), append(foreign, raws(b.take())...)
			}
			var gone []tenancy.Event
			for round := range 4 {
				for k := tenancy.Kind(1); k.String() != "Unknown"; k++ {
					c := &canaries{n: 1000*int(k) + 100*round, fixed: map[string]string{
						"Namespace.Tenant": "tenant-000", "EndpointSlice.Service": "kanary-service", "Tenant.TrustDomain": meshDomain,
						"Pod.ServiceAccount": "s0",
					}}
					o := everyObject()[k]
					c.fill(reflect.TypeOf(o).Elem().Name(), reflect.ValueOf(o).Elem())
					name, namespace := "kanary-"+strings.ToLower(k.String()), ns
					switch o := o.(type) {
					case *tenancy.Namespace:
						name, namespace = "kanary-namespace", ""
					case *tenancy.Tenant:
						name, namespace, o.Namespaces, o.TrustDomain = "tenant-000", "", nil, meshDomain
						o.Suspended = false
					case *tenancy.ClusterServiceGrant:
						namespace, o.AllTenants = "", false
					case *tenancy.TrustBundle, *tenancy.ClusterAccessPolicy:
						namespace = ""
					case *tenancy.Holdings:
						name, namespace = "tenant-000", ""
					case *tenancy.ServiceGrant:
						o.From[0].Tenant, o.To[0].Service = "tenant-001", "s0" // offered, and not taken
					case *tenancy.AccessPolicy:
						o.MatchLabels, o.Rules[0].Sources[0] = nil, tenancy.AccessSource{Namespace: ns}
					}
					ref := tenancy.Ref{Kind: k, Key: tenancy.Key{Namespace: namespace, Name: name}}
					step(tenancy.Event{Ref: ref, Object: o})
					if k != tenancy.KindTenant {
						gone = append(gone, tenancy.Event{Ref: ref})
					}
				}
			}
			step(gone...)
			require.Contains(t, string(bytes.Join(own, nil)), "kanary", "the search finds")
			for _, raw := range foreign {
				require.NotContains(t, string(raw), "kanary")
				require.NotContains(t, string(raw), "10.77.")
				require.NotContains(t, string(raw), ns)
			}
			for line := range strings.Lines(logged.String()) {
				require.False(t, strings.Contains(line, "tenant-001") && strings.Contains(line, "kanary"), line)
			}
		})
	}
}
