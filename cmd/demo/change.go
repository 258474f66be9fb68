package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"bailiwick.dev/bailiwick/tenancy"
)

// change is something done to the directory, and the call that tells first.
type change struct {
	// what says what is done, to which file.
	what string
	// do writes it.
	do func() error
	// from and to are the call to watch, before and after its verdicts.
	from          actor
	to            target
	before, after verdict
}

// chooseRequest finds a service that is granted to a tenant none of whose
// namespaces has requested it yet, or else to such a namespace, and makes the
// change that requests it. Nil means that the directory has no such grant.
func chooseRequest(d directory, w *world) (*change, error) {
	var second *change
	for _, ev := range w.events {
		grant, ok := ev.Object.(*tenancy.ServiceGrant)
		if !ok {
			continue
		}
		for _, from := range grant.From {
			for _, ns := range consumers(w, from) {
				for _, to := range grant.To {
					service := tenancy.Key{Namespace: ev.Ref.Key.Namespace, Name: to.Service}
					c, err := tryRequest(d, w, from.Tenant, ns, service)
					if err != nil {
						return nil, err
					}
					if c != nil && !w.knows(from.Tenant, service) {
						return c, nil
					}
					if second == nil {
						second = c
					}
				}
			}
		}
	}
	return second, nil
}

// consumers are the namespaces that a grant speaks to.
func consumers(w *world, from tenancy.GrantFrom) []string {
	if !from.All {
		return from.Namespaces
	}
	var all []string
	for _, a := range w.actors {
		if a.tenant == from.Tenant && !slices.Contains(all, a.pod.Namespace) {
			all = append(all, a.pod.Namespace)
		}
	}
	return all
}

// tryRequest makes the change if a request would let somebody call.
func tryRequest(d directory, w *world, tenant, ns string, service tenancy.Key) (*change, error) {
	key := tenancy.Key{Namespace: ns, Name: requestName}
	next, err := newWorld(append(slices.Clone(w.events), tenancy.Event{
		Ref:    tenancy.Ref{Kind: tenancy.KindServiceRequest, Key: key},
		Object: &tenancy.ServiceRequest{Namespace: service.Namespace, Service: service.Name, Ports: tenancy.PortSet{All: true}},
	}))
	if err != nil {
		return nil, err
	}
	all := slices.DeleteFunc(changes(w, next), func(c *change) bool { return c.before != invisible || c.after != allowed })
	if len(all) == 0 {
		return nil, nil
	}
	c := all[0]
	file := filepath.Join(d.folder(tenant), requestName+".yaml")
	c.what = fmt.Sprintf("%s requests %s.%s, which is granted to it\nadds %s", ns, service.Name, service.Namespace, d.relative(file))
	text := fmt.Sprintf(requestText, ns, requestName, service.Namespace, service.Name)
	c.do = func() error { return d.write(file, []byte(text)) }
	return c, nil
}

// requestName names the request that the demo adds, and its file.
const requestName = "added-by-demo"

const requestText = `apiVersion: bailiwick.dev/v1alpha1
kind: ServiceRequest
metadata:
  namespace: %s
  name: %s
spec:
  to: {namespace: %s, service: %s, all: true}
`

// choosePolicy finds a policy whose removal turns an allowed call into a
// refused one: within a tenant, since grants are what the other changes are about.
func choosePolicy(d directory, w *world) (*change, error) {
	return chooseRemoval(d, w, tenancy.KindAccessPolicy, func(c *change) bool {
		return c.after == refused && c.from.tenant == w.owner(c.to)
	})
}

// chooseGrant finds a grant whose removal makes a service disappear that
// somebody may call.
func chooseGrant(d directory, w *world) (*change, error) {
	return chooseRemoval(d, w, tenancy.KindServiceGrant, func(c *change) bool { return c.after == invisible })
}

// chooseRemoval finds an object of that kind whose removal ends an allowed call
// in a way that fits.
func chooseRemoval(d directory, w *world, kind tenancy.Kind, fits func(*change) bool) (*change, error) {
	all, err := d.read()
	if err != nil {
		return nil, err
	}
	for i, p := range all {
		if p.Ref.Kind != kind {
			continue
		}
		next, err := newWorld(eventsOf(slices.Delete(slices.Clone(all), i, i+1)))
		if err != nil {
			return nil, err
		}
		for _, c := range changes(w, next) {
			if c.before != allowed || !fits(c) {
				continue
			}
			c.what = fmt.Sprintf("%s %s/%s is removed\nfrom %s", kindWord(kind), p.Ref.Key.Namespace, p.Ref.Key.Name, d.relative(p.file))
			c.do = func() error { return d.remove(p.Ref) }
			return c, nil
		}
	}
	return nil, nil
}

func kindWord(kind tenancy.Kind) string {
	if kind == tenancy.KindServiceGrant {
		return "the grant"
	}
	return "the policy"
}

// changes are the pairs whose verdict differs.
func changes(w, next *world) []*change {
	var all []*change
	for _, from := range w.actors {
		for _, to := range w.callable() {
			if before, after := w.expect(from, to), next.expect(from, to); before != after {
				all = append(all, &change{from: from, to: to, before: before, after: after})
			}
		}
	}
	return all
}

// watchEvery is the pause between two requests of a watch, so that the caller
// does not take the processor from those that it waits for.
const watchEvery = time.Millisecond

// apply does the change, with requests going all the while, and returns the
// time from just before the write to the first request that behaved as it should
// from then on.
func (c *change) apply(ctx context.Context, p *prober, w *world) (time.Duration, error) {
	pair := w.cell(c.from, c.to)
	if got := p.call(ctx, pair); got != c.before {
		return 0, fmt.Errorf("before the change %s got %s from %s, not %s", c.from.name(), got, c.to.name(), c.before)
	}
	start := time.Now()
	if err := c.do(); err != nil {
		return 0, err
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		got := p.call(ctx, pair)
		if got == c.after {
			return time.Since(start), nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%s still gets %s from %s, not %s: %w", c.from.name(), got, c.to.name(), c.after, ctx.Err())
		case <-tick.C:
		}
	}
}
