package read

import (
	"fmt"
	"slices"
	"strings"

	"bailiwick.dev/bailiwick/tenancy"
)

// plaintext answers for a caller without a certificate. Nobody's proxy knows of
// it, and it is nobody's: whoever may read the service's policies may hear of it.
func (r *Reader) plaintext(q Question) Answer {
	a := Answer{From: q.Caller(), To: fmt.Sprintf("%s/%s:%d", q.Namespace, q.Service, q.Port), Verdict: Denied, Visible: Proxyless}
	if !r.own(q.Namespace) {
		a.Verdict, a.Unknown = Unknown, []string{"may not read namespace " + q.Namespace}
		a.Why = "whether the service takes callers without a certificate is decided by objects that you may not read"
		return a
	}
	key, ports, found := r.model.FindService(q.Namespace, q.Service)
	if !found || !slices.ContainsFunc(ports, func(p tenancy.ServicePort) bool { return p.Port == q.Port }) {
		a.Why = fmt.Sprintf("there is no service %s with port %d in namespace %s", q.Service, q.Port, q.Namespace)
		return a
	}
	if _, owned := r.model.TenantOf(q.Namespace); !owned {
		a.Verdict, a.Why = Allowed, r.whyPlain(key)
		return a
	}
	r.judged(&a, q, key)
	return a
}

// permit says how a port comes to take callers without a certificate.
func (r *Reader) permit(q Question, pod tenancy.Backend, may bool) []string {
	tenant, _ := r.model.TenantOf(q.Namespace)
	switch {
	case !r.model.TenantObject(tenant).Permissive:
		return []string{"ask the platform to set spec.tls.peers of Tenant " + tenant + " to Permissive; then a PeerTLS of the namespace can make the port so"}
	case !may:
		return []string{"nothing: the server speaks first at this port, before anybody without a certificate could be refused"}
	}
	peer := strings.Join([]string{
		"apiVersion: bailiwick.dev/v1alpha1",
		"kind: PeerTLS",
		fmt.Sprintf("metadata: {name: %s-%d, namespace: %s}", Plaintext, pod.Port, q.Namespace),
		"spec:",
		"  selector: " + selector(pod),
		fmt.Sprintf("  ports: [%d]", pod.Port),
		"  mode: Permissive",
	}, "\n")
	return []string{"to take them, if no other PeerTLS says Strict:\n" + peer, "to allow it then:\n" + r.policy(q, pod, "Allow")}
}
