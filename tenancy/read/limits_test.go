package read

import (
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// Every limit that there is has a default, can be overridden in a Tenant, and is
// told to the tenant under the name that it has there.
func TestEveryLimitIsThereEverywhere(t *testing.T) {
	names := map[string]string{}
	for i, typ := 0, reflect.TypeFor[v1alpha1.Limits](); i < typ.NumField(); i++ {
		names[typ.Field(i).Name], _, _ = strings.Cut(typ.Field(i).Tag.Get("json"), ",")
	}
	m := tenancy.NewModel(tenancy.Config{TrustDomains: []string{"t.example"}})
	typ := reflect.TypeFor[tenancy.Limits]()
	require.Len(t, names, typ.NumField())
	for i := range typ.NumField() {
		var override tenancy.Limits
		reflect.ValueOf(&override).Elem().Field(i).SetInt(12345)
		require.Positive(t, reflect.ValueOf(tenancy.DefaultLimits()).Field(i).Int(), typ.Field(i).Name)
		want := tenancy.DefaultLimits()
		reflect.ValueOf(&want).Elem().Field(i).SetInt(12345)
		require.Equal(t, want, tenancy.DefaultLimits().Override(override), typ.Field(i).Name)
		m.Apply(tenancy.Event{
			Ref:    tenancy.Ref{Kind: tenancy.KindTenant, Key: tenancy.Key{Name: "t"}},
			Object: &tenancy.Tenant{TrustDomain: "t.example", Limits: override},
		})
		who, ok := New(m, Scope{tenant: "t"}, "cluster.local", nil).Whoami()
		require.True(t, ok)
		require.Len(t, who.Limits, typ.NumField())
		for _, l := range who.Limits {
			require.Equal(t, l.Name == names[typ.Field(i).Name], l.Most == 12345, "%s is told as %s", typ.Field(i).Name, l.Name)
		}
	}
}
