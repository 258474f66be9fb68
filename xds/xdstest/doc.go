// Package xdstest holds what tests of the protocol need: resources and a store
// to serve them from, a [Mesh] that runs the server over mTLS, and an [Oracle],
// which is go-control-plane's stock server over the same resources.
//
// Only tests import it.
package xdstest
