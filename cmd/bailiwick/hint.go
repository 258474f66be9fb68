package main

import (
	"fmt"
	"slices"
	"strings"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/object"
)

// hints adds to errors and warnings what was probably meant. Names that are
// suggested are those that whoever wrote the object may know: the author of a
// namespace's objects hears of that namespace's services, the owner of a tenant's
// folder of that tenant's namespaces, and of another tenant's only what that
// namespace sees.
func (w *world) hints(list []*object.Error) {
	objects := map[[3]string]tenancy.Object{}
	for _, ev := range w.events {
		objects[[3]string{ev.Ref.Kind.String(), ev.Ref.Key.Namespace, ev.Ref.Key.Name}] = ev.Object
	}
	for _, e := range list {
		near := ""
		if tenant, ok := folderOf(e); ok {
			near = object.Nearest(e.Namespace, w.model.NamespacesOf(tenant))
		} else if strings.HasPrefix(e.Message, tenancy.ReasonNotAvailable+": ") {
			near = w.nearService(e, objects[[3]string{e.Kind, e.Namespace, e.Name}])
		} else if strings.HasPrefix(e.Message, tenancy.ReasonNoProvider+": ") {
			near = w.nearProvider(e, objects[[3]string{e.Kind, e.Namespace, e.Name}])
		}
		if near != "" {
			e.Message += ", did you mean " + near + "?"
		}
	}
}

// folderOf is the tenant whose folder an object is in that is not of one of its
// namespaces.
func folderOf(e *object.Error) (tenant string, ok bool) {
	rest, ok := strings.CutPrefix(e.Message, "namespace "+e.Namespace+" does not belong to tenant ")
	return rest, ok && e.Namespace != ""
}

// nearService is the service that a reference of an object was meant to lead to.
func (w *world) nearService(e *object.Error, o tenancy.Object) string {
	var namespace, service string
	var known []string
	var index int
	if _, err := fmt.Sscanf(e.Field, "spec.to[%d]", &index); err != nil && e.Field != "spec.to" {
		return ""
	}
	switch o := o.(type) {
	case *tenancy.ServiceGrant:
		if index >= len(o.To) {
			return ""
		}
		namespace, service = e.Namespace, o.To[index].Service
		known = w.servicesIn(namespace)
	case *tenancy.ClusterServiceGrant: // the platform's
		if index >= len(o.To) {
			return ""
		}
		namespace, service = o.To[index].Namespace, o.To[index].Service
		known = w.servicesIn(namespace)
	case *tenancy.ServiceRequest:
		namespace, service = o.Namespace, o.Service
		tenant, _ := w.model.TenantOf(e.Namespace)
		for _, s := range w.model.Visible(tenancy.ViewKey{Tenant: tenant, Namespace: e.Namespace}) {
			if s.Service.Namespace == namespace {
				known = append(known, s.Service.Name)
			}
		}
	}
	if slices.Contains(known, service) {
		return "" // it is a port that is wrong
	}
	near := object.Nearest(service, known)
	if near == "" {
		return ""
	}
	return namespace + "/" + near
}

// nearProvider is the issuer of the policy's own tenant that a rule was meant to
// name.
func (w *world) nearProvider(e *object.Error, o tenancy.Object) string {
	var index int
	p, ok := o.(*tenancy.AccessPolicy)
	if _, err := fmt.Sscanf(e.Field, "spec.rules[%d].jwt.provider", &index); err != nil || !ok || index >= len(p.Rules) || p.Rules[index].Token == nil {
		return ""
	}
	tenant, _ := w.model.TenantOf(e.Namespace)
	var known []string
	for _, ev := range w.events {
		if t, ok := ev.Object.(*tenancy.Tenant); ok && ev.Ref.Key.Name == tenant {
			for _, provider := range t.Providers {
				known = append(known, provider.Name)
			}
		}
	}
	return object.Nearest(p.Rules[index].Token.Provider, known)
}

func (w *world) servicesIn(namespace string) (names []string) {
	for _, key := range w.model.ServicesIn(namespace) {
		names = append(names, key.Name)
	}
	return names
}
