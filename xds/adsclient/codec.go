package adsclient

import (
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that ours delegates to
	"google.golang.org/grpc/mem"
)

// frame receives one response without decoding it.
type frame struct {
	protocol Protocol
	detail   Detail
	message  *Message
}

// codec scans responses on their way in and leaves everything else to gRPC's
// protobuf codec.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

// Unmarshal implements encoding.CodecV2. The buffers go back to gRPC when it
// returns: what is kept is a copy.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*frame)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	var err error
	if f.detail == Full {
		f.message, err = scan(data.Materialize(), f.protocol, f.detail)
		return err
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	f.message, err = scan(buf.ReadOnlyData(), f.protocol, f.detail)
	return err
}
