// Package soak holds the long form of the end-to-end tests: churn on disk and a
// server that is killed in between, judged by the independent reference. make
// test runs a short series of it, make soak (BAILIWICK_SOAK=full) the long one.
package soak
