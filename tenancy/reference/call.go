package reference

import (
	"net/netip"
	"slices"
	"strings"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

// lead is a service port that leads to the Pod port in question.
type lead struct {
	service tenancy.Key
	port    tenancy.ServicePort
}

// leads are the service ports that lead to a port of a Pod.
func (w World) leads(pod tenancy.Key, port uint16) (found []lead) {
	for k, sl := range all[tenancy.EndpointSlice](w) {
		svc, ok := w[tenancy.Ref{Kind: tenancy.KindService, Key: tenancy.Key{Source: k.Source, Namespace: k.Namespace, Name: sl.Service}}].(*tenancy.Service)
		if !ok || k.Source != pod.Source || k.Namespace != pod.Namespace {
			continue
		}
		if !slices.ContainsFunc(sl.Endpoints, func(e tenancy.Endpoint) bool { return w.isEndpoint(e, pod) }) {
			continue
		}
		for _, sp := range sl.Ports {
			for _, p := range svc.Ports {
				if p.Name == sp.Name && sp.Port == port {
					found = append(found, lead{tenancy.Key{Source: k.Source, Namespace: k.Namespace, Name: sl.Service}, p})
				}
			}
		}
	}
	return found
}

// isEndpoint tells whether an endpoint of the Pod's namespace is the Pod.
func (w World) isEndpoint(e tenancy.Endpoint, key tenancy.Key) bool {
	fits := func(k tenancy.Key, p *tenancy.Pod) bool {
		if k.Source != key.Source || k.Namespace != key.Namespace || p.HostNetwork || p.Finished || !slices.Contains(p.IPs, address(e)) {
			return false
		}
		if e.PodUID != "" && p.UID != "" {
			return e.PodUID == p.UID
		}
		return e.PodName == "" || e.PodName == k.Name
	}
	pods := all[tenancy.Pod](w)
	if len(e.Addresses) == 0 || !fits(key, pods[key]) {
		return false
	}
	// Of several Pods with the address, the one of that UID, then the youngest.
	mine := pods[key]
	for k, p := range pods {
		byUID := func(p *tenancy.Pod) bool { return e.PodUID != "" && p.UID == e.PodUID }
		switch {
		case k == key || !fits(k, p) || byUID(mine) && !byUID(p):
		case byUID(p) && !byUID(mine), p.Created > mine.Created, p.Created == mine.Created && k.Name < key.Name:
			return false
		}
	}
	return true
}

func address(e tenancy.Endpoint) netip.Addr { return e.Addresses[0] }

// MayCall is the method form of the function of that name.
func (w World) MayCall(from identity.Workload, pod tenancy.Key, port uint16, r policy.Request) bool {
	source, _ := w.source(pod.Namespace)
	pod.Source = source
	target, ok := w[tenancy.Ref{Kind: tenancy.KindPod, Key: pod}].(*tenancy.Pod)
	owner, settings := w.Tenant(pod.Namespace)
	caller, theirs := w.Tenant(from.Namespace)
	leads := w.leads(pod, port)
	if !ok || settings == nil || theirs == nil || theirs.TrustDomain != from.TrustDomain || len(leads) == 0 {
		return false
	}
	http, granted := true, false
	for _, l := range leads {
		http = http && l.port.Protocol.IsHTTP()
		_, sees := w.sees(from.Namespace, l.service, l.port.Port)
		granted = granted || sees && caller != owner
	}
	if caller != owner && !granted {
		return false
	}
	selected := false
	for _, action := range []tenancy.Action{tenancy.Deny, tenancy.Allow} {
		for k, p := range all[tenancy.AccessPolicy](w) {
			if k.Source != source || k.Namespace != pod.Namespace || p.Action != action || !within(p.MatchLabels, target.Labels) {
				continue
			}
			selected = selected || action == tenancy.Allow
			if w.decides(p, owner, from, granted, port, http, r) {
				return action == tenancy.Allow
			}
		}
	}
	return !selected && caller == owner && settings.DefaultAction == tenancy.AllowWithinTenant
}

func within(labels, of map[string]string) bool {
	for k, v := range labels {
		if got, ok := of[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// decides tells whether a policy that selects the Pod matches the call.
func (w World) decides(p *tenancy.AccessPolicy, owner string, from identity.Workload, granted bool, port uint16, http bool, r policy.Request) bool {
	if p.Invalid {
		return p.Action == tenancy.Deny
	}
	return slices.ContainsFunc(p.Rules, func(rule tenancy.AccessRule) bool {
		source := slices.ContainsFunc(rule.Sources, func(s tenancy.AccessSource) bool { return w.comesFrom(s, owner, from, granted) })
		if !source || len(rule.Ports) > 0 && !slices.Contains(rule.Ports, port) {
			return false
		}
		if conditions := len(rule.Methods) + len(rule.Paths) + len(rule.Hosts) + len(rule.Headers); !http && conditions > 0 {
			return p.Action == tenancy.Deny
		}
		return matches(rule, p.Action, r)
	})
}

func (w World) comesFrom(s tenancy.AccessSource, owner string, from identity.Workload, granted bool) bool {
	caller, _ := w.Tenant(from.Namespace)
	switch {
	case s.All:
		return true
	case s.Granted:
		return granted
	case s.SPIFFEID != "":
		return s.SPIFFEID == from.String()
	}
	of := s.Tenant
	if of == "" {
		of = owner
	}
	return caller == of && (s.Namespace == "" || s.Namespace == from.Namespace) &&
		(s.ServiceAccount == "" || s.ServiceAccount == from.ServiceAccount)
}

func matches(rule tenancy.AccessRule, action tenancy.Action, r policy.Request) bool {
	path, _, _ := strings.Cut(r.Path, "?")
	host := strings.ToLower(r.Host)
	if i := strings.LastIndex(host, ":"); i > strings.LastIndex(host, "]") {
		host = host[:i]
	}
	for _, h := range rule.Headers {
		v, ok := r.Headers[h.Name]
		values := []string{v}
		if action == tenancy.Deny { // a header that is sent twice is a list
			for _, element := range strings.Split(v, ",") {
				values = append(values, element, strings.TrimPrefix(element, " "))
			}
		}
		if !ok || !h.Present && !slices.ContainsFunc(values, func(v string) bool {
			return h.Prefix != "" && strings.HasPrefix(v, h.Prefix) || h.Prefix == "" && v == h.Exact
		}) {
			return false
		}
	}
	return (len(rule.Methods) == 0 || slices.Contains(rule.Methods, r.Method)) &&
		(len(rule.Hosts) == 0 || slices.Contains(rule.Hosts, host)) &&
		(len(rule.Paths) == 0 || slices.ContainsFunc(rule.Paths, func(p tenancy.PathMatch) bool {
			base := strings.TrimRight(p.Value, "/")
			return path == p.Value || p.Prefix && (base == "" || path == base || strings.HasPrefix(path, base+"/") ||
				action == tenancy.Deny && strings.HasPrefix(path, base+";"))
		}))
}
