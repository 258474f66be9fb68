package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"

	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

// cluster is a real API server with the mesh in it, and a bare watch of its
// slices: the least time in which anybody can know of a change.
type cluster struct {
	*kubetest.Cluster
	shape      shape
	core       rest.Interface // Pods and Services
	discovery  rest.Interface // EndpointSlices
	kubeconfig string

	mu   sync.Mutex
	seen map[string]Instant // when the watch had a version of a slice
	news chan struct{}      // closed and renewed when seen grew
}

// slicesName is the resource of EndpointSlices.
const slicesName = "endpointslices"

// writers is how many objects of the mesh are written at the same time.
const writers = 8

// startCluster runs an API server and writes the mesh.
func (r *run) startCluster(ctx context.Context, s shape) (*cluster, error) {
	dir, err := os.MkdirTemp(r.work, "kubernetes-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the API server: %w", err)
	}
	run, err := kubetest.Start(ctx, kubetest.Config{Dir: dir})
	if err != nil {
		return nil, err
	}
	c := &cluster{Cluster: run, shape: s, seen: map[string]Instant{}, news: make(chan struct{})}
	if c.core, c.discovery, err = groupClients(run.REST(kubetest.Admin)); err == nil {
		c.kubeconfig, err = run.Kubeconfig(kubetest.Admin)
	}
	if err = errorsOr(err, func() error { return c.write(ctx) }); err == nil {
		err = c.watch(ctx)
	}
	if err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

// groupClients are clients of two groups. The servers that are measured are this
// program too, and a client of all groups would be megabytes in them.
func groupClients(base *rest.Config) (core, discovery rest.Interface, err error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), discoveryv1.AddToScheme(scheme)); err != nil {
		return nil, nil, fmt.Errorf("know the built-in kinds: %w", err)
	}
	of := func(gv schema.GroupVersion, path string) (rest.Interface, error) {
		config := rest.CopyConfig(base)
		config.GroupVersion, config.APIPath = &gv, path
		config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
		config.ContentType = runtime.ContentTypeProtobuf
		config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
		client, err := rest.RESTClientFor(config)
		if err != nil {
			return nil, fmt.Errorf("make a client of %s: %w", gv, err)
		}
		return client, nil
	}
	if core, err = of(corev1.SchemeGroupVersion, "/api"); err != nil {
		return nil, nil, err
	}
	discovery, err = of(discoveryv1.SchemeGroupVersion, "/apis")
	return core, discovery, err
}

// write makes all objects of the mesh.
func (c *cluster) write(ctx context.Context) error {
	if err := c.InstallCRDs(ctx); err != nil {
		return err
	}
	s := c.shape
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for t := range s.Tenants {
		g.Go(func() error {
			platform := func(kind, namespace, name string, spec map[string]any) *unstructured.Unstructured {
				u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "bailiwick.dev/v1alpha1", "kind": kind, "spec": spec}}
				u.SetNamespace(namespace)
				u.SetName(name)
				return u
			}
			from := []any{map[string]any{"namespace": namespaceOf(t)}}
			err := c.Apply(ctx, kubetest.Admin,
				platform("Tenant", "", tenantName(t), map[string]any{"trustDomain": trustDomain}),
				kubetest.Namespace(namespaceOf(t), tenantName(t)),
				platform("AccessPolicy", namespaceOf(t), "within", map[string]any{
					"selector": map[string]any{}, "action": "Allow", "rules": []any{map[string]any{"from": from}},
				}))
			for svc := range s.Services {
				err = errorsOr(err, func() error { return c.addPods(ctx, t, svc) })
				err = errorsOr(err, func() error { return c.addService(ctx, t, svc) })
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("write the mesh: %w", err)
	}
	return nil
}

// addPods makes the Pods of a service, as a kubelet would have them.
func (c *cluster) addPods(ctx context.Context, tenant, service int) error {
	ns, name := namespaceOf(tenant), serviceName(service)
	for e := range c.shape.Endpoints {
		ip := c.shape.address(tenant, service, e).String()
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: podName(service, e), Labels: map[string]string{"app": name}},
			Spec:       corev1.PodSpec{ServiceAccountName: name, Containers: []corev1.Container{{Name: "c", Image: "c"}}},
		}
		if err := c.core.Post().Namespace(ns).Resource("pods").Body(pod).Do(ctx).Into(pod); err != nil {
			return fmt.Errorf("create a Pod: %w", err)
		}
		pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}}
		if err := c.core.Put().Namespace(ns).Resource("pods").Name(pod.Name).SubResource("status").Body(pod).Do(ctx).Error(); err != nil {
			return fmt.Errorf("give a Pod its address: %w", err)
		}
	}
	return nil
}

