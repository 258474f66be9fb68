package netns

import (
	"net/netip"
	"testing"
)

// TestCapture walks through one mesh. The parts from "Settings" on change it.
func TestCapture(t *testing.T) {
	w := start(t)
	t.Run("HTTP by host", w.httpByHost)
	t.Run("HTTP is judged", w.httpIsJudged)
	t.Run("HTTP to both families", w.httpToBothFamilies)
	t.Run("HTTP/2 without TLS", w.h2c)
	t.Run("TCP by virtual IP", w.tcpByVirtualIP)
	t.Run("TCP without virtual IP", w.tcpByAddress)
	t.Run("A Pod to itself", w.podToItself)
	t.Run("Unknown destinations", w.unknownDestinations)
	t.Run("Unknown hosts", w.unknownHosts)
	t.Run("No way around RBAC from outside", w.noWayAroundFromOutside)
	t.Run("mTLS from outside", w.mutualTLSFromOutside)
	t.Run("Probes", w.probes)
	t.Run("A silent stranger", w.silentStranger)
	t.Run("Half a handshake", w.halfShaken)
	t.Run("No loops", w.noLoops)
	t.Run("Another tenant", w.anotherTenant)
	t.Run("AllowAny", w.allowAny)
	t.Run("Exclusions", w.exclusions)
	t.Run("Without a sidecar", w.withoutSidecar)
	t.Run("Settings", w.outboundPolicyChanges)
	t.Run("Without Envoy", w.withoutEnvoy)
	t.Run("Clean", w.clean)
}

// both are the families of addresses. There is no service at anywhere, and
// nobody at all; outside is a machine that is not of the mesh.
var both = []struct {
	name              string
	anywhere, outside netip.Addr
	orders, db, db80  netip.Addr
	loopback          netip.Addr
}{
	{
		name: "IPv4", anywhere: netip.MustParseAddr("10.96.200.1"), outside: node4,
		orders: netip.MustParseAddr("10.96.0.20"), db: netip.MustParseAddr("10.96.0.21"), db80: netip.MustParseAddr("10.96.0.22"),
		loopback: netip.MustParseAddr("127.0.0.1"),
	},
	{
		name: "IPv6", anywhere: netip.MustParseAddr("fd96::200"), outside: node6,
		orders: netip.MustParseAddr("fd96::20"), db: netip.MustParseAddr("fd96::21"), db80: netip.MustParseAddr("fd96::22"),
		loopback: netip.IPv6Loopback(),
	},
}

// at is an address of the Pod, of the family of like.
func (p *pod) at(like netip.Addr, port uint16) netip.AddrPort {
	if like.Is4() {
		return netip.AddrPortFrom(p.ip4, port)
	}
	return netip.AddrPortFrom(p.ip6, port)
}

// id is the SPIFFE ID of the Pod.
func (p *pod) id() string { return p.workload.String() }
