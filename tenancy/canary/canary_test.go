package canary

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/object"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// leaves calls found with the path of each string and address of a type, and
// with its texts in a value, which may be invalid for none.
func leaves(path string, t reflect.Type, v reflect.Value, found func(path string, text string)) {
	value := func(get func() reflect.Value) reflect.Value {
		if !v.IsValid() {
			return reflect.Value{}
		}
		return get()
	}
	switch {
	case t == reflect.TypeFor[netip.Addr]():
		text := ""
		if v.IsValid() && v.Interface().(netip.Addr).IsValid() {
			text = v.Interface().(netip.Addr).String()
		}
		found(path, text)
	case t.Kind() == reflect.String:
		text := ""
		if v.IsValid() {
			text = v.String()
		}
		found(path, text)
	case t.Kind() == reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Type == reflect.TypeFor[metav1.TypeMeta]() || f.Type == reflect.TypeFor[metav1.ObjectMeta]() || f.Name == "Status" {
				continue // metadata is that of the model; statuses are the server's words
			}
			at := path
			if !f.Anonymous {
				at += "." + f.Name
			}
			leaves(at, f.Type, value(func() reflect.Value { return v.Field(i) }), found)
		}
	case t.Kind() == reflect.Pointer:
		leaves(path, t.Elem(), value(func() reflect.Value { return v.Elem() }), found)
	case t.Kind() == reflect.Slice:
		leaves(path, t.Elem(), reflect.Value{}, found)
		for i := 0; v.IsValid() && i < v.Len(); i++ {
			leaves(path, t.Elem(), v.Index(i), found)
		}
	case t.Kind() == reflect.Map:
		leaves(path+".key", t.Key(), reflect.Value{}, found)
		leaves(path+".value", t.Elem(), reflect.Value{}, found)
		for i := value(func() reflect.Value { return v }); i.IsValid(); i = (reflect.Value{}) {
			for _, k := range i.MapKeys() {
				leaves(path+".key", t.Key(), k, found)
				leaves(path+".value", t.Elem(), i.MapIndex(k), found)
			}
		}
	}
}

// unmarked are the fields whose values are of a fixed set, or times.
var unmarked = []string{
	"Tenant.Spec.OutboundPolicy", "Tenant.Spec.Visibility", "Tenant.Spec.DefaultAction", "Tenant.Spec.TLS.MinimumVersion", "Tenant.Spec.TLS.Peers", "Tenant.Spec.TLS.PlainDestinations",
	"Tenant.Spec.JWT.Providers.JWKSRefresh", "Tenant.Spec.Debounce.Quiet", "Tenant.Spec.Debounce.Max", "Tenant.Spec.Connections.MaxConnectionAge", "Tenant.Spec.Connections.MaxStreamAge",
	"ServiceGrant.Spec.ExpiresAt", "ServiceRequest.Spec.ExpiresAt", "ClusterServiceGrant.Spec.ExpiresAt",
	"AccessPolicy.Spec.Scope", "AccessPolicy.Spec.Action", "AccessPolicy.Spec.Mode", "AccessPolicy.Spec.ExpiresAt", "PeerTLS.Spec.Mode", "PeerTLS.Spec.Until",
	"ClusterAccessPolicy.Spec.Tier", "ClusterAccessPolicy.Spec.Mode", "ClusterAccessPolicy.Spec.ExpiresAt", "ClusterAccessPolicy.Spec.Rules.Action",
	// The server's words of its streams, which no tenant may read.
	"ProxyReport.Report",
}

func sample() Tenant {
	return Tenant{Name: "kanarya", Peer: "kanaryb", Stranger: "kanaryc", Network: "10.40.1", Number: 1}
}

// Every string that a tenant's objects can have has a canary in it somewhere.
func TestEveryFieldHasACanary(t *testing.T) {
	scheme := runtime.NewScheme()
	require.NoError(t, v1alpha1.AddToScheme(scheme))
	marked := map[string]bool{}
	found := func(path, text string) {
		text = strings.ToLower(text)
		marked[path] = marked[path] || strings.Contains(text, "kanary") || strings.HasPrefix(text, "10.40.1.") || strings.HasPrefix(text, "10.96.1.")
	}
	for kind, typ := range scheme.KnownTypes(v1alpha1.GroupVersion()) {
		if strings.HasPrefix(typ.PkgPath(), "bailiwick.dev/") && !strings.HasSuffix(kind, "List") {
			leaves(kind, typ, reflect.Value{}, found)
		}
	}
	// A bundle is of the platform, and bytes; holdings are what the server remembers.
	kinds := map[tenancy.Kind]bool{tenancy.KindTrustBundle: true, tenancy.KindHoldings: true}
	names := map[string]bool{}
	for _, d := range sample().Documents() {
		require.False(t, names[d.Path])
		names[d.Path] = true
		if typ, ok := scheme.KnownTypes(v1alpha1.GroupVersion())[d.Kind]; ok {
			o := reflect.New(typ)
			require.NoError(t, yaml.UnmarshalStrict([]byte(d.Text), o.Interface()), d.Text)
			leaves(d.Kind, typ, o.Elem(), found)
		}
		decoded := object.DecodeAll(d.Path, []byte(d.Text), object.Options{})
		require.Empty(t, decoded.Errors(), d.Text)
		for _, e := range decoded.Entries {
			require.Equal(t, []string{d.Kind, d.Namespace, d.Name}, []string{e.KindName, e.Namespace, e.Name})
			kinds[e.Kind] = true
			leaves("the model's "+e.KindName, reflect.TypeOf(e.Object).Elem(), reflect.ValueOf(e.Object).Elem(), found)
		}
	}
	for k := tenancy.Kind(1); k.String() != "Unknown"; k++ {
		require.True(t, kinds[k], "%s has no document", k)
	}
	require.Greater(t, len(marked), 80)
	for _, path := range slices.Sorted(maps.Keys(marked)) {
		assert.NotEqual(t, slices.Contains(unmarked, path), marked[path], "%s: in tenant.yaml, or else among those that cannot be marked", path)
	}
	for _, path := range unmarked {
		require.Contains(t, marked, path, "no such field")
	}
}

// The search finds, and leaves nobody's own words.
func TestFind(t *testing.T) {
	a, b := sample(), Tenant{Name: "kanaryc", Peer: "kanaryd", Stranger: "kanarya", Network: "10.40.3", Number: 3}
	require.Contains(t, Find("x KANARYA-METHOD y", a), "kanarya-method")
	require.NotEmpty(t, Find("at 10.40.1.7", a))
	require.NotEmpty(t, Find("at 10.96.1.2:80", a))
	require.Empty(t, Find("kanaryb 10.40.11.7", a))
	require.Empty(t, Find(b.Without("kanarya-shop/kanarya-db of kanarya is not there"), a))
	require.NotEmpty(t, Find(b.Without("kanarya-shop/kanarya-orders is not there"), a))
	require.NotEmpty(t, Find(b.Without("kanarya.example"), a))
}
