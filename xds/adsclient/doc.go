// Package adsclient is an ADS client that remembers what a proxy would: per
// type URL the resources it has, their versions and bytes, and what it is
// subscribed to. It speaks both flavours of the protocol.
//
// The demo shows with it what a server gives to a workload, the benchmarks
// load a server with it, and tests read from it what a stream has carried, down
// to the byte.
//
// Invariants:
//
//  1. Responses are read by one goroutine per client, which [Client.Close] and
//     [Client.Reconnect] end. It sends the ACKs, so that nobody has to poll.
//  2. Bytes are taken from the wire as they came: a response is scanned for
//     names and versions and never decoded and encoded again.
//  3. The state holds what the client is subscribed to. What a server sends
//     beyond that is in the log and nowhere else, as a proxy drops it too.
//  4. A request is built and sent in one step under one lock: the server sees
//     subscriptions in the order in which they were made.
package adsclient
