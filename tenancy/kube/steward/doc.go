// Package steward looks after what guards tenants in an API server: a finalizer
// keeps a Tenant honoured while a namespace carries its label, its status remembers
// which namespaces it has and had, and the admission policies that guard the label
// are missed aloud when they are not there.
//
// Invariants:
//
//  1. Serving needs none of this. What fails is returned, and tried again by the
//     next pass.
//  2. A Tenant that is deleted stays as long as a namespace carries its label, so
//     that nobody's deletion takes the mesh away from workloads that run, and as
//     long as names wait for certificates of its time, which it remembers.
//  3. Writes are on change only, and only by the replica that leads; every replica
//     has the metric.
package steward
