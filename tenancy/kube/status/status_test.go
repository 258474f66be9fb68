package status

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/condition"
	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// shared is the API server of all tests, which have namespaces of their own.
var shared kubetest.Shared

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(stopping{m}, goleak.Cleanup(os.Exit))
}

// stopping stops the API server before leaks are looked for.
type stopping struct{ m *testing.M }

func (s stopping) Run() int {
	defer shared.Stop()
	return s.m.Run()
}

// bed is an API server with the server's namespace and one of a tenant's.
type bed struct {
	t       *testing.T
	ctx     context.Context
	cluster *kubetest.Cluster
	client  kubernetes.Interface
	dynamic dynamic.Interface
	// system is the server's namespace, shop one of acme's.
	system, shop string
}

func newBed(t *testing.T) *bed {
	t.Helper()
	c := shared.Get(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	require.NoError(t, c.InstallCRDs(ctx))
	name := strings.ToLower(t.Name())
	b := &bed{t: t, ctx: ctx, cluster: c, system: "system-" + name, shop: "shop-" + name}
	require.NoError(t, c.Apply(ctx, kubetest.Admin, kubetest.Namespace(b.system, ""), kubetest.Namespace(b.shop, "acme")))
	var err error
	b.client, err = kubernetes.NewForConfig(c.REST(kubetest.Admin))
	require.NoError(t, err)
	b.dynamic, err = dynamic.NewForConfig(c.REST(kubetest.Admin))
	require.NoError(t, err)
	return b
}

// start runs a replica; stop ends it in order.
func (b *bed) start(replica string, config *rest.Config) (f *Fleet, stop func()) {
	b.t.Helper()
	f, err := New(Config{
		REST: config, Namespace: b.system, Replica: replica, Lease: "bailiwick",
		Logger: slog.New(slog.DiscardHandler), LeaseDuration: 2 * time.Second, Heartbeat: 200 * time.Millisecond,
	})
	require.NoError(b.t, err)
	ctx, cancel := context.WithCancel(b.ctx)
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }() // ends with stop
	stop = func() {
		if cancel != nil {
			cancel()
			cancel = nil
			require.NoError(b.t, <-ended)
		}
	}
	b.t.Cleanup(stop)
	return f, stop
}

func (b *bed) until(what string, holds func() bool) {
	b.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-b.ctx.Done():
			b.t.Fatalf("waited in vain until %s", what)
		case <-tick.C:
		}
	}
}

func (b *bed) policy(name string) tenancy.Ref {
	b.t.Helper()
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.Group + "/" + v1alpha1.Version, "kind": "AccessPolicy",
		"metadata": map[string]any{"namespace": b.shop, "name": name},
		"spec":     map[string]any{"selector": map[string]any{}, "action": "Allow", "rules": []any{map[string]any{"from": []any{map[string]any{"all": true}}}}},
	}}
	require.NoError(b.t, b.cluster.Apply(b.ctx, kubetest.Admin, u))
	return tenancy.Ref{Kind: tenancy.KindAccessPolicy, Key: tenancy.Key{Namespace: b.shop, Name: name}}
}

// stored is an object's status, and its resourceVersion.
func (b *bed) stored(ref tenancy.Ref) ([]metav1.Condition, string) {
	b.t.Helper()
	gvr, _ := resourceOf(ref.Kind)
	u, err := b.dynamic.Resource(gvr).Namespace(ref.Key.Namespace).Get(b.ctx, ref.Key.Name, metav1.GetOptions{})
	require.NoError(b.t, err)
	raw, err := json.Marshal(u.Object["status"])
	require.NoError(b.t, err)
	var s v1alpha1.Status
	require.NoError(b.t, json.Unmarshal(raw, &s))
	return s.Conditions, u.GetResourceVersion()
}

func (b *bed) programmed(ref tenancy.Ref) string {
	b.t.Helper()
	conditions, _ := b.stored(ref)
	for _, c := range conditions {
		if c.Type == v1alpha1.ConditionProgrammed {
			return fmt.Sprintf("%s/%s@%d", c.Status, c.Reason, c.ObservedGeneration)
		}
	}
	return "none"
}

// report is that of a replica with a proxy in shop that lacks a policy, or nothing.
func (b *bed) report(replica string, refused ...tenancy.Ref) condition.Report {
	g := condition.NewGather()
	g.Add(condition.Stream{Tenant: "acme", Namespace: b.shop, Refused: refused, Faulty: len(refused) > 0})
	return g.Report(replica, time.Now(), nil)
}

// say is one pass of a replica.
func (b *bed) say(f *Fleet, board *condition.Board, own condition.Report) {
	b.t.Helper()
	mark := board.Mark()
	own.AsOf = time.Now().UTC()
	all, err := f.Share(b.ctx, own, false)
	require.NoError(b.t, err)
	said := board.Say(condition.NewFleet(all), mark)
	for _, ref := range f.Write(b.ctx, said) {
		board.Again(ref)
	}
}

