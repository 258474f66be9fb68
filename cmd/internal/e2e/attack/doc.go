// Package attack holds the attacks on the boundary between tenants, as a table
// (attack_test.go): who attacks, what is tried, and what it gets. Each runs
// against the real program with real certificates, and where the wall is the
// proxy's, against the real Envoy. A row fails when its defence is taken out.
package attack
