package snapshot

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"bailiwick.dev/bailiwick/tenancy"
)

// Dump is what the publisher holds, for the platform's eyes: it names things
// of all tenants.
type Dump struct {
	Views     []ViewDump     `json:"views"`
	Workloads []WorkloadDump `json:"workloads"`
}

// ViewDump is one open view.
type ViewDump struct {
	Tenant    string         `json:"tenant"`
	Namespace string         `json:"namespace"`
	Streams   int            `json:"streams"`
	Resources []ResourceDump `json:"resources"`
	// Near are the assignments that stand before these at single places.
	Near []NearDump `json:"near,omitempty"`
}

// NearDump is what stands before a view's assignments for the proxies at one place.
type NearDump struct {
	Zone      string         `json:"zone,omitempty"`
	Node      string         `json:"node,omitempty"`
	Streams   int            `json:"streams"`
	Resources []ResourceDump `json:"resources"`
}

// WorkloadDump is one inbound configuration.
type WorkloadDump struct {
	Workload  string         `json:"workload"`
	Streams   int            `json:"streams"`
	Resources []ResourceDump `json:"resources"`
}

// ResourceDump is one resource with the objects that it was made from.
type ResourceDump struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Version string   `json:"version"`
	Bytes   int      `json:"bytes"`
	Origins []string `json:"origins,omitempty"`
	// Content is the resource as an Any in protobuf's JSON, where it was asked for.
	Content json.RawMessage `json:"content,omitempty"`

	resource *Resource
}

// Dump describes all layers as they are now, sorted. It waits for the
// publisher's loop, until ctx ends.
func (p *Publisher) Dump(ctx context.Context) (*Dump, error) {
	out := make(chan *Dump, 1)
	p.in.put(func() { p.in.calls = append(p.in.calls, func() { out <- p.dump() }) })
	select {
	case d := <-out:
		return d, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the publisher: %w", ctx.Err())
	}
}

func (p *Publisher) dump() *Dump {
	d := &Dump{}
	for key, v := range p.views {
		vd := ViewDump{Tenant: key.Tenant, Namespace: key.Namespace, Streams: v.refs}
		vd.Resources = v.layer.dump(nil)
		for _, vr := range v.variants {
			vd.Resources = vr.layer.dump(vd.Resources)
		}
		for at, n := range v.near.layers {
			vd.Near = append(vd.Near, NearDump{Zone: at.Zone, Node: at.Node, Streams: n.refs, Resources: n.layer.dump(nil)})
		}
		slices.SortFunc(vd.Near, func(a, b NearDump) int { return cmp.Or(cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.Node, b.Node)) })
		d.Views = append(d.Views, vd)
	}
	for key, w := range p.workloads {
		d.Workloads = append(d.Workloads, WorkloadDump{
			Workload: key.selection.Workload.String(), Streams: w.refs, Resources: w.layer.dump(nil),
		})
	}
	slices.SortFunc(d.Views, func(a, b ViewDump) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Namespace, b.Namespace))
	})
	slices.SortFunc(d.Workloads, func(a, b WorkloadDump) int { return cmp.Compare(a.Workload, b.Workload) })
	return d
}

// resources are a layer's, or a binding's.
type resources interface {
	All(Type, func(*Resource))
}

func (l *Layer) dump(out []ResourceDump) []ResourceDump { return dump(l, out) }

func dump(of resources, out []ResourceDump) []ResourceDump {
	start := len(out)
	for t := range NumTypes {
		of.All(t, func(r *Resource) {
			rd := ResourceDump{Type: t.String(), Name: r.name, Version: r.version, Bytes: len(r.frame), resource: r}
			for _, o := range r.origins {
				rd.Origins = append(rd.Origins, OriginString(o))
			}
			out = append(out, rd)
		})
	}
	slices.SortFunc(out[start:], func(a, b ResourceDump) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// content writes the resource down.
func (d *ResourceDump) content() error {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(&anypb.Any{TypeUrl: d.resource.typ.URL(), Value: d.resource.Value()})
	if err != nil {
		return fmt.Errorf("write %s %s as JSON: %w", d.Type, d.Name, err)
	}
	d.Content = text
	return nil
}

// OriginString names an object as "Kind namespace/name", for logs and dumps.
func OriginString(o tenancy.Ref) string {
	name := o.Key.Name
	if o.Key.Namespace != "" {
		name = o.Key.Namespace + "/" + name
	}
	return o.Kind.String() + " " + name
}
