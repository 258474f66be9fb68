// Package snapshot turns views into resources and holds them for the streams.
//
// Resources are pure functions of narrow inputs, encoded once and immutable.
// The Publisher owns the tenancy.Model and all layers: it absorbs events,
// waits as each tenant's window says, rebuilds what was touched and publishes
// it. Streams hold an Attachment and read layers at one generation.
//
// Invariants:
//
//  1. One goroutine, Publisher.Run, changes the model, the layers and what
//     attachments are bound to.
//  2. Equal inputs give equal bytes; an equal output stops the change: no new
//     generation, nobody woken.
//  3. A resource stands in a view's layer only if tenancy.Model.See says that
//     the view sees the service it was made from.
//  4. A workload layer is published before the views whose change goes with it.
//  5. What cannot be built keeps its last good bytes if it is data, and is
//     deny-all if it is a decision.
//  6. A layer exists only while a stream reads it or has read it lately; what
//     an event costs depends on who sees it, never on the size of the mesh.
//  7. Where a proxy is changes its assignments and nothing else, and only those
//     of services with endpoints for single zones or nodes: they stand in
//     Binding.Near. Nodes count within a tenant alone.
package snapshot
