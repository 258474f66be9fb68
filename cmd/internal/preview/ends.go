package preview

import (
	"cmp"
	"reflect"
	"slices"
	"time"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/object"
)

// End is an object that is new or different, and ends by itself.
type End struct {
	// Object is its kind, namespace and name, At when it ends, in RFC 3339.
	Object string `json:"object"`
	At     string `json:"at"`
	// Over is set if it has ended already: it is as if it were not there.
	Over bool `json:"over"`
}

// Ends are those of the objects of after that before does not have as they are.
func Ends(before, after []tenancy.Event, now time.Time) []End {
	had := map[tenancy.Ref]tenancy.Object{}
	for _, ev := range before {
		had[ev.Ref] = ev.Object
	}
	ends := []End{}
	for _, ev := range after {
		at := tenancy.EndOf(ev.Object)
		if ev.Object == nil || at.IsZero() || reflect.DeepEqual(had[ev.Ref], ev.Object) {
			continue
		}
		name := ev.Ref.Key.Name
		if ev.Ref.Key.Namespace != "" {
			name = ev.Ref.Key.Namespace + "/" + name
		}
		ends = append(ends, End{Object: object.KindName(ev.Ref.Kind) + " " + name, At: at.UTC().Format(time.RFC3339), Over: !now.Before(at)})
	}
	slices.SortFunc(ends, func(a, b End) int { return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Object, b.Object)) })
	return ends
}
