package object

import (
	"strings"

	"bailiwick.dev/bailiwick/tenancy"
)

// ProtocolOf says how a TCP service port is carried, from its name and its
// appProtocol (nil: none). An appProtocol decides alone: if it is none that we
// know, the client speaks first, whatever the port's name.
func ProtocolOf(portName string, appProtocol *string) tenancy.Protocol {
	if appProtocol != nil && *appProtocol != "" {
		word := strings.ToLower(*appProtocol)
		switch word {
		case "kubernetes.io/ws":
			return tenancy.HTTP1
		case "kubernetes.io/h2c":
			return tenancy.HTTP2
		case "bailiwick.dev/server-first":
			return tenancy.ServerFirst
		}
		return protocolWord(word)
	}
	word, _, _ := strings.Cut(portName, "-")
	if portName == "grpc-web" || strings.HasPrefix(portName, "grpc-web-") {
		word = "grpc-web"
	}
	return protocolWord(word)
}

// protocolWord knows the words that both places share. Server-first are those
// protocols whose clients wait for a greeting; whatever is unknown is as TCP
// services mostly are.
func protocolWord(word string) tenancy.Protocol {
	switch word {
	case "http", "grpc-web":
		return tenancy.HTTP1
	case "http2", "grpc":
		return tenancy.HTTP2
	case "ftp", "imap", "lmtp", "mariadb", "mysql", "nats", "nntp", "pop3", "rfb", "sieve", "smtp", "ssh", "submission", "telnet", "vnc":
		return tenancy.ServerFirst
	}
	return tenancy.ClientFirst
}
