package condition

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/object"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// The reasons of conditions, beside those of tenancy.Problem.
const (
	// ReasonAccepted is on objects without a fault.
	ReasonAccepted = "Accepted"
	// ReasonInvalid is on objects that cannot be honoured as written.
	ReasonInvalid = tenancy.ReasonInvalid
	// ReasonResolved is on objects all of whose references lead somewhere.
	ReasonResolved = "ResolvedRefs"
	// ReasonProgrammed says that no connected proxy lacks what follows.
	ReasonProgrammed = "Programmed"
	// ReasonPending says that proxies have not acknowledged it for a while.
	ReasonPending = "Pending"
	// ReasonRefused says that proxies refused it.
	ReasonRefused = "Refused"
	// ReasonNoProxies says that no proxy is connected that could have it.
	ReasonNoProxies = "NoProxies"
	// ReasonNotCounted is on what belongs to no tenant, whose proxies therefore
	// have no say.
	ReasonNotCounted = "NotCounted"
	// ReasonWithinLimits is on Tenants of whose objects no limit leaves any out.
	ReasonWithinLimits = "WithinLimits"
	// ReasonTooMany says that the proxies lack more than is listed.
	ReasonTooMany = "TooManyFaults"
)

// Kinds are those whose objects have conditions.
func Kinds() []tenancy.Kind {
	return []tenancy.Kind{
		tenancy.KindTenant, tenancy.KindServiceGrant, tenancy.KindServiceRequest,
		tenancy.KindClusterServiceGrant, tenancy.KindAccessPolicy, tenancy.KindClusterAccessPolicy, tenancy.KindPeerTLS,
	}
}

// Types are the conditions that are worked out here; objects may have others.
func Types() []string {
	return []string{v1alpha1.ConditionAccepted, v1alpha1.ConditionResolvedRefs, v1alpha1.ConditionProgrammed, v1alpha1.ConditionDegraded}
}

// Wrong reports whether a condition tells of something that is not in order: it is
// False, or it is Degraded and True.
func Wrong(c *metav1.Condition) bool {
	if c.Type == v1alpha1.ConditionDegraded {
		return c.Status == metav1.ConditionTrue
	}
	return c.Status == metav1.ConditionFalse
}

// Facts are all that the conditions of one object follow from.
type Facts struct {
	Kind tenancy.Kind
	// Generation is metadata.generation of the object that the rest is about.
	Generation int64
	// Errors of the object as it is written, Problems of the object among others.
	Errors   []object.FieldError
	Problems []tenancy.Problem
	Delivery Delivery
}

// Of says the conditions of an object, without transition times. Programmed is
// left out while it is not known.
func Of(f Facts) []metav1.Condition {
	accepted, resolved := f.accepted(), f.resolved()
	out := []metav1.Condition{accepted}
	if resolved != nil {
		out = append(out, *resolved)
	}
	if p := f.programmed(accepted, resolved); p != nil {
		out = append(out, *p)
	}
	if d := f.degraded(); d != nil {
		out = append(out, *d)
	}
	for i := range out {
		out[i].ObservedGeneration = f.Generation
		out[i].Message = bounded(out[i].Message)
	}
	return out
}

func condition(kind string, status metav1.ConditionStatus, reason, message string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message}
}

// unresolved are the reasons that are about what an object refers to.
func unresolved(reason string) bool { return reason == tenancy.ReasonNotAvailable }

func (f *Facts) accepted() metav1.Condition {
	if len(f.Errors) > 0 {
		texts := make([]string, len(f.Errors))
		for i, e := range f.Errors {
			texts[i] = e.Error()
		}
		return condition(v1alpha1.ConditionAccepted, metav1.ConditionFalse, ReasonInvalid, list(texts))
	}
	var hints, faults []tenancy.Problem
	for _, p := range f.Problems {
		switch {
		case unresolved(p.Reason), f.limits(p):
		case tenancy.Hint(p.Reason):
			hints = append(hints, p)
		default:
			faults = append(faults, p)
		}
	}
	switch {
	case len(faults) > 0:
		return condition(v1alpha1.ConditionAccepted, metav1.ConditionFalse, faults[0].Reason, texts(faults))
	case len(hints) > 0:
		return condition(v1alpha1.ConditionAccepted, metav1.ConditionTrue, hints[0].Reason, texts(hints))
	}
	return condition(v1alpha1.ConditionAccepted, metav1.ConditionTrue, ReasonAccepted, "valid and honoured")
}

// resolved is nil for kinds that refer to nothing, and unknown for what could
// not be read.
func (f *Facts) resolved() *metav1.Condition {
	var c metav1.Condition
	var missing []tenancy.Problem
	for _, p := range f.Problems {
		if unresolved(p.Reason) {
			missing = append(missing, p)
		}
	}
	switch f.Kind {
	case tenancy.KindServiceGrant, tenancy.KindServiceRequest, tenancy.KindClusterServiceGrant:
	default:
		return nil
	}
	switch {
	case len(f.Errors) > 0:
		c = condition(v1alpha1.ConditionResolvedRefs, metav1.ConditionUnknown, ReasonInvalid, "not looked at: the object is not valid")
	case len(missing) > 0:
		c = condition(v1alpha1.ConditionResolvedRefs, metav1.ConditionFalse, missing[0].Reason, texts(missing))
	default:
		c = condition(v1alpha1.ConditionResolvedRefs, metav1.ConditionTrue, ReasonResolved, "everything that it refers to is available")
	}
	return &c
}

