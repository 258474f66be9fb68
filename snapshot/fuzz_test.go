package snapshot

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/canary"
	"bailiwick.dev/bailiwick/tenancy/object"
)

// FuzzBuild: whatever object is accepted, of any kind, what is built with it
// passes all checks, nothing of it is left out for an error, and it is the same
// each time.
func FuzzBuild(f *testing.F) {
	tenant := canary.Tenant{Name: "kanarya", Peer: "kanaryb", Stranger: "kanaryc", Network: "10.40.1", Number: 1}
	base := []tenancy.Event{put(tenancy.KindTrustBundle, "", "kanarya.example", &tenancy.TrustBundle{PEM: authority()})}
	documents := tenant.Documents()
	for _, d := range documents {
		f.Add([]byte(d.Text))
		base = append(base, object.DecodeAll(d.Path, []byte(d.Text), object.Options{}).Events("")...)
	}
	for _, p := range canary.Poisons(documents) {
		if len(p.Text) < 10_000 {
			f.Add([]byte(p.Text))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		decoded := object.DecodeAll("f.yaml", data, object.Options{})
		var events []tenancy.Event
		for _, e := range decoded.Entries {
			if len(e.Errors) > 0 {
				return
			}
		}
		if events = decoded.Events(""); len(events) == 0 || len(events) > 20 {
			return
		}
		first := built(t, base, events)
		require.NotEmpty(t, first)
		require.Equal(t, first, built(t, base, events))
	})
}

// built are the versions of everything that the tenant's proxies are given.
func built(t *testing.T, base, then []tenancy.Event) []map[Child]string {
	var logged bytes.Buffer
	p := newPublisher(t)
	p.model = tenancy.NewModel(tenancy.Config{ClusterDomain: "cluster.local", TrustDomains: []string{"kanarya.example"}, Limits: tenancy.DefaultLimits()})
	p.log = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelError}))
	r := startWith(t, p, base)
	var out []map[Child]string
	var proxies []*Attachment
	for _, service := range (canary.Tenant{}).Pods() {
		a := r.Attach(Proxy{
			Workload: identity.Workload{TrustDomain: "kanarya.example", Namespace: "kanarya-shop", ServiceAccount: "kanarya-" + service + "-account"},
			Pod:      "kanarya-" + service + "-0",
		})
		<-a.Wake()
		proxies = append(proxies, a)
	}
	r.Apply(then)
	r.settle()
	for _, a := range proxies {
		out = append(out, contents(a))
		a.Read(func(b *Binding) {
			for _, l := range b.Layers() {
				for typ := range NumTypes {
					l.All(typ, func(res *Resource) { require.NoError(t, Check(res), "%v %s", typ, res.Name()) })
				}
			}
		})
		a.Close()
	}
	require.Empty(t, logged.String())
	return out
}
