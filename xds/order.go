package xds

import "bailiwick.dev/bailiwick/snapshot"

// what a step of a flush writes of its type.
type what uint8

const (
	// changes: additions, changes and answers, and what must follow the
	// parents that were written before.
	changes what = iota
	// children: only what must follow the parents.
	children
	// leftovers: assignments of clusters that are gone, emptied.
	leftovers
	// removals of what is gone.
	removals
)

// step is one line of the order.
type step struct {
	typ  snapshot.Type
	what what
	// parent is the type whose new and changed resources bring children of
	// typ along in this step; NumTypes for none.
	parent snapshot.Type
}

// order is what one flush writes, line by line, without waiting for ACKs in
// between. With it a service can be added, changed and removed under load
// without one failed request.
var order = [...]step{
	// A cluster must be known before anything refers to it.
	{snapshot.Cluster, changes, snapshot.NumTypes},
	// A new or changed cluster warms until its assignment arrives behind it,
	// same version or not; Envoy does not ask for it.
	{snapshot.Endpoint, changes, snapshot.Cluster},
	// It warms for its trust bundle, too.
	{snapshot.Secret, changes, snapshot.Cluster},
	{snapshot.Listener, changes, snapshot.NumTypes},
	// A secret that arrives before the first listener that names it is dropped,
	// even if it is ACKed: so these stand behind.
	{snapshot.Secret, children, snapshot.Listener},
	// RBAC; until it arrives the filter denies all.
	{snapshot.Extension, changes, snapshot.Listener},
	// A route to an unknown or warming cluster is a 503: behind the clusters.
	{snapshot.Route, changes, snapshot.Listener},
	// What goes, goes last: nothing refers to it any more.
	{snapshot.Endpoint, leftovers, snapshot.NumTypes},
	{snapshot.Listener, removals, snapshot.NumTypes},
	{snapshot.Cluster, removals, snapshot.NumTypes},
}

// changesOf is where a type's changes stand in the order.
var changesOf = func() (at [snapshot.NumTypes]int) {
	for i, line := range order {
		if line.what == changes {
			at[line.typ] = i
		}
	}
	return at
}()

// isSet reports whether a state-of-the-world response of type t is the whole
// set, so that absence removes. An empty first subscription of these means all.
func isSet(t snapshot.Type) bool { return t == snapshot.Cluster || t == snapshot.Listener }
