package snapshot

import (
	"fmt"
	"runtime/debug"
	"time"
)

// A panic in the publisher's goroutine would end the server for everybody. It
// is contained where it happens instead: what a builder makes is taken as not
// built (last good data stays, decisions close), and a view or a binding that
// could not be finished is made anew later, by itself, ever more rarely. Each
// time is counted and logged with its stack.

// First and longest pause before what panicked is tried again by itself.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// retry is when to try something again that panicked. The key of the map that
// holds it is the *view, the *workload or the *proxy.
type retry struct {
	at    time.Time
	pause time.Duration
}

// trap is where a test plants a panic; nil in earnest.
type trap func(what string, attrs []any)

// contain runs f and reports whether it came to its end. Attrs say in the log
// whose it is.
func (p *Publisher) contain(what string, f func(), attrs ...any) (ok bool) {
	defer func() {
		if r := recover(); r != nil {
			p.stats.panics.Add(1)
			p.log.Error("panic contained", append([]any{"in", what, "panic", fmt.Sprint(r), "stack", string(debug.Stack())}, attrs...)...)
		}
	}()
	if p.trap != nil {
		p.trap(what, attrs)
	}
	f()
	return true
}

// contained is contain for what a builder makes: a panic is an error of it.
func contained[T any](p *Publisher, what string, build func() (T, error)) (out T, err error) {
	if !p.contain(what, func() { out, err = build() }) {
		var none T
		return none, fmt.Errorf("%s: the builder panicked", what)
	}
	return out, err
}

// again has a view, a workload layer or a proxy tried again after a pause.
func (p *Publisher) again(key any, now time.Time) {
	r := p.retries[key]
	if r == nil {
		r = &retry{pause: firstRetry / 2}
		p.retries[key] = r
	}
	r.pause = min(2*r.pause, lastRetry)
	r.at = now.Add(r.pause)
}

// retry tries again what is due.
func (p *Publisher) retry(now time.Time) {
	for key, r := range p.retries {
		if r.at.After(now) {
			continue
		}
		switch k := key.(type) {
		case *view:
			if p.views[k.key] == k {
				p.remake(k, now)
				continue
			}
		case *workload:
			if p.workloads[k.key] == k {
				p.buildWorkload(k)
				continue
			}
		case *proxy:
			if p.proxies[k.att] == k {
				p.bind(k, now)
				continue
			}
		}
		delete(p.retries, key)
	}
}

// remake builds a view from nothing but the model, because a panic has left it
// half-changed. Its layer keeps what was good until that is done.
func (p *Publisher) remake(v *view, now time.Time) bool {
	fresh := p.newView(v.key)
	v.seen, v.hosts, v.claims, v.domains = fresh.seen, fresh.hosts, fresh.claims, fresh.domains
	v.size, v.excess, v.broken = cost{}, fresh.excess, true
	v.near.zoned, v.near.noded = 0, 0
	return p.tryView(v, p.allOf(v.key), now)
}

// leftovers has everything removed from a layer that a complete work does not
// set.
func (w *work) leftovers(l *Layer) {
	if w.partial {
		return
	}
	for t := range NumTypes {
		l.All(t, func(r *Resource) {
			if _, ok := w.set[Child{t, r.Name()}]; !ok {
				w.drop(t, r.Name())
			}
		})
	}
}
