// Package bootstrap makes the static configuration of the mesh's Envoys and the
// SDS files that belong to it. Everything else reaches an Envoy over ADS.
//
// What holds:
//
//  1. ADS runs over mutual TLS with the server's SPIFFE ID pinned: one exact URI
//     SAN, verified with the bundle of the server's own trust domain.
//  2. No certificate and no key is in the bootstrap. They come from SDS, from
//     files or from a socket: Envoy never reads a plain file name again, but
//     follows SDS through every rotation.
//  3. The workload's own certificate is the secret "default" in the file
//     svid/sds.json, relative to Envoy's working directory, or of the static
//     cluster "sds". The server's clusters and listeners refer to it by these
//     names, so they are the same for all proxies. [SecretName], [SecretFile] and
//     [SDSCluster] are part of the contract between server and bootstrap.
//  4. The node says which Pod this is and how its traffic is captured. It says
//     nothing about identity: the server reads that from the certificate.
//  5. No fetch timeout is zero, which would let Envoy wait for ever.
//  6. The output is a pure function of [Config], byte for byte.
package bootstrap
