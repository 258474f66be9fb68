package tenancy

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// The reasons of Problems.
const (
	// ReasonNotAvailable is the one answer to a reference that leads nowhere,
	// whether the thing is missing or another tenant's and not granted.
	ReasonNotAvailable = "NotAvailable"
	// ReasonNoTenant is on a Namespace whose label makes it nobody's.
	ReasonNoTenant = "NoTenant"
	// ReasonReserved is on a Namespace whose name was another's until lately.
	ReasonReserved = "NameReserved"
	// ReasonDuplicate is on an object whose name an older one has.
	ReasonDuplicate = "Duplicate"
	// ReasonTrustDomain is on a Tenant whose trust domain is not accepted.
	ReasonTrustDomain = "TrustDomainNotAccepted"
	// ReasonLimit is on what a limit left out.
	ReasonLimit = "LimitExceeded"
	// ReasonSameTenant is on grants and requests within one tenant.
	ReasonSameTenant = "SameTenant"
	// ReasonSharedPort is on a grant that opens more than it names.
	ReasonSharedPort = "SharedTargetPort"
	// ReasonMixedProtocols is on a Service that says of a Pod port what another of
	// the ports that lead there does not say.
	ReasonMixedProtocols = "MixedProtocols"
	// ReasonNotPlain is a tenant's service that is named as plain, and is not.
	ReasonNotPlain = "NotPlain"
	// ReasonPodPending is on a slice with an endpoint whose Pod has not arrived.
	ReasonPodPending = "PodPending"
	// ReasonNotEligible is on a slice with an endpoint whose Pod is finished or
	// on the host network.
	ReasonNotEligible = "PodNotEligible"
	// ReasonNotItsAddress is on a slice with an endpoint that is not an address
	// of its Pod.
	ReasonNotItsAddress = "AddressNotOfPod"
	// ReasonInvalid is on a policy that is honoured as a refusal only.
	ReasonInvalid = "Invalid"
	// ReasonNotAdmin is on a policy for all of the tenant that is not in its
	// admin namespace.
	ReasonNotAdmin = "NotAdminNamespace"
	// ReasonNotHTTP is on a rule about requests that selects a port which is not
	// judged by request.
	ReasonNotHTTP = "PortNotHTTP"
	// ReasonNoProvider is on a rule about tokens of a provider that the Tenant
	// does not have.
	ReasonNoProvider = "ProviderNotFound"
	// ReasonNotPermitted is on a PeerTLS, a grant or a request that goes below what
	// the Tenant permits.
	ReasonNotPermitted = "NotPermitted"
	// ReasonServerFirst is on a PeerTLS that selects a port where the server
	// speaks first.
	ReasonServerFirst = "ServerSpeaksFirst"
	// ReasonOverdue is on a PeerTLS whose end has passed.
	ReasonOverdue = "Overdue"
	// ReasonNarrows is on the first Allow policy that takes their tenant's default
	// from Pods.
	ReasonNarrows = "NarrowsDefault"
	// ReasonExpired is on what has ended, ReasonExpiringSoon on what will
	// within two weeks.
	ReasonExpired      = "Expired"
	ReasonExpiringSoon = "ExpiringSoon"
)

// Hint reports whether the reason is no fault: the object is honoured as it is
// written, and somebody may want to know.
func Hint(reason string) bool {
	return slices.Contains([]string{ReasonSharedPort, ReasonMixedProtocols, ReasonNarrows, ReasonOverdue, ReasonExpiringSoon}, reason)
}

// mostProblems bounds the list of one object.
const mostProblems = 16

// TakeProblems returns the objects whose problems changed since the last call,
// with all problems that they have now; an empty list where all are gone.
func (m *Model) TakeProblems() map[Ref][]Problem {
	changed := map[Ref][]Problem{}
	m.settleCrowds()
	// Looking at a service may find that its endpoints are over the limit.
	for len(m.unchecked) > 0 {
		asked := m.unchecked
		m.unchecked = set[Ref]{}
		for ref := range asked {
			now := m.Problems(ref)
			if slices.Equal(now, m.problems[ref]) {
				continue
			}
			if changed[ref] = now; len(now) == 0 {
				delete(m.problems, ref)
			} else {
				m.problems[ref] = now
			}
		}
	}
	return changed
}

