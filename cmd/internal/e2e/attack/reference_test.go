package attack

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/runtime"

	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
	"bailiwick.dev/bailiwick/tenancy/object"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// refers reports whether a field can name something of somebody else.
func refers(f reflect.StructField) bool {
	t := f.Type
	for t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if strings.HasPrefix(f.Name, "SPIFFEID") {
		return true
	}
	switch t {
	case reflect.TypeFor[v1alpha1.Name](), reflect.TypeFor[v1alpha1.NamespacePattern](), reflect.TypeFor[v1alpha1.ServiceAccountName](), reflect.TypeFor[v1alpha1.Host]():
		return true
	}
	return false
}

// fields calls visit with the path of each field below t that refers, and with
// its values below v, if that is valid.
func fields(path string, t reflect.Type, v reflect.Value, visit func(path string, v reflect.Value)) {
	switch t.Kind() {
	case reflect.Pointer:
		if v.IsValid() && !v.IsNil() {
			v = v.Elem()
		} else {
			v = reflect.Value{}
		}
		fields(path, t.Elem(), v, visit)
	case reflect.Slice:
		if !v.IsValid() || v.Len() == 0 {
			fields(path, t.Elem(), reflect.Value{}, visit)
			return
		}
		for i := range v.Len() {
			fields(path, t.Elem(), v.Index(i), visit)
		}
	case reflect.Struct:
		if t.PkgPath() != reflect.TypeFor[v1alpha1.Tenant]().PkgPath() {
			return
		}
		for i := range t.NumField() {
			f, below := t.Field(i), reflect.Value{}
			if v.IsValid() {
				below = v.Field(i)
			}
			if refers(f) {
				visit(path+"."+f.Name, below)
			} else if f.Name != "Status" {
				fields(path+"."+f.Name, f.Type, below, visit)
			}
		}
	}
}

// unreferred are the fields of all kinds that tenants write in which the documents
// have no name of globex: kinds and fields that are new are among them.
func unreferred(t *testing.T, documents string) []string {
	t.Helper()
	scheme := runtime.NewScheme()
	require.NoError(t, v1alpha1.AddToScheme(scheme))
	list, err := kubetest.Parse([]byte(documents))
	require.NoError(t, err)
	open := map[string]bool{}
	note := func(path string, v reflect.Value) {
		if _, known := open[path]; !known {
			open[path] = true
		}
		if v.IsValid() && strings.Contains(strings.ToLower(valueText(v)), "globex") {
			open[path] = false
		}
	}
	for _, kind := range object.Kinds() {
		if !kind.Namespaced || !scheme.Recognizes(v1alpha1.GroupVersion().WithKind(kind.Name)) {
			continue
		}
		empty, err := scheme.New(v1alpha1.GroupVersion().WithKind(kind.Name))
		require.NoError(t, err)
		fields(kind.Name, reflect.TypeOf(empty), reflect.Value{}, note)
		for _, u := range list {
			if u.GetKind() != kind.Name {
				continue
			}
			typed, err := scheme.New(v1alpha1.GroupVersion().WithKind(kind.Name))
			require.NoError(t, err)
			require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, typed))
			fields(kind.Name, reflect.TypeOf(typed), reflect.ValueOf(typed), note)
		}
	}
	require.Greater(t, len(open), 8, "%v", open)
	var out []string
	for path, is := range open {
		// A service of an offer, or what is offered, is one's own.
		if is {
			out = append(out, path)
		}
	}
	slices.Sort(out)
	return out
}

// valueText is all text of a value.
func valueText(v reflect.Value) string {
	switch v.Kind() {
	case reflect.String:
		return v.String()
	case reflect.Slice:
		var b strings.Builder
		for i := range v.Len() {
			b.WriteString(valueText(v.Index(i)) + " ")
		}
		return b.String()
	}
	return ""
}
