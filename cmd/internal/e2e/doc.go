// Package e2e holds the end-to-end tests: the real program, real Envoys of two
// tenants, real mTLS and real files. There is nothing to import.
//
// What holds:
//
//  1. A test sees what a user sees: requests, what Envoys say on their admin
//     address, the server's metrics, dumps, exit codes and messages.
//  2. What ought to be is computed from the YAML in testdata by package
//     reference and by the naive code here, never by the code under test.
//  3. Nothing sleeps and nothing is timed: whatever takes a while is asked for
//     until it is so, or until the test's context ends.
//  4. A test has a directory, authorities, processes of its own. Addresses are
//     its process's own (see claimAddresses), so that several may run at once.
package e2e
