package xds

import (
	"runtime"
	"sync"
	"time"
)

// occasion is why a stream has something to do; several may come together.
type occasion uint8

const (
	requested occasion = 1 << iota // a request lies in turns.request
	woken                          // by the store
	due                            // a deadline
	thawed                         // what is served is up to date again
	stopping                       // the server ends
)

// turns passes a stream on among goroutines: at any time one of them has it, and
// with it all its state. A stream has a single goroutine of its own, which waits
// for requests; whatever else happens is done by the crew, on stacks that are
// gone when it has been done.
type turns struct {
	mu      sync.Mutex
	todo    occasion // guarded by mu
	request *request // guarded by mu
	// busy is true while somebody has the stream, or the crew is about to.
	busy bool // guarded by mu
	// over is true when nobody may have it any more, err why; guarded by mu.
	over bool
	err  error
	// leaves is true while the stream's goroutine waits for the crew to let go of
	// it; guarded by mu.
	leaves bool
	// done receives a value when the crew has taken a request, or let go.
	done chan struct{}
	// timer is that of the next deadline, armed the time it is set to. Whoever has
	// the stream has them.
	timer *time.Timer
	armed time.Time
}

// post asks for a turn. It does not block.
func (s *stream) post(o occasion) {
	t := &s.turns
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return
	}
	t.todo |= o
	if !t.busy {
		t.busy = true
		s.srv.crew.add(s)
	}
}

// take has a request handled and returns when that is done. Answers that say
// nothing else are taken here and now, unless the crew has the stream.
func (s *stream) take(req *request) error {
	t := &s.turns
	t.mu.Lock()
	if t.over {
		defer t.mu.Unlock()
		return t.err
	}
	if req.ack && !t.busy {
		t.busy = true
		t.mu.Unlock()
		taken, err := s.quick(req)
		t.mu.Lock()
		if err != nil {
			t.busy = false
			t.mu.Unlock()
			return err
		}
		if !taken {
			t.request = req
			t.todo |= requested
		}
		if t.busy = t.todo != 0; t.busy {
			s.srv.crew.add(s)
		}
		t.mu.Unlock()
		if taken {
			return nil
		}
	} else {
		t.request = req
		t.todo |= requested
		if !t.busy {
			t.busy = true
			s.srv.crew.add(s)
		}
		t.mu.Unlock()
	}
	<-t.done
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// leave ends the stream for its own goroutine, with err unless somebody else has
// ended it before, and returns why when nobody has the stream any more.
func (s *stream) leave(err error) error {
	t := &s.turns
	t.mu.Lock()
	if !t.over {
		t.over, t.err = true, err
	}
	err, t.leaves = t.err, t.busy
	t.mu.Unlock()
	if t.leaves {
		<-t.done
	}
	return err
}

// work does what there is to do, on a goroutine of the crew.
func (s *stream) work() {
	t := &s.turns
	for {
		t.mu.Lock()
		todo, req := t.todo, t.request
		t.todo, t.request = 0, nil
		if todo == 0 || t.over {
			t.busy = false
			if t.leaves || req != nil {
				t.done <- struct{}{}
			}
			t.mu.Unlock()
			return
		}
		t.mu.Unlock()
		if err := s.turn(todo, req); err != nil {
			t.mu.Lock()
			if !t.over {
				t.over, t.err = true, err
			}
			t.mu.Unlock()
			s.wire.end(err) // its own goroutine waits for a request
		}
		if req != nil {
			t.done <- struct{}{}
		}
	}
}

// turn is one turn of the stream.
func (s *stream) turn(todo occasion, req *request) (err error) {
	// No interceptor guards this goroutine.
	defer s.srv.recovered(&err, "turn")
	if todo&stopping != 0 {
		s.leaving.stop(time.Now(), s.srv.drain)
	}
	if todo&thawed != 0 {
		s.frozen = false
	}
	if todo&woken != 0 {
		s.srv.metrics.wakes.Add(1)
	}
	switch {
	case todo&due != 0:
		s.turns.armed = time.Time{}
		err = s.tick(time.Now())
	case todo&(woken|thawed) != 0:
		err = s.flush()
	}
	if err == nil && req != nil {
		err = s.handle(req)
	}
	if err != nil {
		return err
	}
	return s.after()
}

// after looks whether the stream ends now, and sets its next deadline.
func (s *stream) after() error {
	if s.leaving.due(time.Now()) {
		return s.leaving.err
	}
	if s.done() {
		return errFinal
	}
	s.arm()
	return nil
}

// arm sets the timer to the next deadline.
func (s *stream) arm() {
	t, next := &s.turns, s.next()
	if next.Equal(t.armed) {
		return
	}
	switch t.armed = next; {
	case next.IsZero():
		t.timer.Stop() // there was one before
	case t.timer == nil:
		t.timer = time.AfterFunc(time.Until(next), func() { s.post(due) })
	default:
		t.timer.Reset(time.Until(next))
	}
}

// crew are the goroutines that have streams which have something to do, and none
// when there is nothing. There are no more than most, but that a few are always not
// with the transport: a client that does not read, whatever it says that it has
// read, keeps those who write to it waiting, and nobody else.
type crew struct {
	most, free int

	mu      sync.Mutex
	queue   []*stream // guarded by mu
	active  int       // guarded by mu
	sending int       // of the active; guarded by mu
}

// crewPerCore is how many turns run at a time for each core: so many that one long
// turn, or a few, do not hold up the others.
const crewPerCore = 8

func newCrew() *crew {
	cores := runtime.GOMAXPROCS(0)
	return &crew{most: crewPerCore * cores, free: cores}
}

func (c *crew) add(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, s)
	c.hire()
}

// hire starts one more goroutine if that may be. The caller holds mu.
func (c *crew) hire() {
	if len(c.queue) > 0 && (c.active < c.most || c.active-c.sending < c.free) {
		c.active++
		go c.run()
	}
}

// run ends when no stream waits.
func (c *crew) run() {
	for {
		c.mu.Lock()
		if len(c.queue) == 0 || c.active > c.most && c.active-c.sending > c.free {
			c.active--
			c.mu.Unlock()
			return
		}
		s := c.queue[0]
		c.queue[0] = nil
		if c.queue = c.queue[1:]; len(c.queue) == 0 {
			c.queue = nil
		}
		c.mu.Unlock()
		s.work()
	}
}

// sends marks a turn that may have to wait for its client, until sent.
func (c *crew) sends() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sending++
	c.hire()
}

func (c *crew) sent() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sending--
}
