// Package identity says who somebody is. It is the only place where a peer is
// named: everything that depends on identity elsewhere takes a [Workload] that
// was read from a verified certificate by [FromContext].
//
// What holds:
//
//  1. A name is never taken from a message. [FromContext] reads the leaf
//     certificate of the TLS connection and nothing else.
//  2. A workload is trust domain, namespace and service account together. An ID
//     of any other form than spiffe://<td>/ns/<namespace>/sa/<account> is no
//     workload, and namespace and account are DNS names, so no ID can carry a
//     separator, a comma or a regular expression into configuration made of it.
//  3. A peer has exactly one URI SAN, of an allowed trust domain, and its chain
//     ends in the bundle of that domain. No other domain's bundle is asked.
//  4. Nothing is resumed: session tickets are off, so every connection verifies
//     the certificate that it presents ([ServerTLS]).
//  5. A rotation that cannot be read changes nothing: a [Source] keeps what it
//     had, says so in the log, and takes the next good one. Certificate pair and
//     bundles are judged apart, so that a broken pair does not hold back the
//     withdrawal of an authority.
//  6. Prefixes of SPIFFE IDs end in "/" ([NamespacePrefix]).
//
// The [Authority] is a throw-away certificate authority for demos and tests. It
// is not meant to be run for others.
package identity
