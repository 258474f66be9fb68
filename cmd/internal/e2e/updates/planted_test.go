package updates

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/xds"
)

// siblings is a server with an Envoy that gets poison and two streams of
// another tenant: an Envoy that sees the same good resources, and a client that
// sees the very same layers and takes everything.
type siblings struct {
	*planted
	sotw                 bool
	victim, other, twin  *pod
	make, makeOther      *maker
	theirs, others       *layers
	through              *http.Client
	generation           int
	client               interface{ Close() error }
	before, othersBefore held
}

func setUpSiblings(t *testing.T, sotw bool) *siblings {
	t.Helper()
	s := &siblings{planted: plant(t), sotw: sotw, theirs: newLayers("acme"), others: newLayers("globex")}
	s.victim = newPod(t, identity.Workload{TrustDomain: "acme.example", Namespace: "acme-shop", ServiceAccount: "web"}, "web-0", podAddress(1, 1))
	s.other = newPod(t, identity.Workload{TrustDomain: "globex.example", Namespace: "globex-shop", ServiceAccount: "web"}, "other-0", podAddress(1, 2))
	s.twin = newPod(t, identity.Workload{TrustDomain: "globex.example", Namespace: "globex-shop", ServiceAccount: "twin"}, "twin-0", podAddress(1, 3))
	s.make, s.makeOther = newMaker(s.planted, s.victim), newMaker(s.planted, s.other)
	s.through = mesh.Through(s.victim.at.Bind)
	t.Cleanup(s.through.CloseIdleConnections)
	for i := range uint16(ports) {
		app, err := mesh.StartEcho(s.ctx, "web-0", netip.AddrPortFrom(s.victim.at.App, firstPort+i))
		require.NoError(t, err)
		t.Cleanup(app.Stop)
	}
	s.store.set(s.victim.workload, s.theirs.Binding)
	s.store.set(s.other.workload, s.others.Binding)
	twin := *s.theirs.Binding
	twin.Tenant = "globex"
	s.store.set(s.twin.workload, &twin)
	s.publish(s.next(), s.nextOther())
	s.envoy(s.victim, sotw)
	s.envoy(s.other, false)
	s.dial()
	s.settled()
	return s
}

// dial starts the client that takes everything.
func (s *siblings) dial() {
	s.t.Helper()
	c, err := mesh.DialADS(s.ctx, mesh.EnvoyConfig{
		Dir: s.root, Workload: s.twin.workload, Pod: s.twin.name, CA: s.ca, SotW: s.sotw, At: s.twin.at,
		XDS: []netip.AddrPort{s.addr}, ServerID: s.id,
	})
	require.NoError(s.t, err)
	s.client = c
	s.t.Cleanup(func() { _ = c.Close() })
	names := map[snapshot.Type][]string{}
	for k := range s.theirs.now {
		names[k.Type] = append(names[k.Type], k.Name)
	}
	require.NoError(s.t, c.Wildcard(snapshot.Cluster.URL()))
	require.NoError(s.t, c.Wildcard(snapshot.Listener.URL()))
	for _, typ := range []snapshot.Type{snapshot.Endpoint, snapshot.Secret, snapshot.Extension, snapshot.Route} {
		slices.Sort(names[typ])
		require.NoError(s.t, c.Subscribe(typ.URL(), names[typ]...))
	}
}

// next is the state of the next generation.
func (s *siblings) next() *state {
	s.generation++
	return s.make.state(s.generation)
}

// nextOther is the other tenant's state of this generation.
func (s *siblings) nextOther() *state { return s.makeOther.state(s.generation) }

// publish gives both tenants new states in one go and counts from here.
func (s *siblings) publish(mine, others *state) {
	s.before, s.othersBefore = s.theirs.now, s.others.now
	s.told.clear()
	s.theirs.publish(mine.all())
	s.others.publish(others.all())
}

// settled waits until both Envoys hold what was published, but for what the
// victim is to hold instead, and until nothing is on its way.
func (s *siblings) settled(instead ...held) {
	s.t.Helper()
	want := maps.Clone(s.theirs.now)
	for _, h := range instead {
		for k, r := range h {
			if r == nil {
				delete(want, k)
			} else {
				want[k] = r
			}
		}
	}
	// What it holds counts once nothing is on its way any more.
	for before := -1; before != s.answered(); {
		before = s.answered()
		s.holds(s.victim, want)
		s.holds(s.other, s.others.now)
	}
}

// answered waits until all that was sent is answered, and says how much it was.
func (s *siblings) answered() (n int) {
	s.t.Helper()
	until(s.ctx, s.t, "all responses are answered", func() error {
		n = 0
		for _, p := range []*pod{s.victim, s.other, s.twin} {
			for _, r := range s.told.of(p) {
				n++
				if !r.answered {
					return fmt.Errorf("%s has not answered response %d of type %s", p.name, r.Nonce, r.Type)
				}
			}
		}
		return nil
	})
	return n
}

