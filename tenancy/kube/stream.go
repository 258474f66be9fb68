package kube

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/watch"
	restwatch "k8s.io/client-go/rest/watch"
)

// stream is a watch whose events are applied by the goroutine that reads them:
// every other that an event passes costs as much as decoding it. The reflector is
// given what it decides by, which is the objects that a watch begins with, errors,
// and in the end the version to go on from.
type stream struct {
	kind *kind
	body io.Closer
	// replaced is closed when the objects that the watch began with are applied;
	// nil for a watch that began with none.
	replaced <-chan struct{}
	// last is the version of what was applied and the reflector does not know of.
	last   string
	events chan watch.Event
	// stopped is closed by Stop, once.
	stopped chan struct{}
	stop    sync.Once
}

// newStream reads a watch's answer until it ends or is stopped.
func newStream(k *kind, body io.ReadCloser, replaced <-chan struct{}) watch.Interface {
	s := &stream{kind: k, body: body, replaced: replaced, events: make(chan watch.Event), stopped: make(chan struct{})}
	go s.read(body) // ends with body or Stop
	return s
}

// read applies events and passes on those that the reflector needs. However the
// answer ends, it was the end of the watch: to go on from where it was is always
// right, to read everything anew is not needed.
func (s *stream) read(body io.ReadCloser) {
	defer close(s.events)
	next, err := s.kind.endpoint.decoder(body)
	if err != nil {
		return
	}
	for {
		typ, obj, err := next()
		if err != nil {
			s.catchUp()
			return
		}
		ev := watch.Event{Type: typ, Object: obj}
		switch {
		case s.replaced == nil && s.apply(ev):
		case !s.catchUp() || !s.pass(ev):
			return
		case s.replaced != nil && typ == watch.Bookmark && endsInitial(obj):
			if !s.await() {
				return
			}
		}
	}
}

// apply does what the reflector would, and reports whether there was something to
// do.
func (s *stream) apply(ev watch.Event) bool {
	obj, ok := ev.Object.(metav1.Object)
	if !ok {
		return false
	}
	switch ev.Type {
	case watch.Added, watch.Modified:
		_ = s.kind.Add(obj)
	case watch.Deleted:
		_ = s.kind.Delete(obj)
	case watch.Bookmark:
		_ = s.kind.Bookmark("")
	default:
		return false
	}
	s.last = obj.GetResourceVersion()
	return true
}

// catchUp lets the reflector know up to where was applied.
func (s *stream) catchUp() bool {
	if s.last == "" {
		return true
	}
	obj := s.kind.endpoint.example.DeepCopyObject()
	if m, err := meta.Accessor(obj); err == nil {
		m.SetResourceVersion(s.last)
	}
	s.last = ""
	return s.pass(watch.Event{Type: watch.Bookmark, Object: obj})
}

// pass hands an event to the reflector.
func (s *stream) pass(ev watch.Event) bool {
	select {
	case s.events <- ev:
		return true
	case <-s.stopped:
		return false
	}
}

// await returns when the reflector has applied what the watch began with: what
// comes then is newer.
func (s *stream) await() bool {
	select {
	case <-s.replaced:
		s.replaced = nil
		return true
	case <-s.stopped:
		return false
	}
}

// endsInitial reports whether a bookmark ends the objects that a watch begins with.
func endsInitial(obj runtime.Object) bool {
	m, ok := obj.(metav1.Object)
	return ok && m.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true"
}

// ResultChan implements watch.Interface.
func (s *stream) ResultChan() <-chan watch.Event { return s.events }

// Stop implements watch.Interface.
func (s *stream) Stop() {
	s.stop.Do(func() {
		s.kind.ended()
		_ = s.body.Close()
		close(s.stopped)
	})
}

// decoding hands out the events of a watch, one at a time.
type decoding func() (watch.EventType, runtime.Object, error)

// decoder reads the events of a watch's answer, whichever of the formats it is in
// that were asked for.
func (t trimmed) decoder(body io.ReadCloser) (decoding, error) {
	in := bufio.NewReader(body)
	first, err := in.Peek(1)
	if err != nil {
		return nil, err
	}
	mediaType := runtime.ContentTypeProtobuf
	if first[0] == '{' { // else it is a length, and that of no object so large
		mediaType = runtime.ContentTypeJSON
	}
	info, _ := runtime.SerializerInfoForMediaType(t.infos, mediaType)
	objects := t.DecoderToVersion(info.Serializer, nil)
	if mediaType == runtime.ContentTypeProtobuf {
		return (&frames{in: in, objects: objects}).next, nil
	}
	texts := info.StreamSerializer.NewFrameReader(struct {
		io.Reader
		io.Closer
	}{in, body})
	return restwatch.NewDecoder(streaming.NewDecoder(texts, info.StreamSerializer.Serializer), objects).Decode, nil
}

// maxFrame is how long an event may be, as client-go has it: much more than an
// API server stores of one object.
const maxFrame = 16 << 20

// Field numbers of metav1.WatchEvent and runtime.RawExtension.
const (
	fieldEventType      = 1
	fieldEventObject    = 2
	fieldExtensionBytes = 1
)

// frames reads events in protobuf: a length of four bytes, then a
// metav1.WatchEvent. Nothing is copied on the way to who decodes the object.
type frames struct {
	in      io.Reader
	objects runtime.Decoder
	buf     []byte
}

func (f *frames) next() (watch.EventType, runtime.Object, error) {
	var length [4]byte
	if _, err := io.ReadFull(f.in, length[:]); err != nil {
		return "", nil, err
	}
	n := int(binary.BigEndian.Uint32(length[:]))
	if n > maxFrame {
		return "", nil, fmt.Errorf("an event of %d bytes", n)
	}
	if cap(f.buf) < n || cap(f.buf) > maxScratch {
		f.buf = make([]byte, n)
	}
	f.buf = f.buf[:n]
	if _, err := io.ReadFull(f.in, f.buf); err != nil {
		return "", nil, err
	}
	obj, err := runtime.Decode(f.objects, message(message(f.buf, fieldEventObject), fieldExtensionBytes))
	return watch.EventType(message(f.buf, fieldEventType)), obj, err
}