// limits reports whether a problem of a Tenant is that its limits leave something
// out: the object itself is honoured.
func (f *Facts) limits(p tenancy.Problem) bool {
	return f.Kind == tenancy.KindTenant && p.Reason == tenancy.ReasonLimit
}

// degraded is nil for all kinds but Tenant.
func (f *Facts) degraded() *metav1.Condition {
	if f.Kind != tenancy.KindTenant {
		return nil
	}
	var over []tenancy.Problem
	for _, p := range f.Problems {
		if f.limits(p) {
			over = append(over, p)
		}
	}
	c := condition(v1alpha1.ConditionDegraded, metav1.ConditionFalse, ReasonWithinLimits, "no limit leaves anything out")
	if len(over) > 0 {
		c = condition(v1alpha1.ConditionDegraded, metav1.ConditionTrue, tenancy.ReasonLimit, texts(over))
	}
	return &c
}

// programmed is nil while it is not known. Whether a reference leads nowhere or
// is withheld, the answer is made from the problems alone and so is the same.
func (f *Facts) programmed(accepted metav1.Condition, resolved *metav1.Condition) *metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionProgrammed}
	d := f.Delivery
	switch {
	// A policy that is not valid has its effect (it refuses), and so arrives.
	case accepted.Status != metav1.ConditionTrue && !refuses(f.Kind):
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, accepted.Reason, "nothing follows from it while it is not accepted"
	case f.Kind == tenancy.KindClusterServiceGrant || f.Kind == tenancy.KindClusterAccessPolicy:
		c.Status, c.Reason, c.Message = metav1.ConditionUnknown, ReasonNotCounted, "it belongs to no tenant whose proxies could be asked"
	case f.Kind == tenancy.KindServiceRequest && resolved.Status != metav1.ConditionTrue:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, resolved.Reason, "not while what it refers to is not available"
	case d.Refused > 0:
		c.Status, c.Reason = metav1.ConditionFalse, ReasonRefused
		c.Message = "connected proxies refused what follows from it: " + counted(d.Refused)
	case d.Pending > 0:
		c.Status, c.Reason = metav1.ConditionFalse, ReasonPending
		c.Message = "connected proxies have not acknowledged what follows from it: " + counted(d.Pending)
	case d.Unsettled:
		return nil
	case d.More:
		c.Status, c.Reason, c.Message = metav1.ConditionUnknown, ReasonTooMany, "the proxies lack more than is listed"
	case d.Proxies == 0:
		c.Status, c.Reason, c.Message = metav1.ConditionUnknown, ReasonNoProxies, "no proxy is connected that it could concern"
	default:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, ReasonProgrammed, "no connected proxy lacks it"
	}
	return &c
}

// refuses reports whether an object of the kind has its effect also if it is
// not accepted.
func refuses(k tenancy.Kind) bool {
	return k == tenancy.KindAccessPolicy || k == tenancy.KindClusterAccessPolicy || k == tenancy.KindPeerTLS
}

func counted(n int) string {
	if n == 1 {
		return "1 proxy"
	}
	return fmt.Sprintf("%d proxies", n)
}

func texts(ps []tenancy.Problem) string {
	out := make([]string, len(ps))
	for i, p := range ps {
		out[i] = object.FieldError{Field: p.Field, Message: p.Message}.Error()
	}
	return list(out)
}

// mostTexts are shown of what is wrong; the rest is counted.
const mostTexts = 8

func list(texts []string) string {
	if more := len(texts) - mostTexts; more > 0 {
		return strings.Join(texts[:mostTexts], "; ") + fmt.Sprintf("; and %d more", more)
	}
	return strings.Join(texts, "; ")
}

// maxMessage bounds the text of a condition, in bytes.
const maxMessage = 2048

func bounded(s string) string {
	if len(s) <= maxMessage {
		return s
	}
	return strings.ToValidUTF8(s[:maxMessage-3], "") + "..."
}

// Merge puts what is said now in place of what was said before. What is not
// spoken of stays; of what is new the transition is at now, a time in UTC. It
// reports whether anything differs.
func Merge(before, said []metav1.Condition, now time.Time) (after []metav1.Condition, changed bool) {
	after = slices.Clone(before)
	for _, c := range said {
		i := slices.IndexFunc(after, func(o metav1.Condition) bool { return o.Type == c.Type })
		if i < 0 {
			c.LastTransitionTime = metav1.Time{Time: now}
			after, changed = append(after, c), true
			continue
		}
		c.LastTransitionTime = after[i].LastTransitionTime
		if c.Status != after[i].Status || c.LastTransitionTime.IsZero() {
			c.LastTransitionTime = metav1.Time{Time: now}
		}
		changed = changed || c != after[i]
		after[i] = c
	}
	slices.SortFunc(after, func(a, b metav1.Condition) int { return cmp.Compare(a.Type, b.Type) })
	return after, changed
}
