// Package guard stands between a source and whoever absorbs its events, and
// holds removals that look like an accident: many objects of a kind at once, or
// a Tenant that namespaces still belong to. What is held stays honoured as it
// was, until it comes back, or until somebody confirms that it is to go.
//
// Invariants:
//
//  1. A revocation is never held: the removal of a ServiceGrant, a
//     ServiceRequest, a ClusterServiceGrant or a policy that allows passes at
//     once. So does every object that is there, whatever it says.
//  2. Held objects are those of removals alone; an object that comes back is what
//     it is then.
//  3. Tenants are counted apart: what one removes holds nothing of another's. An
//     accident that takes a little of everybody counts without the tenant that
//     lost most.
//  4. A removal that the source doubts is held until the source says that it is
//     meant, however few there are: a kind may be going as a whole.
//  5. The guard remembers nothing over a restart: what is gone at the first load
//     is gone.
package guard
