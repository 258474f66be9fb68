// Package policy is the normal form of access policies: who may call one Pod
// port, with every name already resolved to SPIFFE IDs and namespaces. The RBAC
// compiler and [Port.Decide] read the same classes, so that what is explained
// is what is enforced.
//
// Invariants:
//
//  1. The order of judgement is: a missing token where one is required and
//     several URI SANs (both refused), Denies of tier Admin, tenant floor, Allows
//     and Passes of tier Admin, the tenant's Denies, its Allows, tier Baseline,
//     default. Above the floor there are only refusals.
//  2. In tier Admin Denies come first; Allows and Passes, and in tier Baseline all
//     three, are judged in the order of Rules, and the first that matches decides.
//     A Pass ends the judgement of its tier alone: it does not undo a Deny of
//     Admin, nor lead past the tenant's. Baseline is not asked where
//     [Port.AllowSelected] is set.
//  3. Audit, and every rule with Observe, changes no [Decision] and no SAN.
//     [Port.Observed] is the port as if what observes were enforced, and
//     [Port.Audits] what Audit records.
//  4. Zero values admit nobody: a zero [Port] denies every caller, zero
//     [Principals] match none, a zero [Decision] is a refusal.
//  5. A principal outside the floor appears in no class, so an exact ID written
//     into a policy never widens it.
//  6. Classes are a partition: an exact ID belongs to its own class if it has
//     one, else to that of its namespace. Prefixes end in "/sa/".
//  7. A caller without a certificate has no tenant and is in no class: on a
//     [Port.Permissive] port [Port.Plain] judges it, by the rules that name
//     [Principals].Plaintext and nothing else, and refuses what none of them
//     allows; on any other port it is refused.
//  8. Claims are read only from a verified token of the provider that the match
//     names. Without one, a match with a provider never matches. Where
//     [Port.TokenRequired] is set an HTTP port refuses a request without a token
//     before any rule is asked.
//  9. What a TCP port cannot judge is never widened: an Allow with request
//     conditions allows nothing, a Deny with them denies its sources, a Pass of
//     Admin passes all of its sources' calls and one of Baseline denies them.
//  10. [Port.SANs] admits nobody whom [Port.Decide] refuses.
//  11. Equal ports give equal classes, in equal order.
package policy
