package kube

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/object"
)

// builtin is a scheme of the kinds that come as protobuf.
func builtin(t require.TestingT) *runtime.Scheme {
	scheme := runtime.NewScheme()
	require.NoError(t, corev1.AddToScheme(scheme))
	require.NoError(t, discoveryv1.AddToScheme(scheme))
	return scheme
}

// encoded is an object as an API server sends it.
func encoded(t require.TestingT, scheme *runtime.Scheme, obj runtime.Object) []byte {
	kinds, _, err := scheme.ObjectKinds(obj)
	require.NoError(t, err)
	obj.GetObjectKind().SetGroupVersionKind(kinds[0])
	var out bytes.Buffer
	require.NoError(t, protobuf.NewSerializer(scheme, scheme).Encode(obj, &out))
	return out.Bytes()
}

// fill sets every field that there is, to something of few values; what has none
// that fits stays empty.
func fill(v reflect.Value, r *rand.Rand) {
	switch known := v.Addr().Interface().(type) {
	case *metav1.Time:
		*known = metav1.Unix(1+r.Int64N(9), 0)
		return
	case *metav1.FieldsV1:
		*known = *metav1.NewFieldsV1(`{"f:spec":{}}`)
		return
	case *metav1.MicroTime, *resource.Quantity:
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), r)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), r)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), r.IntN(3), 2))
		for i := range v.Len() {
			fill(v.Index(i), r)
		}
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, r)
		fill(value, r)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString([]string{"", "a", "b", "c"}[r.IntN(4)])
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int32, reflect.Int64:
		v.SetInt(r.Int64N(4) - 1)
	case reflect.Uint8:
		v.SetUint(r.Uint64N(9))
	default:
		panic(v.Type().String())
	}
}

// honour makes what a random object says of itself readable, so that what else it
// says counts.
func honour(r *rand.Rand, obj metav1.Object) {
	obj.SetName("a")
	obj.SetNamespace("b")
	if obj.GetLabels() != nil {
		obj.SetLabels(map[string]string{"app": []string{"x", "y"}[r.IntN(2)], discoveryv1.LabelServiceName: "web"})
	}
	ip := func() string { return []string{"10.0.0.1", "10.0.0.2"}[r.IntN(2)] }
	switch o := obj.(type) {
	case *corev1.Pod:
		o.Spec.ServiceAccountName, o.Status.Phase = "account", []corev1.PodPhase{"", "Pending", "Running", "Failed"}[r.IntN(4)]
		o.Status.PodIP, o.Status.HostIP = ip(), ip()
		for i := range o.Status.PodIPs {
			o.Status.PodIPs[i].IP = ip()
		}
		for i := range o.Status.HostIPs {
			o.Status.HostIPs[i].IP = ip()
		}
		sidecar := corev1.ContainerRestartPolicyAlways
		for _, list := range [][]corev1.Container{o.Spec.Containers, o.Spec.InitContainers} {
			for i := range list {
				list[i].RestartPolicy = &sidecar
				list[i].StartupProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 1 + r.Int32N(9)}}}
			}
		}
	case *corev1.Service:
		o.Spec.Type, o.Spec.ExternalName, o.Spec.ExternalIPs, o.Spec.ClusterIP, o.Spec.ClusterIPs = "ClusterIP", "", nil, "10.1.0.1", nil
		for i := range o.Spec.Ports {
			o.Spec.Ports[i] = corev1.ServicePort{Name: string(rune('a' + i)), Protocol: corev1.ProtocolTCP, Port: int32(i + 1), AppProtocol: o.Spec.Ports[i].AppProtocol}
		}
	case *discoveryv1.EndpointSlice:
		o.AddressType = discoveryv1.AddressTypeIPv4
		for i := range o.Endpoints {
			o.Endpoints[i].Addresses = []string{ip()}
			if ref := o.Endpoints[i].TargetRef; ref != nil {
				ref.Namespace, ref.Kind = "b", "Pod"
			}
		}
	}
}

