package xds

import (
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that ours delegates to
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
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
}

func newMessage(body []byte, nonce string) *message {
	suffix := make([]byte, 0, protowire.SizeTag(fieldNonce)+protowire.SizeBytes(len(nonce)))
	suffix = protowire.AppendTag(suffix, fieldNonce, protowire.BytesType)
	return &message{body: body, suffix: protowire.AppendString(suffix, nonce)}
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
