package xds

import (
	"bytes"
	"strconv"
	"unicode/utf8"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that ours delegates to
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"bailiwick.dev/bailiwick/snapshot"
)

// fieldNonce is the number of the nonce in both DiscoveryResponse and
// DeltaDiscoveryResponse.
const fieldNonce = 5

// message is a response on its way out: an encoded body that any number of
// streams share, and the one field that is the stream's own. As protobuf
// fields may come in any order, one behind the other is a valid response.
type message struct {
	body   []byte
	suffix []byte
	// room is where suffix stands: a tag, a length and 20 digits at most.
	room [24]byte
}

// newMessage ends a body with a nonce, which is a number in decimals.
func newMessage(body []byte, nonce uint64) *message {
	m := &message{body: body}
	var digits [20]byte
	text := strconv.AppendUint(digits[:0], nonce, 10)
	m.suffix = protowire.AppendTag(m.room[:0], fieldNonce, protowire.BytesType)
	m.suffix = protowire.AppendBytes(m.suffix, text)
	return m
}

func (m *message) size() int { return len(m.body) + len(m.suffix) }

// codec hands messages to the transport without copying them and leaves
// everything else to gRPC's protobuf codec.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

// Marshal implements encoding.CodecV2. The buffers are not pooled: a body
// belongs to all its streams and is collected when the last one has let go.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(*message); ok {
		return mem.BufferSlice{mem.SliceBuffer(m.body), mem.SliceBuffer(m.suffix)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	in, ok := v.(*incoming)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	if data.Len() <= maxAck {
		var room [maxAck]byte
		data.CopyTo(room[:])
		if in.req = ackOf(in.mode, room[:data.Len()]); in.req != nil {
			return nil
		}
	}
	// It is decoded by whoever handles it, if it is within the limits.
	in.req = &request{raw: data.Materialize(), size: data.Len()}
	return nil
}

// incoming is a request on its way in.
type incoming struct {
	mode protocol
	req  *request
}

// Field numbers of envoy.service.discovery.v3.DeltaDiscoveryRequest and, for the
// state of the world, DiscoveryRequest.
const (
	fieldRequestTypeURL = 2
	fieldResponseNonce  = 6

	fieldStateVersion = 1
	fieldStateNames   = 3
	fieldStateTypeURL = 4
	fieldStateNonce   = 5
)

// maxAck is how long a request may be to be looked at as an ACK: a type URL, a
// number, and in the state of the world a version and a name or two are shorter.
const maxAck = 384

// ackOf reads a request that is an ACK, without decoding it as a message: a type
// that we serve, and a nonce; in the state of the world also the version and names,
// which may be others than before. It returns nil for any other.
func ackOf(mode protocol, raw []byte) *request {
	size := len(raw)
	fieldURL, fieldNonce := protowire.Number(fieldRequestTypeURL), protowire.Number(fieldResponseNonce)
	if mode == state {
		fieldURL, fieldNonce = fieldStateTypeURL, fieldStateNonce
	}
	var url, nonce []byte
	r := &request{ack: true, size: size}
	for len(raw) > 0 {
		number, typ, n := protowire.ConsumeTag(raw)
		if n < 0 || typ != protowire.BytesType {
			return nil
		}
		value, m := protowire.ConsumeBytes(raw[n:])
		if m < 0 || !utf8.Valid(value) {
			return nil
		}
		switch {
		case number == fieldURL && url == nil:
			url = value
		case number == fieldNonce && nonce == nil:
			nonce = value
		case mode == state && number == fieldStateVersion && r.version == "":
			r.version = string(value)
		case mode == state && number == fieldStateNames:
			r.names = append(r.names, string(value))
		default:
			return nil
		}
		raw = raw[n+m:]
	}
	if len(nonce) == 0 || bytes.ContainsFunc(nonce, func(r rune) bool { return r < '0' || r > '9' }) {
		return nil
	}
	for t := range snapshot.NumTypes {
		if t.URL() == string(url) {
			r.url, r.nonce = t.URL(), string(nonce)
			return r
		}
	}
	return nil
}
