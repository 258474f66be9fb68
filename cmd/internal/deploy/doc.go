// Package deploy tests what deploy/ installs, on a real API server: the CRDs and
// what they admit, the chart and the manifests made from it, the admission
// policies, and the roles of people and of the server.
package deploy
