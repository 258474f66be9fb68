package kube

import (
	"cmp"
	"slices"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/object"
)

// converted is one stored object as the Model wants it.
type converted struct {
	key tenancy.Key
	// object is nil if nothing is to be applied.
	object     tenancy.Object
	generation int64
	errors     []object.FieldError
	// holdings are what the status of a Tenant remembers, whatever else is wrong
	// with it; nil for other kinds.
	holdings *tenancy.Holdings
}

func (k *kind) key(obj metav1.Object) tenancy.Key {
	return tenancy.Key{Source: k.source.cfg.Options.Source, Namespace: obj.GetNamespace(), Name: obj.GetName()}
}

// convert reads one object, or hands on what was read already.
func (k *kind) convert(obj any) converted {
	if done, ok := obj.(converted); ok {
		return done
	}
	meta, ok := obj.(metav1.Object)
	if !ok {
		return converted{} // not what was asked for: client-go has complained
	}
	out := converted{key: k.key(meta), generation: meta.GetGeneration()}
	if u, ok := obj.(*unstructured.Unstructured); ok {
		k.decode(&out, u)
		return out
	}
	out.errors = object.Identify(k.info.Kind, meta)
	if len(out.errors) == 0 {
		out.object, out.errors = object.Convert(meta, k.source.cfg.Options)
	}
	return out
}

// decode reads an object of our own kinds as if it stood in a file: what of it is
// not known refuses it.
func (k *kind) decode(out *converted, u *unstructured.Unstructured) {
	// What the API server and we ourselves put there nobody has to be able to read.
	unstructured.RemoveNestedField(u.Object, "metadata", "managedFields")
	if k.info.Kind == tenancy.KindTenant {
		out.holdings = holdings(u)
	}
	delete(u.Object, "status")
	raw, err := u.MarshalJSON()
	if err != nil {
		out.errors = []object.FieldError{{Message: "cannot be written as JSON: " + oneLine(err)}}
		return
	}
	decoded := object.Decode(object.Document{JSON: true, Line: 1, Data: raw}, k.source.cfg.Options)
	for _, e := range decoded.Errors() {
		out.errors = append(out.errors, object.FieldError{Field: e.Field, Message: e.Message})
	}
	for _, e := range decoded.Entries {
		if e.Object != nil && e.Kind == k.info.Kind && e.Ref(out.key.Source).Key == out.key {
			out.object = e.Object
		}
	}
}

// holdings are read for themselves: what cannot be read of them makes no name
// wait, and the lease holder writes it anew.
func holdings(u *unstructured.Unstructured) *tenancy.Holdings {
	domain, _, _ := unstructured.NestedString(u.Object, "spec", "trustDomain")
	list, _, _ := unstructured.NestedSlice(u.Object, "status", "namespaces")
	out := &tenancy.Holdings{}
	for _, item := range list {
		fields, _ := item.(map[string]any)
		held := tenancy.Held{TrustDomain: domain}
		held.Namespace, _ = fields["name"].(string)
		held.UID, _ = fields["uid"].(string)
		text, waits := fields["until"].(string)
		until, err := time.Parse(time.RFC3339, text)
		if held.Namespace == "" || waits && err != nil {
			continue
		}
		if waits {
			held.Until = until.Unix()
		}
		out.Held = append(out.Held, held)
	}
	return out
}

// wrong is an error of a stored object.
func (k *kind) wrong(key tenancy.Key, e object.FieldError) *object.Error {
	return &object.Error{Kind: k.info.Name, Namespace: printable(key.Namespace), Name: printable(key.Name), Field: e.Field, Message: e.Message}
}

// printable is a name that an API server would have taken; only etcd itself can
// hold others.
func printable(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return "(invalid UTF-8)"
}

func compareKeys(a, b tenancy.Key) int {
	return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// sortKeys sorts keys; doubles stay.
func sortKeys(keys []tenancy.Key) { slices.SortFunc(keys, compareKeys) }
