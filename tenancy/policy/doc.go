// Package policy is the normal form of access policies: who may call one Pod
// port, with every name already resolved to SPIFFE IDs and namespaces. The RBAC
// compiler and [Port.Decide] read the same classes, so that what is explained
// is what is enforced.
//
// Invariants:
//
//  1. The order of judgement is: several URI SANs (denied), tenant floor, Deny
//     rules, Allow rules, default. Nothing stands above the floor.
//  2. Zero values admit nobody: a zero [Port] denies every caller, zero
//     [Principals] match none, a zero [Decision] is a refusal.
//  3. A principal outside the floor appears in no class, so an exact ID written
//     into a policy never widens it.
//  4. Classes are a partition: an exact ID belongs to its own class if it has
//     one, else to that of its namespace. Prefixes end in "/sa/".
//  5. What a TCP port cannot judge is never widened: an Allow with request
//     conditions allows nothing, a Deny with them denies its sources.
//  6. [Port.SANs] admits nobody whom [Port.Decide] refuses.
//  7. Equal ports give equal classes, in equal order.
package policy
