package kube

import (
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// observed is a watch whose end is noticed, and whose breaking is an end like any
// other.
type observed struct {
	inner  watch.Interface
	end    func()
	events chan watch.Event
	// stopped is closed by Stop, once.
	stopped chan struct{}
	stop    sync.Once
}

// observe hands on what w tells. End is called when it is stopped, which
// reflectors do with every watch.
func observe(w watch.Interface, end func()) watch.Interface {
	o := &observed{inner: w, end: end, events: make(chan watch.Event), stopped: make(chan struct{})}
	go o.pass() // ends with w or Stop
	return o
}

func (o *observed) pass() {
	defer close(o.events)
	for ev := range o.inner.ResultChan() {
		if broken(ev) {
			return
		}
		select {
		case o.events <- ev:
		case <-o.stopped:
			return
		}
	}
}

// ResultChan implements watch.Interface.
func (o *observed) ResultChan() <-chan watch.Event { return o.events }

// Stop implements watch.Interface.
func (o *observed) Stop() {
	o.stop.Do(func() {
		o.end()
		o.inner.Stop()
		close(o.stopped)
	})
}

// broken reports whether an event says that the connection broke in the middle of
// something. For a reflector that is a reason to read everything anew, while a
// watch that ends is one to go on from where it was.
func broken(ev watch.Event) bool {
	status, ok := ev.Object.(*metav1.Status)
	if ev.Type != watch.Error || !ok || status.Details == nil {
		return false
	}
	for _, cause := range status.Details.Causes {
		if cause.Type == "ClientWatchDecoding" {
			return true
		}
	}
	return false
}
