package adsclient

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// Done is closed when the present stream has ended.
func (c *Client) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stream.done
}

// Err is why the present stream has ended: nil while it is open and when the
// server ended it in order, else an error with a gRPC status.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stream.ended()
}

func (s *stream) ended() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// Wait returns when holds does, which is asked again after every change; or
// when ctx ends, with its error; or when the stream ends, with [ErrEnded].
func (c *Client) Wait(ctx context.Context, holds func(View) bool) error {
	for {
		c.mu.Lock()
		ok := holds(View{c})
		changed, s := c.changed, c.stream
		c.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
			continue
		default:
		}
		select {
		case <-s.done:
			if s.err != nil {
				return fmt.Errorf("%w: %w", ErrEnded, s.err)
			}
			return ErrEnded
		default:
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Look calls f with the present state.
func (c *Client) Look(f func(View)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(View{c})
}

// Names are those of the resources that the client has of a type, sorted.
func (c *Client) Names(url string) (names []string) {
	c.Look(func(v View) { names = v.Names(url) })
	return names
}

// State is a copy of what the client has of a type.
func (c *Client) State(url string) map[string]Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.types[url]; t != nil {
		return maps.Clone(t.entries)
	}
	return map[string]Entry{}
}

// Subscriptions are the names that the client is subscribed to, sorted, and
// whether it is subscribed to all.
func (c *Client) Subscriptions(url string) (names []string, all bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.types[url]
	if t == nil {
		return nil, false
	}
	return slices.Sorted(maps.Keys(t.names)), t.wildcard
}

// Log is a copy of the list of messages received so far, oldest first.
func (c *Client) Log() []*Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.log)
}
