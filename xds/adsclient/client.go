package adsclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
)

// ErrEnded is returned by whatever needs an open stream when there is none; the
// reason of the end is wrapped with it.
var ErrEnded = errors.New("the stream has ended")

// Client is one ADS client with one stream at a time. Its methods may be called
// from any goroutine.
type Client struct {
	config Config
	conn   *grpc.ClientConn
	owned  bool

	// sending is held from the building of a request to the end of its sending.
	// Whoever needs both locks takes it before mu.
	sending sync.Mutex

	mu      sync.Mutex
	node    *corev3.Node          // guarded by mu
	nodeDue bool                  // guarded by mu
	types   map[string]*typeState // guarded by mu
	totals  map[string]Total      // guarded by mu
	log     []*Message            // guarded by mu
	stream  *stream               // guarded by mu
	streams int                   // guarded by mu
	closed  bool                  // guarded by mu
	// changed is closed and replaced at every change, guarded by mu.
	changed chan struct{}
	// follower is nil at NoFollow; guarded by mu.
	follower *follower
}

// stream is one RPC and the goroutine that reads it.
type stream struct {
	rpc    grpc.ClientStream
	cancel context.CancelFunc
	number int
	// done is closed when the goroutine has ended; err says why, and is written
	// before that.
	done chan struct{}
	err  error
}

