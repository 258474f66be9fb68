package tenancy

import (
	"cmp"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

// class is what a Selection's text says.
type class struct {
	Source string `json:"source"`
	// Leads are sorted, Policies too.
	Leads []lead `json:"leads,omitempty"`
	// Policies are "<namespace>/<name>", Peers those of PeerTLS objects.
	Policies []string `json:"policies,omitempty"`
	Peers    []string `json:"peers,omitempty"`
	// Probes and where they come from: Pods that are probed share their layer
	// with those of the same node only.
	Probes  []Probe      `json:"probes,omitempty"`
	HostIPs []netip.Addr `json:"hostIPs,omitempty"`
}

// lead says that a service port leads to a Pod port.
type lead struct {
	Port        uint16   `json:"port"`
	Protocol    Protocol `json:"protocol"`
	Service     string   `json:"service"`
	ServicePort uint16   `json:"servicePort"`
}

func (l lead) compare(o lead) int {
	return cmp.Or(cmp.Compare(l.Port, o.Port), cmp.Compare(l.Service, o.Service),
		cmp.Compare(l.ServicePort, o.ServicePort), cmp.Compare(l.Protocol, o.Protocol))
}

// leads are the service ports that lead to a Pod, sorted.
func (p *pod) leads() []lead {
	var all []lead
	for sl := range p.slices.all() {
		s := sl.service
		if !s.live() {
			continue
		}
		for _, sp := range s.obj.Ports {
			for _, port := range sl.obj.Ports {
				if port.Name == sp.Name {
					all = append(all, lead{port.Port, sp.Protocol, s.name, sp.Port})
				}
			}
		}
	}
	slices.SortFunc(all, lead.compare)
	return slices.Compact(all)
}

// Select returns what selects the workload layer of a Pod, and its addresses.
// The Pod is named by namespace and name; its Source is ignored, because
// namespaces are unique. It must be eligible and have w's namespace and
// account, and w must have a tenant.
func (m *Model) Select(name Key, w identity.Workload) (Selection, []netip.Addr, bool) {
	p := m.ownPod(name, w)
	if p == nil {
		return Selection{}, nil, false
	}
	sp := p.space
	c := class{Source: sp.source, Leads: p.leads()}
	sp.eachPolicy(p.obj, func(p *accessPolicy) { c.Policies = append(c.Policies, p.identity()) })
	slices.Sort(c.Policies)
	for _, name := range sortedKeys(sp.peers) {
		if within(sp.peers[name].MatchLabels, p.obj.Labels) {
			c.Peers = append(c.Peers, peerIdentity(name))
		}
	}
	if len(p.obj.Probes) > 0 && len(p.obj.HostIPs) > 0 {
		c.Probes, c.HostIPs = p.obj.Probes, p.obj.HostIPs
	}
	text, err := json.Marshal(c)
	if err != nil { // strings and numbers always encode
		return Selection{}, nil, false
	}
	return Selection{Workload: w, Class: string(text)}, p.obj.IPs, true
}

// PodAt returns the name of an eligible Pod of w that has an address; of several
// the first by name. Pods on the host's network are not found: their address
// says nothing of who is there.
func (m *Model) PodAt(w identity.Workload, at netip.Addr) (name string, ok bool) {
	if _, owned := m.Resolve(w); !owned {
		return "", false
	}
	for p := range m.active(w.Namespace).addresses[at.Unmap()].all() {
		if p.obj.ServiceAccount == w.ServiceAccount && (!ok || p.name < name) {
			name, ok = p.name, true
		}
	}
	return name, ok
}

// Workload returns what the inbound configuration of a selection is made from,
// as things are now. It has no ports if the workload is nobody's or the
// selection is not this Model's.
func (m *Model) Workload(sel Selection) WorkloadSpec {
	spec := WorkloadSpec{Workload: sel.Workload}
	tenant, ok := m.Resolve(sel.Workload)
	if !ok {
		return spec
	}
	sp := m.active(sel.Workload.Namespace)
	var c class
	if json.Unmarshal([]byte(sel.Class), &c) != nil || c.Source != sp.source {
		return spec
	}
	now := sp.tenant.now
	spec.Tenant, spec.TLSMinimum13, spec.Tokens = tenant, now.TLSMinimum13, len(now.Providers) > 0
	spec.MaxConnectionAge, spec.MaxStreamAge = now.MaxConnectionAge, now.MaxStreamAge
	by := judges{cluster: m.subjectTo(sp), policies: m.selected(sp, c.Policies)}
	by.over = excess(by.policies, m.policiesPerWorkload(sp))
	for _, name := range c.Peers {
		by.peers = append(by.peers, strings.TrimPrefix(name, peerIdentity("")))
	}
	domains := set[string]{now.TrustDomain: {}}
	for leads := c.Leads; len(leads) > 0; {
		n := 1
		for n < len(leads) && leads[n].Port == leads[0].Port {
			n++
		}
		port := m.inboundPort(sp, leads[:n], by)
		for _, ref := range port.Policy.Floor.Granted {
			domains[ref.TrustDomain] = struct{}{}
		}
		spec.Ports = append(spec.Ports, port)
		leads = leads[n:]
	}
	spec.TrustDomains = sortedKeys(domains)
	spec.Probes, spec.ProbeSources = c.Probes, c.HostIPs
	spec.Origins = originsOf(sp, c, by)
	return spec
}

// judges are what decides about a workload.
type judges struct {
	cluster  []*clusterPolicy
	policies []*accessPolicy
	peers    []string
	// over are those of policies that are over the limit.
	over set[*accessPolicy]
}

// selected finds the policies that a selection names: those of the namespace
// and of the tenant's admin namespace.
func (m *Model) selected(sp *space, names []string) []*accessPolicy {
	var found []*accessPolicy
	for _, identity := range names {
		ns, name, _ := strings.Cut(identity, "/")
		home := sp
		if ns != sp.name {
			home = sp.tenant.members[ns]
		}
		if home == nil {
			continue
		}
		if p := home.policies[name]; p != nil && (home == sp || p.obj.TenantWide && home.admin()) {
			found = append(found, p)
		}
	}
	return found
}

func originsOf(sp *space, c class, by judges) []Ref {
	var refs []Ref
	for _, l := range c.Leads {
		refs = append(refs, sp.ref(KindService, l.Service))
	}
	slices.SortFunc(refs, func(a, b Ref) int { return a.Key.compare(b.Key) })
	refs = slices.Compact(refs)
	for _, p := range by.policies {
		refs = append(refs, p.ref())
	}
	for _, name := range by.peers {
		refs = append(refs, sp.ref(KindPeerTLS, name))
	}
	for _, p := range by.cluster {
		refs = append(refs, Ref{Kind: KindClusterAccessPolicy, Key: p.key})
	}
	return refs
}

// joint is the protocol of a Pod port: HTTP only if all services say so.
func joint(leads []lead) Protocol {
	p := leads[0].Protocol
	for _, l := range leads[1:] {
		switch {
		case l.Protocol == p:
		case p == ServerFirst || l.Protocol == ServerFirst:
			p = ServerFirst
		case p == ClientFirst || l.Protocol == ClientFirst:
			p = ClientFirst
		default:
			p = HTTP1
		}
	}
	return p
}

// consumers are the namespaces of other tenants that see a service port which
// leads here: the granted part of the floor, by the rule that decides
// visibility.
func (m *Model) consumers(sp *space, leads []lead) map[string]*space {
	found := map[string]*space{}
	for _, l := range leads {
		s := sp.services[l.Service]
		if s == nil || !s.live() {
			continue
		}
		m.eachConsumer(s, false, func(from *space, sight Sight) {
			if sight.Grade == Granted && sight.Ports.Has(l.ServicePort) {
				found[from.name] = from
			}
		})
	}
	return found
}

func refsOf(spaces map[string]*space) []policy.NamespaceRef {
	var refs []policy.NamespaceRef
	for _, name := range sortedKeys(spaces) {
		refs = append(refs, spaces[name].namespaceRef())
	}
	return refs
}

func (s *space) namespaceRef() policy.NamespaceRef {
	return policy.NamespaceRef{TrustDomain: s.tenant.now.TrustDomain, Namespace: s.name}
}

// knownAccounts lists the accounts of own namespaces. Those of other tenants
// are not for this tenant's proxies to know.
func (m *Model) knownAccounts(sp *space, refs []policy.NamespaceRef) []policy.Accounts {
	var known []policy.Accounts
	for _, ref := range refs {
		if member := sp.tenant.members[ref.Namespace]; member != nil {
			known = append(known, policy.Accounts{Namespace: ref, Names: sortedKeys(member.accounts)})
		}
	}
	return known
}
