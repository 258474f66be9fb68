package kube

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/object"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// kind follows the objects of one kind. It is the store that client-go's
// reflector fills: what is stored is what the Model reads, nothing else.
type kind struct {
	source   *Source
	info     object.KindInfo
	endpoint endpoint
	// adds tells that objects of the kind only ever add rights.
	adds bool
	// definition is the name of the kind's CRD, whose end takes the objects along;
	// empty where that can only take rights away. See definition.go.
	definition string
	// doubted has room for one: there are removals to ask about.
	doubted chan struct{}

	// All below is guarded by Source.mu.

	// applied are the objects that the sink has or will have; faults are those of
	// objects that are stored.
	applied map[tenancy.Key]applied
	faults  map[tenancy.Key]Fault
	// holdings are those of Tenants, as the sink has them.
	holdings map[tenancy.Key]*tenancy.Holdings
	// read is set once all objects were read.
	read  bool
	state liveness
	// replaced is closed by the Replace that ends the reading of a watch which
	// began with all objects; nil if none waits for that.
	replaced chan struct{}
	// events and reads are counted for the metrics.
	events, reads int
	// doubtful are removals of which it is not known yet whether they are meant;
	// uid is that of the CRD that the objects came from, empty if not known; taken
	// is set once it was said that objects went with it.
	doubtful map[tenancy.Key]struct{}
	uid      string
	taken    bool
}

// applied is an object as the sink has it.
type applied struct {
	object     tenancy.Object
	generation int64
}

func newKind(s *Source, info object.KindInfo, c *clients) (*kind, error) {
	k := &kind{source: s, info: info, applied: map[tenancy.Key]applied{}, faults: map[tenancy.Key]Fault{}, holdings: map[tenancy.Key]*tenancy.Holdings{}}
	switch info.Kind {
	case tenancy.KindServiceGrant, tenancy.KindServiceRequest, tenancy.KindClusterServiceGrant:
		k.adds = true
	case tenancy.KindTenant, tenancy.KindAccessPolicy, tenancy.KindClusterAccessPolicy:
		k.definition = info.Resource + "." + v1alpha1.Group
		k.doubted, k.doubtful = make(chan struct{}, 1), map[tenancy.Key]struct{}{}
	}
	var err error
	k.endpoint, err = c.endpoint(info)
	return k, err
}

// follow reads and watches the kind until ctx is done.
func (k *kind) follow(ctx context.Context) {
	retry := k.source.cfg.Retry
	logger := logr.FromSlogHandler(quiet{k.source.cfg.Logger.Handler()})
	reflector := cache.NewReflectorWithOptions(k.listerWatcher(), k.endpoint.example, k, cache.ReflectorOptions{
		Logger: &logger, Name: "bailiwick", TypeDescription: k.info.Name,
		Clock:   endingClock{clock.RealClock{}, ctx},
		Backoff: &wait.Backoff{Duration: retry / 20, Cap: retry, Steps: 32, Factor: 2, Jitter: 0.5},
	})
	// A connection that broke is no reason to read everything anew: the watch goes on
	// from where it was, unless that fails for as long as this.
	reflector.MaxInternalErrorRetryDuration = retry
	reflector.RunWithContext(klog.NewContext(ctx, logger))
}

// listerWatcher is how the reflector reaches the API server, with what happens
// there noted.
func (k *kind) listerWatcher() cache.ListerWatcher {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.ResourceVersion = "" // whatever some cache has will not do
			list, err := k.endpoint.list(ctx, o)
			k.heard(ctx, err, false)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			// A watch that begins with all objects is up to date when these are in, and
			// they have to be as new as can be.
			whole := o.SendInitialEvents != nil && *o.SendInitialEvents
			if whole {
				o.ResourceVersion = ""
			} else if k.outOfReach() {
				// A watch that goes on from where it was does not tell when it has caught
				// up. After a while without one that has to be known.
				return nil, apierrors.NewResourceExpired("the kind was out of reach")
			}
			w, err := k.open(ctx, o, whole)
			k.heard(ctx, err, err == nil && !whole)
			switch {
			case err != nil && !whole && !expired(err):
				// To be tried again from the same place, after a pause: that is what the
				// reflector does after this one, and reads everything anew after others.
				return nil, apierrors.NewTooManyRequestsError(err.Error())
			case err != nil:
				return nil, err
			}
			return w, nil
		},
	}
}

