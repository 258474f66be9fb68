// Package kubetest runs a real kube-apiserver over a real etcd for tests, on
// loopback and random ports, and does to them what happens to API servers: they
// are killed, paused, restarted, compacted, and their connections cut ([Gate]).
//
//	c := kubetest.New(t)                       // or Shared, one per package
//	client := kubernetes.NewForConfigOrDie(c.REST(kubetest.Admin))
//
// Without the binaries (make kubernetes builds them; KUBEBUILDER_ASSETS names a
// folder that has them) tests are skipped, and fail where CI is "true".
//
// There is no controller manager and no scheduler: whoever wants EndpointSlices or
// running Pods writes them. There is no kubelet either: a deleted Pod is gone at
// once if the grace period is 0.
package kubetest