// Dial connects to the server, opens a stream and starts to receive. Ctx bounds
// the opening only. The client has asked for nothing yet, unless it follows.
func Dial(ctx context.Context, config Config) (*Client, error) {
	if config.Follow != NoFollow && config.Detail != Full {
		return nil, errors.New("adsclient: to follow references the resources' bytes are needed: use Detail Full")
	}
	c := &Client{
		config: config, node: config.Node, conn: config.Conn,
		types: map[string]*typeState{}, totals: map[string]Total{}, changed: make(chan struct{}),
	}
	if config.Follow != NoFollow {
		c.follower = newFollower(config.Follow)
	}
	if c.conn == nil {
		if err := c.connect(); err != nil {
			return nil, err
		}
	}
	if err := c.open(ctx); err != nil {
		return nil, errors.Join(err, c.hangUp())
	}
	if err := c.startFollowing(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Client) connect() error {
	creds := insecure.NewCredentials()
	if c.config.TLS != nil {
		creds = credentials.NewTLS(c.config.TLS.Clone())
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithNoProxy(),
		// Those of the bootstrap that is printed for proxies.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
	}
	target := c.config.Address
	if c.config.Dialer != nil {
		target = "passthrough:///" + target
		options = append(options, grpc.WithContextDialer(c.config.Dialer))
	}
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		return fmt.Errorf("prepare the connection to %s: %w", c.config.Address, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn, c.owned = conn, true
	return nil
}

// open starts a stream and the goroutine that reads it.
func (c *Client) open(ctx context.Context) error {
	// The stream outlives ctx, which bounds only its opening.
	lifetime, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	rpc, err := c.conn.NewStream(lifetime, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, c.config.Protocol.method(),
		grpc.ForceCodecV2(newCodec()), grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.WaitForReady(c.config.WaitForReady))
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		return fmt.Errorf("open an ADS stream to %s: %w", c.config.Address, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		cancel()
		return fmt.Errorf("open an ADS stream: %w", net.ErrClosed)
	}
	c.streams++
	s := &stream{rpc: rpc, cancel: cancel, number: c.streams, done: make(chan struct{})}
	c.stream, c.nodeDue = s, true
	go c.receive(s) // ends when the RPC does: by cancel at the latest
	return nil
}

// receive reads responses and answers them until the stream ends.
func (c *Client) receive(s *stream) {
	err := func() error {
		for {
			f := frame{protocol: c.config.Protocol, detail: c.config.Detail}
			if err := s.rpc.RecvMsg(&f); err != nil {
				return err
			}
			f.message.Stream, f.message.At = s.number, time.Now()
			if err := c.take(s, f.message); err != nil {
				return err
			}
		}
	}()
	s.cancel()
	if errors.Is(err, io.EOF) {
		err = nil
	}
	c.mu.Lock()
	s.err = err
	close(s.done)
	c.notify()
	c.mu.Unlock()
}

// notify wakes those who wait. The caller holds mu.
func (c *Client) notify() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Close ends the stream, its goroutine, and the connection if it is the
// client's own. It may be called more than once.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	s := c.stream
	c.mu.Unlock()
	if s != nil {
		s.cancel()
		<-s.done
	}
	return c.hangUp()
}

func (c *Client) hangUp() error {
	c.mu.Lock()
	conn := c.conn
	if c.owned {
		c.conn = nil
	}
	c.mu.Unlock()
	if !c.owned || conn == nil {
		return nil
	}
	if err := conn.Close(); err != nil {
		return fmt.Errorf("close the connection to %s: %w", c.config.Address, err)
	}
	return nil
}

// Disconnect ends the stream and waits for its end. The client keeps what it has
// and can [Client.Reconnect]. Subscriptions that are made or ended in between
// fail, but count.
func (c *Client) Disconnect() {
	c.mu.Lock()
	s := c.stream
	c.mu.Unlock()
	s.cancel()
	<-s.done
}

// Reconnection says how a client comes back.
type Reconnection struct {
	// Forget drops all state but the subscriptions, as a restarted proxy does.
	Forget bool
	// Fresh makes a new connection, with a new handshake, if the connection is
	// the client's own; TLS is used for it from then on, unless nil.
	Fresh bool
	TLS   *tls.Config
	// Silent are type URLs that are not asked for again by themselves.
	Silent []string
}

// Reconnect ends the stream if it is open, opens another and says on it what
// the client has: initial_resource_versions (Delta) or the last acknowledged
// version (SotW), with all subscriptions. A client that follows like Envoy does
// not ask for clusters while one of them warms. It must not be called from two
// goroutines at once.
func (c *Client) Reconnect(ctx context.Context, how Reconnection) error {
	c.Disconnect()
	silent := c.reset(how)
	if how.Fresh && c.owned {
		if err := c.hangUp(); err != nil {
			return err
		}
		if how.TLS != nil {
			c.config.TLS = how.TLS
		}
		if err := c.connect(); err != nil {
			return err
		}
	}
	if err := c.open(ctx); err != nil {
		return err
	}
	if how.Forget && c.follower != nil {
		return c.startFollowing()
	}
	return c.resume(silent)
}

// reset prepares the state for another stream and returns what is not to be
// asked for by itself.
func (c *Client) reset(how Reconnection) (silent []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	silent = how.Silent
	if how.Forget && c.follower != nil {
		c.types, c.follower = map[string]*typeState{}, newFollower(c.config.Follow)
	}
	for _, t := range c.types {
		t.started, t.nonce = false, ""
		if how.Forget {
			t.version = ""
			clear(t.entries)
		}
	}
	if f := c.follower; f != nil {
		f.owed = nil
		if f.mode == FollowLikeEnvoy && len(f.warming) > 0 {
			silent = append(slices.Clone(silent), resourcev3.ClusterType)
		}
	}
	return silent
}

// SetNode changes the node. It goes out with the next request, also in the
// middle of a stream.
func (c *Client) SetNode(node *corev3.Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.node, c.nodeDue = node, true
}

// Send sends a request as it is, past all that the client knows: for what no
// honest client does.
func (c *Client) Send(request proto.Message) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	c.mu.Lock()
	s := c.stream
	c.mu.Unlock()
	return c.send(s, request)
}

// send writes a request. The caller holds sending.
func (c *Client) send(s *stream, request proto.Message) error {
	err := s.rpc.SendMsg(request)
	if err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) {
		// The reason is known to the receiving side.
		return ErrEnded
	}
	return fmt.Errorf("%w: %w", ErrEnded, err)
}