// open begins a watch, which begins with all objects if it is whole.
func (k *kind) open(ctx context.Context, o metav1.ListOptions, whole bool) (watch.Interface, error) {
	if k.endpoint.stream == nil {
		w, err := k.endpoint.watch(ctx, o)
		if err != nil {
			return nil, err
		}
		return observe(w, k.ended), nil
	}
	body, err := k.endpoint.stream(ctx, o)
	if err != nil {
		return nil, err
	}
	if !whole {
		return newStream(k, body, nil), nil
	}
	k.source.mu.Lock()
	defer k.source.mu.Unlock()
	k.replaced = make(chan struct{})
	return newStream(k, body, k.replaced), nil
}

// heard notes an answer of the API server. Following tells that the watch is open
// and goes on from where the last one ended.
func (k *kind) heard(ctx context.Context, err error, following bool) {
	if ctx.Err() != nil {
		return
	}
	s := k.source
	s.mu.Lock()
	defer s.mu.Unlock()
	unserved := apierrors.IsNotFound(err)
	if err == nil || unserved != k.state.unserved {
		s.unsaid = s.unsaid || unserved != k.state.unserved
		k.state.unserved = unserved
	}
	switch {
	case err != nil:
		// A watch that was asked for too late is read anew, which is no outage yet.
		if !expired(err) {
			k.state.lost(err)
		}
	case following:
		k.state.followed()
	}
}

// outOfReach reports whether the kind has been so for longer than watches usually
// take to begin again.
func (k *kind) outOfReach() bool {
	k.source.mu.Lock()
	defer k.source.mu.Unlock()
	return !k.state.live && time.Since(k.state.lostAt) >= k.source.cfg.Tolerance
}

// expired reports whether what a watch would go on from is forgotten (410).
func expired(err error) bool { return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) }

// ended notes that a watch ended: until the next one begins nothing is known.
func (k *kind) ended() {
	k.source.mu.Lock()
	defer k.source.mu.Unlock()
	k.state.lost(errors.New("the watch ended"))
}

// Add implements cache.ReflectorStore, for objects that are new or new to us.
func (k *kind) Add(obj any) error {
	item := k.convert(obj)
	k.source.absorb(func() {
		k.events++
		k.state.followed()
		k.set(item)
	})
	return nil
}

// Update implements cache.ReflectorStore.
func (k *kind) Update(obj any) error { return k.Add(obj) }

// Delete implements cache.ReflectorStore.
func (k *kind) Delete(obj any) error {
	meta, ok := obj.(metav1.Object)
	if !ok {
		return nil
	}
	k.source.absorb(func() {
		k.events++
		k.state.followed()
		k.remove(k.key(meta))
	})
	return nil
}

// Replace implements cache.ReflectorStore: these are all objects there are.
func (k *kind) Replace(list []any, _ string) error {
	items := make([]converted, len(list))
	here := make(map[tenancy.Key]struct{}, len(list))
	for i, obj := range list {
		items[i] = k.convert(obj)
		here[items[i].key] = struct{}{}
	}
	k.source.absorb(func() {
		k.reads++
		k.state.followed()
		k.state.unserved = false
		for _, item := range items {
			k.set(item)
		}
		for _, key := range k.missing(here) {
			k.remove(key)
		}
		k.read = true
		k.inquire() // whose objects these are
		if k.replaced != nil {
			close(k.replaced)
			k.replaced = nil
		}
	})
	return nil
}

