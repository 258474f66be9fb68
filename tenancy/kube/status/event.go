package status

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"bailiwick.dev/bailiwick/tenancy/condition"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// What bounds Events. The API server forgets them after an hour by default.
const (
	// sameEvent is for how long the same words about an object count as one Event,
	// that tells how often.
	sameEvent = 10 * time.Minute
	// eventBurst is how many may be written in one namespace before they are paced,
	// eventPace after how long another one may.
	eventBurst, eventPace = 50, 2 * time.Second
	// longestNote and longestName are what the API server takes.
	longestNote, longestName = 1024, 253
)

// controller is who reports, in an Event.
const controller = "bailiwick.dev/server"

// told is what was said by Events about the objects of one namespace.
type told struct {
	// left are the Events that may be written now, as of at.
	left float64
	at   time.Time
	// series are those of the last minutes, by object and words.
	series map[string]*series
}

// series is one Event.
type series struct {
	name  string
	count int64
	first time.Time
}

// announce writes an Event for each condition that turned Wrong. They are a
// courtesy: what fails is logged and not tried again.
func (f *Fleet) announce(ctx context.Context, s condition.Said, stored *unstructured.Unstructured) {
	before := false
	for _, name := range condition.Types() {
		i := slices.IndexFunc(s.Conditions, func(c metav1.Condition) bool { return c.Type == name })
		if i < 0 || !condition.Wrong(&s.Conditions[i]) {
			continue
		}
		// What is not accepted is not programmed either, which is one thing to tell.
		if slices.Contains(s.Turned, name) && !(before && name == v1alpha1.ConditionProgrammed) {
			if err := f.event(ctx, stored, &s.Conditions[i], time.Now()); err != nil {
				f.cfg.Logger.Warn("no Event was written", "kind", s.Ref.Kind.String(), "namespace", s.Ref.Key.Namespace, "name", s.Ref.Key.Name, "err", err)
			}
		}
		before = true
	}
}

// event writes one Event, or counts one up that says the same.
func (f *Fleet) event(ctx context.Context, about *unstructured.Unstructured, c *metav1.Condition, now time.Time) error {
	t := f.told[about.GetNamespace()]
	if t == nil {
		t = &told{left: eventBurst, at: now, series: map[string]*series{}}
		f.told[about.GetNamespace()] = t
	}
	t.left = min(eventBurst, t.left+float64(now.Sub(t.at))/float64(eventPace))
	if t.at = now; t.left < 1 {
		return nil
	}
	t.left--
	note := c.Type + " is " + string(c.Status)
	if c.Message != "" {
		note += ": " + c.Message
	}
	if len(note) > longestNote {
		note = strings.ToValidUTF8(note[:longestNote-3], "") + "..."
	}
	words := string(about.GetUID()) + "\n" + c.Type + "\n" + c.Reason + "\n" + note
	client := f.events(about.GetNamespace())
	if one := t.series[words]; one != nil && now.Sub(one.first) < sameEvent {
		one.count++
		patch, err := json.Marshal(map[string]any{"series": map[string]any{"count": one.count, "lastObservedTime": micro(now)}})
		if err != nil {
			return err
		}
		_, err = client.Patch(ctx, one.name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: FieldManager})
		if !apierrors.IsNotFound(err) {
			return err
		}
	}
	sum := sha256.Sum256([]byte(words + "\n" + micro(now)))
	name := about.GetName()
	name = strings.TrimRight(name[:min(len(name), longestName-17)], ".-") + "." + hex.EncodeToString(sum[:8])
	u := &unstructured.Unstructured{Object: map[string]any{
		"eventTime": micro(now), "type": "Warning", "reason": c.Reason, "note": note, "action": "Report" + c.Type,
		"reportingController": controller, "reportingInstance": f.cfg.Replica,
		"regarding": map[string]any{
			"apiVersion": about.GetAPIVersion(), "kind": about.GetKind(), "namespace": about.GetNamespace(), "name": about.GetName(),
			"uid": string(about.GetUID()), "resourceVersion": about.GetResourceVersion(),
		},
	}}
	u.SetAPIVersion("events.k8s.io/v1")
	u.SetKind("Event")
	u.SetName(name)
	t.series[words] = &series{name: name, count: 1, first: now}
	_, err := client.Create(ctx, u, metav1.CreateOptions{FieldManager: FieldManager})
	return err
}

// events is where those about a namespace's objects go. Those about objects of the
// cluster go where the platform alone looks: a tenant may own the namespace
// default.
func (f *Fleet) events(namespace string) dynamic.ResourceInterface {
	if namespace == "" {
		namespace = metav1.NamespaceSystem
	}
	return f.dynamic.Resource(schema.GroupVersionResource{Group: "events.k8s.io", Version: "v1", Resource: "events"}).Namespace(namespace)
}

// forget drops what has been said long ago.
func (f *Fleet) forget(now time.Time) {
	for namespace, t := range f.told {
		for words, one := range t.series {
			if now.Sub(one.first) >= sameEvent {
				delete(t.series, words)
			}
		}
		if len(t.series) == 0 && now.Sub(t.at) >= eventBurst*eventPace {
			delete(f.told, namespace)
		}
	}
}

func micro(t time.Time) string { return t.UTC().Format(metav1.RFC3339Micro) }
