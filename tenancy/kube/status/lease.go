package status

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// election is this replica's part in who holds the Lease; one goroutine uses it.
//
// The rules are those of client-go's leaderelection, and replicas may use either:
// a Lease is free when its record has not moved for as long as it says, by the
// reader's own clock. That package brings the clients and types of all APIs of
// Kubernetes with it, which is megabytes in every server.
type election struct {
	leases        dynamic.ResourceInterface
	name, replica string
	duration      time.Duration

	// record is who holds the Lease since which renewal, as it had first been read
	// at seen.
	record string
	seen   time.Time
	// renewed is when the last renewal that succeeded was begun; zero while the
	// Lease is another's.
	renewed time.Time
}

// leases is where the replicas keep their Lease.
func (f *Fleet) leases() dynamic.ResourceInterface {
	gvr := schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}
	return f.dynamic.Resource(gvr).Namespace(f.cfg.Namespace)
}

// elect takes part in the election until ctx ends, and gives the Lease back then.
func (f *Fleet) elect(ctx context.Context) {
	e := &election{leases: f.leases(), name: f.cfg.Lease, replica: f.cfg.Replica, duration: f.cfg.LeaseDuration}
	tick := time.NewTicker(e.duration / 8)
	defer tick.Stop()
	failing := false
	for ctx.Err() == nil {
		holds, err := e.step(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			f.cfg.Logger.Warn("the Lease cannot be had or renewed; trying on", "lease", e.name, "held", holds, "err", err)
		}
		failing = err != nil
		if holds != (f.Term() != 0) {
			f.lead(holds)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	if f.Term() == 0 {
		return
	}
	f.lead(false)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := e.release(last); err != nil {
		f.cfg.Logger.Warn("the Lease is held until it ends", "lease", e.name, "err", err)
	}
}

// step tries to get or to keep the Lease, and reports whether this replica holds
// it. Who cannot renew it gives up after two thirds of its time, before another
// may take it.
func (e *election) step(ctx context.Context) (bool, error) {
	begun := time.Now()
	from := e.renewed
	if from.IsZero() {
		from = begun
	}
	deadline := from.Add(e.duration * 2 / 3)
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	mine, err := e.try(ctx, begun)
	switch {
	case err == nil && mine:
		e.renewed = begun
	case err == nil, !time.Now().Before(deadline):
		e.renewed = time.Time{}
	}
	return !e.renewed.IsZero(), err
}

// try reads the Lease and takes or renews it, unless it is another's. The write
// fails when somebody was faster.
func (e *election) try(ctx context.Context, now time.Time) (mine bool, err error) {
	lease, err := e.leases.Get(ctx, e.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		lease = &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": map[string]any{"name": e.name},
		}}
		e.claim(lease, now, 0)
		if _, err := e.leases.Create(ctx, lease, metav1.CreateOptions{}); err != nil {
			return false, fmt.Errorf("create the Lease: %w", err)
		}
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the Lease: %w", err)
	}
	holder, _, _ := unstructured.NestedString(lease.Object, "spec", "holderIdentity") // the API server holds the schema
	renewal, _, _ := unstructured.NestedString(lease.Object, "spec", "renewTime")
	seconds, _, _ := unstructured.NestedInt64(lease.Object, "spec", "leaseDurationSeconds")
	if record := holder + "\n" + renewal; record != e.record || e.seen.IsZero() {
		e.record, e.seen = record, time.Now() // not before it was written
	}
	if holder != "" && holder != e.replica && now.Sub(e.seen) <= time.Duration(seconds)*time.Second {
		return false, nil
	}
	transitions, _, _ := unstructured.NestedInt64(lease.Object, "spec", "leaseTransitions")
	if holder != e.replica {
		transitions++
	}
	e.claim(lease, now, transitions)
	if _, err := e.leases.Update(ctx, lease, metav1.UpdateOptions{}); err != nil {
		return false, fmt.Errorf("write the Lease: %w", err)
	}
	return true, nil
}

// claim writes this replica into the Lease; annotations stay.
func (e *election) claim(lease *unstructured.Unstructured, now time.Time, transitions int64) {
	spec, _, _ := unstructured.NestedMap(lease.Object, "spec")
	if spec == nil {
		spec = map[string]any{}
	}
	at := now.UTC().Format(metav1.RFC3339Micro)
	if spec["holderIdentity"] != e.replica || spec["acquireTime"] == nil {
		spec["acquireTime"] = at
	}
	spec["holderIdentity"], spec["renewTime"] = e.replica, at
	spec["leaseDurationSeconds"], spec["leaseTransitions"] = max(1, int64(e.duration/time.Second)), transitions
	lease.Object["spec"] = spec
}

// release gives the Lease back, so that another need not wait for its end. An
// operator may write an annotation meanwhile, thus more than one attempt.
func (e *election) release(ctx context.Context) error {
	for {
		lease, err := e.leases.Get(ctx, e.name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the Lease: %w", err)
		}
		if holder, _, _ := unstructured.NestedString(lease.Object, "spec", "holderIdentity"); holder != e.replica {
			return nil
		}
		unstructured.RemoveNestedField(lease.Object, "spec", "holderIdentity")
		if _, err = e.leases.Update(ctx, lease, metav1.UpdateOptions{}); err == nil {
			return nil
		}
		if !apierrors.IsConflict(err) {
			return fmt.Errorf("write the Lease: %w", err)
		}
	}
}
