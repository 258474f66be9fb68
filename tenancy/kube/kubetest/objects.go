package kubetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"

	"bailiwick.dev/bailiwick/tenancy/object"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// fieldManager is who writes, as the API server notes it.
const fieldManager = "kubetest"

// Objects reads all documents of the files; a folder stands for all YAML files
// in and below it, in order of their paths.
func Objects(paths ...string) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for _, path := range paths {
		err := filepath.WalkDir(path, func(file string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() || filepath.Ext(file) != ".yaml" {
				return err
			}
			raw, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			objects, err := Parse(raw)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			out = append(out, objects...)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read objects: %w", err)
		}
	}
	return out, nil
}

// Parse reads YAML documents.
func Parse(raw []byte) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(raw), 4096)
	for {
		u := &unstructured.Unstructured{}
		err := decoder.Decode(&u.Object)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("parse objects: %w", err)
		}
		if len(u.Object) > 0 {
			out = append(out, u)
		}
	}
}

// Apply writes objects as a server-side apply of that user, and their status if
// they have one. Namespaces that objects are in have to be there, or among them
// before.
func (c *Cluster) Apply(ctx context.Context, user string, objects ...*unstructured.Unstructured) error {
	client, err := dynamic.NewForConfig(c.REST(user))
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	options := metav1.ApplyOptions{FieldManager: fieldManager, Force: true}
	for _, u := range objects {
		r := client.Resource(Resource(u)).Namespace(u.GetNamespace())
		if _, err := r.Apply(ctx, u.GetName(), u, options); err != nil {
			return fmt.Errorf("apply %s %s/%s: %w", u.GetKind(), u.GetNamespace(), u.GetName(), err)
		}
		if _, has := u.Object["status"]; !has {
			continue
		}
		if _, err := r.ApplyStatus(ctx, u.GetName(), u, options); err != nil {
			return fmt.Errorf("apply the status of %s %s/%s: %w", u.GetKind(), u.GetNamespace(), u.GetName(), err)
		}
	}
	return nil
}

// Delete removes objects at once. Those that are gone are no error.
func (c *Cluster) Delete(ctx context.Context, user string, objects ...*unstructured.Unstructured) error {
	client, err := dynamic.NewForConfig(c.REST(user))
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	now := int64(0)
	for _, u := range objects {
		err := client.Resource(Resource(u)).Namespace(u.GetNamespace()).Delete(ctx, u.GetName(), metav1.DeleteOptions{GracePeriodSeconds: &now})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete %s %s/%s: %w", u.GetKind(), u.GetNamespace(), u.GetName(), err)
		}
	}
	return nil
}

// Release has an object that was deleted go, whatever its finalizers wait for. One
// that is gone is no error.
func (c *Cluster) Release(ctx context.Context, user string, u *unstructured.Unstructured) error {
	client, err := dynamic.NewForConfig(c.REST(user))
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	patch := []byte(`{"metadata":{"finalizers":null}}`)
	_, err = client.Resource(Resource(u)).Namespace(u.GetNamespace()).Patch(ctx, u.GetName(), types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("release %s %s/%s: %w", u.GetKind(), u.GetNamespace(), u.GetName(), err)
	}
	return nil
}

// Get reads the object of that kind, namespace and name.
func (c *Cluster) Get(ctx context.Context, user string, u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	client, err := dynamic.NewForConfig(c.REST(user))
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return client.Resource(Resource(u)).Namespace(u.GetNamespace()).Get(ctx, u.GetName(), metav1.GetOptions{})
}

// Resource is where objects of u's kind are.
func Resource(u *unstructured.Unstructured) schema.GroupVersionResource {
	if gv := v1alpha1.GroupVersion(); u.GroupVersionKind().Group == gv.Group {
		return gv.WithResource(object.Resource(u.GetKind()))
	}
	resource, _ := meta.UnsafeGuessKindToResource(u.GroupVersionKind())
	if u.GetKind() == "PeerTLS" { // which has no plural
		resource.Resource = "peertls"
	}
	return resource
}

// InstallCRDs applies the CRDs of the repository (deploy/crds) and waits until
// they are served.
func (c *Cluster) InstallCRDs(ctx context.Context) error {
	root, err := Root()
	if err != nil {
		return err
	}
	crds, err := Objects(filepath.Join(root, "deploy", "crds"))
	if err != nil {
		return err
	}
	if err := c.Apply(ctx, Admin, crds...); err != nil {
		return err
	}
	return c.WaitServed(ctx, crds...)
}

// WaitServed waits until the resources of CRDs are served.
func (c *Cluster) WaitServed(ctx context.Context, crds ...*unstructured.Unstructured) error {
	return c.waitFor(ctx, crds, "served", func(err error) bool { return err == nil })
}

// WaitUnserved waits until the resources of CRDs are not served any more.
func (c *Cluster) WaitUnserved(ctx context.Context, crds ...*unstructured.Unstructured) error {
	return c.waitFor(ctx, crds, "not served any more", apierrors.IsNotFound)
}

func (c *Cluster) waitFor(ctx context.Context, crds []*unstructured.Unstructured, what string, is func(error) bool) error {
	client, err := dynamic.NewForConfig(c.REST(Admin))
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for _, crd := range crds {
		group, _, _ := unstructured.NestedString(crd.Object, "spec", "group")
		plural, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "plural")
		resource := schema.GroupVersionResource{Group: group, Version: v1alpha1.Version, Resource: plural}
		for {
			_, err := client.Resource(resource).List(ctx, metav1.ListOptions{Limit: 1})
			if is(err) {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait until %s.%s are %s: %w (%w)", plural, group, what, ctx.Err(), err)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

// Namespace makes a namespace, with the label of a tenant unless that is empty.
func Namespace(name, tenant string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace"}}
	u.SetName(name)
	if tenant = strings.TrimSpace(tenant); tenant != "" {
		u.SetLabels(map[string]string{"bailiwick.dev/tenant": tenant})
	}
	return u
}

// Complete gives objects that were written for files what an API server insists
// on: a container with an image for a Pod, both families for a Service with two
// addresses. It takes UIDs away, which an API server chooses itself.
func Complete(objects []*unstructured.Unstructured) {
	for _, u := range objects {
		unstructured.RemoveNestedField(u.Object, "metadata", "uid")
		switch u.GetKind() {
		case "Pod":
			containers, _, _ := unstructured.NestedSlice(u.Object, "spec", "containers")
			if len(containers) == 0 {
				containers = []any{map[string]any{"name": "app"}}
			}
			for _, c := range containers {
				if c, ok := c.(map[string]any); ok && c["image"] == nil {
					c["image"] = "app"
				}
			}
			_ = unstructured.SetNestedSlice(u.Object, containers, "spec", "containers") // fails only if spec is no map
		case "Service":
			if ips, _, _ := unstructured.NestedSlice(u.Object, "spec", "clusterIPs"); len(ips) == 2 {
				_ = unstructured.SetNestedField(u.Object, "RequireDualStack", "spec", "ipFamilyPolicy") // as above
			}
		case "EndpointSlice":
			endpoints, _, _ := unstructured.NestedSlice(u.Object, "endpoints")
			for _, e := range endpoints {
				if e, ok := e.(map[string]any); ok {
					unstructured.RemoveNestedField(e, "targetRef", "uid")
				}
			}
			if len(endpoints) > 0 {
				_ = unstructured.SetNestedSlice(u.Object, endpoints, "endpoints") // as above
			}
		}
	}
}