// holds waits until a Pod's Envoy has exactly these resources.
func (s *siblings) holds(p *pod, want held) {
	s.t.Helper()
	wanted, err := decoded(want)
	require.NoError(s.t, err)
	until(s.ctx, s.t, p.name+" holds what it should", func() error {
		got, err := contentsOf(s.ctx, p)
		if err != nil {
			return err
		}
		return differs(wanted, got)
	})
}

// get is the status of a request of the victim to a service.
func (s *siblings) get(service string) int {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.ctx, http.MethodGet, fmt.Sprintf("http://%s:%d/", service, servicePort), http.NoBody)
	require.NoError(s.t, err)
	resp, err := s.through.Do(req)
	require.NoError(s.t, err)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(s.t, errors.Join(err, resp.Body.Close()))
	return resp.StatusCode
}

// revoked requires that what revoke takes away is gone, or that it is not.
func (s *siblings) revoked(yes bool) {
	s.t.Helper()
	want := map[string]int{"svc-0": 200, "svc-2": 403, "svc-3": 200, "svc-4": 200, "svc-7": 200, "svc-8": 503, "svc-9": 502}
	if !yes {
		want = map[string]int{"svc-0": 200, "svc-2": 200, "svc-3": 200, "svc-4": 200, "svc-7": 200, "svc-8": 200, "svc-9": 200}
	}
	got := map[string]int{}
	for service := range want {
		got[service] = s.get(service)
	}
	require.Equal(s.t, want, got)
	conn, err := (&net.Dialer{}).DialContext(s.ctx, "tcp", netip.AddrPortFrom(s.victim.at.Bind, firstTCP+3).String())
	require.Equal(s.t, yes, err != nil, "the listener that was removed: %v", err)
	if err == nil {
		require.NoError(s.t, conn.Close())
	}
	require.Equal(s.t, yes, s.refuses("spiffe://third.example/ns/third/sa/third"), "a certificate of the domain that is trusted no more")
	require.False(s.t, s.refuses(s.victim.workload.String()))
}

// refuses reports whether the victim's inbound side does not take a certificate.
func (s *siblings) refuses(id string) bool {
	s.t.Helper()
	cert, err := s.ca.Certificate(id, identity.IssueOptions{})
	require.NoError(s.t, err)
	addr := netip.AddrPortFrom(s.victim.at.Pod, firstPort)
	conn, err := mesh.DialDirect(s.ctx, addr, cert, s.ca.Roots("acme.example"), nil)
	if err != nil {
		return true
	}
	defer conn.Close()
	deadline, _ := s.ctx.Deadline()
	require.NoError(s.t, conn.SetDeadline(deadline))
	// With TLS 1.3 a client hears of a refusal when it reads, or when it writes.
	if _, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: web\r\n\r\n"); err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	require.NotErrorIs(s.t, err, os.ErrDeadlineExceeded)
	return err != nil
}

// undisturbed requires that the other tenant's streams got what changed for
// them, once, and had nothing to refuse.
func (s *siblings) undisturbed() {
	s.t.Helper()
	s.exactly(s.other, s.othersBefore, s.others.now, false)
	s.exactly(s.twin, s.before, s.theirs.now, s.sotw)
}

func (s *siblings) exactly(p *pod, before, now held, sotw bool) {
	s.t.Helper()
	type content struct {
		snapshot.Child
		version string
	}
	got := map[content]int{}
	for _, r := range s.told.of(p) {
		require.Empty(s.t, r.nack, "%s refused something", p.name)
		if sotw && (r.Type == snapshot.Cluster || r.Type == snapshot.Listener) {
			continue // whole sets, in which everything is repeated
		}
		for _, res := range r.Resources {
			got[content{child(res.Type(), res.Name()), res.Version()}]++
		}
	}
	for c, n := range got {
		most := 1
		if c.Type == snapshot.Endpoint && before[c.Child] == nil {
			most = 2 // it comes with its cluster, and once more because Envoy asks for it
		}
		require.LessOrEqual(s.t, n, most, "%s got %s %q", p.name, c.Type, c.Name)
		r := now[c.Child]
		if r == nil {
			r = snapshot.Absent(c.Type, c.Name)
		}
		require.Equal(s.t, r.Version(), c.version, "%s got %s %q as it is not", p.name, c.Type, c.Name)
		was := before[c.Child]
		if c.Type != snapshot.Endpoint { // an assignment follows its cluster, changed or not
			require.False(s.t, was != nil && was.Version() == c.version, "%s got %s %q though it did not change", p.name, c.Type, c.Name)
		}
	}
	require.NotEmpty(s.t, got)
}

