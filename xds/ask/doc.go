// Package ask is what tenants may ask the server on its xDS port: why a call is
// allowed or denied, who may call whom, what their tenant is. ask.proto is the
// contract; everything in it is made by package tenancy/read for the scope of
// the workload whose certificate the connection has.
package ask
