package object

import (
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy"
)

func TestProtocolOf(t *testing.T) {
	for want, words := range map[tenancy.Protocol][]string{
		tenancy.HTTP1: {"http", "grpc-web", "HTTP", "kubernetes.io/ws"},
		tenancy.HTTP2: {"http2", "grpc", "kubernetes.io/h2c"},
		tenancy.ServerFirst: {
			"ftp", "imap", "lmtp", "mariadb", "mysql", "nats", "nntp", "pop3", "rfb", "sieve", "smtp", "ssh", "submission", "telnet", "vnc",
			"MySQL", "bailiwick.dev/server-first",
		},
		tenancy.ClientFirst: {
			"https", "tls", "redis", "mongo", "postgres", "kafka", "amqp", "kubernetes.io/wss", "bailiwick.dev/client-first",
			"tcp", "example.com/mine", "http-x", "mysql-x", "server-first", "smtps", "mysqlx",
		},
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
		tenancy.ServerFirst: {"mysql", "mysql-a", "smtp", "nats-client"},
		tenancy.ClientFirst: {"", "https", "https-a", "tls", "redis-a", "mongo", "tcp", "web", "https2", "httpx", "-http", "tcp-http", "tcp-mysql", "mysqlx", "my-sql"},
	} {
		for _, name := range names {
			require.Equal(t, want, ProtocolOf(name, nil), "port name %q", name)
		}
	}
}
