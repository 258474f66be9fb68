// Package netns tests transparent capture: Pods that are network namespaces, with
// the rules of `bailiwick iptables` in them, an application and an Envoy each. It
// needs Linux and root. There is nothing to import.
//
// TestCapture takes its objects from files. TestCluster has a whole installation
// on an API server, with Pods as the injector makes them; what controllers and
// kubelets do there the test does.
//
// What holds:
//
//  1. The tests run in a network namespace of their own, the node: the test
//     binary starts itself there once more. Links, addresses, rules and
//     namespaces are the kernel's to remove when the last process is gone,
//     however it went; the machine's own network is never touched, and several
//     runs do not meet.
//  2. Virtual IPs belong to nobody. The only route to them leads into an
//     interface that swallows what it gets, so an answer proves the capture.
//  3. What is counted is compared with exact numbers, and every refusal with a
//     control that gets through. Nothing sleeps and nothing is timed.
package netns
