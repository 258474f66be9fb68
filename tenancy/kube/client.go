package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"bailiwick.dev/bailiwick/tenancy/object"
)

// clients speak to one API server: protobuf for its own kinds, JSON for ours.
type clients struct {
	builtin map[string]rest.Interface // by apiVersion
	codecs  trimmed
	params  runtime.ParameterCodec
	ours    dynamic.Interface
}

func newClients(config *rest.Config) (*clients, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, discoveryv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("Kubernetes source: know the built-in kinds: %w", err)
		}
	}
	codecs := newTrimmed(serializer.NewCodecFactory(scheme).WithoutConversion())
	shared := rest.CopyConfig(config)
	// A watch for each kind, and their retries are paced: nothing to hold back.
	shared.QPS = -1
	c := &clients{builtin: map[string]rest.Interface{}, codecs: codecs, params: runtime.NewParameterCodec(scheme)}
	for _, gv := range []schema.GroupVersion{corev1.SchemeGroupVersion, discoveryv1.SchemeGroupVersion} {
		own := rest.CopyConfig(shared)
		own.GroupVersion, own.APIPath = &gv, "/apis"
		if gv.Group == "" {
			own.APIPath = "/api"
		}
		own.NegotiatedSerializer = codecs
		own.ContentType = runtime.ContentTypeProtobuf
		own.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
		client, err := rest.RESTClientFor(own)
		if err != nil {
			return nil, fmt.Errorf("Kubernetes source: make a client: %w", err)
		}
		c.builtin[gv.String()] = client
	}
	var err error
	if c.ours, err = dynamic.NewForConfig(shared); err != nil {
		return nil, fmt.Errorf("Kubernetes source: make a client: %w", err)
	}
	return c, nil
}

// definition is the metadata of a CRD.
func (c *clients) definition(ctx context.Context, name string) (metav1.ObjectMeta, error) {
	raw, err := c.builtin[corev1.SchemeGroupVersion.String()].Get().
		AbsPath("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"+name).
		SetHeader("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").Do(ctx).Raw()
	if err != nil {
		return metav1.ObjectMeta{}, err
	}
	var m metav1.PartialObjectMetadata
	if err := json.Unmarshal(raw, &m); err != nil {
		return metav1.ObjectMeta{}, fmt.Errorf("read the metadata of the CRD %s: %w", name, err)
	}
	return m.ObjectMeta, nil
}

// endpoint lists and watches one kind in all namespaces.
type endpoint struct {
	list func(context.Context, metav1.ListOptions) (runtime.Object, error)
	// A watch is read by this package, stream and decoder, or by client-go, watch.
	stream  func(context.Context, metav1.ListOptions) (io.ReadCloser, error)
	decoder func(io.ReadCloser) (decoding, error)
	watch   func(context.Context, metav1.ListOptions) (watch.Interface, error)
	// example is of the type that all hand out.
	example runtime.Object
}

func (c *clients) endpoint(info object.KindInfo) (endpoint, error) {
	gv, err := schema.ParseGroupVersion(info.APIVersion)
	if err != nil {
		return endpoint{}, fmt.Errorf("Kubernetes source: kind %s: %w", info.Name, err)
	}
	if client := c.builtin[info.APIVersion]; client != nil {
		return c.typed(client, info.Name, info.Resource)
	}
	example := &unstructured.Unstructured{}
	example.SetGroupVersionKind(gv.WithKind(info.Name))
	r := c.ours.Resource(gv.WithResource(info.Resource))
	return endpoint{
		list:    func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return r.List(ctx, o) },
		watch:   func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) { return r.Watch(ctx, o) },
		example: example,
	}, nil
}

func (c *clients) typed(client rest.Interface, name, resource string) (endpoint, error) {
	var example, list runtime.Object
	switch name {
	case "Namespace":
		example, list = &corev1.Namespace{}, &corev1.NamespaceList{}
	case "Service":
		example, list = &corev1.Service{}, &corev1.ServiceList{}
	case "Pod":
		example, list = &corev1.Pod{}, &corev1.PodList{}
	case "EndpointSlice":
		example, list = &discoveryv1.EndpointSlice{}, &discoveryv1.EndpointSliceList{}
	default:
		return endpoint{}, fmt.Errorf("Kubernetes source: kind %s is not known here", name)
	}
	return endpoint{
		list: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			into := list.DeepCopyObject()
			return into, client.Get().Resource(resource).VersionedParams(&o, c.params).Do(ctx).Into(into)
		},
		stream: func(ctx context.Context, o metav1.ListOptions) (io.ReadCloser, error) {
			o.Watch = true
			return client.Get().Resource(resource).VersionedParams(&o, c.params).Stream(ctx)
		},
		decoder: c.codecs.decoder, example: example,
	}, nil
}

// oneLine makes an error fit for a report.
func oneLine(err error) string {
	if err == nil {
		return ""
	}
	const longest = 256
	s := strings.Join(strings.Fields(err.Error()), " ")
	if len(s) > longest {
		s = strings.ToValidUTF8(s[:longest], "") + "..."
	}
	return s
}
