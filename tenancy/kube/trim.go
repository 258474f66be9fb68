package kube

import (
	"bytes"
	"slices"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// keep says what of a message is looked at.
type keep struct {
	// whole is all of it, if it has having.
	whole  bool
	having []byte
	// fields are what is looked at of its own fields, by number, nil for nothing.
	fields []*keep
}

// field is what is kept of the field of that number.
func (k *keep) field(n protowire.Number) *keep {
	if int(n) >= len(k.fields) {
		return nil
	}
	return k.fields[n]
}

// pick is a message of which some fields are kept whole and others in part.
func pick(parts map[protowire.Number]*keep, whole ...protowire.Number) *keep {
	out := &keep{}
	put := func(n protowire.Number, k *keep) {
		if int(n) >= len(out.fields) {
			out.fields = append(out.fields, make([]*keep, int(n)+1-len(out.fields))...)
		}
		out.fields[n] = k
	}
	for n, k := range parts {
		put(n, k)
	}
	for _, n := range whole {
		put(n, &keep{whole: true})
	}
	return out
}

// Field numbers that the tables below have in common; those of objects are in
// generated.proto of k8s.io/api and k8s.io/apimachinery.
const (
	fieldTypeMeta = 1 // runtime.Unknown
	fieldRaw      = 2
	fieldKind     = 2 // runtime.TypeMeta
	fieldItems    = 2 // of all lists
)

// kept is, for each kind and its list, what of an encoded object package object
// and the reflector look at. Of a Pod that is a tenth: the rest is who owns which
// field, volumes, environments, conditions.
func kept() map[string]*keep {
	type parts = map[protowire.Number]*keep
	// Name, namespace, UID, resource version, generation, creation, labels. A
	// bookmark's annotation ends the first objects of a watch.
	meta := pick(parts{12: {whole: true, having: []byte(metav1.InitialEventsAnnotationKey)}}, 1, 3, 5, 6, 7, 8, 11)
	// Ports, probes and lifecycle, restart policy.
	container := pick(nil, 6, 10, 11, 12, 22, 24)
	kinds := map[string]*keep{
		"Namespace": pick(parts{1: meta}),
		// Of a service all but its status.
		"Service": pick(parts{1: meta}, 2),
		// Containers, accounts, host network; phase and addresses.
		"Pod": pick(parts{1: meta, 2: pick(parts{2: container, 20: container}, 8, 9, 11), 3: pick(nil, 1, 5, 6, 12, 16)}),
		// Of an endpoint all but its deprecated topology.
		"EndpointSlice": pick(parts{1: meta, 2: pick(nil, 1, 2, 3, 4, 6, 7, 8)}, 3, 4),
	}
	out := map[string]*keep{}
	for name, k := range kinds {
		out[name] = pick(parts{fieldRaw: k}, fieldTypeMeta)
		out[name+"List"] = pick(parts{fieldRaw: pick(parts{fieldItems: k}, 1)}, fieldTypeMeta)
	}
	return out
}

// trimming is a protobuf serializer that decodes of an object what is looked at
// and skips the rest, which is most of it.
type trimming struct {
	runtime.Serializer
	kept map[string]*keep
	// scratch holds *[]byte that trimmed objects are written to: decoding copies.
	scratch sync.Pool
}

// magic is what the API server's protobuf begins with, before a runtime.Unknown.
const magic = "k8s\x00"

// maxScratch is how large a buffer is kept for the next object.
const maxScratch = 64 << 10

// Decode implements runtime.Decoder.
func (s *trimming) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	k := s.kept[kindOf(data)]
	if k == nil {
		return s.Serializer.Decode(data, defaults, into)
	}
	buf, _ := s.scratch.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	out, ok := k.trim(append((*buf)[:0], magic...), data[len(magic):])
	if !ok {
		out = data // whose error is told by who decodes it
	}
	obj, gvk, err := s.Serializer.Decode(out, defaults, into)
	if ok && cap(out) <= maxScratch {
		*buf = out
		s.scratch.Put(buf)
	}
	return obj, gvk, err
}

// kindOf is the kind that an encoded object says it is of; empty for none.
func kindOf(data []byte) string {
	rest, ok := bytes.CutPrefix(data, []byte(magic))
	if !ok {
		return ""
	}
	return string(message(message(rest, fieldTypeMeta), fieldKind))
}

// message is the content of the first field of that number, if there is one and
// it has a length.
func message(in []byte, field protowire.Number) []byte {
	for len(in) > 0 {
		n, typ, tag := protowire.ConsumeTag(in)
		if tag < 0 {
			return nil
		}
		size := protowire.ConsumeFieldValue(n, typ, in[tag:])
		if size < 0 {
			return nil
		}
		if n == field && typ == protowire.BytesType {
			out, _ := protowire.ConsumeBytes(in[tag:])
			return out
		}
		in = in[tag+size:]
	}
	return nil
}

// trim appends to out what is kept of a message, and reports whether it could be
// read.
func (k *keep) trim(out, in []byte) ([]byte, bool) {
	for len(in) > 0 {
		n, typ, tag := protowire.ConsumeTag(in)
		if tag < 0 {
			return out, false
		}
		size := protowire.ConsumeFieldValue(n, typ, in[tag:])
		if size < 0 {
			return out, false
		}
		field, rest := in[:tag+size], in[tag+size:]
		switch k := k.field(n); {
		case k == nil:
		case k.whole:
			if len(k.having) == 0 || bytes.Contains(field, k.having) {
				out = append(out, field...)
			}
		case typ != protowire.BytesType:
			return out, false
		default:
			out = append(out, field[:tag]...)
			inner, _ := protowire.ConsumeBytes(field[tag:])
			at := len(out)
			var ok bool
			if out, ok = k.trim(out, inner); !ok {
				return out, false
			}
			var length [10]byte
			out = slices.Insert(out, at, protowire.AppendVarint(length[:0], uint64(len(out)-at))...)
		}
		in = rest
	}
	return out, true
}

// trimmed makes a client's serializer trim protobuf; what it reads as JSON it
// reads whole.
type trimmed struct {
	runtime.NegotiatedSerializer
	infos []runtime.SerializerInfo
}

func newTrimmed(all runtime.NegotiatedSerializer) trimmed {
	out := trimmed{NegotiatedSerializer: all, infos: slices.Clone(all.SupportedMediaTypes())}
	for i := range out.infos {
		if info := &out.infos[i]; info.MediaType == runtime.ContentTypeProtobuf {
			info.Serializer = &trimming{Serializer: info.Serializer, kept: kept()}
		}
	}
	return out
}

// SupportedMediaTypes implements runtime.NegotiatedSerializer.
func (t trimmed) SupportedMediaTypes() []runtime.SerializerInfo { return t.infos }