// named requires that log and dump name the objects to blame.
func (s *siblings) named(objects []string, resources int) {
	s.t.Helper()
	until(s.ctx, s.t, "the dump names what is to blame", func() error {
		status := s.status(s.victim)
		if status == nil {
			return errors.New("there is no stream")
		}
		var blamed []tenancy.Ref
		for _, r := range status.Refused {
			blamed = append(blamed, r.Origins...)
		}
		for _, name := range objects {
			if !slices.Contains(blamed, ref(tenancy.KindService, name)) {
				return fmt.Errorf("%s is not named in %+v", name, status.Refused)
			}
		}
		if len(blamed) != len(objects) || len(status.Refused) != resources {
			return fmt.Errorf("others are named, too: %+v", status.Refused)
		}
		return nil
	})
	for _, name := range objects {
		require.Contains(s.t, s.refusals(), "acme-shop/"+name)
	}
	for _, p := range []*pod{s.other, s.twin} {
		if status := s.status(p); status != nil {
			require.Empty(s.t, status.Refused)
		}
	}
}

// refusals are the lines of the log that say that something was refused.
func (s *siblings) refusals() string {
	var lines []string
	for line := range strings.Lines(s.log.String()) {
		if strings.Contains(line, "part refused") || strings.Contains(line, "resource refused") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// refusedTogether are the NACKs of responses with several resources.
func (s *siblings) refusedTogether() (found []xds.Report) {
	for _, r := range s.told.of(s.victim) {
		if r.nack != "" && len(r.Resources) > 1 {
			found = append(found, r.Report)
		}
	}
	return found
}

// nacks are all that the victim refused.
func (s *siblings) nacks() (found []string) {
	for _, r := range s.told.of(s.victim) {
		if r.nack != "" {
			found = append(found, fmt.Sprintf("%s %d resources: %s", r.Type, len(r.Resources), r.nack))
		}
	}
	return found
}

// run is a subtest: what fails in do, fails there.
func (s *siblings) run(name string, do func()) {
	s.t.Helper()
	outer := s.t
	set := func(t *testing.T) { s.t, s.make.t, s.makeOther.t = t, t, t }
	ok := outer.Run(name, func(t *testing.T) {
		set(t)
		defer set(outer)
		do()
	})
	if !ok {
		s.t.FailNow() // what comes next would start from what nobody expects
	}
}

func TestPoisonDelaysNoSibling(t *testing.T) {
	for _, sotw := range []bool{false, true} {
		t.Run(map[bool]string{false: "delta", true: "sotw"}[sotw], func(t *testing.T) {
			s := setUpSiblings(t, sotw)
			s.revoked(false)
			for _, p := range poisons() {
				s.run(p.name, func() { s.poisoned(p) })
			}
			s.run("all", func() { s.poisoned(together(poisons())) })
		})
	}
}

// together is all poisons at once.
func together(all []poison) poison {
	sum := poison{name: "all"}
	for _, p := range all {
		sum.origins = append(sum.origins, p.origins...)
		sum.refused += p.refused
	}
	sum.put = func(s *state, had held) held {
		instead := held{}
		for _, p := range all {
			maps.Copy(instead, p.put(s, had))
		}
		return instead
	}
	return sum
}

// poisoned is the life of a poison: it arrives together with changes and
// revocations of everything beside it, stays while those change again, comes in
// another form, and is repaired.
func (s *siblings) poisoned(p poison) {
	had := s.theirs.now

	mine := s.next().revoke()
	instead := p.put(mine, had)
	s.publish(mine, s.nextOther().revoke())
	s.settled(instead)
	s.revoked(true)
	s.undisturbed()
	s.named(p.origins, p.refused)

	// The same place goes bad again: nobody else is refused together with it.
	mine = s.next()
	instead = p.put(mine, had)
	s.publish(mine, s.nextOther())
	s.settled(instead)
	s.revoked(false)
	s.undisturbed()
	s.named(p.origins, p.refused)
	if !s.sotw {
		require.Empty(s.t, s.refusedTogether(), "suspects were sent together with others")
	}

	// What is beside it changes, it does not: it is not sent again.
	again := s.next()
	instead = p.put(again, had)
	again.keepBad(mine)
	s.publish(again, s.nextOther())
	s.settled(instead)
	s.undisturbed()
	require.Empty(s.t, s.nacks())
	s.named(p.origins, p.refused)

	s.publish(s.next(), s.nextOther())
	s.settled()
	s.revoked(false)
	s.undisturbed()
	require.Empty(s.t, s.nacks())
	s.named(nil, 0)
}
