package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
)

// member is whose proxy a client is: that of the first Pod of a service.
type member struct{ Tenant, Service int }

// FleetConfig says what the clients of a process are like.
type FleetConfig struct {
	// CA is the folder of the authority, Address the server's.
	CA, Address string
	Members     []member
	// Parallel is how many connect at once; 0 is all of them.
	Parallel int
	// One makes clients that want the one assignment of fan-out and read
	// nothing but its nonce; SotW lets them speak that protocol.
	One  bool
	SotW bool
	// Raw makes clients that speak TLS and nothing in it, and read Raw bytes.
	Raw int
	// Answer makes raw clients answer with as many bytes as an ACK has.
	Answer bool
	// Greeted clients are synced when they have read Raw bytes.
	Greeted bool
	// Hold makes clients that shake hands and ask for nothing.
	Hold bool
	// Open accepts foreign names, for the mesh of one tenant.
	Open bool
	// Distinct counts what each resource weighs when it comes for the first
	// time.
	Distinct bool
	// Persist lets clients connect again when they lose the server, saying
	// what they have.
	Persist bool
	// Profile is where a CPU profile of the clients goes; empty makes none.
	Profile string
}

// FleetReport is what Dial found, and Synced.
type FleetReport struct {
	// Took is from the first connection to the last client that has it all.
	Took time.Duration
	// Bytes and Resources by type, over all clients.
	Bytes, Resources map[string]int
	// Foreign counts the messages with names out of scope, and their bytes.
	Foreign, ForeignBytes int
	Removed               int
	// Messages are responses.
	Messages int
	// Once are the bytes of resources that a client had not had before.
	Once int
}

func (r FleetReport) total() int {
	n := 0
	for _, b := range r.Bytes {
		n += b
	}
	return n
}

// Fleet is the child with the clients.
type Fleet struct {
	common
	config  FleetConfig
	clients []*client

	mu     sync.Mutex
	expect map[int]*expectation // by tenant; -1 is everybody's
	report FleetReport          // guarded by mu
	// tracking is set by Track; guarded by mu.
	tracking *tracking
	synced   int           // guarded by mu
	last     Instant       // when the last client was synced, guarded by mu
	failed   error         // guarded by mu
	change   chan struct{} // closed and renewed at each change, guarded by mu
}

// expectation waits until clients of a tenant have received something.
type expectation struct {
	marker []byte
	typ    string
	left   int
	seen   map[*client]bool
	at     []Instant
	done   chan struct{}
}

// everybody is the tenant of an expectation that any client meets.
const everybody = -1

// Prepare issues the clients' certificates: that is not part of any time.
func (f *Fleet) Prepare(config FleetConfig, _ *struct{}) error {
	if err := f.Profile(config.Profile, nil); err != nil {
		return err
	}
	authority, err := identity.LoadAuthority(config.CA)
	if err != nil {
		return err
	}
	f.config, f.expect, f.change = config, map[int]*expectation{}, make(chan struct{})
	f.report = FleetReport{Bytes: map[string]int{}, Resources: map[string]int{}}
	server, err := spiffeid.FromString("spiffe://" + trustDomain + serverPath)
	if err != nil {
		return err
	}
	for _, m := range config.Members {
		source, err := issue(authority, workloadOf(m.Tenant, m.Service).String())
		if err != nil {
			return err
		}
		f.clients = append(f.clients, &client{
			fleet: f, member: m, own: namespaceOf(m.Tenant),
			tls: identity.ClientTLS(source, source, server), has: map[snapshot.Type]map[string]string{},
			had: map[resourceKey]bool{},
		})
	}
	return nil
}

// issue makes an identity of an authority.
func issue(authority *identity.Authority, id string) (identity.Source, error) {
	cert, key, err := authority.Issue(id, identity.IssueOptions{})
	if err != nil {
		return nil, err
	}
	return identity.NewStaticSource(cert, key, map[string][]byte{trustDomain: authority.Bundle()})
}

