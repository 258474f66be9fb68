package tenancy

import (
	"fmt"
	"slices"
	"strconv"
)

// opens adds to all which of the service's ports a grant names.
func (s *service) opens(ports PortSet, all map[lead]bool) {
	for _, p := range s.obj.Ports {
		if ports.Has(p.Port) {
			all[lead{Service: s.name, ServicePort: p.Port}] = true
		}
	}
}

// offerProblems are those of one entry of a grant's list: a service or port
// that is not there, and other service ports that lead to the same Pod port
// and that opens does not have.
func (m *Model) offerProblems(to target, ports PortSet, opens map[lead]bool, index int) []Problem {
	field := "spec.to[" + strconv.Itoa(index) + "]"
	s := m.liveService(to)
	if s == nil {
		return []Problem{{Reason: ReasonNotAvailable, Field: field, Message: fmt.Sprintf("there is no service %s/%s", to.namespace, to.service)}}
	}
	var found []Problem
	for i, port := range ports.Ports {
		if !ports.All && !s.has(port) {
			found = append(found, Problem{Reason: ReasonNotAvailable, Field: field + ".ports[" + strconv.Itoa(i) + "]",
				Message: fmt.Sprintf("the service has no port %d", port)})
		}
	}
	also := map[lead]bool{}
	for _, sl := range s.slices {
		for _, p := range sl.pods {
			if p != nil {
				p.alsoOpened(s, ports, opens, also)
			}
		}
	}
	var names []string
	for l := range also {
		names = append(names, fmt.Sprintf("port %d of %s/%s by Pod port %d", l.ServicePort, to.namespace, l.Service, l.Port))
	}
	slices.Sort(names)
	for _, n := range names {
		found = append(found, Problem{Reason: ReasonSharedPort, Field: field, Message: "accepted, and opens as well " + n})
	}
	return found
}

// alsoOpened adds to also what else leads to the Pod ports behind ports of s.
func (p *pod) alsoOpened(s *service, ports PortSet, opens, also map[lead]bool) {
	leads := p.leads()
	for _, l := range leads {
		if l.Service != s.name || !ports.Has(l.ServicePort) {
			continue
		}
		for _, o := range leads {
			if o.Port == l.Port && !opens[lead{Service: o.Service, ServicePort: o.ServicePort}] {
				o.Protocol = 0
				also[o] = true
			}
		}
	}
}

// mixed are the service's ports that lead to Pod ports which are not carried as
// the service says, because another port that leads there says otherwise.
func (s *service) mixed() []Problem {
	alone := !slices.ContainsFunc(s.obj.Ports, func(p ServicePort) bool { return p.Protocol != s.obj.Ports[0].Protocol })
	found := map[uint16]Protocol{}
	for _, sl := range s.slices {
		for _, p := range sl.pods {
			if p == nil || alone && !p.shared(s) {
				continue
			}
			carried := p.ports()
			for _, l := range p.leads() {
				if l.Service == s.name && carried[l.Port] != l.Protocol {
					found[l.Port] = carried[l.Port]
				}
			}
		}
	}
	var problems []Problem
	for _, port := range sortedKeys(found) {
		how := map[Protocol]string{
			HTTP1:       "it is carried as HTTP/1",
			ClientFirst: "callers are judged by connection, not by request",
			ServerFirst: "callers are judged by connection, before the first byte, and never without a certificate",
		}[found[port]]
		problems = append(problems, Problem{Reason: ReasonMixedProtocols, Field: "spec.ports",
			Message: fmt.Sprintf("Pod port %d is led to by another service port of another protocol: %s", port, how)})
	}
	return problems
}

// shared reports whether another service than s leads to the Pod.
func (p *pod) shared(s *service) bool {
	for sl := range p.slices.all() {
		if sl.service != s {
			return true
		}
	}
	return false
}
