package xds

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
)

// maxPodName is the longest name a Kubernetes object can have.
const maxPodName = 253

// podOf reads the Pod's name from a node id of the form namespace/pod. Another
// namespace than the verified one's names no Pod: the node picks among the Pods
// of an identity and can claim nothing.
func podOf(node *corev3.Node, w identity.Workload) string {
	namespace, pod, ok := strings.Cut(node.GetId(), "/")
	if !ok || namespace != w.Namespace || len(pod) > maxPodName || strings.Contains(pod, "/") {
		return ""
	}
	return pod
}

// Oldest release of Envoy that is tested against.
const oldestMajor, oldestMinor = 1, 37

// filterMinor is the first release whose resolver filters addresses.
const filterMinor = 39

// releaseOf reads the release of a client from its node, and whether that is
// one with known holes. It is what the client says, for the operator to see.
func releaseOf(node *corev3.Node) (release string, old bool) {
	v := node.GetUserAgentBuildVersion().GetVersion()
	if v == nil {
		return "", false
	}
	release = fmt.Sprintf("%d.%d.%d", v.GetMajorNumber(), v.GetMinorNumber(), v.GetPatch())
	return release, !atLeast(v, oldestMinor)
}

// atLeast reports whether a version is a release of 1.minor or newer.
func atLeast(v *typev3.SemanticVersion, minor uint32) bool {
	return v.GetMajorNumber() > oldestMajor || v.GetMajorNumber() == oldestMajor && v.GetMinorNumber() >= minor
}

// filtersAddresses reports whether a client says that it is a release that can
// refuse internal addresses when it resolves a name. Older ones refuse the
// configuration that asks for it. A client that lies is given what it cannot
// use, or less: it has the keys of no issuer, and admits no token.
func filtersAddresses(node *corev3.Node) bool {
	return atLeast(node.GetUserAgentBuildVersion().GetVersion(), filterMinor)
}

// metadataKey is the field of the node's metadata that is ours.
const metadataKey = "bailiwick"

// variantOf reads how a proxy wants its own listeners. What cannot be read has
// its default.
func variantOf(node *corev3.Node, log *slog.Logger) snapshot.Variant {
	fields := node.GetMetadata().GetFields()[metadataKey].GetStructValue().GetFields()
	switch capture := fields["capture"].GetStringValue(); capture {
	case "", "transparent":
		return snapshot.Variant{}
	case "explicit":
	default:
		log.Warn("node metadata: unknown capture mode, transparent is used", "capture", clip(capture))
		return snapshot.Variant{}
	}
	address := func(key string) netip.Addr {
		local := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		v, ok := fields[key]
		if !ok {
			return local
		}
		addr, err := netip.ParseAddr(v.GetStringValue())
		if err != nil || addr.Zone() != "" {
			log.Warn("node metadata: not an IP address, 127.0.0.1 is used", "field", key, "value", clip(v.GetStringValue()))
			return local
		}
		return addr.Unmap()
	}
	return snapshot.Variant{Explicit: true, Bind: address("bind_address"), App: address("app_address")}
}

// clip bounds what a client can write into the log.
func clip(s string) string {
	const most = 64
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