// Problems returns what is wrong with one object now. Objects in namespaces
// without a tenant have none.
func (m *Model) Problems(ref Ref) []Problem {
	m.settleCrowds()
	var found []Problem
	switch ref.Kind {
	case KindTenant:
		found = m.tenantProblems(ref.Key)
	case KindNamespace:
		found = m.namespaceProblems(ref.Key)
	case KindClusterServiceGrant:
		found = m.clusterGrantProblems(ref.Key)
	case KindClusterAccessPolicy:
		found = m.clusterPolicyProblems(ref.Key)
	default:
		sp := m.spaces[spaceKey{ref.Key.Source, ref.Key.Namespace}]
		if sp == nil || sp.tenant == nil {
			return nil
		}
		found = m.problemsIn(sp, ref)
	}
	found = append(found, m.endProblems(ref)...)
	if len(found) > mostProblems {
		more := len(found) - mostProblems + 1
		last := found[mostProblems-1]
		found = append(found[:mostProblems-1:mostProblems-1], Problem{Reason: last.Reason, Message: fmt.Sprintf("and %d more", more)})
	}
	return found
}

func (m *Model) problemsIn(sp *space, ref Ref) []Problem {
	name := ref.Key.Name
	switch ref.Kind {
	case KindService:
		if s := sp.services[name]; s != nil && s.obj != nil {
			return m.serviceProblems(s)
		}
	case KindEndpointSlice:
		if sl := sp.slices[name]; sl != nil {
			return m.sliceProblems(sl)
		}
	case KindAccessPolicy:
		if p := sp.policies[name]; p != nil {
			return p.problems()
		}
	case KindPeerTLS:
		if p := sp.peers[name]; p != nil {
			return m.peerProblems(sp, p)
		}
	case KindServiceGrant:
		if g := sp.grants[name]; g != nil {
			return m.grantProblems(g)
		}
	case KindServiceRequest:
		if r := sp.requests[name]; r != nil {
			return m.requestProblems(r)
		}
	}
	return nil
}

func limitProblem(what string) []Problem {
	return []Problem{{Reason: ReasonLimit, Message: "left out: older " + what + " have all the places of the tenant's limit"}}
}

func (m *Model) tenantProblems(k Key) []Problem {
	t := m.tenants[k.Name]
	if t == nil || t.claims[k.Source] == nil {
		return nil
	}
	obj := t.claims[k.Source]
	if obj != t.obj {
		return []Problem{{Reason: ReasonDuplicate, Field: "metadata.name", Message: "another source has an older Tenant of this name, which counts"}}
	}
	if !m.accepts(obj.TrustDomain) {
		return []Problem{{Reason: ReasonTrustDomain, Field: "spec.trustDomain", Message: fmt.Sprintf(
			"trust domain %q is not accepted or has no trust bundle: the tenant has no workloads", obj.TrustDomain)}}
	}
	return t.degraded()
}

// namespaceProblems says the same whether the Tenant is missing, suspended, or
// does not admit the namespace: who labels a namespace may not learn which.
func (m *Model) namespaceProblems(k Key) []Problem {
	sp := m.spaces[spaceKey{k.Source, k.Name}]
	if sp == nil || sp.obj == nil {
		return nil
	}
	if m.active(k.Name) != sp {
		return []Problem{{Reason: ReasonDuplicate, Field: "metadata.name", Message: "another source has an older Namespace of this name, which counts"}}
	}
	if until := m.reserved(sp); !until.IsZero() && m.entitled(sp) != nil {
		return []Problem{{Reason: ReasonReserved, Field: "metadata.name", Message: "certificates from before the namespace changed hands or was made again may be valid still: it is nobody's until " +
			until.UTC().Format(time.RFC3339)}}
	}
	if sp.obj.Tenant != "" && sp.tenant == nil {
		return []Problem{{Reason: ReasonNoTenant, Field: "metadata.labels[bailiwick.dev/tenant]", Message: "no tenant of this name admits the namespace"}}
	}
	return nil
}

func (m *Model) serviceProblems(s *service) []Problem {
	if s.dropped {
		return limitProblem("services")
	}
	m.Service(s.key()) // counts the endpoints over the limit
	found := s.mixed()
	if s.excess > 0 {
		found = append(found, Problem{Reason: ReasonLimit, Message: fmt.Sprintf(
			"a service port has %d endpoints over the tenant's limit: they are left out", s.excess)})
	}
	return found
}

