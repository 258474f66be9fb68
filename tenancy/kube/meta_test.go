package kube

import (
	"reflect"

	"bailiwick.dev/bailiwick/tenancy"
)

// withoutMeta is a copy without what only an API server knows: metadata, and the
// UIDs of Pods.
func withoutMeta(obj tenancy.Object) tenancy.Object {
	v := reflect.New(reflect.TypeOf(obj).Elem())
	v.Elem().Set(reflect.ValueOf(obj).Elem())
	if meta := v.Elem().FieldByName("Meta"); meta.IsValid() {
		meta.SetZero()
	}
	return v.Interface().(tenancy.Object)
}
