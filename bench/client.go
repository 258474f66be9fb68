package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"bailiwick.dev/bailiwick/snapshot"
)

// client is one proxy, as far as a control plane can tell. It subscribes as
// Envoy does: to all clusters and listeners, then to what they name.
type client struct {
	fleet  *Fleet
	member member
	own    string // namespace
	tls    *tls.Config
	wire   *wire

	// What follows belongs to the client's goroutine, but where it is said to
	// be guarded by the fleet's mu.
	has        map[snapshot.Type]map[string]string
	had        map[resourceKey]bool // with Distinct
	subscribed map[string]bool      // assignments
	listening  bool                 // what listeners name is subscribed to
	answered   map[string]bool      // types of which a response came; guarded by mu
	// waits are the assignments still to come; guarded by mu.
	waits map[string]struct{}
	done  bool // synced; guarded by mu
}

// connect opens the stream and starts the goroutine that reads it.
func (c *client) connect(ctx context.Context) error {
	switch config := &c.fleet.config; {
	case config.Raw > 0 || config.Hold:
		conn, err := dialTLS(ctx, config.Address, c.tls)
		if err != nil {
			return err
		}
		go c.readRaw(conn) // ends with the connection, at the process's end at the latest
		return nil
	default:
		if err := c.open(ctx); err != nil {
			return err
		}
		go c.run() // ends with the connection, at the process's end at the latest
		return nil
	}
}

type resourceKey struct {
	typ  snapshot.Type
	name string
}

// ackBytes is what an ACK of an assignment is on the wire, about.
const ackBytes = 80

// readRaw counts a message for every Raw bytes.
func (c *client) readRaw(conn *tls.Conn) {
	defer func() { _ = conn.Close() }()
	buf, got := make([]byte, 32<<10), 0
	if c.fleet.config.Raw > 0 && !c.fleet.config.Greeted {
		c.fleet.mu.Lock()
		c.sync()
		c.fleet.mu.Unlock()
	}
	for {
		n, err := conn.Read(buf)
		got += n
		for c.fleet.config.Raw > 0 && got >= c.fleet.config.Raw {
			got -= c.fleet.config.Raw
			at := now()
			c.fleet.mu.Lock()
			c.fleet.met(everybody, c, "", nil, at)
			c.sync()
			c.fleet.mu.Unlock()
			if c.fleet.config.Answer && err == nil {
				_, err = conn.Write(make([]byte, ackBytes))
			}
		}
		if err != nil {
			return
		}
	}
}

func (c *client) open(ctx context.Context) error {
	method := deltaMethod
	if c.fleet.config.SotW {
		method = stateMethod
	}
	w, err := dialWire(ctx, c.fleet.config.Address, method, c.tls)
	if err != nil {
		return err
	}
	w.endsOnly = c.fleet.config.One
	c.wire = w
	c.subscribed, c.listening = map[string]bool{}, false
	c.fleet.mu.Lock()
	c.answered, c.waits = map[string]bool{}, map[string]struct{}{}
	c.fleet.mu.Unlock()
	return c.begin()
}

// fence is a name that nothing has.
const fence = "fence"

// begin sends the first requests: on a new stream those for all clusters and
// listeners, on a later one for all that the client has, with its versions.
func (c *client) begin() error {
	node := c.own + "/" + podName(c.member.Service, 0)
	first := []request{{typ: snapshot.Cluster}, {typ: snapshot.Listener}}
	if c.fleet.config.One {
		first = []request{{typ: snapshot.Endpoint, names: []string{fanoutName}}}
	} else if len(c.has[snapshot.Cluster]) > 0 {
		first = first[:0]
		for t := range snapshot.NumTypes {
			r := request{typ: t, has: c.has[t]}
			if t != snapshot.Cluster && t != snapshot.Listener {
				r.names = slices.Collect(maps.Keys(c.has[t]))
			}
			first = append(first, r)
		}
		for name := range c.has[snapshot.Endpoint] {
			c.subscribed[name] = true
		}
		c.listening = true
		// A client that lacks nothing is told nothing. That all it said has been
		// looked at shows in the answer to a last question.
		first = append(first, request{typ: snapshot.Endpoint, names: []string{fence}})
	}
	first[0].nodeID = node
	return c.request(first...)
}

func (c *client) request(requests ...request) error {
	var out [][]byte
	for _, r := range requests {
		raw, err := r.encode(c.fleet.config.SotW)
		if err != nil {
			return fmt.Errorf("encode a request: %w", err)
		}
		out = append(out, raw)
	}
	return c.wire.send(out...)
}

// run reads until the server ends the connection, and with Persist goes on with
// the next one.
func (c *client) run() {
	for {
		err := c.wire.receive(c.take)
		c.wire.close()
		if c.fleet.config.Persist && !errors.Is(err, errResponse) {
			err = c.again()
			if err == nil {
				continue
			}
		}
		if !ended(err) {
			c.fleet.fail(fmt.Errorf("client %s of %s: %w", serviceName(c.member.Service), c.own, err))
		}
		return
	}
}

// errResponse is the error of a response that is not as it should be.
var errResponse = errors.New("bad response")

