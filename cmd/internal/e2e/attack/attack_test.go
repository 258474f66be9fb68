package attack

import (
	"testing"
)

// attack is one row: who attacks, what is tried, and what the attacker gets.
type attack struct {
	id, who, tries, gets string
	// run is the attack. It gets the world that all rows share and must leave as
	// it was; what changes objects for good makes one of its own.
	run func(w *world)
}

// attacks are the catalogue. T11 (host names claimed at a gateway), T18 (tokens
// of users) and T20 (passthrough at a gateway) are attacks on what does not
// exist here: there are no gateways and no JWT. T36 (a takeover of the server
// spreads) is about the rights that it has in Kubernetes, which are golden where
// its manifests are.
var attacks = []attack{
	{"T01", "sidecar", "forges node id, cluster, locality and metadata", "the bytes of its certificate's workload", forgedNode},
	{"T02", "sidecar", "sends another node in the middle of a stream", "the bytes of its certificate's workload", nodeMidStream},
	{"T03", "sidecar", "calls every other method and service", "PermissionDenied or Unimplemented", otherMethods},
	{"T04", "thief of a token", "presents it with no certificate, or with one of its own", "no handshake; its own bytes", stolenToken},
	{"T05", "sidecar", "asks for every name of the victim in every type", "what a random name gets", foreignNames},
	{"T06", "sidecar", "asks by wildcard, empty list, glob and foreign authority", "its own", wildcards},
	{"T07", "sidecar", "states versions and nonces of the victim's", "what random ones get", oracles},
	{"T09", "sidecar", "asks for secrets", "trust bundles of those it may call, never a key", secretTheft},
	{"T10", "tenant, stranger", "asks the ports of the server for dumps", "nothing but health and metrics", debugPorts},
}

func TestAttacks(t *testing.T) {
	w := newWorld(t, nil)
	for _, a := range attacks {
		t.Run(a.id, func(t *testing.T) {
			if testing.Verbose() {
				t.Logf("%s %s: gets %s", a.who, a.tries, a.gets)
			}
			a.run(w.in(t))
		})
	}
}
