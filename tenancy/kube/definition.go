package kube

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"bailiwick.dev/bailiwick/tenancy"
)

// Whoever removes a CRD removes all objects of the kind, and a watch tells of that
// object by object, as if each were meant. What tells the two apart is the CRD
// itself: it was marked as ending before the first object went, so that asking for
// it after a removal was seen always says so. One that was made anew meanwhile has
// another UID. Until the answer is there removals are doubtful, and those that
// would widen something are held.

// doubt notes a removal to ask about, and reports whether it is one. Source.mu is
// held.
func (k *kind) doubt(key tenancy.Key) bool {
	if k.definition == "" {
		return false
	}
	k.doubtful[key] = struct{}{}
	k.inquire()
	return true
}

// inquire has the CRD asked for.
func (k *kind) inquire() {
	select {
	case k.doubted <- struct{}{}:
	default: // it will be, or (nil) there is none
	}
}

// settle asks for the CRD whenever all objects were read or there are removals in
// doubt, until ctx is done.
func (k *kind) settle(ctx context.Context) {
	timer := time.NewTimer(0)
	<-timer.C
	defer timer.Stop()
	told := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.doubted:
		case <-timer.C:
		}
		err := k.ask(ctx)
		if err == nil {
			told = false
			continue
		}
		if !told && ctx.Err() == nil && !k.outOfReach() {
			told = true
			k.source.cfg.Logger.Warn("removals that would widen something are held until it is known whether the kind's CRD goes: see that it may be read (get)",
				"crd", k.definition, "err", oneLine(err))
		}
		timer.Reset(k.source.cfg.Retry / 4)
	}
}

// ask decides about the removals that were seen before.
func (k *kind) ask(ctx context.Context) error {
	s := k.source
	s.mu.Lock()
	before := make([]tenancy.Key, 0, len(k.doubtful))
	for key := range k.doubtful {
		before = append(before, key)
	}
	s.mu.Unlock()
	meta, err := s.clients.definition(ctx, k.definition)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	sortKeys(before) // they become events
	ends := err != nil || meta.DeletionTimestamp != nil
	s.absorb(func() { k.decide(before, string(meta.UID), ends) })
	return nil
}

// decide tells of removals whether they are meant: not if the CRD ends, or is not
// the one that the objects came from. Source.mu is held.
func (k *kind) decide(before []tenancy.Key, uid string, ends bool) {
	s := k.source
	meant := !ends && (k.uid == "" || k.uid == uid)
	if !ends {
		k.uid = uid
	}
	n := 0
	for _, key := range before {
		if _, still := k.doubtful[key]; !still {
			continue // it is back
		}
		delete(k.doubtful, key)
		n++
		if meant {
			s.enqueue(tenancy.Event{Ref: tenancy.Ref{Kind: k.info.Kind, Key: key}})
		}
	}
	switch {
	case n == 0:
	case meant:
		k.taken = false
	case !k.taken:
		k.taken = true
		s.cfg.Logger.Error("objects went with the CRD of their kind: those whose removal would widen something stay honoured until they are back or it is confirmed",
			"kind", k.info.Name)
	}
}
