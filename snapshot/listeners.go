package snapshot

import (
	"net/netip"

	"bailiwick.dev/bailiwick/tenancy"
)

// listenerKey is all that an outbound listener depends on, so that the same
// listener of many views is encoded once.
type listenerKey struct {
	socket  socket
	cluster string // empty for HTTP
	// single is set for the listener of one endpoint.
	single bool
	choice Variant
}

// listeners looks again at the outbound listeners of the ports and sockets
// that w marks, and with all set at the one of the tenant's outbound policy.
func (p *Publisher) listeners(v *view, choice Variant, w *work, all bool) *work {
	lw := newWork()
	if !choice.Explicit && all {
		p.put(lw, func() (*Resource, error) { return p.builder.VirtualOutbound(v.outbound) })
	}
	ports := make(map[uint16]struct{}, len(w.ports))
	for port := range w.ports {
		ports[port] = struct{}{}
	}
	for sock := range w.sockets {
		if !choice.Explicit && sock.addr.IsValid() {
			p.addressListener(v, choice, sock, lw)
		}
		ports[sock.port] = struct{}{}
	}
	for port := range ports {
		p.portListener(v, choice, port, lw)
	}
	return lw
}

// addressListener is the listener of a TCP port behind a virtual IP or of one
// endpoint of a headless service, for transparent capture.
func (p *Publisher) addressListener(v *view, choice Variant, sock socket, lw *work) {
	owner := v.claims[sock].first()
	if owner != nil {
		if b, single := owner.portOf(sock); b != nil && !b.spec.Protocol.IsHTTP() {
			p.tcpListener(owner, b, choice, sock, single, lw)
			return
		}
	}
	lw.drop(Listener, ListenerName(sock.addr, sock.port))
}

// portListener is the listener of a port on the address where all HTTP of
// that port arrives; explicit capture has TCP there too where no HTTP is.
func (p *Publisher) portListener(v *view, choice Variant, port uint16, lw *work) {
	sock := socket{HTTPBindAddress(choice), port}
	if len(v.hosts[port]) > 0 {
		p.put(lw, func() (*Resource, error) {
			return p.cachedListener(listenerKey{socket: sock, choice: choice}, func() (*Resource, error) {
				return p.builder.HTTPListener(port, choice)
			})
		})
		return
	}
	if owner := v.claims[socket{port: port}].first(); choice.Explicit && owner != nil {
		p.tcpListener(owner, owner.built.ports[port], choice, sock, false, lw)
		return
	}
	lw.drop(Listener, ListenerName(sock.addr, port))
}

func (p *Publisher) tcpListener(owner *seen, b *builtPort, choice Variant, sock socket, single bool, lw *work) {
	cluster := b.cluster.Name()
	origins := []tenancy.Ref{{Kind: tenancy.KindService, Key: owner.built.spec.Key}}
	p.put(lw, func() (*Resource, error) {
		return p.cachedListener(listenerKey{socket: sock, cluster: cluster, single: single, choice: choice}, func() (*Resource, error) {
			if single {
				return p.builder.EndpointListener(netip.AddrPortFrom(sock.addr, sock.port), cluster, choice, origins)
			}
			return p.builder.TCPListener(sock.addr, sock.port, cluster, choice, origins)
		})
	})
}

func (p *Publisher) cachedListener(k listenerKey, build func() (*Resource, error)) (*Resource, error) {
	if r, ok := p.outbound.Get(k); ok {
		return r, nil
	}
	p.stats.built(Listener)
	r, err := build()
	if err == nil {
		p.outbound.Add(k, r)
	}
	return r, err
}

// put adds what build returns; what cannot be built stays as it was.
func (p *Publisher) put(w *work, build func() (*Resource, error)) {
	r, err := contained(p, "listener", build)
	if err != nil {
		w.partial = true
		p.log.Error("listener left as it was", "err", err)
		return
	}
	w.put(r)
}

// HTTPBindAddress is where the listeners of a proxy's HTTP ports are.
func HTTPBindAddress(v Variant) netip.Addr {
	if v.Explicit {
		return v.Bind
	}
	return netip.IPv4Unspecified()
}

// newVariant builds all listeners of a view for one more choice.
func (p *Publisher) newVariant(v *view, choice Variant) *variant {
	vr := &variant{layer: NewVariant(v.layer)}
	everything := newWork()
	for port := range v.hosts {
		everything.ports[port] = struct{}{}
	}
	for sock := range v.claims {
		everything.sockets[sock] = struct{}{}
	}
	p.publish(p.listeners(v, choice, everything, true).update(vr.layer))
	return vr
}
