package e2e

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a Pod's probe and hook run, with the real Envoy: ready once the server has
// given it listeners, and a drain that sends callers elsewhere without failing
// one of them.
func TestSidecarReadyAndDrain(t *testing.T) {
	f := setUp(t)
	f.start(shopWeb, shopOrders)
	web, orders := f.pods[shopWeb], f.pods[shopOrders]
	admin, err := orders.envoy.AdminAddress()
	require.NoError(t, err)
	at := "--admin-address=" + admin
	f.until("the sidecar is ready", func() error {
		if got := run(t, nil, "sidecar", "ready", at); got.code != 0 {
			return errors.New(got.stderr)
		}
		return nil
	})

	conn := f.open(f.certificate(web), orders, 8080)
	require.Equal(t, answeredBy(orders, web), conn.get())
	conn.alive()
	require.Equal(t, ended{}, run(t, nil, "sidecar", "drain", at, "--wait=0s"))
	require.Equal(t, answeredBy(orders, web), conn.get())
	f.until("the caller is told to go elsewhere", func() error {
		if conn.conn.Err() == nil && conn.conn.Available() > 0 {
			return errors.New("no GOAWAY yet")
		}
		return nil
	})

	// What else could be told to Envoy is refused.
	refused := run(t, nil, "sidecar", "ready", "--admin-address=192.0.2.1:15000")
	require.Equal(t, 2, refused.code)
	require.Contains(t, refused.stderr, "loopback")
	orders.envoy.Stop()
	require.Equal(t, 1, run(t, nil, "sidecar", "ready", at).code)
}
