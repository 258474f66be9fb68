// Package tenancy is the model of who may see and call what. It is pure Go: no
// Envoy type, no Kubernetes client. Sources hand it Events; it keeps indexes
// and answers three questions: what does an event touch, what does a view hold,
// who may call a workload.
//
// Invariants:
//
//  1. A workload's tenant is decided by trust domain and namespace together:
//     the Namespace object's label names a Tenant that exists, admits the
//     namespace, is not suspended and has an accepted trust domain, and the
//     workload's trust domain is that Tenant's. Otherwise it is nobody.
//  2. One function, Model.see, decides visibility. See, Visible, what is
//     touched, and the tenant floor of every Pod port go through it, so nobody
//     can be let in who may not see.
//  3. A grant is inert until requested: it neither shows a service nor touches
//     anything of anybody.
//  4. An event touches an open view only if that view saw the service before
//     the event or sees it after; both sides of a change are touched.
//  5. The cost of an event is that of what it touches. It does not grow with
//     tenants, namespaces or services that do not see it, nor with requests
//     that nobody granted.
//  6. The state depends on the objects, not on the order in which they came;
//     conflicts are decided by creation time, then by name.
//  7. Nothing widens by being left out: an Allow over the limit or invalid
//     still selects and allows nothing, a Deny is never dropped, and an invalid
//     Deny denies whatever it selects.
//  8. Problems name things of the object's own tenant alone, and read the same
//     whether a thing of another tenant is missing or withheld. Accounts of
//     another tenant's namespaces are never listed in a WorkloadSpec.
//  9. An endpoint counts only if an eligible Pod of its service's namespace has
//     its address.
//  10. Where a proxy is, is what the EndpointSlices of its Pod say. Who uses some
//     endpoints alone, PortSpec.Near alone decides, by facts of the service.
//
// A Model is owned by one goroutine; what it hands out is immutable.
package tenancy
