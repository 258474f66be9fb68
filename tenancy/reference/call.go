package reference

import (
	"cmp"
	"maps"
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
	c := call{w: w, owner: owner, from: from, granted: granted && caller != owner, port: port, http: http, request: r}
	said := append(w.fromPlatform(pod.Namespace, owner), w.fromTenant(pod, owner, settings, target)...)
	first := func(baseline, platform bool, actions ...tenancy.Action) *saying {
		for i, s := range said {
			if s.platform == platform && s.baseline == baseline && slices.Contains(actions, s.action) && c.isAbout(s) {
				return &said[i]
			}
		}
		return nil
	}
	selected := slices.ContainsFunc(said, func(s saying) bool { return !s.platform && s.action == tenancy.Allow })
	if first(false, true, tenancy.Deny) != nil {
		return false
	}
	if s := first(false, true, tenancy.Allow, tenancy.Pass); s != nil && s.action == tenancy.Allow {
		return true
	}
	switch {
	case first(false, false, tenancy.Deny) != nil:
		return false
	case first(false, false, tenancy.Allow) != nil:
		return true
	case selected:
		return false
	}
	if s := first(true, true, tenancy.Allow, tenancy.Deny, tenancy.Pass); s != nil {
		if s.action != tenancy.Pass || !http && asks(s.rule) {
			return s.action == tenancy.Allow
		}
	}
	return caller == owner && settings.DefaultAction == tenancy.AllowWithinTenant
}

// saying is one rule that is enforced for a Pod.
type saying struct {
	platform, baseline bool
	action             tenancy.Action
	// broken is a rule of something invalid: a Deny of everybody, an Allow of nobody.
	broken bool
	rule   tenancy.AccessRule
}

// fromPlatform is what ClusterAccessPolicies say of a namespace, by priority.
func (w World) fromPlatform(namespace, tenant string) (said []saying) {
	policies := all[tenancy.ClusterAccessPolicy](w)
	keys := slices.SortedFunc(maps.Keys(policies), func(a, b tenancy.Key) int {
		return cmp.Or(cmp.Compare(policies[a].Priority, policies[b].Priority), cmp.Compare(a.Name, b.Name))
	})
	_, ns := w.source(namespace)
	for _, k := range keys {
		p := policies[k]
		subject := slices.ContainsFunc(p.Subjects, func(s tenancy.Subject) bool {
			return s.AllTenants || slices.Contains(s.Tenants, tenant) || slices.Contains(s.Namespaces, namespace) || len(s.Labels) > 0 && within(s.Labels, ns.Labels)
		})
		if p.Observe || !subject {
			continue
		}
		for _, r := range p.Rules {
			said = append(said, saying{platform: true, baseline: p.Baseline, action: r.Action, broken: p.Invalid, rule: r.AccessRule})
		}
	}
	return said
}

// fromTenant is what AccessPolicies say of a Pod: those of its namespace, and
// of the tenant's admin namespace those for all of the tenant.
func (w World) fromTenant(pod tenancy.Key, owner string, settings *tenancy.Tenant, target *tenancy.Pod) (said []saying) {
	for k, p := range all[tenancy.AccessPolicy](w) {
		source, _ := w.source(k.Namespace)
		tenant, _ := w.Tenant(k.Namespace)
		admin := settings.AdminNamespace == k.Namespace && tenant == owner
		here := k.Source == pod.Source && k.Namespace == pod.Namespace
		if k.Source != source || !here && !(p.TenantWide && admin) || p.Observe || !within(p.MatchLabels, target.Labels) {
			continue
		}
		broken := p.Invalid || p.TenantWide && !admin
		if broken || len(p.Rules) == 0 {
			said = append(said, saying{action: p.Action, broken: true})
			continue
		}
		for _, r := range p.Rules {
			said = append(said, saying{action: p.Action, rule: r})
		}
	}
	return said
}

func within(labels, of map[string]string) bool {
	for k, v := range labels {
		if got, ok := of[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// call is who calls what how.
type call struct {
	w       World
	owner   string
	from    identity.Workload
	granted bool
	port    uint16
	http    bool
	request policy.Request
}

// asks tells whether a rule asks about requests.
func asks(r tenancy.AccessRule) bool {
	return len(r.Methods)+len(r.Paths)+len(r.Hosts)+len(r.Headers)+len(r.NotMethods)+len(r.NotPaths)+len(r.NotHosts) > 0
}

// isAbout tells whether a rule matches the call.
func (c call) isAbout(s saying) bool {
	from := func(sources []tenancy.AccessSource) bool {
		return slices.ContainsFunc(sources, func(src tenancy.AccessSource) bool { return c.w.comesFrom(src, c.owner, c.from, c.granted) })
	}
	rule := s.rule
	switch {
	case s.broken:
		return s.action == tenancy.Deny || s.action == tenancy.Pass && !s.baseline
	case !from(rule.Sources) || from(rule.NotSources):
		return false
	case len(rule.Ports) > 0 && !slices.Contains(rule.Ports, c.port) || slices.Contains(rule.NotPorts, c.port):
		return false
	case !c.http:
		return s.action != tenancy.Allow || !asks(rule)
	}
	return matches(rule, s.action, c.request)
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
	case s.SPIFFEIDPrefix != "":
		return strings.HasPrefix(from.String(), s.SPIFFEIDPrefix)
	case s.Plaintext:
		return false
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
	on := func(paths []tenancy.PathMatch, deny bool) bool {
		return slices.ContainsFunc(paths, func(p tenancy.PathMatch) bool {
			like := policy.Path{Type: policy.Exact, Value: p.Value}
			if p.Prefix {
				like.Type = policy.Prefix
			} else if p.Template {
				like.Type = policy.Template
			}
			return onPath(like, path, deny)
		})
	}
	return (len(rule.Methods) == 0 || slices.Contains(rule.Methods, r.Method)) && !slices.Contains(rule.NotMethods, r.Method) &&
		(len(rule.Hosts) == 0 || slices.Contains(rule.Hosts, host)) && !slices.Contains(rule.NotHosts, host) &&
		(len(rule.Paths) == 0 || on(rule.Paths, action == tenancy.Deny)) && !on(rule.NotPaths, false)
}