func (c *cluster) addService(ctx context.Context, tenant, service int) error {
	ns, name := namespaceOf(tenant), serviceName(service)
	err := c.core.Post().Namespace(ns).Resource("services").Body(&corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": name},
			Ports:    []corev1.ServicePort{{Name: "http", Port: servicePort, TargetPort: intstr.FromInt32(podPort)}},
		},
	}).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("create a Service: %w", err)
	}
	if err := c.discovery.Post().Namespace(ns).Resource(slicesName).Body(c.slice(tenant, service, true)).Do(ctx).Error(); err != nil {
		return fmt.Errorf("create an EndpointSlice: %w", err)
	}
	return nil
}

// slice is a service's slice whose last endpoint is ready or not.
func (c *cluster) slice(tenant, service int, lastReady bool) *discoveryv1.EndpointSlice {
	name, port, portName := serviceName(service), int32(podPort), "http"
	out := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &portName, Port: &port}},
	}
	for e := range c.shape.Endpoints {
		ready := lastReady || e < c.shape.Endpoints-1
		out.Endpoints = append(out.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{c.shape.address(tenant, service, e).String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: podName(service, e), Namespace: namespaceOf(tenant)},
		})
	}
	return out
}

// watch begins the bare watch. It ends with ctx or the API server.
func (c *cluster) watch(ctx context.Context) error {
	w, err := c.discovery.Get().Resource(slicesName).Param("watch", "true").Watch(ctx)
	if err != nil {
		return fmt.Errorf("watch slices: %w", err)
	}
	go func() { // ends with the watch
		defer w.Stop()
		for ev := range w.ResultChan() {
			at := now()
			slice, ok := ev.Object.(*discoveryv1.EndpointSlice)
			if !ok {
				continue
			}
			c.mu.Lock()
			c.seen[slice.Namespace+"/"+slice.ResourceVersion] = at
			close(c.news)
			c.news = make(chan struct{})
			c.mu.Unlock()
		}
	}()
	return nil
}

// had is when the bare watch had a version of a slice.
func (c *cluster) had(ctx context.Context, namespace, version string) (Instant, error) {
	for {
		c.mu.Lock()
		at, ok := c.seen[namespace+"/"+version]
		news := c.news
		c.mu.Unlock()
		if ok {
			return at, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// change makes a change and returns the version of the slice after it, empty
// where there is none. The Pods of a service have to be there before.
func (c *cluster) change(ctx context.Context, ch Change) (version string, err error) {
	ns, name := namespaceOf(ch.Tenant), serviceName(ch.Service)
	var out discoveryv1.EndpointSlice
	switch ch.What {
	case "endpoint":
		err := c.discovery.Put().Namespace(ns).Resource(slicesName).Name(name).Body(c.slice(ch.Tenant, ch.Service, ch.On)).Do(ctx).Into(&out)
		if err != nil {
			return "", fmt.Errorf("update a slice: %w", err)
		}
		return out.ResourceVersion, nil
	case "add":
		if err := c.addService(ctx, ch.Tenant, ch.Service); err != nil {
			return "", err
		}
		err := c.discovery.Get().Namespace(ns).Resource(slicesName).Name(name).Do(ctx).Into(&out)
		if err != nil {
			return "", fmt.Errorf("read a slice: %w", err)
		}
		return out.ResourceVersion, nil
	default:
		var now int64
		gone := metav1.DeleteOptions{GracePeriodSeconds: &now}
		remove := func(client rest.Interface, resource, name string) error {
			return client.Delete().Namespace(ns).Resource(resource).Name(name).Body(&gone).Do(ctx).Error()
		}
		err := errors.Join(remove(c.discovery, slicesName, name), remove(c.core, "services", name))
		for e := range c.shape.Endpoints {
			err = errors.Join(err, remove(c.core, "pods", podName(ch.Service, e)))
		}
		return "", err
	}
}
