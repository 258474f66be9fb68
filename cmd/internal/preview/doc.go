// Package preview says what a change of the objects would do before it is made:
// it builds what every proxy would get of the objects as they are and as they
// would be, with the server's own builders, and compares.
//
// Every Pod that could have a proxy is taken to have one, under transparent
// capture. Trust bundles are the server's: one small CA stands for each.
package preview
