package object

import (
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy"
)

func TestProtocolOf(t *testing.T) {
	for want, words := range map[tenancy.Protocol][]string{
		tenancy.HTTP1:       {"http", "grpc-web", "HTTP", "kubernetes.io/ws"},
		tenancy.HTTP2:       {"http2", "grpc", "kubernetes.io/h2c"},
		tenancy.ClientFirst: {"https", "tls", "redis", "mongo", "postgres", "kafka", "amqp", "kubernetes.io/wss", "bailiwick.dev/client-first"},
		tenancy.ServerFirst: {"mysql", "smtp", "ftp", "ssh", "imap", "pop3", "nntp", "vnc", "tcp-server-first", "bailiwick.dev/server-first", "tcp", "example.com/mine", "http-x"},
	} {
		for _, word := range words {
			require.Equal(t, want, ProtocolOf("http", &word), "appProtocol %s", word)
		}
	}
	empty := ""
	require.Equal(t, tenancy.HTTP2, ProtocolOf("grpc", &empty))
	for want, names := range map[tenancy.Protocol][]string{
		tenancy.HTTP1:       {"http", "http-admin", "grpc-web", "grpc-web-a"},
		tenancy.HTTP2:       {"http2", "http2-a", "grpc", "grpc-a", "grpc-webs"},
		tenancy.ClientFirst: {"https", "https-a", "tls", "redis-a", "mongo", "postgres", "kafka", "amqp"},
		tenancy.ServerFirst: {"", "mysql", "mysql-a", "smtp", "web", "https2", "httpx", "-http", "tcp-http"},
	} {
		for _, name := range names {
			require.Equal(t, want, ProtocolOf(name, nil), "port name %q", name)
		}
	}
}
