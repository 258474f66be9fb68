package status

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"bailiwick.dev/bailiwick/tenancy/condition"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// Names that others may rely on.
const (
	// FieldManager owns what is written here.
	FieldManager = "bailiwick-status"
	// ConfirmAnnotation on the Lease holds a time (RFC 3339): removals that were
	// held before it are meant.
	ConfirmAnnotation = "bailiwick.dev/confirm-removals"
)

// Config says where and as whom. All but the times are required.
type Config struct {
	REST *rest.Config
	// Namespace is the server's own, Replica its name among its replicas, Lease
	// the name of the Lease.
	Namespace, Replica, Lease string
	// Source is that of the keys of objects.
	Source string
	Logger *slog.Logger
	// LeaseDuration is how long a Lease holds without being renewed; 0 is 15 s.
	// It is renewed three times as often.
	LeaseDuration time.Duration
	// Heartbeat is how often a report is written that says nothing new; 0 is
	// 10 s. After three times as long without one a replica does not count.
	Heartbeat time.Duration
}

// Fleet is this replica's part in the replicas of one API server. Share and
// Write are called by one goroutine; Run runs beside it.
type Fleet struct {
	cfg     Config
	dynamic dynamic.Interface

	// own is the last report written, at written.
	own     condition.Report
	written time.Time
	// seen are the reports of all, by name, and when they last moved.
	seen map[string]sighting
	// told is what Events have said, by namespace; like the above it belongs to who calls Share
	// and Write.
	told map[string]*told

	mu      sync.Mutex
	leading uint64 // which term this is, 0 for none; guarded by mu
	terms   uint64 // guarded by mu
}

type sighting struct {
	version string
	moved   time.Time
}

// New makes a Fleet; it talks to nobody yet.
func New(c Config) (*Fleet, error) {
	if c.REST == nil || c.Namespace == "" || c.Replica == "" || c.Lease == "" || c.Logger == nil {
		return nil, errors.New("status: REST, Namespace, Replica, Lease and Logger are required")
	}
	c.LeaseDuration = cmp.Or(c.LeaseDuration, 15*time.Second)
	c.Heartbeat = cmp.Or(c.Heartbeat, 10*time.Second)
	// Statuses of many objects may change at once; the API server is not to feel it.
	config := rest.CopyConfig(c.REST)
	config.QPS, config.Burst, config.Timeout = 20, 40, 10*time.Second
	dyn, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("status: make a client: %w", err)
	}
	return &Fleet{cfg: c, dynamic: dyn, seen: map[string]sighting{}, told: map[string]*told{}}, nil
}

// Run takes part in the election of who writes, until ctx ends; then it gives
// the Lease and the replica's report back.
func (f *Fleet) Run(ctx context.Context) error {
	f.elect(ctx)
	gone, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	err := f.reports().Delete(gone, f.name(), metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		f.cfg.Logger.Warn("the report of this replica stays until it is out of date", "err", err)
	}
	return nil
}

func (f *Fleet) lead(yes bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.leading = 0; yes {
		f.terms++
		f.leading = f.terms
	}
	f.cfg.Logger.Info("who writes the status of objects", "this_replica", yes)
}

// Term is which time this replica leads, 0 while it does not.
func (f *Fleet) Term() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leading
}

// reports is where the replicas keep their ProxyReports.
func (f *Fleet) reports() dynamic.ResourceInterface {
	gvr := schema.GroupVersionResource{Group: v1alpha1.Group, Version: v1alpha1.Version, Resource: "proxyreports"}
	return f.dynamic.Resource(gvr).Namespace(f.cfg.Namespace)
}

// name is that of this replica's report.
func (f *Fleet) name() string { return strings.ToLower(f.cfg.Replica) }

