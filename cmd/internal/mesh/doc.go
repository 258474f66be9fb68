// Package mesh puts a whole mesh on one machine, of real processes: a throw-away
// certificate authority per trust domain ([CA]), the server ([Server]), Envoys
// ([Envoy]) with an application each ([Echo], [TCPEcho]), and clients that go
// through an Envoy ([Through]) or past it ([Direct]). The demo and the end-to-end
// tests are made of it; it knows neither a test framework nor a terminal.
//
// What holds:
//
//  1. Everything is on loopback: a workload has three addresses of 127.0.0.0/8,
//     one where its Envoy takes what comes in (the Pod's address), one where it
//     takes what the application sends (bind address), and the application's own
//     ([Addresses]). No root is needed, and ports never clash between workloads.
//  2. Whatever is started ends: with Stop, with the context it was started
//     under, and (on Linux) with this process, however that one ends. Processes
//     are ended by their own id.
//  3. Whatever waits ends with its context, and says what it waited for and what
//     the process said last.
//  4. Configuration of a proxy is what package bootstrap makes: the harness has
//     no Envoy configuration of its own.
package mesh
