package adsclient

import (
	"context"
	"crypto/tls"
	"net"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
)

// Protocol is the flavour of ADS that a client speaks.
type Protocol uint8

const (
	// Delta is incremental xDS: names are subscribed and unsubscribed, and
	// responses carry what changed.
	Delta Protocol = iota
	// SotW is the state of the world: requests list all names, and responses
	// of clusters and listeners all resources.
	SotW
)

// String is the word used in logs and test names.
func (p Protocol) String() string {
	if p == SotW {
		return "sotw"
	}
	return "delta"
}

// method is the full name of the RPC.
func (p Protocol) method() string {
	if p == SotW {
		return "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
	}
	return "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
}

// Detail is how much a client keeps of what it receives.
type Detail uint8

const (
	// Full keeps everything: the messages as they came, and the bytes of the
	// resources.
	Full Detail = iota
	// Names keeps names and versions and no bytes.
	Names
	// Counts keeps the totals and answers; the state stays empty and there is
	// no log. It is for thousands of clients in one process.
	Counts
)

// Following is how far a client makes subscriptions of its own from what it
// learns.
type Following uint8

const (
	// NoFollow subscribes to what the caller says and nothing else.
	NoFollow Following = iota
	// FollowReferences asks for all clusters and listeners when the stream
	// opens, and then for what they name: assignments, secrets, RBAC and other
	// extensions, RouteConfigurations.
	FollowReferences
	// FollowLikeEnvoy does so in Envoy's order: listeners are asked for when
	// all clusters of the start are warm, and from then on ACKs of clusters are
	// withheld while one of them warms: until the assignment that follows it,
	// and its secrets, have arrived. There is no time-out to it.
	FollowLikeEnvoy
)

// Config says to whom a client talks, and how. Address (or Conn) is required.
type Config struct {
	// Address is the host:port of the server.
	Address string
	// TLS is the client's side of mTLS; nil talks in the clear, for tests.
	TLS *tls.Config
	// Dialer makes the connection instead of TCP; Address is handed to it.
	Dialer func(ctx context.Context, address string) (net.Conn, error)
	// Conn is used instead of a connection of the client's own, and not closed
	// by it, so that many clients can share one.
	Conn *grpc.ClientConn
	// WaitForReady makes Dial and Reconnect wait for a server that is not
	// there, until their context ends, instead of failing at once.
	WaitForReady bool

	Protocol Protocol
	// Node goes out with the first request of each stream.
	Node *corev3.Node
	// Detail is what is kept, Follow what is subscribed to unasked. Following
	// needs the bytes of resources and thus Full.
	Detail Detail
	Follow Following
	// OnResponse decides how a response is answered; nil acknowledges all. It
	// runs on the goroutine that receives and must not call Close or Reconnect.
	OnResponse func(*Message) Verdict
}

// answer is the kind of a verdict.
type answer uint8

const (
	ack answer = iota
	nack
	hold
)

// Verdict is how a client answers a response.
type Verdict struct {
	answer answer
	detail string
	bad    map[string]struct{}
}

// Ack applies the response and acknowledges it.
func Ack() Verdict { return Verdict{} }

// Nack refuses the response. Without bad names nothing of it is applied, as
// when Envoy cannot decode it; with them the rest of it is applied all the same,
// as Envoy does when it can say what is wrong with single resources.
func Nack(detail string, bad ...string) Verdict {
	v := Verdict{answer: nack, detail: detail}
	if len(bad) > 0 {
		v.bad = make(map[string]struct{}, len(bad))
		for _, name := range bad {
			v.bad[name] = struct{}{}
		}
	}
	return v
}

// Hold does not answer for now and applies nothing; [Client.Answer] does later.
func Hold() Verdict { return Verdict{answer: hold} }

// applies reports whether a resource of that name is applied.
func (v Verdict) applies(name string) bool {
	if v.answer == ack {
		return true
	}
	_, bad := v.bad[name]
	return v.answer == nack && v.bad != nil && !bad
}