// Dial connects all clients and returns when they are synced: they have what
// they asked for, or (Raw, Hold) are connected.
func (f *Fleet) Dial(_ struct{}, report *FleetReport) error {
	start := now()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	parallel := f.config.Parallel
	if parallel == 0 {
		parallel = len(f.clients)
	}
	g.SetLimit(parallel)
	for _, c := range f.clients {
		g.Go(func() error { return c.connect(ctx) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if f.config.Hold {
		report.Took = now().since(start)
		return nil
	}
	return f.awaitSynced(start, report)
}

// Synced waits until all clients are synced again after a Forget, and says how
// long that was after the time given.
func (f *Fleet) Synced(since Instant, report *FleetReport) error { return f.awaitSynced(since, report) }

func (f *Fleet) awaitSynced(since Instant, report *FleetReport) error {
	limit := time.NewTimer(2 * time.Minute)
	defer limit.Stop()
	for {
		f.mu.Lock()
		done, failed, change := f.synced == len(f.clients), f.failed, f.change
		if done {
			*report = f.report
			report.Took = f.last.since(since)
		}
		n := f.synced
		f.mu.Unlock()
		switch {
		case failed != nil:
			return failed
		case done:
			return nil
		}
		select {
		case <-change:
		case <-limit.C:
			return fmt.Errorf("after 2 minutes %d of %d clients have all that they asked for%s", n, len(f.clients), f.missing())
		}
	}
}

// missing says what the first client that is not synced lacks.
func (f *Fleet) missing() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.clients {
		if !c.done {
			return fmt.Sprintf("; %s of %s has answers of %v and waits for %d assignments", serviceName(c.member.Service), c.own, c.answered, len(c.waits))
		}
	}
	return ""
}

// Forget sets all counts to zero and every client to not synced, before the
// server is restarted.
func (f *Fleet) Forget(struct{}, *struct{}) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.report = FleetReport{Bytes: map[string]int{}, Resources: map[string]int{}}
	f.synced = 0
	for _, c := range f.clients {
		c.done = false
	}
	return nil
}

// Report is what has been received so far.
func (f *Fleet) Report(_ struct{}, report *FleetReport) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	*report = f.report
	return f.failed
}

// Expected is something that clients are to receive.
type Expected struct {
	Tenant int
	// Type and Marker have to be in one response; empty are in all.
	Type, Marker string
	// Count is how many clients have to.
	Count int
}

// Expect says what Await will wait for. It is called before the change.
func (f *Fleet) Expect(e Expected, _ *struct{}) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expect[e.Tenant] = &expectation{typ: e.Type, marker: []byte(e.Marker), left: e.Count, seen: map[*client]bool{}, done: make(chan struct{})}
	return f.failed
}

// Await returns when each client had what it was to receive, unordered.
func (f *Fleet) Await(tenant int, at *[]Instant) error {
	f.mu.Lock()
	e := f.expect[tenant]
	f.mu.Unlock()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	select {
	case <-e.done:
	case <-limit.C:
		f.mu.Lock()
		defer f.mu.Unlock()
		return errors.Join(fmt.Errorf("after a minute %d clients of %s lack %s %q", e.left, tenantName(tenant), e.typ, e.marker), f.failed)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	*at = e.at
	return f.failed
}

// fail keeps the first error of a client.
func (f *Fleet) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed == nil {
		f.failed = err
	}
	f.notify()
}

// notify wakes those who wait. The caller holds mu.
func (f *Fleet) notify() {
	close(f.change)
	f.change = make(chan struct{})
}

// met notes that a client of a tenant received a message. The caller holds mu.
func (f *Fleet) met(tenant int, c *client, typeURL string, message []byte, at Instant) {
	e := f.expect[tenant]
	if e == nil || e.left == 0 || e.seen[c] || (e.typ != "" && e.typ != typeURL) || !bytes.Contains(message, e.marker) {
		return
	}
	e.seen[c] = true
	e.at = append(e.at, at)
	if e.left--; e.left == 0 {
		close(e.done)
	}
}

// namesOf are the names in a response.
func namesOf(resources []resource, keep func(string) bool) []string {
	var out []string
	for _, r := range resources {
		if keep(r.name) {
			out = append(out, r.name)
		}
	}
	slices.Sort(out)
	return out
}

// ofService tells the clusters whose endpoints are asked for from static ones.
func ofService(name string) bool { return strings.Contains(name, ".svc.") }