// sliceProblems are those of endpoints that are left out. Only Pods of the slice's
// own namespace are looked at, so an address of a Pod elsewhere reads like one
// of no Pod at all.
func (m *Model) sliceProblems(sl *slice) []Problem {
	var found []Problem
	for i := range sl.obj.Endpoints {
		e := &sl.obj.Endpoints[i]
		if sl.pods[i] != nil {
			continue
		}
		p := Problem{Reason: ReasonPodPending, Field: "endpoints[" + strconv.Itoa(i) + "]",
			Message: "left out: no Pod of this namespace has arrived that has this address"}
		if named := sl.space.pods[e.PodName]; named != nil && (e.PodUID == "" || named.obj.UID == "" || e.PodUID == named.obj.UID) {
			switch {
			case !eligible(named.obj):
				p.Reason, p.Message = ReasonNotEligible, "left out: the Pod is finished or on the host network"
			case len(named.obj.IPs) > 0: // else the one with its addresses is yet to come
				p.Reason, p.Message = ReasonNotItsAddress, "left out: the Pod does not have this address"
			}
		}
		if p.Reason == ReasonPodPending && m.pending(sl, e) {
			continue
		}
		found = append(found, p)
	}
	return found
}

func (m *Model) requestProblems(r *request) []Problem {
	if r.dropped {
		return limitProblem("service requests")
	}
	name := r.obj.Service + "." + r.obj.Namespace + ".svc"
	if m.config.ClusterDomain != "" {
		name += "." + m.config.ClusterDomain
	}
	s := m.liveService(r.target())
	missing := []Problem{{Reason: ReasonNotAvailable, Field: "spec.to", Message: name + " is not available to this namespace"}}
	if s == nil {
		return missing
	}
	if s.space.tenant == r.space.tenant && !r.obj.Plain {
		return []Problem{{Reason: ReasonSameTenant, Field: "spec.to", Message: "ignored: the tenant's own services need no request, but as plain"}}
	}
	sight, ok := m.see(r.space.view(), s)
	if !ok {
		return missing
	}
	found := m.takenWithTLS(r, sight)
	for i, port := range r.obj.Ports.Ports {
		if !r.obj.Ports.All && (!sight.Ports.Has(port) || !s.has(port)) {
			found = append(found, Problem{Reason: ReasonNotAvailable, Field: "spec.to.ports[" + strconv.Itoa(i) + "]",
				Message: fmt.Sprintf("port %d of %s is not available to this namespace", port, name)})
		}
	}
	return found
}

func (s *service) has(port uint16) bool {
	return slices.ContainsFunc(s.obj.Ports, func(p ServicePort) bool { return p.Port == port })
}

func (m *Model) grantProblems(g *grant) []Problem {
	if g.dropped {
		return limitProblem("service grants")
	}
	var found []Problem
	for i, from := range g.obj.From {
		if from.Tenant == g.space.tenant.name && !g.plain() {
			found = append(found, Problem{Reason: ReasonSameTenant, Field: "spec.from[" + strconv.Itoa(i) + "]",
				Message: "ignored: services are not granted within a tenant, but as plain"})
		}
	}
	found = append(found, g.offerNotPermitted()...)
	opens := map[lead]bool{}
	for _, to := range g.obj.To {
		if s := m.liveService(target{g.space.name, to.Service}); s != nil {
			s.opens(to.Ports, opens)
		}
	}
	for i, to := range g.obj.To {
		found = append(found, m.offerProblems(target{g.space.name, to.Service}, to.Ports, opens, i)...)
	}
	return found
}

func (m *Model) clusterGrantProblems(k Key) []Problem {
	g := m.clusterGrants[k]
	if g == nil {
		return nil
	}
	opens := map[target]map[lead]bool{}
	for _, to := range g.obj.To {
		at := target{namespace: to.Namespace}
		if opens[at] == nil {
			opens[at] = map[lead]bool{}
		}
		if s := m.liveService(target{to.Namespace, to.Service}); s != nil {
			s.opens(to.Ports, opens[at])
		}
	}
	found := m.plainProblems(g)
	for i, to := range g.obj.To {
		found = append(found, m.offerProblems(target{to.Namespace, to.Service}, to.Ports, opens[target{namespace: to.Namespace}], i)...)
	}
	return found
}
