// Package xds serves a store of resources to Envoys over ADS, in the delta and
// in the state-of-the-world flavour of the protocol.
//
// A stream has all state of its client, and one goroutine at a time has the stream
// (turn.go). It is given a turn by the store or for a request, reads what its client
// lacks under one generation of each layer, and writes it in the order of the table
// in order.go. While it has nothing to do it is no more than the goroutine that
// waits for its next request.
//
// Invariants:
//
//  1. Identity comes from the certificate of the connection. Every RPC is
//     authenticated, what is not listed is denied, and a connection does not
//     outlive its certificate or its identity's tenant.
//  2. A response holds nothing that is not in the layers that the stream's
//     identity is bound to. There is one way from a name to a resource
//     (lookup), and a name of somebody else is answered like one of nobody.
//  3. A response depends on what its key says and on nothing else, so that
//     streams that stand at the same place share one encoded body. Nothing in
//     it counts or hashes more than its own content; nonces count the responses
//     of one stream.
//  4. What a stream remembers does not grow with what there is to serve: per
//     type a binding, three generations and a shared set of names; besides
//     that, what is unanswered (bounded in bytes), the composites that it has
//     acknowledged, and what it has refused.
//  5. A slow client delays itself only: a type with too much unanswered waits,
//     and then gets the latest state. No type waits for another one.
//  6. Every subscribe is answered, but for a Secret that is not there: Envoy has
//     no way to be told so that would not open or keep open what should wait.
//  7. A NACK is the statement of one peer. It changes what that stream is sent,
//     and how batches of its tenant are cut; it withholds nothing from another
//     stream. RBAC that a client refuses is closed at that client.
//  8. Whatever happens, a client that answers ends with what its layers hold,
//     but for what it refuses.
//  9. While what is served is known to be behind, a client that says what it has
//     is told nothing: it may come from a server that has taken away what this
//     one would give back. That holds back what this server knows to be revoked,
//     too, be it one kind alone that is behind: of a client's RBAC it knows the
//     version and not the content, so that it cannot tell what of its own would
//     narrow it, and to deny all would end what works. Clients that were there
//     before are told everything that is known, all the time.
package xds