// TestTrimmed: of random objects, with every field that there is, what is left out
// when they are decoded is looked at by nobody.
func TestTrimmed(t *testing.T) {
	for _, obj := range []runtime.Object{&corev1.Namespace{}, &corev1.Service{}, &corev1.Pod{}, &discoveryv1.EndpointSlice{}} {
		name := reflect.TypeOf(obj).Elem().Name()
		t.Run(name, func(t *testing.T) {
			honoured := 0
			for seed := range uint64(200) {
				r := rand.New(rand.NewPCG(seed, 0))
				obj := reflect.New(reflect.TypeOf(obj).Elem()).Interface().(runtime.Object)
				fill(reflect.ValueOf(obj).Elem(), r)
				if r.IntN(3) > 0 {
					honour(r, obj.(metav1.Object))
				}
				if r.IntN(2) > 0 {
					obj.(metav1.Object).SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true", "other": "x"})
				}
				if sameTrimmed(t, kindNamed(t, name).Kind, obj) {
					honoured++
				}
			}
			require.Greater(t, honoured, 20, "too few objects are ones that count")
		})
	}
}

// sameTrimmed checks that an object means the same when only what is looked at of
// it is decoded, and reports whether it means anything.
func sameTrimmed(t *testing.T, kind tenancy.Kind, obj runtime.Object) bool {
	t.Helper()
	scheme := builtin(t)
	raw := encoded(t, scheme, obj)
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	decode := func(n runtime.NegotiatedSerializer) metav1.Object {
		info, ok := runtime.SerializerInfoForMediaType(n.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
		require.True(t, ok)
		out, err := runtime.Decode(n.DecoderToVersion(info.Serializer, nil), raw)
		require.NoError(t, err)
		return out.(metav1.Object)
	}
	whole, part := decode(codecs), decode(newTrimmed(codecs))
	require.Equal(t, whole.GetName(), part.GetName())
	require.Equal(t, whole.GetResourceVersion(), part.GetResourceVersion())
	require.Equal(t, whole.GetGeneration(), part.GetGeneration())
	require.Equal(t, endsInitial(whole.(runtime.Object)), endsInitial(part.(runtime.Object)))
	require.Empty(t, part.GetManagedFields())
	require.Equal(t, object.Identify(kind, whole), object.Identify(kind, part))
	one, wrongs := object.Convert(whole, object.Options{})
	two, others := object.Convert(part, object.Options{})
	require.Equal(t, wrongs, others)
	require.Equal(t, one, two)
	return one != nil
}

// TestTrimmedList: so is that of a list, and of bytes that are no message nothing.
func TestTrimmedList(t *testing.T) {
	scheme := builtin(t)
	codecs := newTrimmed(serializer.NewCodecFactory(scheme).WithoutConversion())
	info, _ := runtime.SerializerInfoForMediaType(codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	list := &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "7", Continue: "more"}, Items: []corev1.Pod{*aPod("1"), *aPod("2")}}
	raw := encoded(t, scheme, list)
	var out corev1.PodList
	require.NoError(t, runtime.DecodeInto(info.Serializer, raw, &out))
	require.Equal(t, list.ListMeta, out.ListMeta)
	require.Len(t, out.Items, 2)
	for i, item := range out.Items {
		require.Equal(t, list.Items[i].ResourceVersion, item.ResourceVersion)
		require.Equal(t, list.Items[i].Status.PodIP, item.Status.PodIP)
		require.Empty(t, item.ManagedFields)
	}
	for n := len(magic) + 30; n < len(raw)-len("\x1a\x00\x22\x00"); n++ {
		require.Error(t, runtime.DecodeInto(info.Serializer, raw[:n], &out), "of %d bytes %d", len(raw), n)
	}
	status := &metav1.Status{Reason: metav1.StatusReasonExpired, Code: 410, Details: &metav1.StatusDetails{Name: "x"}}
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	got, err := runtime.Decode(info.Serializer, encoded(t, scheme, status))
	require.NoError(t, err)
	require.Equal(t, status.Details, got.(*metav1.Status).Details, "what is no object of ours is read whole")
}

