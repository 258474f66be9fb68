package xds

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// window is how many bytes of a connection, and of a stream, may be on their way
// before somebody has read them: HTTP/2's own default and the least that gRPC takes.
const window = 64 << 10

// writeBuffer is how many bytes gRPC collects before it writes.
const writeBuffer = 64 << 10

// Transport is how gRPC treats connections that are many, long and mostly silent.
// bench gives it to the servers that it compares with ours.
func Transport() []grpc.ServerOption {
	return []grpc.ServerOption{
		// Envoys ping every 30 s; gRPC's own minimum of 5 min would cut them off.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		// Windows that adapt cost a ping and its answer for each request. A message
		// that is larger gets its room when it is read.
		grpc.StaticStreamWindowSize(window),
		grpc.StaticConnWindowSize(window),
		// None: TLS has one of its own.
		grpc.ReadBufferSize(0),
		grpc.WriteBufferSize(writeBuffer),
	}
}
