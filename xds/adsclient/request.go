package adsclient

import (
	"cmp"
	"errors"
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// ask is what a request says besides the subscription.
type ask struct {
	subscribe, unsubscribe []string
	nonce                  string
	failed                 *statuspb.Status
}

// Wildcard asks for all resources of a type in the way of Envoy: by an empty
// first request. Later it subscribes to "*". Of other types than clusters and
// listeners an empty request asks for nothing, so "*" is sent for them.
func (c *Client) Wildcard(url string) error {
	return c.request(url, func(t *typeState) ask {
		if t.asked || !setType(url) {
			t.subscribe([]string{star}, c.config.Protocol)
			return ask{subscribe: []string{star}}
		}
		t.wildcard, t.legacy = true, true
		return ask{}
	})
}

// Subscribe asks for names; "*" asks for all.
func (c *Client) Subscribe(url string, names ...string) error {
	return c.request(url, func(t *typeState) ask {
		t.subscribe(names, c.config.Protocol)
		return ask{subscribe: names}
	})
}

// ErrUnsayable is returned where the protocol has no words for what is asked.
var ErrUnsayable = errors.New("the state of the world has no words for it: a subscription to all that was made by an empty request ends only by naming something")

// Unsubscribe ends subscriptions and forgets the resources; "*" ends that to
// all. In the state of the world that is [ErrUnsayable] after [Client.Wildcard].
func (c *Client) Unsubscribe(url string, names ...string) error {
	c.mu.Lock()
	unsayable := c.config.Protocol == SotW && c.typeOf(url).legacy && slices.Contains(names, star)
	c.mu.Unlock()
	if unsayable {
		return ErrUnsayable
	}
	return c.request(url, func(t *typeState) ask {
		t.unsubscribe(names)
		return ask{unsubscribe: names}
	})
}

// Answer answers a message that was held, on the stream that it came by.
func (c *Client) Answer(m *Message, v Verdict) error {
	if v.answer == hold {
		return nil
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	c.mu.Lock()
	s := c.stream
	if s.number != m.Stream {
		c.mu.Unlock()
		return ErrEnded
	}
	c.typeOf(m.TypeURL).apply(m, c.config.Protocol, v)
	request := c.answered(m, v)
	c.notify()
	c.mu.Unlock()
	return c.send(s, request)
}

// request changes a subscription and tells the server.
func (c *Client) request(url string, change func(*typeState) ask) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	c.mu.Lock()
	t := c.typeOf(url)
	a := change(t)
	if !t.started && len(a.unsubscribe) > 0 {
		// The server knows of no subscription on this stream, and an empty first
		// request would be one to everything.
		c.notify()
		c.mu.Unlock()
		return nil
	}
	a.nonce = t.nonce
	if c.config.Protocol == Delta {
		a.nonce = "" // a spontaneous request answers nothing
	}
	s, request := c.stream, c.build(url, t, a)
	c.notify()
	c.mu.Unlock()
	return c.send(s, request)
}

// typeOf returns the state of a type, made if need be. The caller holds mu.
func (c *Client) typeOf(url string) *typeState {
	t := c.types[url]
	if t == nil {
		t = newTypeState()
		c.types[url] = t
	}
	return t
}

// build makes a request. The caller holds mu and sends it before anybody else.
func (c *Client) build(url string, t *typeState, a ask) proto.Message {
	first := !t.started
	t.started, t.asked = true, true
	var node *corev3.Node
	if c.nodeDue {
		node, c.nodeDue = c.node, false
	}
	if c.config.Protocol == SotW {
		return &discoveryv3.DiscoveryRequest{
			Node: node, TypeUrl: url, ResourceNames: t.list(), VersionInfo: t.version,
			ResponseNonce: a.nonce, ErrorDetail: a.failed,
		}
	}
	request := &discoveryv3.DeltaDiscoveryRequest{
		Node: node, TypeUrl: url, ResponseNonce: a.nonce, ErrorDetail: a.failed,
		ResourceNamesSubscribe: a.subscribe, ResourceNamesUnsubscribe: a.unsubscribe,
	}
	if first {
		request.InitialResourceVersions = t.stated()
	}
	return request
}

// answered makes the answer to a message. The caller holds mu.
func (c *Client) answered(m *Message, v Verdict) proto.Message {
	t := c.typeOf(m.TypeURL)
	a := ask{nonce: m.Nonce}
	if v.answer == nack {
		a.failed = &statuspb.Status{Code: int32(codes.Internal), Message: v.detail}
	} else {
		t.version = m.Version
	}
	return c.build(m.TypeURL, t, a)
}

// take keeps a message of a stream and answers it.
func (c *Client) take(s *stream, m *Message) error {
	v := Ack()
	if c.config.OnResponse != nil {
		v = c.config.OnResponse(m)
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	c.mu.Lock()
	t := c.typeOf(m.TypeURL)
	t.nonce = m.Nonce
	c.count(m.TypeURL, m)
	c.count("", m)
	var changed map[string]bool
	if c.config.Detail != Counts {
		c.log = append(c.log, m)
		changed = t.apply(m, c.config.Protocol, v)
	}
	var requests []proto.Message
	switch {
	case v.answer == hold:
	case c.follower != nil:
		requests = c.follow(m, v, changed)
	default:
		requests = []proto.Message{c.answered(m, v)}
	}
	c.notify()
	c.mu.Unlock()
	for _, request := range requests {
		if err := c.send(s, request); errors.Is(err, ErrEnded) {
			return nil // reading on tells why
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) count(url string, m *Message) {
	total := c.totals[url]
	total.Messages++
	total.Resources += m.Count
	total.Removed += m.CountRemoved
	total.Bytes += m.Size
	c.totals[url] = total
}

// envoyOrder is that of the first requests of a reconnecting Envoy.
var envoyOrder = [...]string{
	resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.SecretType,
	resourcev3.ListenerType, resourcev3.RouteType, resourcev3.ExtensionConfigType,
}

// resume makes the first requests of a stream for all types of earlier ones.
func (c *Client) resume(silent []string) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	c.mu.Lock()
	rank := func(url string) int {
		if i := slices.Index(envoyOrder[:], url); i >= 0 {
			return i
		}
		return len(envoyOrder)
	}
	urls := slices.SortedFunc(maps.Keys(c.types), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
	})
	s := c.stream
	var requests []proto.Message
	for _, url := range urls {
		t := c.types[url]
		// An empty first request would ask for everything.
		if t.asked && (t.wildcard || len(t.names) > 0) && !slices.Contains(silent, url) {
			requests = append(requests, c.build(url, t, ask{subscribe: t.list()}))
		}
	}
	c.mu.Unlock()
	for _, request := range requests {
		if err := c.send(s, request); err != nil {
			return err
		}
	}
	return nil
}