// Share publishes the report of this replica, if it says something new, fresh is
// set or it has been a while, and returns those of all replicas that run.
func (f *Fleet) Share(ctx context.Context, own condition.Report, fresh bool) ([]condition.Report, error) {
	now := time.Now()
	if fresh || !own.Same(f.own) || now.Sub(f.written) >= f.cfg.Heartbeat {
		if err := f.publish(ctx, own); err != nil {
			return nil, err
		}
		f.own, f.written = own, now
	}
	if f.Term() == 0 {
		return []condition.Report{own}, nil
	}
	return f.others(ctx, own, now)
}

func (f *Fleet) publish(ctx context.Context, own condition.Report) error {
	data, err := own.Encode()
	if err != nil {
		return err
	}
	proxies, lacking := int64(0), int64(0)
	for _, p := range own.Places {
		proxies += int64(p.Proxies)
		lacking += int64(min(p.Proxies, p.Pending+p.Refused))
	}
	u := &unstructured.Unstructured{Object: map[string]any{"proxies": proxies, "lacking": lacking, "report": string(data)}}
	u.SetAPIVersion(v1alpha1.Group + "/" + v1alpha1.Version)
	u.SetKind("ProxyReport")
	u.SetNamespace(f.cfg.Namespace)
	u.SetName(f.name())
	if _, err := f.reports().Apply(ctx, f.name(), u, metav1.ApplyOptions{FieldManager: FieldManager, Force: true}); err != nil {
		return fmt.Errorf("write this replica's ProxyReport %s/%s: %w", f.cfg.Namespace, f.name(), err)
	}
	return nil
}

// others reads the reports of all replicas that run, with this one's as it is now.
func (f *Fleet) others(ctx context.Context, own condition.Report, now time.Time) ([]condition.Report, error) {
	list, err := f.reports().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("read the reports of all replicas in %s: %w", f.cfg.Namespace, err)
	}
	all := []condition.Report{own}
	there := map[string]sighting{}
	for i := range list.Items {
		u := &list.Items[i]
		name := u.GetName()
		if name == f.name() {
			continue
		}
		s, known := f.seen[name]
		if !known || s.version != u.GetResourceVersion() {
			s = sighting{u.GetResourceVersion(), now}
		}
		there[name] = s
		text, _, _ := unstructured.NestedString(u.Object, "report") // the schema says that it is there
		r, err := condition.DecodeReport([]byte(text))
		switch {
		case now.Sub(s.moved) > 60*f.cfg.Heartbeat:
			f.bury(ctx, u)
		case now.Sub(s.moved) > 3*f.cfg.Heartbeat: // its streams are gone, or it cannot tell
		case err != nil:
			f.cfg.Logger.Warn("a replica's report cannot be read", "report", name, "err", err)
		default:
			all = append(all, r)
		}
	}
	f.seen = there
	slices.SortFunc(all, func(a, b condition.Report) int { return cmp.Compare(a.Replica, b.Replica) })
	return all, nil
}

// bury removes the report of a replica that is long gone, as it was read.
func (f *Fleet) bury(ctx context.Context, u *unstructured.Unstructured) {
	uid, version := u.GetUID(), u.GetResourceVersion()
	only := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version}}
	if err := f.reports().Delete(ctx, u.GetName(), only); err != nil && !apierrors.IsNotFound(err) {
		f.cfg.Logger.Warn("the report of a replica that is gone stays", "report", u.GetName(), "err", err)
	}
}

// Confirmed is until when removals were confirmed on the Lease; zero if none was.
func (f *Fleet) Confirmed(ctx context.Context) (time.Time, error) {
	lease, err := f.leases().Get(ctx, f.cfg.Lease, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read the Lease %s/%s: %w", f.cfg.Namespace, f.cfg.Lease, err)
	}
	text := lease.GetAnnotations()[ConfirmAnnotation]
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("annotation %s of Lease %s/%s: want a time such as 2026-01-02T15:04:05Z: %w", ConfirmAnnotation, f.cfg.Namespace, f.cfg.Lease, err)
	}
	return at, nil
}