// again connects with the pauses of the bootstrap that proxies get.
func (c *client) again() error {
	pause := 100 * time.Millisecond
	for deadline := time.Now().Add(time.Minute); ; {
		err := c.open(context.Background())
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no server for a minute: %w", err)
		}
		time.Sleep(pause)
		pause = min(2*pause, time.Second)
	}
}

// take handles one response.
func (c *client) take(message []byte, size int) error {
	at := now()
	if c.fleet.config.One {
		return c.takeOne(message, size, at)
	}
	r, err := scan(message)
	if err != nil {
		return fmt.Errorf("%w: %w", errResponse, err)
	}
	t, _ := snapshot.TypeOf(r.typeURL)
	acks := [][]byte{ackOf(r.typeURL, r.nonce)}
	next := c.follow(t, r)
	for _, n := range next {
		raw, err := n.encode(false)
		if err != nil {
			return fmt.Errorf("encode a request: %w", err)
		}
		acks = append(acks, raw)
	}
	c.note(t, r, message, size, at)
	return c.wire.send(acks...)
}

func (c *client) takeOne(tail []byte, size int, at Instant) error {
	nonce, err := nonceAtEnd(tail)
	if err != nil {
		return fmt.Errorf("%w: %w", errResponse, err)
	}
	c.fleet.mu.Lock()
	c.fleet.report.Bytes[snapshot.Endpoint.String()] += size
	c.fleet.met(everybody, c, "", nil, at)
	c.sync()
	c.fleet.mu.Unlock()
	if !c.fleet.config.SotW {
		return c.wire.send(ackOf(snapshot.Endpoint.URL(), nonce))
	}
	// SnapshotCache answers at once what does not state the version that it has.
	version, err := versionAtStart(c.wire.head)
	if err != nil {
		return fmt.Errorf("%w: %w", errResponse, err)
	}
	return c.request(request{typ: snapshot.Endpoint, names: []string{fanoutName}, nonce: string(nonce), version: version})
}

// follow returns the subscriptions that come of a response.
func (c *client) follow(t snapshot.Type, r response) []request {
	if c.fleet.config.Persist {
		if c.has[t] == nil {
			c.has[t] = map[string]string{}
		}
		for _, res := range r.resources {
			c.has[t][res.name] = res.version
		}
	}
	var out []request
	switch t {
	case snapshot.Cluster:
		names := namesOf(r.resources, func(n string) bool { return ofService(n) && !c.subscribed[n] })
		for _, n := range names {
			c.subscribed[n] = true
		}
		if len(names) > 0 {
			out = append(out, request{typ: snapshot.Endpoint, names: names})
		}
	case snapshot.Listener:
		if !c.listening && len(r.resources) > 0 {
			c.listening = true
			out = append(out,
				request{typ: snapshot.Secret, names: []string{"bundle/" + trustDomain, "inbound"}},
				request{typ: snapshot.Route, names: []string{fmt.Sprintf("http-%d", servicePort)}},
				request{typ: snapshot.Extension, names: []string{fmt.Sprintf("rbac-http-%d", podPort)}},
			)
		}
	}
	return out
}

// note counts a response and finds out whether the client has it all.
func (c *client) note(t snapshot.Type, r response, message []byte, size int, at Instant) {
	f := c.fleet
	out := !f.config.Open && foreign(message, c.own)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.report.Messages++
	f.tracking.note(c, r.typeURL, message, at)
	f.report.Bytes[t.String()] += size
	f.report.Resources[t.String()] += len(r.resources)
	f.report.Removed += r.removed
	for _, res := range r.resources {
		if key := (resourceKey{t, res.name}); f.config.Distinct && !c.had[key] {
			c.had[key] = true
			f.report.Once += res.size
		}
	}
	if out {
		f.report.Foreign++
		f.report.ForeignBytes += size
	}
	f.met(c.member.Tenant, c, r.typeURL, message, at)
	c.answered[t.String()] = true
	c.countWaits(t, r)
	if len(c.has[snapshot.Cluster]) > 0 && r.removed > 0 && bytes.Contains(message, []byte(fence)) {
		c.sync()
		return
	}
	// Secrets that a client has are no answer's matter: there may be none.
	for _, need := range []snapshot.Type{snapshot.Cluster, snapshot.Endpoint, snapshot.Listener, snapshot.Route, snapshot.Extension} {
		if !c.answered[need.String()] {
			return
		}
	}
	if len(c.waits) == 0 {
		c.sync()
	}
}

// countWaits keeps which assignments were asked for and have not come. The
// caller holds mu.
func (c *client) countWaits(t snapshot.Type, r response) {
	for _, res := range r.resources {
		switch {
		case t == snapshot.Cluster && ofService(res.name):
			c.waits[res.name] = struct{}{}
		case t == snapshot.Endpoint:
			delete(c.waits, res.name)
		}
	}
}

// sync notes that the client has all that it asked for. The caller holds mu.
func (c *client) sync() {
	if c.done {
		return
	}
	c.done = true
	c.fleet.synced++
	c.fleet.last = now()
	if c.fleet.synced == len(c.fleet.clients) {
		c.fleet.notify()
	}
}
