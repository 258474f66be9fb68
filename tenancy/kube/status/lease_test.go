package status

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

// Who holds the Lease by client-go's election holds it by ours, and the other way
// round: replicas of two versions run beside each other while one replaces the
// other.
func TestTheLeaseIsThatOfClientGo(t *testing.T) {
	b := newBed(t)
	theirs := func() (began chan struct{}, stop func()) {
		ctx, cancel := context.WithCancel(b.ctx)
		began, ended := make(chan struct{}), make(chan struct{})
		e, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{
				LeaseMeta: metav1.ObjectMeta{Namespace: b.system, Name: "bailiwick"}, Client: b.client.CoordinationV1(),
				LockConfig: resourcelock.ResourceLockConfig{Identity: "theirs"},
			},
			LeaseDuration: 2 * time.Second, RenewDeadline: 1300 * time.Millisecond, RetryPeriod: 250 * time.Millisecond, ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) { close(began) }, OnStoppedLeading: func() {}},
		})
		require.NoError(t, err)
		go func() { defer close(ended); e.Run(ctx) }() // ends with stop
		return began, func() { cancel(); <-ended }
	}
	began, stop := theirs()
	t.Cleanup(stop)
	<-began

	// Ours asks again and again while theirs renews, and does not get it.
	e := &election{leases: (&Fleet{cfg: Config{Namespace: b.system}, dynamic: b.dynamic}).leases(), name: "bailiwick", replica: "ours", duration: 2 * time.Second}
	renewals := map[string]bool{}
	b.until("theirs has renewed it", func() bool {
		holds, err := e.step(b.ctx)
		require.NoError(t, err)
		require.False(t, holds)
		renewals[e.record] = true
		return len(renewals) == 3
	})
	stop()
	holds, err := e.step(b.ctx)
	require.NoError(t, err)
	require.True(t, holds, "theirs gave it back")
	lease, err := b.client.CoordinationV1().Leases(b.system).Get(b.ctx, "bailiwick", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, "ours", *lease.Spec.HolderIdentity)
	require.EqualValues(t, 2, *lease.Spec.LeaseDurationSeconds)
	acquired := lease.Spec.AcquireTime

	began, stop = theirs()
	t.Cleanup(stop)
	for range 3 {
		holds, err = e.step(b.ctx)
		require.NoError(t, err)
		require.True(t, holds)
	}
	lease, err = b.client.CoordinationV1().Leases(b.system).Get(b.ctx, "bailiwick", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, acquired, lease.Spec.AcquireTime, "one term")
	require.True(t, lease.Spec.RenewTime.After(acquired.Time))
	select {
	case <-began:
		t.Fatal("two hold it")
	default:
	}
	require.NoError(t, e.release(b.ctx))
	<-began
	holds, err = e.step(b.ctx)
	require.NoError(t, err)
	require.False(t, holds, "it is theirs")
}

// Who cannot renew the Lease keeps it for a while and gives it up before another
// may take it, also when the API server answers nothing at all.
func TestTheLeaseIsGivenUpBeforeItEnds(t *testing.T) {
	b := newBed(t)
	gate := b.cluster.Gate(t)
	f, err := New(Config{
		REST: gate.REST(kubetest.Admin), Namespace: b.system, Replica: "r", Lease: "bailiwick",
		Logger: slog.New(slog.DiscardHandler), LeaseDuration: time.Minute,
	})
	require.NoError(t, err)
	e := &election{leases: f.leases(), name: "bailiwick", replica: "r", duration: time.Minute}
	holds, err := e.step(b.ctx)
	require.NoError(t, err)
	require.True(t, holds)
	gate.Cut()
	holds, err = e.step(b.ctx)
	require.Error(t, err)
	require.True(t, holds, "it cannot be another's yet")
	e.renewed = e.renewed.Add(-40 * time.Second)
	holds, err = e.step(b.ctx)
	require.Error(t, err)
	require.False(t, holds)

	gate.Open()
	holds, err = e.step(b.ctx)
	require.NoError(t, err)
	require.True(t, holds)
	gate.Hold()
	e.renewed = e.renewed.Add(-39500 * time.Millisecond)
	holds, err = e.step(b.ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded, "the request does not outlast the right to it")
	require.False(t, holds)
	gate.Open()
}
