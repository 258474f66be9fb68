// Command bench measures what a change costs and how long it takes, with the
// stock go-control-plane server and raw TLS writes beside ours in one run.
// README.md has the method and the results.
//
// Invariants:
//
//  1. Server and clients are processes of their own, started from this very
//     program. CPU is the kernel's count of a whole process, so that nobody's
//     work is taken for somebody else's.
//  2. All that is compared runs in one invocation, over mTLS on loopback, with
//     the same clients.
//  3. Every byte that a client receives is searched for other tenants' names
//     where the scenario says so; a single one fails the run.
//  4. Every wait is bounded. A run that cannot be finished fails; it does not
//     report what it has not seen.
package main
