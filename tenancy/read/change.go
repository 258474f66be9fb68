package read

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

// change says what to write so that a decision is the opposite.
func (r *Reader) change(q Question, pod tenancy.Backend, d policy.Decision, looks []policy.Look) []string {
	switch {
	case d.By == policy.ByTenantFloor || d.By == policy.ByMultiSAN || d.By == policy.ByNoToken:
		return nil // hidden says what is missing
	case strings.HasPrefix(d.By, "*/") && !slices.ContainsFunc(looks, func(l policy.Look) bool { return l.Why == policy.Decided && l.Tier == policy.TierBaseline }):
		return []string{"ask the platform about its policy " + d.By[2:] + ": nothing of a tenant goes before it"}
	case strings.HasPrefix(d.By, "*/") && !d.Allowed:
		return []string{"to allow it, for which the platform's Baseline is not asked:\n" + r.policy(q, pod, "Allow")}
	case d.Allowed:
		return []string{"to refuse it:\n" + r.policy(q, pod, "Deny")}
	case d.By == policy.ByDefaultDeny || d.By == policy.ByPlaintext:
		change := []string{"to allow it:\n" + r.policy(q, pod, "Allow")}
		for _, l := range looks {
			if l.Action == policy.Allow && l.Why == policy.OtherRequests {
				change = append([]string{"or let policy " + l.Policy + ", which names this caller, match the request too"}, change...)
			}
		}
		slices.Reverse(change)
		return change
	default:
		return []string{"narrow policy " + d.By + " so that it does not match this call, or remove it: no Allow goes before a Deny"}
	}
}

// policy is an AccessPolicy about the caller, in YAML.
func (r *Reader) policy(q Question, pod tenancy.Backend, action string) string {
	from := fmt.Sprintf("{namespace: %s, serviceAccount: %s}", q.From.Namespace, q.From.ServiceAccount)
	name := q.From.Namespace + "-" + strings.ReplaceAll(q.From.ServiceAccount, ".", "-")
	caller, _ := r.model.TenantOf(q.From.Namespace)
	if owner, _ := r.model.TenantOf(q.Namespace); owner != caller {
		from = fmt.Sprintf("{tenant: %s, namespace: %s, serviceAccount: %s}", caller, q.From.Namespace, q.From.ServiceAccount)
	}
	if q.Plaintext {
		from, name = "{plaintext: true}", Plaintext
	}
	verb := strings.ToLower(action)
	return strings.Join([]string{
		"apiVersion: bailiwick.dev/v1alpha1",
		"kind: AccessPolicy",
		fmt.Sprintf("metadata: {name: %s-%s, namespace: %s}", verb, name, q.Namespace),
		"spec:",
		"  selector: " + selector(pod),
		"  action: " + action,
		"  rules:",
		"  - from: [" + from + "]",
		fmt.Sprintf("    ports: [%d]", pod.Port),
	}, "\n")
}

// selector picks the Pods that have a Pod's labels.
func selector(pod tenancy.Backend) string {
	if len(pod.Labels) == 0 {
		return "{}"
	}
	var labels []string
	for _, k := range slices.Sorted(maps.Keys(pod.Labels)) {
		labels = append(labels, fmt.Sprintf("%q: %q", k, pod.Labels[k]))
	}
	return "{matchLabels: {" + strings.Join(labels, ", ") + "}}"
}
