package snapshot

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy"
)

// ErrNotYet is why nothing can be read: objects that bear on it have not been
// read themselves, since the start.
var ErrNotYet = errors.New("the objects cannot be read yet: ask again later")

// Ask lends the model to f, which runs on the publisher's goroutine and must
// neither change nor keep it. The error is ErrNotYet before the first complete
// load and while w's tenant or namespace is on hold, that of ctx if it ends
// before, and whatever f panics with.
func (p *Publisher) Ask(ctx context.Context, w identity.Workload, f func(*tenancy.Model)) error {
	done := make(chan error, 1)
	p.in.put(func() {
		p.in.calls = append(p.in.calls, func() {
			if ctx.Err() == nil { // else nobody waits for it
				done <- p.ask(w, f)
			}
		})
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("wait for the publisher: %w", ctx.Err())
	}
}

func (p *Publisher) ask(w identity.Workload, f func(*tenancy.Model)) (err error) {
	defer func() {
		if r := recover(); r != nil {
			p.stats.panics.Add(1)
			p.log.Error("question not answered: the answer panicked", "panic", r, "stack", string(debug.Stack()))
			err = errors.New("the question cannot be answered")
		}
	}()
	tenant, _ := p.model.Resolve(w)
	if !p.synced || p.held.has(tenant, w.Namespace) {
		return ErrNotYet
	}
	f(p.model)
	return nil
}
