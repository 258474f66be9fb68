package tenancy

import (
	"maps"
	"slices"
)

func (m *Model) applyPeerTLS(sp *space, name string, obj *PeerTLS) {
	old := sp.peers[name]
	if same(old, obj) {
		return
	}
	if old == nil || obj == nil || !maps.Equal(old.MatchLabels, obj.MatchLabels) {
		for _, pod := range sp.pods {
			m.steps++
			if (old != nil && within(old.MatchLabels, pod.obj.Labels)) != (obj != nil && within(obj.MatchLabels, pod.obj.Labels)) {
				m.touchPod(pod)
			}
		}
	}
	put(&sp.peers, name, obj)
	m.touchSelected(sp, peerIdentity(name))
	m.check(sp.ref(KindPeerTLS, name))
}

// peerIdentity is how selections name a PeerTLS of their namespace.
func peerIdentity(name string) string { return "tls:" + name }

// permissive reports whether a Pod port accepts callers without a certificate:
// if one PeerTLS says so, none says otherwise, and the tenant permits it.
// Where the server speaks first nobody could be refused in time.
func (m *Model) permissive(sp *space, port uint16, protocol Protocol, names []string) bool {
	if !sp.tenant.now.Permissive || protocol == ServerFirst {
		return false
	}
	found := false
	for _, name := range names {
		p := sp.peers[name]
		if p == nil || len(p.Ports) > 0 && !slices.Contains(p.Ports, port) {
			continue
		}
		if !p.Permissive || p.Invalid {
			return false
		}
		found = true
	}
	return found
}
