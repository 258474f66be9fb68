// Package kube has the end-to-end tests of the real server over a real API server:
// the same objects give the same bytes as files do, proxies keep everything while
// the API server is away, and a replica that lags behind widens nothing. Proxies
// are ADS clients that ask as Envoy does.
package kube