// aPod is one as a cluster has it.
func aPod(version string) *corev1.Pod {
	now := metav1.NewTime(time.Unix(1e9, 0))
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web-1", Namespace: "shop", UID: types.UID("u"), ResourceVersion: version, CreationTimestamp: now, Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{ServiceAccountName: "web", NodeName: "n", Containers: []corev1.Container{{Name: "c", Image: "registry.example/web", Env: []corev1.EnvVar{{Name: "A", Value: "b"}}}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1", PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}}, Conditions: []corev1.PodCondition{{Type: corev1.PodReady}}},
	}
	for _, manager := range []string{"kube-controller-manager", "kubelet"} {
		fields := metav1.NewFieldsV1(strings.Repeat(`{"f:status":{"f:conditions":{}}}`, 20))
		pod.ManagedFields = append(pod.ManagedFields, metav1.ManagedFieldsEntry{Manager: manager, Time: &now, FieldsV1: fields})
	}
	return pod
}

// framed is an event of a watch on the wire.
func framed(t *testing.T, typ watch.EventType, obj runtime.Object) []byte {
	t.Helper()
	raw, err := (&metav1.WatchEvent{Type: string(typ), Object: runtime.RawExtension{Raw: encoded(t, builtin(t), obj)}}).Marshal()
	require.NoError(t, err)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(raw))), raw...)
}

// TestPodEventAllocations: what an event of a Pod costs of which nothing changed
// that the Model reads does not depend on how many there are, nor on what else is
// in it.
func TestPodEventAllocations(t *testing.T) {
	codecs := newTrimmed(serializer.NewCodecFactory(builtin(t)).WithoutConversion())
	cost := func(pods int, pod *corev1.Pod) float64 {
		s := &Source{queued: map[tenancy.Ref]int{}, synced: true}
		k := &kind{source: s, info: kindNamed(t, "Pod"), applied: map[tenancy.Key]applied{}, faults: map[tenancy.Key]Fault{}}
		s.sink = newRecorder()
		for i := range pods {
			other := aPod("1")
			other.Name = "other-" + string(rune('a'+i%26)) + strings.Repeat("x", i/26)
			require.NoError(t, k.Add(other))
		}
		wire := framed(t, watch.Modified, pod)
		next, err := codecs.decoder(io.NopCloser(endless{wire, new(int)}))
		require.NoError(t, err)
		return testing.AllocsPerRun(200, func() {
			_, obj, err := next()
			if err != nil || k.Add(obj) != nil {
				t.Error(err)
			}
		})
	}
	small, large := cost(10, aPod("2")), cost(1000, aPod("2"))
	// Under the race detector a pool now and then forgets what is in it.
	require.InDelta(t, small, large, 1.5)
	require.LessOrEqual(t, small, 50.0)
	laden := aPod("2")
	for range 20 {
		laden.ManagedFields = append(laden.ManagedFields, laden.ManagedFields[0])
		laden.Status.Conditions = append(laden.Status.Conditions, laden.Status.Conditions[0])
		laden.Spec.Volumes = append(laden.Spec.Volumes, corev1.Volume{Name: "v"})
	}
	require.InDelta(t, small, cost(10, laden), 1.5)
}

func kindNamed(t *testing.T, name string) object.KindInfo {
	t.Helper()
	for _, info := range object.Kinds() {
		if info.Name == name {
			return info
		}
	}
	require.FailNow(t, "there is no kind "+name)
	return object.KindInfo{}
}

// endless repeats an event.
type endless struct {
	event []byte
	at    *int
}

func (e endless) Read(p []byte) (int, error) {
	n := copy(p, e.event[*e.at:])
	*e.at = (*e.at + n) % len(e.event)
	return n, nil
}
