package file

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/object"
)

func parent(rel string) string { return path.Dir(rel) }

// report describes the state after a pass.
func (s *store) report() Report {
	r := Report{Objects: len(s.applied), Files: len(s.files), Errors: append([]*object.Error{}, s.folders...)}
	held := maps.Clone(s.heldFolders)
	namespaces := make(map[string]bool)
	complete := !s.waiting
	for _, st := range s.troubled {
		r.Errors = append(r.Errors, st.errors...)
		if st.parsed || !st.atStart {
			continue
		}
		if tenant := tenantOf(st.path); tenant != "" {
			held[tenant] = true
		} else {
			complete = false
		}
	}
	for c, why := range s.refused {
		r.Errors = append(r.Errors, &object.Error{
			File: s.name(c.path), Document: c.entry.Document, Line: c.entry.Line,
			Kind: c.entry.KindName, Namespace: c.entry.Namespace, Name: c.entry.Name, Message: why,
		})
	}
	r.Invalid = make(map[tenancy.Ref][]object.FieldError)
	for ref, c := range s.winners {
		for _, e := range c.entry.Errors {
			r.Invalid[ref] = append(r.Invalid[ref], object.FieldError{Field: e.Field, Message: e.Message})
		}
	}
	// What never was good and would, by its absence, take something away.
	for ref := range s.objectless {
		switch ref.Kind {
		case tenancy.KindTenant:
			held[ref.Key.Name] = true
		case tenancy.KindNamespace:
			namespaces[ref.Key.Name] = true
		}
	}
	s.ready = s.ready || complete
	r.Ready = s.ready
	r.Held, r.HeldNamespaces = slices.Sorted(maps.Keys(held)), slices.Sorted(maps.Keys(namespaces))
	slices.SortFunc(r.Errors, func(a, b *object.Error) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Document, b.Document), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
	})
	return r
}

// equal reports whether two reports say the same.
func (r Report) equal(o Report) bool {
	return r.Ready == o.Ready && r.Files == o.Files && r.Objects == o.Objects &&
		slices.Equal(r.Held, o.Held) && slices.Equal(r.HeldNamespaces, o.HeldNamespaces) &&
		slices.EqualFunc(r.Errors, o.Errors, func(a, b *object.Error) bool { return *a == *b })
}

// locate says where an applied object stands.
func (s *store) locate(ref tenancy.Ref) (Place, bool) {
	c, ok := s.winners[ref]
	if !ok || s.applied[ref] == nil {
		return Place{}, false
	}
	return Place{File: s.name(c.path), Document: c.entry.Document, Line: c.entry.Line}, true
}

// unchangeable says why an object cannot become another, as the API server would.
func unchangeable(old, now tenancy.Object) string {
	was, ok := old.(*tenancy.Tenant)
	is, still := now.(*tenancy.Tenant)
	if ok && still && was.TrustDomain != is.TrustDomain {
		return fmt.Sprintf("spec.trustDomain cannot be changed: the Tenant stays as it was, with %s; remove it and add it again if another tenant is meant", was.TrustDomain)
	}
	return ""
}
