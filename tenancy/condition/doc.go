// Package condition says of objects what becomes of them: the conditions
// Accepted, ResolvedRefs and Programmed, from what the source, the model and the
// proxies report. It is pure: whoever has a place for conditions (the admin
// address, the API server) asks a [Board] and writes down what it answers.
//
// Invariants:
//
//  1. The conditions of an object follow from the object, its problems and the
//     proxies of its own namespace (of a Tenant: of its own namespaces) alone. A
//     proxy that hangs, refuses or lies moves no condition of another tenant's.
//  2. Texts are made from the object itself and from tenancy.Problem, which name
//     things of the object's own tenant alone; no text of a proxy is among them.
//  3. Every condition carries the generation that it speaks of. While it is not
//     known whether a generation has arrived, what was said before stays.
//  4. A [Report] holds exceptions only and is bounded, with a share per tenant:
//     one tenant's many faults never hide another's.
//  5. Equal facts give equal conditions; a transition time changes with the
//     status of its condition and with nothing else.
package condition
