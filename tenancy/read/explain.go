package read

import (
	"fmt"
	"slices"
	"strings"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

// The verdicts of an Answer.
const (
	Allowed = "allowed"
	Denied  = "denied"
	Unknown = "unknown"
)

// What Answer.Visible says; it may also be Unknown.
const (
	Visible = "yes"
	Hidden  = "no"
)

// Question is a call that somebody asks about.
type Question struct {
	From identity.Workload
	// Namespace, Service and Port name the service port that is called.
	Namespace, Service string
	Port               uint16
	// Request is judged on HTTP ports: an empty method is GET, an empty path /,
	// an empty host the service's full name.
	Request policy.Request
}

// Answer is what became of a Question.
type Answer struct {
	From    string `json:"from"`
	To      string `json:"to"`
	Request string `json:"request,omitempty"`
	// Verdict is Allowed, Denied or Unknown.
	Verdict string `json:"verdict"`
	// Visible tells whether the caller's proxy may know the service port.
	Visible string `json:"visible"`
	// Why is the verdict in one sentence.
	Why string `json:"why"`
	// By names the policy that decided at the service, or what did where no
	// policy was asked (tenant-floor, default-deny, default-allow). Empty where
	// that was not judged.
	By string `json:"by,omitempty"`
	// At is file and line of the policy that decided, if that is known.
	At string `json:"at,omitempty"`
	// Looked are the policies that could have decided, in the order of judgement.
	Looked []Looked `json:"looked,omitempty"`
	// Unknown is what the asker may not read and the answer would need.
	Unknown []string `json:"unknown,omitempty"`
	// Change says what to write to have it otherwise.
	Change []string `json:"change,omitempty"`
}

// Looked is one policy that was looked at.
type Looked struct {
	Policy string `json:"policy"`
	Action string `json:"action"`
	At     string `json:"at,omitempty"`
	// Outcome says what it did, or why it did not decide.
	Outcome string `json:"outcome"`
}

// Explain answers a question.
func (r *Reader) Explain(q Question) Answer {
	a := Answer{
		From: q.From.String(), To: fmt.Sprintf("%s/%s:%d", q.Namespace, q.Service, q.Port),
		Verdict: Denied, Visible: Hidden,
	}
	caller, callee := r.own(q.From.Namespace), r.own(q.Namespace)
	if !caller && !callee {
		a.Verdict, a.Visible = Unknown, Unknown
		a.Unknown = []string{"may not read namespace " + q.From.Namespace, "may not read namespace " + q.Namespace}
		a.Why = "neither the caller nor the service is in a namespace that you may read"
		return a
	}
	key, ports, found := r.model.FindService(q.Namespace, q.Service)
	found = found && slices.ContainsFunc(ports, func(p tenancy.ServicePort) bool { return p.Port == q.Port })
	_, somebody := r.model.Resolve(q.From)
	if found && somebody && r.sees(q.From.Namespace, key, q.Port) {
		a.Visible = Visible
	}
	switch {
	case a.Visible == Visible && r.plain(key):
		a.Verdict = Allowed
		a.Why = "the platform shows the service as plain: it has no sidecar, and so nobody who judges the call"
	case !callee && a.Visible == Hidden:
		r.notAvailable(&a, q, somebody)
	case !callee:
		a.Verdict = Unknown
		a.Unknown = []string{"may not read the policies of namespace " + q.Namespace}
		a.Why = fmt.Sprintf("namespace %s may know the service; whether it lets the caller in is decided by policies that you may not read", q.From.Namespace)
	case !found:
		a.Why = fmt.Sprintf("there is no service %s with port %d in namespace %s", q.Service, q.Port, q.Namespace)
	default:
		r.judged(&a, q, key)
		if a.Visible == Hidden {
			r.hidden(&a, q, key, somebody)
		}
	}
	return a
}

// plain reports whether a service is nobody's: it is seen only if the platform
// shows it as plain.
func (r *Reader) plain(service tenancy.Key) bool {
	_, owned := r.model.TenantOf(service.Namespace)
	return !owned
}

// notAvailable is the one answer about a service that the caller may not know,
// whether or not it exists. It is made from the caller's own objects alone.
func (r *Reader) notAvailable(a *Answer, q Question, somebody bool) {
	if !somebody {
		a.Why = r.nobody(q.From)
		return
	}
	a.Why = fmt.Sprintf("%s port %d is not available to namespace %s", r.fqdn(q.Namespace, q.Service), q.Port, q.From.Namespace)
	a.Change = r.request(q, "its owner has to grant it, or there is no such service")
}

func (r *Reader) request(q Question, missing string) []string {
	if asked := r.model.RequestsFor(q.From.Namespace, q.Namespace, q.Service, q.Port); len(asked) > 0 {
		return []string{fmt.Sprintf("ServiceRequest %s/%s asks for it: %s", q.From.Namespace, asked[0].Key.Name, missing)}
	}
	return []string{fmt.Sprintf("write a ServiceRequest in namespace %s: to {namespace: %s, service: %s, ports: [%d]}; then %s",
		q.From.Namespace, q.Namespace, q.Service, q.Port, missing)}
}

func (r *Reader) nobody(w identity.Workload) string {
	return fmt.Sprintf("the caller is nobody: no tenant of trust domain %s has namespace %s", w.TrustDomain, w.Namespace)
}

// hidden says why the caller's proxy does not know a service whose owner asks,
// and takes back what judged said, for what is not visible is not callable.
func (r *Reader) hidden(a *Answer, q Question, key tenancy.Key, somebody bool) {
	at := a.Why
	admitted := a.Verdict == Allowed
	a.Verdict = Denied
	owner, _ := r.model.TenantOf(key.Namespace)
	tenant, _ := r.model.TenantOf(q.From.Namespace)
	full := fmt.Sprintf("%s port %d is not available to namespace %s", r.fqdn(q.Namespace, q.Service), q.Port, q.From.Namespace)
	switch {
	case !somebody && r.own(q.From.Namespace):
		a.Why, a.Change = r.nobody(q.From), nil
	case owner == "":
		a.Why = full + ", because no ClusterServiceGrant shows it as plain; its namespace has no tenant"
		a.By, a.Looked, a.Change = "", nil, nil
	case !somebody, tenant != owner:
		a.Why, a.Change = full+", which has no live grant", r.grant(q, key, tenant)
	default:
		a.Why = full + ", because the Tenant's visibility is Namespace"
		a.Change = []string{"set spec.visibility of Tenant " + owner + " to Tenant, or call it from its own namespace"}
		if admitted {
			a.Why += "; at the Pod's address the caller would be let in (" + at + ")"
		}
	}
}

// grant says what is missing for another tenant to see a service. Who may read
// one side only hears of that side.
func (r *Reader) grant(q Question, key tenancy.Key, tenant string) []string {
	missing := fmt.Sprintf("namespace %s has to request it with a ServiceRequest", q.From.Namespace)
	reads := r.own(q.From.Namespace)
	if !reads || tenant == "" {
		tenant = "<the caller's tenant>"
	}
	ask := fmt.Sprintf("write a ServiceGrant in namespace %s: from {tenant: %s, namespaces: [%s]}, to {service: %s, ports: [%d]}",
		q.Namespace, tenant, q.From.Namespace, q.Service, q.Port)
	if !reads {
		return []string{ask, missing}
	}
	given := r.model.GrantsFor(key, q.Port, q.From.Namespace)
	if len(given) == 0 {
		return append([]string{ask}, r.request(q, "the grant makes it live")...)
	}
	return r.request(q, fmt.Sprintf("ServiceGrant %s/%s makes it live", q.Namespace, given[0].Key.Name))
}

// judged asks the Pods behind a service port. What they disagree about is
// denied as far as one of them denies it.
func (r *Reader) judged(a *Answer, q Question, key tenancy.Key) {
	behind := r.kinds(key, q.Port)
	pods, by := behind.pods, behind.by
	if len(pods) == 0 {
		a.Why = "no Pod is behind this service port: nobody answers"
		return
	}
	request := q.Request
	if by[0].port.HTTP {
		request = r.defaults(q)
		a.Request = request.Method + " " + request.Host + request.Path
	}
	chosen, refusing := 0, 0
	var decision policy.Decision
	for i, j := range by {
		d := j.port.Decide(a.From, request)
		if !d.Allowed {
			refusing++
		}
		if i == 0 || decision.Allowed && !d.Allowed {
			chosen, decision = i, d
		}
	}
	if decision.Allowed {
		a.Verdict = Allowed
	}
	pod, port := pods[chosen], by[chosen].port
	_, looks := port.Explain(a.From, request)
	r.looked(a, pod, decision, looks)
	a.Why = r.because(q, decision, port)
	if refusing > 0 && refusing < len(by) {
		a.Why += fmt.Sprintf(" (Pod %s; others behind the service allow it)", pod.Pod.Name)
	}
	a.Change = r.change(q, pod, decision, looks)
}

func (r *Reader) defaults(q Question) policy.Request {
	request := q.Request
	if request.Method == "" {
		request.Method = "GET"
	}
	if request.Path == "" {
		request.Path = "/"
	}
	if request.Host == "" {
		request.Host = r.fqdn(q.Namespace, q.Service)
	}
	return request
}

// because is a decision in one sentence.
func (r *Reader) because(q Question, d policy.Decision, port policy.Port) string {
	switch d.By {
	case policy.ByMultiSAN:
		return "a certificate with several URI SANs is nobody's"
	case policy.ByTenantFloor:
		return "the caller is neither of the service's tenant nor holds a live grant for the port, which no policy can change"
	case policy.ByNoToken:
		return "a rule speaks about claims, and the request carries no valid token"
	case policy.ByDefaultAllow:
		return "no Allow policy selects the Pod, and the tenant's default lets its own workloads in"
	case policy.ByDefaultDeny:
		if port.AllowSelected {
			return "Allow policies select the Pod, and none of them allows this call"
		}
		return "no policy allows it, and the default is to deny"
	}
	if d.Allowed {
		return "policy " + named(d.By) + " allows it"
	}
	return "policy " + named(d.By) + " denies it"
}

// looked lists the policies that could have decided: those of the port as they
// were judged, then those of the namespace that are not about it.
func (r *Reader) looked(a *Answer, pod tenancy.Backend, d policy.Decision, looks []policy.Look) {
	a.By = named(d.By)
	standings := map[string]tenancy.Standing{}
	all := r.model.Standings(pod.Pod, pod.Port)
	for _, s := range all {
		standings[s.Policy.Key.Namespace+"/"+s.Policy.Key.Name] = s
	}
	for _, look := range looks {
		l := Looked{Policy: named(look.Policy), Action: policyAction(look.Action), Outcome: outcome(look, d)}
		l.At = r.placeOf(look.Policy, pod.Pod.Source)
		if look.Why == policy.Decided {
			a.At = l.At
		}
		a.Looked = append(a.Looked, l)
		delete(standings, look.Policy)
	}
	for _, s := range all {
		name := s.Policy.Key.Namespace + "/" + s.Policy.Key.Name
		if _, ok := standings[name]; ok {
			a.Looked = append(a.Looked, Looked{Policy: name, Action: objectAction(s.Action), At: r.place(s.Policy), Outcome: aside(s, pod)})
		}
	}
}

// named is a policy as people call it; those of the platform are "*/<name>".
func named(policy string) string {
	if name, ok := strings.CutPrefix(policy, "*/"); ok {
		return "ClusterAccessPolicy " + name
	}
	return policy
}

// placeOf is where a policy stands. Those of the platform are its own to find.
func (r *Reader) placeOf(policy, source string) string {
	namespace, name, _ := strings.Cut(policy, "/")
	switch {
	case namespace != "*":
		return r.place(tenancy.Ref{Kind: tenancy.KindAccessPolicy, Key: tenancy.Key{Source: source, Namespace: namespace, Name: name}})
	case r.scope.platform:
		return r.place(tenancy.Ref{Kind: tenancy.KindClusterAccessPolicy, Key: tenancy.Key{Source: source, Name: name}})
	default:
		return ""
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
	default:
		return "not asked: the tenant floor refuses the caller"
	}
}

// aside is why a policy has no rule for the port.
func aside(s tenancy.Standing, pod tenancy.Backend) string {
	switch {
	case !s.Selects:
		return "does not select the Pod: it wants " + labels(s.MatchLabels)
	case s.Invalid:
		return "cannot be honoured as written, and allows nothing"
	case s.Dropped:
		return "is over the tenant's limit, and allows nothing"
	case !s.Ports:
		return fmt.Sprintf("is not about port %d of the Pod", pod.Port)
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
