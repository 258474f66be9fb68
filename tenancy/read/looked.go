package read

import (
	"fmt"
	"slices"
	"strings"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

// looked lists the policies that could have decided: those of the port as they
// were judged, then those that are not about it, as far as they are the asker's
// to know. What is not is said to be unknown, whether or not there is any.
func (r *Reader) looked(a *Answer, pod tenancy.Backend, d policy.Decision, looks []policy.Look) {
	a.By = named(d.By)
	type one struct{ policy, action string }
	judged := map[one]bool{}
	for _, look := range looks {
		l := Looked{Policy: named(look.Policy), Action: policyAction(look.Action), Outcome: outcome(look, d)}
		l.At = r.placeOf(look.Policy, pod.Pod.Source)
		if look.Why == policy.Decided {
			a.At = l.At
			r.endingPolicy(a, look.Policy, pod.Pod.Source)
		}
		a.Looked = append(a.Looked, l)
		judged[one{l.Policy, l.Action}] = true
	}
	for _, s := range r.model.Standings(pod.Pod, pod.Port) {
		l := Looked{Policy: named(identityOf(s.Policy)), Action: objectAction(s.Action)}
		if !judged[one{l.Policy, l.Action}] && r.mayRead(s.Policy) {
			l.At, l.Outcome = r.place(s.Policy), aside(s, pod)
			a.Looked = append(a.Looked, l)
		}
	}
	r.ended(a, pod)
	if r.scope.namespace != "" {
		a.Unknown = append(a.Unknown, "may not read policies for all of the tenant that have no rule for this port")
	}
	if !r.scope.platform {
		a.Unknown = append(a.Unknown, "may not read policies of the platform that have no rule for this port")
	}
}

// mayRead reports whether a policy that no proxy of the asker's has in its RBAC
// is the asker's to know.
func (r *Reader) mayRead(policy tenancy.Ref) bool {
	if policy.Kind == tenancy.KindClusterAccessPolicy {
		return r.scope.platform
	}
	return r.own(policy.Key.Namespace)
}

// identityOf is how rules name the policy that they are of.
func identityOf(policy tenancy.Ref) string {
	if policy.Kind == tenancy.KindClusterAccessPolicy {
		return "*/" + policy.Key.Name
	}
	return policy.Key.Namespace + "/" + policy.Key.Name
}

// named is a policy as people call it; those of the platform are "*/<name>".
func named(policy string) string {
	if name, ok := strings.CutPrefix(policy, "*/"); ok {
		return "ClusterAccessPolicy " + name
	}
	return policy
}

// refOf is the object that rules name so. Those of the platform are its own to find.
func (r *Reader) refOf(policy, source string) (tenancy.Ref, bool) {
	namespace, name, _ := strings.Cut(policy, "/")
	if namespace != "*" {
		return tenancy.Ref{Kind: tenancy.KindAccessPolicy, Key: tenancy.Key{Source: source, Namespace: namespace, Name: name}}, true
	}
	return tenancy.Ref{Kind: tenancy.KindClusterAccessPolicy, Key: tenancy.Key{Source: source, Name: name}}, r.scope.platform
}

// placeOf is where a policy stands, if that is the asker's to know.
func (r *Reader) placeOf(policy, source string) string {
	if ref, ok := r.refOf(policy, source); ok {
		return r.place(ref)
	}
	return ""
}

// endingPolicy notes when the policy that decided ends.
func (r *Reader) endingPolicy(a *Answer, policy, source string) {
	if ref, ok := r.refOf(policy, source); ok && r.mayRead(ref) {
		r.ending(a, "policy "+named(policy), ref)
	}
}

func policyAction(a policy.Action) string {
	return map[policy.Action]string{policy.Allow: "Allow", policy.Deny: "Deny", policy.Pass: "Pass", policy.Audit: "Audit"}[a]
}

func objectAction(a tenancy.Action) string {
	return map[tenancy.Action]string{tenancy.Allow: "Allow", tenancy.Deny: "Deny", tenancy.Pass: "Pass", tenancy.Audit: "Audit"}[a]
}

func outcome(look policy.Look, d policy.Decision) string {
	switch look.Why {
	case policy.OtherCallers:
		return "does not name this caller"
	case policy.OtherRequests:
		return "names this caller, but " + look.Detail
	case policy.Overruled:
		return "matches too, but " + named(d.By) + " is judged before it"
	case policy.Observes:
		return "matches, and changes nothing: it only observes"
	case policy.Passes:
		return "matches, and leaves it to what is judged behind it"
	case policy.Decided:
		return "decides"
	case policy.NotAsked:
		if d.By == policy.ByPlaintext {
			return "not asked: the port is Strict"
		}
		if d.By == policy.ByNoToken {
			return "not asked: there is no valid token"
		}
		if d.By == policy.ByMultiSAN {
			return "not asked: the certificate is nobody's"
		}
		return "not asked: the tenant floor refuses the caller"
	default:
		return "not asked"
	}
}

// aside is why a policy has no rule for the port.
func aside(s tenancy.Standing, pod tenancy.Backend) string {
	switch {
	case !s.Selects && s.Policy.Kind == tenancy.KindClusterAccessPolicy:
		return "is not for namespace " + pod.Pod.Namespace + ": none of its subjects is"
	case !s.Selects:
		return "does not select the Pod: it wants " + labels(s.MatchLabels)
	case s.Invalid && s.Action == tenancy.Allow:
		return "cannot be honoured as written, and allows nothing"
	case s.Invalid:
		return "cannot be honoured as written, and does nothing"
	case s.Dropped:
		return "is over the tenant's limit, and allows nothing"
	case !s.Ports:
		return fmt.Sprintf("is not about port %d of the Pod", pod.Port)
	case s.NoProvider && s.Action == tenancy.Allow:
		return "wants a token of a provider that the Tenant does not have, and allows nothing"
	default:
		return "names nobody whom the tenant floor lets in"
	}
}

func labels(m map[string]string) string {
	var all []string
	for k, v := range m {
		all = append(all, k+"="+v)
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}
