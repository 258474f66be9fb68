package status

import (
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/condition"
	"bailiwick.dev/bailiwick/tenancy/object"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// resourceOf is how a kind with conditions is called in the API's paths.
func resourceOf(kind tenancy.Kind) (schema.GroupVersionResource, bool) {
	for _, info := range object.Kinds() {
		if info.Kind == kind {
			return schema.GroupVersionResource{Group: v1alpha1.Group, Version: v1alpha1.Version, Resource: info.Resource}, true
		}
	}
	return schema.GroupVersionResource{}, false
}

func (f *Fleet) resource(ref tenancy.Ref) (dynamic.ResourceInterface, bool) {
	gvr, ok := resourceOf(ref.Kind)
	if !ok || ref.Key.Source != f.cfg.Source {
		return nil, false
	}
	if ref.Key.Namespace == "" {
		return f.dynamic.Resource(gvr), true
	}
	return f.dynamic.Resource(gvr).Namespace(ref.Key.Namespace), true
}

// perPass bounds how many statuses are written before the next look at what is
// true by now.
const perPass = 200

// Write writes conditions into the status of their objects, and an Event for each
// that turned Wrong. What could not be
// written now is returned; an object that is gone needs none.
func (f *Fleet) Write(ctx context.Context, said []condition.Said) (failed []tenancy.Ref) {
	f.forget(time.Now())
	for i, s := range said {
		if i >= perPass || ctx.Err() != nil || f.Term() == 0 {
			failed = append(failed, s.Ref)
			continue
		}
		if err := f.write(ctx, s); err != nil {
			f.cfg.Logger.Warn("status not written, will be tried again", "kind", s.Ref.Kind.String(), "namespace", s.Ref.Key.Namespace, "name", s.Ref.Key.Name, "err", err)
			failed = append(failed, s.Ref)
		}
	}
	return failed
}

func (f *Fleet) write(ctx context.Context, s condition.Said) error {
	client, ok := f.resource(s.Ref)
	if !ok {
		return nil // of another source
	}
	conditions := make([]any, len(s.Conditions))
	for i := range s.Conditions {
		c, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&s.Conditions[i])
		if err != nil {
			return fmt.Errorf("encode the condition %s: %w", s.Conditions[i].Type, err)
		}
		conditions[i] = c
	}
	obj := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"conditions": conditions}}}
	obj.SetAPIVersion(v1alpha1.Group + "/" + v1alpha1.Version)
	obj.SetKind(s.Ref.Kind.String())
	obj.SetNamespace(s.Ref.Key.Namespace)
	obj.SetName(s.Ref.Key.Name)
	stored, err := client.ApplyStatus(ctx, s.Ref.Key.Name, obj, metav1.ApplyOptions{FieldManager: FieldManager, Force: true})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	f.announce(ctx, s, stored)
	return nil
}

// Recall reads the conditions that stand in all objects: what a replica does
// that begins to lead.
func (f *Fleet) Recall(ctx context.Context, into func(tenancy.Ref, []metav1.Condition)) error {
	for _, kind := range condition.Kinds() {
		gvr, ok := resourceOf(kind)
		if !ok {
			return fmt.Errorf("kind %s has conditions and is not read", kind)
		}
		opts := metav1.ListOptions{Limit: 500}
		for {
			list, err := f.dynamic.Resource(gvr).List(ctx, opts)
			if apierrors.IsNotFound(err) {
				break // no longer served
			}
			if err != nil {
				return fmt.Errorf("read the status of all %s: %w", gvr.Resource, err)
			}
			for i := range list.Items {
				u := &list.Items[i]
				var o struct {
					Status v1alpha1.Status `json:"status"`
				}
				if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &o); err != nil {
					continue // it is written anew
				}
				key := tenancy.Key{Source: f.cfg.Source, Namespace: u.GetNamespace(), Name: u.GetName()}
				// What the API server filled in when the object was made nobody has said, and
				// other conditions are others'.
				said := slices.DeleteFunc(o.Status.Conditions, func(c metav1.Condition) bool {
					return c.LastTransitionTime.Unix() <= 0 || !slices.Contains(condition.Types(), c.Type)
				})
				into(tenancy.Ref{Kind: kind, Key: key}, said)
			}
			if opts.Continue = list.GetContinue(); opts.Continue == "" {
				break
			}
		}
	}
	return nil
}
