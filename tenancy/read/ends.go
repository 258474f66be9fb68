package read

import (
	"slices"
	"time"

	"bailiwick.dev/bailiwick/tenancy"
)

// at is a point in time as objects have it.
func at(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// ending notes when a thing ends that the answer rests on.
func (r *Reader) ending(a *Answer, what string, ref tenancy.Ref) {
	if end, over := r.model.End(ref); !end.IsZero() && !over {
		a.Ends = append(a.Ends, what+" ends at "+at(end))
	}
}

// endingSight notes when a service will no longer be visible, as far as that is
// the asker's to know: when the last request of it, or the last grant, has ended.
func (r *Reader) endingSight(a *Answer, q Question, key tenancy.Key) {
	if r.own(q.From.Namespace) {
		r.endingLast(a, "ServiceRequest", r.model.RequestsFor(q.From.Namespace, q.Namespace, q.Service, q.Port))
	}
	if r.own(q.Namespace) {
		r.endingLast(a, "ServiceGrant", r.model.GrantsFor(key, q.Port, q.From.Namespace))
	}
}

func (r *Reader) endingLast(a *Answer, kind string, refs []tenancy.Ref) {
	var last tenancy.Ref
	var end time.Time
	for _, ref := range refs {
		at, _ := r.model.End(ref)
		if at.IsZero() {
			return
		}
		if at.After(end) {
			last, end = ref, at
		}
	}
	if !end.IsZero() {
		r.ending(a, kind+" "+last.Key.Namespace+"/"+last.Key.Name, last)
	}
}

// ended lists the policies that would have been looked at, had they not ended.
func (r *Reader) ended(a *Answer, pod tenancy.Backend) {
	add := func(ev tenancy.Event, action tenancy.Action) {
		end, _ := r.model.End(ev.Ref)
		a.Looked = append(a.Looked, Looked{
			Policy: named(identityOf(ev.Ref)), Action: objectAction(action), At: r.place(ev.Ref),
			Outcome: "ended at " + at(end) + ": it is as if it were not there",
		})
	}
	tenant, _ := r.model.TenantOf(pod.Pod.Namespace)
	namespaces := []string{pod.Pod.Namespace}
	if admin := r.model.TenantObject(tenant).AdminNamespace; admin != "" && admin != pod.Pod.Namespace {
		namespaces = append(namespaces, admin)
	}
	for i, ns := range namespaces {
		for _, ev := range r.model.Ended(tenancy.KindAccessPolicy, ns) {
			if p, ok := ev.Object.(*tenancy.AccessPolicy); ok && (i == 0 || p.TenantWide) && r.mayRead(ev.Ref) {
				add(ev, p.Action)
			}
		}
	}
	for _, ev := range r.model.Ended(tenancy.KindClusterAccessPolicy, "") {
		p, ok := ev.Object.(*tenancy.ClusterAccessPolicy)
		if !ok || !r.mayRead(ev.Ref) {
			continue
		}
		var actions []tenancy.Action
		for _, rule := range p.Rules {
			if !slices.Contains(actions, rule.Action) {
				actions = append(actions, rule.Action)
				add(ev, rule.Action)
			}
		}
	}
}

// endedRequest is a request of a namespace for a service port that has ended.
func (r *Reader) endedRequest(q Question) (string, bool) {
	for _, ev := range r.model.Ended(tenancy.KindServiceRequest, q.From.Namespace) {
		if o, ok := ev.Object.(*tenancy.ServiceRequest); ok && o.Namespace == q.Namespace && o.Service == q.Service && o.Ports.Has(q.Port) {
			return r.wasThere("ServiceRequest", ev.Ref), true
		}
	}
	return "", false
}

// endedGrant is a grant of a service port to a namespace's tenant that has ended.
func (r *Reader) endedGrant(q Question) (string, bool) {
	tenant, _ := r.model.TenantOf(q.From.Namespace)
	for _, ev := range r.model.Ended(tenancy.KindServiceGrant, q.Namespace) {
		o, ok := ev.Object.(*tenancy.ServiceGrant)
		if !ok {
			continue
		}
		to := slices.ContainsFunc(o.To, func(to tenancy.GrantTo) bool { return to.Service == q.Service && to.Ports.Has(q.Port) })
		from := slices.ContainsFunc(o.From, func(f tenancy.GrantFrom) bool {
			return f.Tenant == tenant && (f.All || slices.Contains(f.Namespaces, q.From.Namespace))
		})
		if to && from {
			return r.wasThere("ServiceGrant", ev.Ref), true
		}
	}
	return "", false
}

func (r *Reader) wasThere(kind string, ref tenancy.Ref) string {
	end, _ := r.model.End(ref)
	return kind + " " + ref.Key.Namespace + "/" + ref.Key.Name + " ended at " + at(end) + ": renew it"
}
