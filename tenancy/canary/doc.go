// Package canary makes the objects of a tenant in which every name, string and
// address is marked as that tenant's, for tests that look for the marks where
// they must not be. Nothing but tests imports it.
//
// What holds:
//
//  1. Each string field of each kind of tenancy/v1alpha1, and each string or
//     address that the model keeps of any object, is somewhere in the documents
//     with a mark: a test finds the fields by reflection, so that a new kind or
//     field fails until it has a canary.
//  2. Each kind is there in thirty nasty forms, of which most cannot be honoured.
//  3. A tenant has live grants with its Peer, both ways. To its Stranger it
//     offers what that does not ask for, and asks for what is not offered: those
//     two must not hear of each other.
package canary
