package object

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// filler sets a typed object from a tree and reports what does not fit. What
// does not fit is left at its zero value, and list items keep their index, so
// that the rest of the object can still be checked.
type filler struct {
	*problems
	// strict refuses nulls, empty strings and zeroes below spec: in our kinds,
	// nobody may mean "everybody" by leaving a value empty.
	strict bool
	fields map[reflect.Type]map[string][]int
}

// fill sets dst; false means that it was left as it was.
func (f *filler) fill(path *field.Path, t *tree, dst reflect.Value) bool {
	if dst.Kind() == reflect.Pointer && dst.Type().Elem().Kind() == reflect.Int32 && t.scalar == int64(0) {
		dst.Set(reflect.New(dst.Type().Elem())) // where zero is a value, the field is a pointer
		return true
	}
	if f.strict && (t.isNull() || t.scalar == "" || t.scalar == int64(0)) && strings.HasPrefix(path.String(), "spec") {
		f.add(path, "is empty: give a value or leave the field out")
		return false
	}
	if t.isNull() {
		return false
	}
	if dst.Kind() == reflect.Pointer {
		value := reflect.New(dst.Type().Elem())
		if !f.fill(path, t, value.Elem()) {
			return false
		}
		dst.Set(value)
		return true
	}
	if own, ok := dst.Addr().Interface().(json.Unmarshaler); ok {
		return f.unmarshal(path, t, own)
	}
	switch dst.Kind() {
	case reflect.Struct:
		return f.structure(path, t, dst)
	case reflect.Map:
		return f.mapping(path, t, dst)
	case reflect.Slice:
		return f.list(path, t, dst)
	case reflect.Interface:
		dst.Set(reflect.ValueOf(t.plain()))
		return true
	}
	return f.scalar(path, t, dst)
}

// unmarshal leaves a value to a type that reads itself, such as a time.
func (f *filler) unmarshal(path *field.Path, t *tree, dst json.Unmarshaler) bool {
	raw, err := json.Marshal(t.plain())
	if err == nil {
		err = dst.UnmarshalJSON(raw)
	}
	if err != nil {
		f.add(path, "%s is not what belongs here", quote(string(raw)))
		return false
	}
	return true
}

func (f *filler) structure(path *field.Path, t *tree, dst reflect.Value) bool {
	if t.fields == nil {
		f.add(path, "expected a mapping, got %s", t.shape())
		return false
	}
	known := f.known(dst.Type())
	for _, in := range t.fields {
		at := child(path, in.name)
		where, ok := known[in.name]
		if !ok {
			f.add(at, "unknown field%s", suggest(in.name, slices.Collect(maps.Keys(known))))
			continue
		}
		f.fill(at, in.value, dst.FieldByIndex(where))
	}
	return true
}

func (f *filler) mapping(path *field.Path, t *tree, dst reflect.Value) bool {
	if t.fields == nil {
		f.add(path, "expected a mapping, got %s", t.shape())
		return false
	}
	strict := f.strict
	f.strict = false // an empty label value is a value
	defer func() { f.strict = strict }()
	dst.Set(reflect.MakeMapWithSize(dst.Type(), len(t.fields)))
	for _, in := range t.fields {
		value := reflect.New(dst.Type().Elem()).Elem()
		if strict && in.value.isNull() {
			f.add(child(path, in.name), "is empty: give a value or leave the field out")
			continue
		}
		if f.fill(child(path, in.name), in.value, value) {
			dst.SetMapIndex(reflect.ValueOf(in.name).Convert(dst.Type().Key()), value)
		}
	}
	return true
}

func (f *filler) list(path *field.Path, t *tree, dst reflect.Value) bool {
	if dst.Type().Elem().Kind() == reflect.Uint8 {
		raw, _ := json.Marshal(t.plain())
		if err := json.Unmarshal(raw, dst.Addr().Interface()); err != nil {
			f.add(path, "expected base64")
			return false
		}
		return true
	}
	if t.items == nil {
		f.add(path, "expected a list, got %s", t.shape())
		return false
	}
	dst.Set(reflect.MakeSlice(dst.Type(), len(t.items), len(t.items)))
	for i, item := range t.items {
		if item.isNull() {
			f.add(path.Index(i), "is empty")
			continue
		}
		f.fill(path.Index(i), item, dst.Index(i))
	}
	return true
}

func (f *filler) scalar(path *field.Path, t *tree, dst reflect.Value) bool {
	want := "a number"
	switch dst.Kind() {
	case reflect.String:
		if s, ok := t.scalar.(string); ok {
			dst.SetString(s)
			return true
		}
		want = "a string"
		if t.scalar != nil {
			f.add(path, "expected a string, got %s: put it in quotes", t.shape())
			return false
		}
	case reflect.Bool:
		if b, ok := t.scalar.(bool); ok {
			dst.SetBool(b)
			return true
		}
		want = "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		switch n := t.scalar.(type) {
		case int64:
			if dst.OverflowInt(n) {
				f.add(path, "%d is out of range", n)
				return false
			}
			dst.SetInt(n)
			return true
		case uint64:
			f.add(path, "%d is out of range", n)
			return false
		case float64:
			want = "a whole number"
		}
	case reflect.Float32, reflect.Float64:
		switch n := t.scalar.(type) {
		case int64:
			dst.SetFloat(float64(n))
			return true
		case float64:
			dst.SetFloat(n)
			return true
		}
	}
	f.add(path, "expected %s, got %s", want, t.shape())
	return false
}

// known returns where a struct keeps the field of each JSON name.
func (f *filler) known(of reflect.Type) map[string][]int {
	if known, ok := f.fields[of]; ok {
		return known
	}
	known := make(map[string][]int)
	for i := range of.NumField() {
		sf := of.Field(i)
		name, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
		switch {
		case name == "-" || !sf.IsExported():
		case name == "" && sf.Anonymous && sf.Type.Kind() == reflect.Struct:
			for inner, where := range f.known(sf.Type) {
				known[inner] = append([]int{i}, where...)
			}
		case name == "":
			known[sf.Name] = []int{i}
		default:
			known[name] = []int{i}
		}
	}
	f.fields[of] = known
	return known
}
