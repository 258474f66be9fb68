// Demo is the newcomer's first command: a mesh of several tenants on this
// machine, of the real server, one real Envoy and one small application per Pod
// that the directory names. It prints what each Envoy knows, calls everybody
// from everywhere, compares each result with what the policies say, changes the
// directory and measures when requests behave differently.
//
// What holds:
//
//  1. What is printed as seen or called was read from an Envoy or answered by an
//     application; what is expected comes from the model alone, read anew from
//     the directory after each change. Neither is used to make up for the other.
//  2. The exit code is 0 only if both agreed in every cell, and every change
//     arrived.
//  3. The directory it was given is copied, never changed.
package main
