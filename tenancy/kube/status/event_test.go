package status

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/condition"
	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
	"bailiwick.dev/bailiwick/tenancy/object"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// described are the Events that kubectl describe finds about an object.
func (b *bed) described(ref tenancy.Ref) []eventsv1.Event {
	b.t.Helper()
	gvr, _ := resourceOf(ref.Kind)
	u, err := b.dynamic.Resource(gvr).Namespace(ref.Key.Namespace).Get(b.ctx, ref.Key.Name, metav1.GetOptions{})
	require.NoError(b.t, err)
	core, err := b.client.CoreV1().Events(ref.Key.Namespace).List(b.ctx, metav1.ListOptions{
		FieldSelector: "involvedObject.uid=" + string(u.GetUID()) + ",involvedObject.name=" + ref.Key.Name + ",involvedObject.kind=" + ref.Kind.String(),
	})
	require.NoError(b.t, err)
	var out []eventsv1.Event
	for i := range core.Items {
		e, err := b.client.EventsV1().Events(core.Items[i].Namespace).Get(b.ctx, core.Items[i].Name, metav1.GetOptions{})
		require.NoError(b.t, err)
		out = append(out, *e)
	}
	return out
}

// A condition that turns False is an Event with the same words, once: not again
// for what stays, nor for what another replica has said; what comes back is
// counted. A flood in one namespace is paced.
func TestEvents(t *testing.T) {
	b := newBed(t)
	bad, fine := b.policy("bad"), b.policy("fine")
	f, stop := b.start("first", b.cluster.REST(kubetest.Admin))
	b.until("it leads", func() bool { return f.Term() != 0 })
	board := applied(bad, fine)
	pass := func(errs ...object.FieldError) {
		t.Helper()
		board.Errors(bad, 1, errs)
		b.say(f, board, b.report("first"))
	}
	wrong := object.FieldError{Field: "spec.rules[0]", Message: "names nobody"}
	pass()
	require.Empty(t, b.described(bad))
	pass(wrong)
	pass(wrong)
	events := b.described(bad)
	require.Len(t, events, 1)
	conditions, _ := b.stored(bad)
	require.Equal(t, "Accepted is False: "+conditions[0].Message, events[0].Note)
	require.Contains(t, events[0].Note, "spec.rules[0]")
	require.Equal(t, conditions[0].Reason, events[0].Reason)
	require.Equal(t, "Warning", events[0].Type)
	require.Equal(t, "first", events[0].ReportingInstance)
	require.Nil(t, events[0].Series)
	require.Empty(t, b.described(fine))

	pass()
	pass(wrong)
	events = b.described(bad)
	require.Len(t, events, 1)
	require.EqualValues(t, 2, events[0].Series.Count)
	pass(object.FieldError{Field: "spec.action", Message: strings.Repeat("ä", 5000)})
	require.Len(t, b.described(bad), 1, "the reason is the same, and the generation")
	stop()

	second, _ := b.start("second", b.cluster.REST(kubetest.Admin))
	b.until("the second leads", func() bool { return second.Term() != 0 })
	f, board = second, applied(bad, fine)
	board.Errors(bad, 1, []object.FieldError{wrong})
	require.NoError(t, f.Recall(b.ctx, board.Recall))
	pass(wrong)
	require.Len(t, b.described(bad), 1, "said by the first")

	gvr, _ := resourceOf(bad.Kind)
	about, err := b.dynamic.Resource(gvr).Namespace(b.shop).Get(b.ctx, "bad", metav1.GetOptions{})
	require.NoError(t, err)
	now := time.Now()
	for i := range eventBurst + 5 {
		c := metav1.Condition{Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionFalse, Reason: fmt.Sprint("Reason", i), Message: strings.Repeat("ä", 5000)}
		require.NoError(t, f.event(b.ctx, about, &c, now))
	}
	paced := b.described(bad)
	require.Len(t, paced, 1+eventBurst)
	for i := range paced {
		require.LessOrEqual(t, len(paced[i].Note), longestNote)
	}
	require.NoError(t, f.event(b.ctx, about, &metav1.Condition{Type: v1alpha1.ConditionAccepted, Reason: "Later"}, now.Add(eventPace)))
	require.Len(t, b.described(bad), 2+eventBurst)
	f.forget(now.Add(time.Hour))
	require.Empty(t, f.told)

	// Of what belongs to the cluster the platform is told.
	tenant, err := kubetest.Parse([]byte("{apiVersion: bailiwick.dev/v1alpha1, kind: Tenant, metadata: {name: eventful}, spec: {trustDomain: eventful.example}}"))
	require.NoError(t, err)
	require.NoError(t, b.cluster.Apply(b.ctx, kubetest.Admin, tenant...))
	ref := tenancy.Ref{Kind: tenancy.KindTenant, Key: tenancy.Key{Name: "eventful"}}
	board = condition.NewBoard(time.Now, 0)
	board.Apply([]tenancy.Event{{Ref: ref, Object: &tenancy.Tenant{}, Generation: 1}})
	board.Errors(ref, 1, []object.FieldError{{Field: "spec", Message: "wrong"}})
	b.say(f, board, b.report("second"))
	events = b.described(ref)
	require.Len(t, events, 1, "it is not Degraded, which is how it should be")
	require.Equal(t, metav1.NamespaceSystem, events[0].Namespace)
}