// missing are the known objects that are not here, in order, because they become
// events.
func (k *kind) missing(here map[tenancy.Key]struct{}) []tenancy.Key {
	var out []tenancy.Key
	for key := range k.applied {
		if _, ok := here[key]; !ok {
			out = append(out, key)
		}
	}
	for key := range k.faults {
		if _, ok := here[key]; !ok {
			out = append(out, key)
		}
	}
	sortKeys(out)
	return out
}

// Resync implements cache.ReflectorStore; there is none.
func (k *kind) Resync() error { return nil }

// Bookmark implements cache.ReflectorBookmarkStore: nothing changed, and that is
// known.
func (k *kind) Bookmark(string) error {
	k.source.mu.Lock()
	defer k.source.mu.Unlock()
	k.state.followed()
	return nil
}

// Transformer implements cache.TransformingStore, so that while all objects are
// read, nothing else of them is kept either.
func (k *kind) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) { return k.convert(obj), nil }
}

// set applies an object. Source.mu is held.
func (k *kind) set(item converted) {
	s := k.source
	if item.holdings != nil && !reflect.DeepEqual(item.holdings, k.holdings[item.key]) {
		k.holdings[item.key] = item.holdings
		s.enqueue(tenancy.Event{Ref: tenancy.Ref{Kind: tenancy.KindHoldings, Key: item.key}, Object: item.holdings})
	}
	if len(item.errors) > 0 || len(k.faults[item.key].Errors) > 0 {
		s.unsaid = true
		if len(item.errors) == 0 {
			delete(k.faults, item.key)
		} else {
			k.faults[item.key] = Fault{Generation: item.generation, Errors: item.errors}
		}
	}
	delete(k.doubtful, item.key)
	before, had := k.applied[item.key]
	now := applied{item.object, item.generation}
	switch {
	case now.object == nil:
		return // the last good one stays
	case had && reflect.DeepEqual(before.object, now.object):
		if before.generation == now.generation {
			return
		}
		now.object = before.object // there is one already
	}
	s.unsaid = s.unsaid || !had
	k.applied[item.key] = now
	s.enqueue(tenancy.Event{Ref: tenancy.Ref{Kind: k.info.Kind, Key: item.key}, Object: now.object, Generation: now.generation})
}

// remove takes an object away. Source.mu is held.
func (k *kind) remove(key tenancy.Key) {
	delete(k.holdings, key) // the Model remembers
	if _, ok := k.faults[key]; ok {
		delete(k.faults, key)
		k.source.unsaid = true
	}
	if _, ok := k.applied[key]; ok {
		delete(k.applied, key)
		k.source.unsaid = true
		k.source.enqueue(tenancy.Event{Ref: tenancy.Ref{Kind: k.info.Kind, Key: key}, Doubtful: k.doubt(key)})
	}
}

// endingClock does not let anybody wait beyond the end of a context: reflectors
// pause between attempts without looking at theirs.
type endingClock struct {
	clock.RealClock
	ctx context.Context
}

// After implements clock.Clock.
func (c endingClock) After(d time.Duration) <-chan time.Time {
	out := make(chan time.Time, 1)
	timer := time.NewTimer(d)
	go func() { // ends with the timer or the context
		defer timer.Stop()
		select {
		case t := <-timer.C:
			out <- t
		case <-c.ctx.Done():
			out <- time.Now()
		}
	}()
	return out
}

// quiet passes what client-go says on at debug level: it repeats every failed
// attempt, and what matters of that is said by this package.
type quiet struct{ slog.Handler }

// Enabled implements slog.Handler.
func (q quiet) Enabled(ctx context.Context, _ slog.Level) bool {
	return q.Handler.Enabled(ctx, slog.LevelDebug)
}

// Handle implements slog.Handler.
func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	return q.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }

// WithGroup implements slog.Handler.
func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }
