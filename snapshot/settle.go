package snapshot

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"bailiwick.dev/bailiwick/tenancy"
)

// Settle waits until all that was handed in before has been absorbed, or ctx
// ends, and names the tenants of which something waits to be built. Of all
// others, what was handed in has been published.
func (p *Publisher) Settle(ctx context.Context) (busy []string, err error) {
	out := make(chan []string, 1)
	p.in.put(func() { p.in.calls = append(p.in.calls, func() { out <- p.busy() }) })
	select {
	case busy := <-out:
		return busy, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the publisher: %w", ctx.Err())
	}
}

func (p *Publisher) busy() []string {
	tenants := map[string]struct{}{}
	for tenant := range p.pending {
		tenants[tenant] = struct{}{}
	}
	for _, workloads := range p.urgent {
		for w := range workloads {
			for px := range p.byNamespace[w.key.selection.Workload.Namespace] {
				tenants[px.tenant] = struct{}{}
			}
		}
	}
	return slices.Sorted(maps.Keys(tenants))
}

// ProxyDump is what the streams of one Pod are given.
type ProxyDump struct {
	Tenant   string `json:"tenant"`
	Workload string `json:"workload"`
	Pod      string `json:"pod"`
	// Zone and Node are where the Pod is, as its EndpointSlices say.
	Zone string `json:"zone,omitempty"`
	Node string `json:"node,omitempty"`
	// Held streams get no answer, Final ones the empty view and their end.
	Held      bool           `json:"held,omitempty"`
	Final     bool           `json:"final,omitempty"`
	Resources []ResourceDump `json:"resources"`
}

// Wanted says what of a proxy's resources to describe.
type Wanted struct {
	// Type and Name leave out all others; empty is any.
	Type, Name string
	// Contents asks for what is in them, too.
	Contents bool
}

// DumpPod describes, as Dump does, what is given to the streams that say that
// they are a Pod's: one entry for each of them.
func (p *Publisher) DumpPod(ctx context.Context, namespace, pod string, want Wanted) ([]ProxyDump, error) {
	out := make(chan []ProxyDump, 1)
	p.in.put(func() { p.in.calls = append(p.in.calls, func() { out <- p.dumpPod(namespace, pod) }) })
	select {
	case d := <-out:
		return d, want.apply(d)
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the publisher: %w", ctx.Err())
	}
}

// apply is not the publisher's work: resources do not change.
func (w *Wanted) apply(dumps []ProxyDump) error {
	for i := range dumps {
		d := &dumps[i]
		d.Resources = slices.DeleteFunc(d.Resources, func(r ResourceDump) bool {
			return (w.Type != "" && w.Type != r.Type) || (w.Name != "" && w.Name != r.Name)
		})
		for j := range d.Resources {
			if !w.Contents {
				continue
			}
			if err := d.Resources[j].content(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Publisher) dumpPod(namespace, pod string) []ProxyDump {
	out := []ProxyDump{}
	for px := range p.byPod[tenancy.Key{Namespace: namespace, Name: pod}] {
		who := px.att.Proxy().Workload
		at := p.model.Place(px.pod, who)
		d := ProxyDump{Tenant: px.tenant, Workload: who.String(), Pod: pod, Zone: at.Zone, Node: at.Node, Held: px.held, Final: px.final, Resources: []ResourceDump{}}
		if b := px.att.Binding(); b != nil {
			d.Resources = dump(b, d.Resources)
		}
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b ProxyDump) int { return strings.Compare(a.Workload, b.Workload) })
	return out
}