func applied(refs ...tenancy.Ref) *condition.Board {
	board := condition.NewBoard(time.Now, 0)
	for _, ref := range refs {
		board.Apply([]tenancy.Event{{Ref: ref, Object: &tenancy.AccessPolicy{}, Generation: 1}})
	}
	return board
}

// The one that leads sums up what all lack, and writes on change only; when it
// is cut off, another goes on from what stands in the objects, and its report
// counts no longer.
func TestLossOfTheLeaseLosesNoCondition(t *testing.T) {
	b := newBed(t)
	good, bad := b.policy("good"), b.policy("bad")
	gate := b.cluster.Gate(t)
	first, _ := b.start("first", gate.REST(kubetest.Admin))
	b.until("the first leads", func() bool { return first.Term() != 0 })
	second, stopSecond := b.start("second", b.cluster.REST(kubetest.Admin))

	boards := [2]*condition.Board{applied(good, bad), applied(good, bad)}
	_, err := second.Share(b.ctx, b.report("second", bad), true)
	require.NoError(t, err)
	b.say(first, boards[0], b.report("first"))
	require.Equal(t, "True/Programmed@1", b.programmed(good))
	require.Equal(t, "False/Refused@1", b.programmed(bad), "at the other replica")

	before, version := b.stored(good)
	require.Len(t, before, 2)
	b.say(first, boards[0], b.report("first"))
	_, again := b.stored(good)
	require.Equal(t, version, again, "nothing changed, nothing is written")
	b.say(second, boards[1], b.report("second", bad))
	_, again = b.stored(good)
	require.Equal(t, version, again, "who does not lead writes nothing")

	gate.Cut()
	b.until("the second leads", func() bool { return second.Term() != 0 })
	b.until("the first does not", func() bool { return first.Term() == 0 })
	require.NoError(t, second.Recall(b.ctx, boards[1].Recall))
	b.say(second, boards[1], b.report("second", bad))
	after, again := b.stored(good)
	require.Equal(t, version, again, "what was true stays as it was written")
	require.Equal(t, before, after)
	b.until("the first counts no longer, and what it lacked neither", func() bool {
		all, err := second.Share(b.ctx, b.report("second"), false)
		require.NoError(t, err)
		return len(all) == 1
	})
	b.say(second, boards[1], b.report("second"))
	require.Equal(t, "True/Programmed@1", b.programmed(bad))

	stopSecond()
	reports, err := second.reports().List(b.ctx, metav1.ListOptions{})
	require.NoError(t, err)
	require.Len(t, reports.Items, 1, "who ends in order takes its report with it")
	gate.Open()
	b.until("the first leads again at once", func() bool { return first.Term() != 0 })
}

// An operator's word on the Lease outlives its renewals, and is the same for all
// replicas.
func TestRemovalsAreConfirmedOnTheLease(t *testing.T) {
	b := newBed(t)
	f, _ := b.start("only", b.cluster.REST(kubetest.Admin))
	b.until("it leads", func() bool { return f.Term() != 0 })
	at, err := f.Confirmed(b.ctx)
	require.NoError(t, err)
	require.True(t, at.IsZero())

	leases := b.client.CoordinationV1().Leases(b.system)
	annotate := func(value string) {
		patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, ConfirmAnnotation, value)
		_, err := leases.Patch(b.ctx, "bailiwick", "application/merge-patch+json", patch, metav1.PatchOptions{})
		require.NoError(t, err)
	}
	annotate("2026-01-02T15:04:05Z")
	lease, err := leases.Get(b.ctx, "bailiwick", metav1.GetOptions{})
	require.NoError(t, err)
	b.until("the Lease is renewed", func() bool {
		now, err := leases.Get(b.ctx, "bailiwick", metav1.GetOptions{})
		require.NoError(t, err)
		return now.Spec.RenewTime.After(lease.Spec.RenewTime.Time)
	})
	at, err = f.Confirmed(b.ctx)
	require.NoError(t, err)
	require.Equal(t, time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC), at)
	annotate("yes")
	_, err = f.Confirmed(b.ctx)
	require.ErrorContains(t, err, "want a time such as")
}

// An object that is gone needs no status, and a kind without one of ours none
// either; what the API server cannot take now is tried again.
func TestWhatCannotBeWrittenIsReturned(t *testing.T) {
	b := newBed(t)
	gate := b.cluster.Gate(t)
	f, _ := b.start("only", gate.REST(kubetest.Admin))
	b.until("it leads", func() bool { return f.Term() != 0 })
	ref := b.policy("p")
	board := applied(ref, tenancy.Ref{Kind: tenancy.KindAccessPolicy, Key: tenancy.Key{Namespace: b.shop, Name: "gone"}})
	said := board.Say(condition.NewFleet([]condition.Report{b.report("only")}), board.Mark())
	require.Len(t, said, 2)
	require.Empty(t, f.Write(b.ctx, said))
	_, version := b.stored(ref)
	gate.Fail(503)
	require.Len(t, f.Write(b.ctx, said), 2)
	gate.Open()
	require.Empty(t, f.Write(b.ctx, said))
	_, again := b.stored(ref)
	require.Equal(t, version, again)
}
