package read

import (
	"fmt"
	"slices"

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

// What Answer.Visible says; it may also be Unknown. Proxyless callers have no proxy
// that could know anything.
const (
	Visible   = "yes"
	Hidden    = "no"
	Proxyless = "no proxy"
)

// Plaintext is what a caller without a certificate is called in place of its ID.
const Plaintext = "plaintext"

// Question is a call that somebody asks about.
type Question struct {
	From identity.Workload
	// Plaintext asks for a caller without a certificate, who has no From.
	Plaintext bool
	// Namespace, Service and Port name the service port that is called.
	Namespace, Service string
	Port               uint16
	// Request is judged on HTTP ports: an empty method is GET, an empty path /,
	// an empty host the service's full name.
	Request policy.Request
}

// Caller names who calls, as Answer.From does.
func (q Question) Caller() string {
	if q.Plaintext {
		return Plaintext
	}
	return q.From.String()
}

// Answer is what became of a Question.
type Answer struct {
	From    string `json:"from"`
	To      string `json:"to"`
	Request string `json:"request,omitempty"`
	// Verdict is Allowed, Denied or Unknown.
	Verdict string `json:"verdict"`
	// Visible tells whether the caller's proxy may know the service port, if it has one.
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
	// Unknown is what the asker may not read: what the verdict would need or,
	// where there is one, policies that may have been looked at beside Looked.
	Unknown []string `json:"unknown,omitempty"`
	// Ends says what of all that the answer rests on ends, and when.
	Ends []string `json:"ends,omitempty"`
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
	if q.Plaintext {
		return r.plaintext(q)
	}
	a := Answer{
		From: q.Caller(), To: fmt.Sprintf("%s/%s:%d", q.Namespace, q.Service, q.Port),
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
		r.endingSight(&a, q, key)
	}
	switch {
	case a.Visible == Visible && r.plain(q.From.Namespace, key, q.Port):
		a.Verdict = Allowed
		a.Why = r.whyPlain(key)
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

// plain reports whether a namespace calls a service port that it sees without mTLS.
func (r *Reader) plain(namespace string, service tenancy.Key, port uint16) bool {
	tenant, _ := r.model.TenantOf(namespace)
	sight, ok := r.model.See(tenancy.ViewKey{Tenant: tenant, Namespace: namespace}, service)
	return ok && sight.Plain.Has(port)
}

func (r *Reader) whyPlain(service tenancy.Key) string {
	if _, owned := r.model.TenantOf(service.Namespace); owned {
		return "a grant and a request agree that the service is plain: it has no sidecar, and so nobody who judges the call; it is called without mTLS"
	}
	return "the platform shows the service as plain: it has no sidecar, and so nobody who judges the call"
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
	if was, ok := r.endedRequest(q); ok {
		return []string{was + "; then " + missing}
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
	if was, ok := r.endedGrant(q); ok {
		ask = was
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
		d := decide(q, j.port, request)
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
	if q.Plaintext {
		_, looks = port.ExplainPlaintext(request)
	}
	r.looked(a, pod, decision, looks)
	a.Why = r.because(decision, port)
	if refusing > 0 && refusing < len(by) {
		a.Why += fmt.Sprintf(" (Pod %s; others behind the service allow it)", pod.Pod.Name)
	}
	if q.Plaintext && !decision.Allowed && !port.Permissive {
		a.Change = r.permit(q, pod, by[chosen].plaintext)
		return
	}
	a.Change = r.change(q, pod, decision, looks)
}

func decide(q Question, p policy.Port, request policy.Request) policy.Decision {
	if q.Plaintext {
		return p.DecidePlaintext(request)
	}
	return p.Decide(q.From.String(), request)
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
func (r *Reader) because(d policy.Decision, port policy.Port) string {
	switch d.By {
	case policy.ByPlaintext:
		if port.Permissive {
			return "the port takes callers without a certificate, and no policy that names plaintext allows this call"
		}
		return "the port takes no callers without a certificate: it is Strict"
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
