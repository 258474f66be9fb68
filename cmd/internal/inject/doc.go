// Package inject puts Envoy and what it needs into Pod templates: two init
// containers that set iptables rules and write the bootstrap, then Envoy as a
// native sidecar, before whatever else the Pod has.
//
// What holds:
//
//  1. The result is a pure function of the document and the [Config]; nothing is
//     asked. Injecting twice is injecting once, and injecting with another
//     configuration leaves nothing of the first.
//  2. Documents without a Pod template come out byte for byte, as do those that
//     opt out and hold nothing of ours. Of a template only what is ours changes:
//     containers, probes, volumes and fields that are not known here stay.
//  3. What would not work in the cluster is an error here: the host's network, an
//     application that runs as Envoy's user or takes Envoy's ports, a probe over
//     TLS. All errors of a file are reported, and then nothing is printed.
//  4. All names of ours begin with "bailiwick-".
package inject
