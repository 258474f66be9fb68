package attack

import (
	"context"
	"slices"
	"testing"
)

// attack is one row: who attacks, what is tried, and what the attacker gets.
type attack struct {
	id, who, tries, gets string
	// run is the attack. It gets the world that all rows share and must leave as
	// it was; what changes objects for good makes one of its own.
	run func(w *world)
}

// attacks are the catalogue. T11 (host names claimed at a gateway) and T20
// (passthrough at a gateway) are attacks on what does not exist here: there are
// no gateways. What T18 says of keys that are fetched is tested in package
// snapshot, beside what fetches them. T36 (a takeover of the server spreads) is
// about the rights that it has in Kubernetes, which are golden where its
// manifests are.
var attacks = []attack{
	{"T01", "sidecar", "forges node id, cluster, locality and metadata", "the bytes of its certificate's workload", forgedNode},
	{"T02", "sidecar", "sends another node in the middle of a stream", "the bytes of its certificate's workload", nodeMidStream},
	{"T03", "sidecar", "calls every other method and service", "PermissionDenied or Unimplemented", otherMethods},
	{"T04", "thief of a token", "presents it with no certificate, or with one of its own", "no handshake; its own bytes", stolenToken},
	{"T05", "sidecar", "asks for every name of the victim in every type", "what a random name gets", foreignNames},
	{"T06", "sidecar", "asks by wildcard, empty list, glob and foreign authority", "its own", wildcards},
	{"T07", "sidecar", "states versions and nonces of the victim's", "what random ones get", oracles},
	{"T08", "sidecar", "listens for the victim's changes", "silence", listening},
	{"T09", "sidecar", "asks for secrets", "trust bundles of those it may call, never a key", secretTheft},
	{"T10", "tenant, stranger", "asks the ports of the server for dumps", "nothing but health and metrics", debugPorts},
	{"T12", "tenant", "refers to the victim's things in every field that can refer", "NotAvailable, and no byte", foreignReferences},
	{"T13", "tenant", "has names near the victim's", "403", nearNames},
	{"T13", "tenant, other CA", "has namespaces, accounts and a trust domain that begin like the victim's", "its own view; 403; no pin", lookAlikes},
	{"T14", "CA of another domain", "mints the same path", "no handshake", samePath},
	{"T15", "holder of an odd certificate", "shows none, two or other SANs", "no stream", oddCertificates},
	{"T16", "caller", "writes a denied path in every other way", "403, 400, or the path that was judged", pathTricks},
	{"T17", "caller", "sends the headers that say who calls", "its own identity", spoofedHeaders},
	{"T18", "caller", "shows tokens of other issuers, keys, audiences and times", "401 or 403", tokenConfusion},
	{"T19", "tenant", "plants the victim's address among its endpoints", "no endpoint, or a failed handshake", plantedEndpoints},
	{"T21", "flooding tenant", "subscribes to hundreds of thousands of names", "ResourceExhausted", manyNames},
	{"T22", "sidecar", "opens streams with ever new node ids", "state that ends with them", nodeSpray},
	{"T23", "sidecar", "does not read", "a full window; others are served", slowReader},
	{"T24", "flooding tenant", "has thousands of services that change", "its own window; others are served at once", bigTenant},
	{"T25", "sidecar", "NACKs and ACKs without end", "ResourceExhausted", ackFlood},
	{"T26", "tenant", "opens more streams than it may", "ResourceExhausted; others come in", streamFlood},
	{"T27", "stranger", "sends garbage, stalls handshakes, resets streams", "a closed connection", rudeConnections},
	{"T27", "sidecar", "does not read, reads by the byte, never answers, refuses without end", "buffers that are bounded and freed", rudeStreams},
	{"T27", "stranger", "opens and drops connections without end", "nothing that stays", connectionStorm},
	{"T28", "tenant", "writes invalid UTF-8", "an error of that object", invalidUTF8},
	{"T29", "tenant", "writes objects that break builders", "an error of that object", brokenObjects},
	{"T30", "tenant", "writes bombs of YAML and regular expressions", "an error of that object", bombs},
	{"T31", "sidecar", "puts names of its own into metrics", "no new series", metricLabels},
	{"T32", "sidecar", "forges lines of the log", "one quoted line", logInjection},
	{"T33", "tenant", "reads what is said of its objects", "words about its own", statusTexts},
	{"T34", "consumer", "goes on with a grant that is revoked", "403 on the open connection", staleRevoke},
	{"T35", "caller", "calls a workload before its policies are there", "403", startGap},
	{"T37", "operator's oversight", "runs an old Envoy", "a mark and a metric", oldEnvoy},
	{"T38", "accepted CA", "mints the victim's namespace", "the empty view; 403; no pin", mintedNamespace},
	{"T39", "holder of two names", "shows a certificate of its domain that also names the victim's", "no stream; 403", twoNames},
	{"T40", "liar", "NACKs everything with forged texts", "nothing of another's changes", liar},
	{"T41", "mute", "never answers", "nothing of another's waits", mute},
	{"T42", "tenant", "fills its limits and poisons its policies before a revocation", "the revocation", limitShield},
	{"T43", "former owner", "comes with an SVID from before the namespace changed hands", "nothing until it has expired", reusedNamespace},
	{"T44", "thief of an SVID", "connects from elsewhere; the tenant is suspended", "PermissionDenied; the empty view", stolenSVID},
	{"T44", "thief of an SVID", "goes on with a connection after an Admin Deny of its SPIFFE ID", "403 on the open connection; others 200", stolenDenied},
	{"T45", "generous tenant", "offers thousands of grants", "nothing of another's changes", unwantedGifts},
	{"T46", "tenant", "toggles a policy and a grant without end", "its own window", toggling},
	{"T47", "tenant", "writes others' objects into its folder", "an error; the owner's stays", sharedDirectory},
}

// byAPIServer are the rows that are run over a real API server as well: those in
// which it matters where objects, their owners and their statuses are.
var byAPIServer = []string{"T08", "T12", "T33", "T40", "T41", "T42", "T43", "T45", "T46"}

// apiServerAttacks are the rows that there are only there.
var apiServerAttacks = []attack{
	{"T43", "former owner", "waits for a crash of the server, or makes the change meanwhile", "nothing until it has expired", reusedOverRestart},
	{"T47", "tenant", "writes others' objects, labels and statuses with all rights in its namespaces", "Forbidden; not one message to the victim", foreignWrites},
}

func (a *attack) in(t *testing.T, w *world) {
	t.Run(a.id, func(t *testing.T) {
		if testing.Verbose() {
			t.Logf("%s %s: gets %s", a.who, a.tries, a.gets)
		}
		a.run(w.in(t))
	})
}

func TestAttacks(t *testing.T) {
	w := newWorld(t, nil, nil)
	for _, a := range attacks {
		a.in(t, w)
	}
}

func TestAttacksByAPIServer(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*patience)
	defer cancel()
	w := &world{t: t, ctx: ctx, cluster: newCluster(t)} // without a server: each row has its own
	for _, a := range attacks {
		if slices.Contains(byAPIServer, a.id) {
			a.in(t, w)
		}
	}
	for _, a := range apiServerAttacks {
		a.in(t, w)
	}
}
