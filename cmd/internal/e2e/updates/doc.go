// Package updates holds the end-to-end tests of change: what becomes of traffic
// and of proxies while their configuration is replaced, and while some of it is
// bad. There is nothing to import.
//
// What holds:
//
//  1. Proxies are real Envoys with explicit capture on loopback. Where what is
//     tested can be written down as objects, the server is the real program;
//     where something must get past all checks, it is package xds over layers
//     that the test publishes itself.
//  2. What a proxy ought to hold is compared with what it says that it holds,
//     message by message, not only by name.
//  3. Nothing sleeps and nothing is timed: whatever takes a while is asked for
//     until it is so, or until the test's context ends. What must not happen is
//     counted.
package updates
