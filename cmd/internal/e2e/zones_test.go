package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/cmd/internal/mesh"
	"bailiwick.dev/bailiwick/xds/bootstrap/envoytest"
)

const (
	podA    = "acme-shop/a-0"
	podB    = "acme-shop/b-0"
	podB1   = "acme-shop/b-1"
	podLiar = "acme-shop/liar"

	nearFile = "tenants/acme/near.yaml"
)

// startIn runs a Pod whose Envoy states a zone of its own choice.
func (f *fixture) startIn(zone, name string) {
	f.t.Helper()
	p := f.newPod(f.world(), name)
	f.pods[name] = p
	config := f.envoyConfig(p)
	config.Binary, config.Args = envoytest.Binary(f.t), []string{"--service-zone", zone}
	var err error
	p.envoy, err = mesh.StartEnvoy(f.ctx, config)
	require.NoError(f.t, err)
	f.t.Cleanup(p.envoy.Stop)
	require.NoError(f.t, p.envoy.WaitLive(f.ctx))
}

// TestZones: real Envoys use the endpoints of their own zone alone, those of all
// zones when it has none, and theirs again; hints go before what is near; a proxy
// is where its Pod's slices say, whatever it says itself.
func TestZones(t *testing.T) {
	f := emptyFixture(t, "acme.example")
	f.copyObjects(filepath.Join("testdata", "zones"))
	f.serve()
	require.NoError(t, f.server.WaitReady(f.ctx))
	f.start(podA, podB, podB1)
	f.startIn("zone-a", podLiar)
	clients := []string{podA, podB, podB1, podLiar}
	// given requires which Pods' endpoints each client's Envoy has, and that they
	// alone answer.
	given := func(service string, want ...string) {
		t.Helper()
		for i, name := range clients {
			client := f.pods[name]
			var addresses, answers []string
			for pod := range strings.FieldsSeq(want[i]) {
				of := f.pods["acme-shop/"+pod]
				addresses, answers = append(addresses, fmt.Sprintf("%s:8080", of.at.Pod)), append(answers, answeredBy(of, client))
			}
			f.until(fmt.Sprintf("%s has %s of %s", name, want[i], service), func() error {
				d, err := client.envoy.ConfigDump(f.ctx)
				if err != nil {
					return err
				}
				got := d.Endpoints[service+".acme-shop.svc.cluster.local:8080"]
				if slices.Sort(got); !slices.Equal(got, addresses) {
					return fmt.Errorf("it has %v, not %v", got, addresses)
				}
				return nil
			})
			for range 6 {
				require.Contains(t, answers, f.get(client, "http://"+service+":8080/"), "%s calls %s", name, service)
			}
		}
	}
	given("near", "a-0", "b-0 b-1", "b-0 b-1", "a-0 b-0 b-1")
	given("hinted", "b-0 b-1", "a-0", "a-0", "a-0 b-0 b-1")
	given("local", "a-0", "b-1", "b-1", "a-0 b-1") // b-0 is on another node: its zone

	text := f.read(nearFile)
	unready := strings.Replace(text, "conditions: {ready: true}, targetRef: {kind: Pod, name: a-0}", "conditions: {ready: false}, targetRef: {kind: Pod, name: a-0}", 1)
	f.write(nearFile, unready)
	given("near", "b-0 b-1", "b-0 b-1", "b-0 b-1", "b-0 b-1")
	f.write(nearFile, text)
	given("near", "a-0", "b-0 b-1", "b-0 b-1", "a-0 b-0 b-1")

	// A Pod that is said to be elsewhere takes its proxy along.
	for _, file := range []string{nearFile, "tenants/acme/hinted.yaml"} {
		f.write(file, strings.ReplaceAll(f.read(file), "7.3], zone: zone-b", "7.3], zone: zone-a"))
	}
	given("near", "a-0 b-1", "b-0", "a-0 b-1", "a-0 b-0 b-1")
}
