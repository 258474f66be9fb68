// Package read is the one path by which people learn what the Model knows: why
// a call is allowed or denied, who may call whom, what a tenant has. It decides
// nothing: visibility is asked of Model.See, calls of policy.Port.
//
// Invariants:
//
//  1. Every answer is made for a [Scope], and nothing outside of it is in it.
//     The zero Scope knows nothing.
//  2. A tenant's scope holds its own namespaces (its one namespace, where the
//     Tenant's visibility is Namespace), and what live grants reveal: of a
//     granted service its name and ports, of a consumer its tenant and
//     namespaces; and the names of the platform's policies about its own
//     workloads, which their proxies have in their RBAC. Everything else reads
//     as if it were not there: the answer for a foreign name is that for a name
//     that nobody has.
//  3. Where an answer would need what the scope may not read it says so, as
//     "unknown: may not read X", and does not guess. Nor does it tell whether
//     there is any such X.
//  4. Equal models and questions give equal answers.
package read
