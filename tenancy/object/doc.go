// Package object turns Kubernetes objects and those of group bailiwick.dev into
// the events that the Model absorbs. Both sources use it: the directory source
// through [DecodeAll], the Kubernetes source through the From functions.
//
// Invariants:
//
//  1. Decoding is strict: an unknown kind or field, a field given twice, a wrong
//     type, an out-of-range value or invalid UTF-8 is an error that names the
//     file, line, document, object and field. All errors of an object are
//     reported, not only the first.
//  2. What is said twice is not said: of a duplicate field neither value is used.
//  3. A bad object hurts only itself. Of data (Service, EndpointSlice, Pod,
//     Namespace, Tenant) there is no event, so that the last good one stays. What
//     gives access fails closed: a bad grant or request is an event that grants
//     nothing, a bad AccessPolicy one with Invalid set, whose selector can only
//     have become wider and whose unreadable action is Deny.
//  4. Every string of a returned object is valid UTF-8 and within the bounds of
//     its field; work and memory are bounded by the size of the document, YAML
//     aliases included.
//  5. Nothing here panics, whatever the bytes, and equal bytes give equal results.
package object
