package updates

import (
	"errors"
	"fmt"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/xds"
)

// late is a service that comes together with poison and goes during an outage.
const late = "late"

// semantic spoils a cluster so that Envoy can name it: the others of the
// response are in use, though the response counts as refused.
func semantic(s *state) {
	name := "fresh"
	bad(s, child(snapshot.Cluster, name), &clusterv3.Cluster{
		Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		LoadAssignment: assignment(name, "host.invalid"),
	}, nil, "bad-address")
}

// has waits until the victim's Envoy has the cluster.
func (s *siblings) has(cluster string) {
	s.t.Helper()
	until(s.ctx, s.t, "the Envoy has "+cluster, func() error {
		got, err := contentsOf(s.ctx, s.victim)
		if err != nil {
			return err
		}
		if got[child(snapshot.Cluster, cluster)] == nil {
			return errors.New("it has not")
		}
		return nil
	})
}

func TestReconnectAfterNACKLeavesNoOrphan(t *testing.T) {
	for _, sotw := range []bool{false, true} {
		t.Run(map[bool]string{false: "delta", true: "sotw"}[sotw], func(t *testing.T) {
			s := setUpSiblings(t, sotw)

			// The connection breaks at the NACK, before anything can be mended: in
			// what Envoy says of itself, the new cluster is missing.
			var torn *doors
			s.told.hook(func(r xds.Report) {
				if r.Type == snapshot.Cluster && r.Pod == s.victim.name && torn == nil {
					torn = s.lis
					torn.hangUp()
				}
			})
			mine := s.next()
			s.make.service(mine, late, "acme.example", firstPort)
			semantic(mine)
			s.publish(mine, s.nextOther())
			s.has(clusterOf(late))
			until(s.ctx, t, "the stream is gone", func() error {
				if s.status(s.victim) != nil {
					return errors.New("it is open")
				}
				return nil
			})
			s.has(clusterOf(late))
			next := s.next()
			semantic(next)
			s.publish(next, s.nextOther())
			s.told.hook(nil)
			torn.open()
			s.settledAgain(held{child(snapshot.Cluster, "fresh"): nil})
			s.named([]string{"bad-address"}, 1)

			// A new server, after everything was mended: what goes in between goes.
			mine = s.next()
			s.make.service(mine, late, "acme.example", firstPort)
			l, err := s.make.b.TCPListener(s.victim.at.Bind, firstTCP+tcps, clusterOf(late), snapshot.Variant{Explicit: true, Bind: s.victim.at.Bind}, nil)
			require.NoError(t, err)
			mine.put(l)
			semantic(mine)
			s.publish(mine, s.nextOther())
			s.settledAgain(held{child(snapshot.Cluster, "fresh"): nil})
			s.stop()
			next = s.next()
			semantic(next)
			s.publish(next, s.nextOther())
			s.serve()
			s.settledAgain(held{child(snapshot.Cluster, "fresh"): nil})
			s.named([]string{"bad-address"}, 1)
			s.revoked(false)
		})
	}
}

// settledAgain waits until both Envoys hold what was published after a
// reconnect; the twin stays away.
func (s *siblings) settledAgain(instead held) {
	s.t.Helper()
	want := held{}
	for k, r := range s.theirs.now {
		if _, ok := instead[k]; !ok {
			want[k] = r
		}
	}
	s.holds(s.victim, want)
	s.holds(s.other, s.others.now)
	until(s.ctx, s.t, "the streams are open", func() error {
		for _, p := range []*pod{s.victim, s.other} {
			if s.status(p) == nil {
				return fmt.Errorf("%s has none", p.name)
			}
		}
		return nil
	})
}

// A cluster that waits for a secret, which never comes, keeps Envoy from
// answering for clusters. That holds nobody else back.
func TestClustersWithoutAnswerHoldNothingBack(t *testing.T) {
	for _, sotw := range []bool{false, true} {
		t.Run(map[bool]string{false: "delta", true: "sotw"}[sotw], func(t *testing.T) {
			s := setUpSiblings(t, sotw)
			mine := s.next()
			s.make.service(mine, late, "acme.example", firstPort)
			waitsForEver(mine)
			s.publish(mine, s.nextOther())
			waiting := held{child(snapshot.Cluster, clusterOf(late)): nil, child(snapshot.Endpoint, clusterOf(late)): nil}
			s.without(waiting)
			s.unanswered()

			for range 5 {
				// Who may call, first by itself and then with everything else.
				closed := s.make.state(s.generation).revoke()
				deny := child(snapshot.Extension, fmt.Sprintf("rbac-http-%d", firstPort+2))
				mine.put(closed.of[deny])
				s.theirs.publish(mine.all())
				s.until("svc-2", 403)
				s.unanswered()

				mine = s.next()
				s.make.service(mine, late, "acme.example", firstPort)
				waitsForEver(mine)
				s.theirs.publish(mine.all())
				s.until("svc-2", 200)
				s.without(waiting)
				s.unanswered()
			}

			// When the cluster goes, all is answered.
			s.publish(s.next(), s.nextOther())
			s.settled()
			s.named(nil, 0)
			for _, r := range s.told.of(s.victim) {
				require.Empty(t, r.nack)
			}
		})
	}
}

// waitsForEver makes the late cluster wait for a secret without a limit.
func waitsForEver(s *state) {
	s.m.t.Helper()
	c := child(snapshot.Cluster, clusterOf(late))
	spoil(s, c, &clusterv3.Cluster{}, "silent", func(m *clusterv3.Cluster) {
		var tls tlsv3.UpstreamTlsContext
		require.NoError(s.m.t, m.GetTransportSocket().GetTypedConfig().UnmarshalTo(&tls))
		tls.GetCommonTlsContext().GetCombinedValidationContext().ValidationContextSdsSecretConfig = &tlsv3.SdsSecretConfig{
			Name: "bundle/nobody.example", SdsConfig: &corev3.ConfigSource{
				ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
				ResourceApiVersion:    corev3.ApiVersion_V3, InitialFetchTimeout: durationpb.New(0 * time.Second),
			},
		}
		m.TransportSocket.ConfigType = &corev3.TransportSocket_TypedConfig{TypedConfig: packed(s.m.t, &tls)}
	})
}

// without waits until the victim's Envoy holds what was published, but for some.
func (s *siblings) without(instead held) {
	s.t.Helper()
	want := held{}
	for k, r := range s.theirs.now {
		if _, ok := instead[k]; !ok {
			want[k] = r
		}
	}
	s.holds(s.victim, want)
}

// until asks a service until it answers with a status.
func (s *siblings) until(service string, status int) {
	s.t.Helper()
	until(s.ctx, s.t, fmt.Sprintf("%s answers with %d", service, status), func() error {
		if got := s.get(service); got != status {
			return fmt.Errorf("it answers with %d", got)
		}
		return nil
	})
}

// unanswered requires that the victim owes an answer about clusters.
func (s *siblings) unanswered() {
	s.t.Helper()
	for _, r := range s.told.of(s.victim) {
		if r.Type == snapshot.Cluster && !r.answered {
			return
		}
	}
	require.Fail(s.t, "all clusters are answered: nothing was tried")
}
