// Package kube is the source behind --kubeconfig and --in-cluster: the objects of
// one API server, followed by watches and turned into the events that the Model
// absorbs.
//
// Invariants:
//
//  1. Nothing is handed out before every kind was read completely, from reads
//     that are as new as their beginning: never from what an API server happens
//     to have cached.
//  2. A lost watch removes nothing: only a deletion that was seen, or a complete
//     read in which an object is missing, takes it away. An API server that is
//     away, slow, compacted or in error changes nothing but how old the data is,
//     which is told ([Report], metrics, log). After some seconds without a watch a
//     kind counts as followed again only when all that was missed was handed out.
//     Removals that come with the end of a CRD are handed out as doubtful, so that
//     what would widen something by its absence can be held.
//  3. What is applied follows from what is stored alone: after any outage it is
//     what a fresh start would read.
//  4. A bad object hurts only itself and keeps its last good version (see package
//     object for what gives access). Our kinds are decoded as strictly as in
//     files, so that a field which this version does not know refuses the object
//     and never widens it.
//  5. Nothing blocks a watch: whoever reads a change hands it on; until all kinds
//     were read changes are gathered by object, and bounded by their number.
//  6. Of an object nothing is kept, and of the API server's own kinds nothing is
//     decoded, but what the Model reads.
//  7. Of statuses only what Tenants remember of namespaces is read, and handed out
//     before anybody is served.
package kube
