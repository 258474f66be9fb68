package object

import (
	"strings"

	"bailiwick.dev/bailiwick/tenancy"
)

// ProtocolOf says how a TCP service port is carried, from its name and its
// appProtocol (nil: none). An appProtocol decides alone: if it is none that we
// know, the port is of unknown kind, whatever its name.
func ProtocolOf(portName string, appProtocol *string) tenancy.Protocol {
	if appProtocol != nil && *appProtocol != "" {
		word := strings.ToLower(*appProtocol)
		switch word {
		case "kubernetes.io/ws":
			return tenancy.HTTP1
		case "kubernetes.io/h2c":
			return tenancy.HTTP2
		case "kubernetes.io/wss", "bailiwick.dev/client-first":
			return tenancy.ClientFirst
		}
		return protocolWord(word)
	}
	word, _, _ := strings.Cut(portName, "-")
	if portName == "grpc-web" || strings.HasPrefix(portName, "grpc-web-") {
		word = "grpc-web"
	}
	return protocolWord(word)
}

// protocolWord knows the words that both places share. Those that are not in
// it, such as mysql, smtp, ftp, ssh, imap, pop3, nntp, vnc and
// bailiwick.dev/server-first, are server-first, as is all that is unknown.
func protocolWord(word string) tenancy.Protocol {
	switch word {
	case "http", "grpc-web":
		return tenancy.HTTP1
	case "http2", "grpc":
		return tenancy.HTTP2
	case "https", "tls", "redis", "mongo", "postgres", "kafka", "amqp":
		return tenancy.ClientFirst
	}
	return tenancy.ServerFirst
}
