package mesh

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
)

// Addresses are where one workload is on loopback.
type Addresses struct {
	// Pod is the Pod's address, where its proxy takes what comes in.
	Pod netip.Addr
	// Bind is where the proxy takes what the application sends.
	Bind netip.Addr
	// App is where the application listens.
	App netip.Addr
}

// AddressesOf gives a Pod of address 127.x.y.z its two other addresses: its
// application has 100 more in x, the proxy's outbound listeners have 200 more.
// Pods have x up to 54, and not 127.0.0.1, where the server is.
func AddressesOf(pod netip.Addr) (Addresses, error) {
	bad := fmt.Errorf("address %s of a Pod: want one of 127.0.0.2 to 127.54.255.255, to run on loopback", pod)
	if !pod.Is4() || !pod.IsLoopback() {
		return Addresses{}, bad
	}
	four := pod.As4()
	if four[1] > 54 || four == [4]byte{127, 0, 0, 1} {
		return Addresses{}, bad
	}
	more := func(by byte) netip.Addr {
		return netip.AddrFrom4([4]byte{four[0], four[1] + by, four[2], four[3]})
	}
	return Addresses{Pod: pod, App: more(100), Bind: more(200)}, nil
}

// Usable reports whether this machine lets a program listen at addr: Linux does
// for all of 127.0.0.0/8, macOS for 127.0.0.1 alone unless told otherwise.
func Usable(ctx context.Context, addr netip.Addr) error {
	listener, err := listen(ctx, netip.AddrPortFrom(addr, 0))
	if err != nil {
		return fmt.Errorf("this machine does not listen at loopback address %s: %w", addr, err)
	}
	return listener.Close()
}

// ClaimNetwork finds a network 127.N.0.0/16, N from 31 to 50, that no other process
// of these tests is using. The claim is a socket in it: whoever drops it, be it to
// the garbage collector, gives the network to others.
func ClaimNetwork(ctx context.Context) (n byte, claim net.Listener, err error) {
	const first, last, port = 31, 50, 19999
	for _, i := range rand.Perm(last - first + 1) {
		n := byte(first + i)
		claim, err = listen(ctx, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, n, 0, 2}), port))
		if err == nil {
			return n, claim, nil
		}
	}
	return 0, nil, fmt.Errorf("no network of 127.%d.0.0/16 to 127.%d.0.0/16 is free (does this machine have them on loopback?): %w", first, last, err)
}

// The ports of FreePort. They are below the range from which Linux and macOS
// take the local ports of outgoing connections: there a client that knocks at a
// server that is down would, sooner or later, sit on the server's port.
const (
	firstPort = 20000
	lastPort  = 30000
)

// FreePort returns a TCP port of addr on which nobody listened a moment ago.
func FreePort(ctx context.Context, addr netip.Addr) (netip.AddrPort, error) {
	for range 100 {
		at := netip.AddrPortFrom(addr, uint16(firstPort+rand.IntN(lastPort-firstPort)))
		listener, err := listen(ctx, at)
		if err == nil {
			return at, listener.Close()
		}
		if ctx.Err() != nil {
			return netip.AddrPort{}, fmt.Errorf("find a free port: %w", ctx.Err())
		}
	}
	return netip.AddrPort{}, fmt.Errorf("find a free port: none of 100 tries at %s between %d and %d was free", addr, firstPort, lastPort)
}
